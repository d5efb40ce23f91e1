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

/// Runs an `exec --detach --pid-file` and waits for the command. Gives its exit code,
/// 128 + signal for one that was killed; the runtime's own where that failed.
pub fn keep(pid_file: &Path, mut runtime: Command) -> io::Result<u8> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let runtime = i32::try_from(runtime.spawn()?.id()).map_err(io::Error::other)?;
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
        } else {
            ended.push((pid, code));
        }
        if let Some((_, code)) = ended.iter().find(|(pid, _)| Some(*pid) == command) {
            return Ok(*code);
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
