//! Reaping children one by one (wait(2)).
#![allow(unsafe_code)]

use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The exit code, or 128 + signal.
    pub code: i32,
    /// The signal that ended it; 0: none.
    pub signal: i32,
}

/// The number of a child that has ended and still has its /proc entry; `None`: there's none.
pub fn peek() -> io::Result<Option<i32>> {
    // SAFETY: a siginfo_t is plain data, for which all zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a live siginfo_t that waitid(2) may write.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: waitid succeeded, so this is a SIGCHLD's siginfo, or still zeros when no child
    // has ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid > 0).then_some(pid))
}

/// Reaps this child if it has ended.
pub fn reap(pid: i32) -> io::Result<Option<Ended>> {
    let Some(number) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
    let status = match waitpid(Some(number), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => status,
        Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended { code, signal: 0 },
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            Ended { code: 128 + signal, signal }
        }
    }))
}
