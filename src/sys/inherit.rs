//! A descriptor that a program finds at a number of its own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Gives the program of `command` a descriptor, at `number`. Closed here with the command.
pub fn give(command: &mut Command, descriptor: OwnedFd, number: i32) {
    let place = move || {
        let raw = descriptor.as_raw_fd();
        // SAFETY: two system calls on a descriptor that the closure owns; both may be made
        // between fork and exec, and what is at `number` in the child is nobody's there.
        let done = unsafe {
            // dup2 of a descriptor onto itself would leave it to be closed at exec.
            if raw == number { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, number) }
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `place` only makes system calls: it takes no lock and no memory.
    unsafe { command.pre_exec(place) };
}
