//! The parent of one command that the OCI runtime executes in a container.
//!
//! In the foreground a runtime's `exec` ends only when nobody holds the command's output any
//! more, which may be never; detached it ends at once and leaves the command to the nearest
//! subreaper. This process is that subreaper: it ends with the command and with its exit
//! code, whatever the command has left running.

use std::io;
use std::path::Path;
use std::process::Command;

use nix::sys::wait::{WaitStatus, wait};

use crate::sys::{fds, process};

/// Runs an `exec --detach --pid-file` and waits for the command. Gives its exit code,
/// 128 + signal for one that was killed; the runtime's own where that failed.
///
/// `oom_score_adj`: the command's; the runtime gives it what its container began with.
pub fn keep(pid_file: &Path, mut runtime: Command, oom_score_adj: Option<i32>) -> io::Result<u8> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let runtime = i32::try_from(runtime.spawn()?.id()).map_err(io::Error::other)?;
    // What was handed through to the command: its end is to be seen by whoever has the other.
    fds::close_from(3)?;
    let mut command = None;
    // The command's end can be told before the runtime's.
    let mut ended: Vec<(i32, u8)> = Vec::new();
    loop {
        let (pid, code) = next_end()?;
        if pid == runtime {
            let pid = std::fs::read_to_string(pid_file).ok();
            command = pid.and_then(|text| text.trim().parse::<i32>().ok());
            if command.is_none() || code != 0 {
                return Ok(code);
            }
            // Not waited for yet, its number is its own.
            let lives = |command: &i32| ended.iter().all(|(pid, _)| pid != command);
            if let Some((command, score)) = command.filter(lives).zip(oom_score_adj) {
                prefer(command, score);
            }
        } else {
            ended.push((pid, code));
        }
        if let Some((_, code)) = ended.iter().find(|(pid, _)| Some(*pid) == command) {
            return Ok(*code);
        }
    }
}

/// Sets the oom_score_adj of a process and of what it has started by now: from the top down, so
/// that what is forked meanwhile either inherits it or is found. What can't be set (a process
/// that has ended; a score that only the machine's root may lower, which an update of the
/// limits has told of) stays as it is.
fn prefer(command: i32, score: i32) {
    let score = score.to_string();
    let file = |pid: i32| format!("/proc/{pid}/oom_score_adj");
    if std::fs::read_to_string(file(command)).is_ok_and(|own| own.trim() == score) {
        return;
    }
    let mut left = vec![command];
    while let Some(pid) = left.pop() {
        if std::fs::write(file(pid), &score).is_ok() {
            left.extend(process::children(pid));
        }
    }
}

/// The next child that ends, and how.
fn next_end() -> io::Result<(i32, u8)> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) => return Ok((pid.as_raw(), code as u8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Ok((pid.as_raw(), 128 + signal as u8));
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
