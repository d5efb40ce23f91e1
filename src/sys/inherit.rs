//! A descriptor that a program finds at a number of its own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Programs find what they are given below that.
const HIGH: i32 = 100;

/// Gives the program of `command` a descriptor, at `number`, which is below 100. Closed here with
/// the command.
pub fn give(command: &mut Command, descriptor: OwnedFd, number: i32) -> io::Result<()> {
    debug_assert!(number < HIGH);
    // Away from what the program is given besides: that must not take its place before its turn.
    let descriptor = rustix::io::fcntl_dupfd_cloexec(&descriptor, HIGH)?;
    let place = move || {
        // SAFETY: one system call on a descriptor that the closure owns; it may be made between
        // fork and exec, and what is at `number` in the child is nobody's there.
        let done = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `place` only makes a system call: it takes no lock and no memory.
    unsafe { command.pre_exec(place) };
    Ok(())
}
