//! The process between an agent and one command, seen from outside the container.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::sys::process;

/// How long what a command has started may take to die.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at what is left of it.
const PAUSE: Duration = Duration::from_millis(1);

/// It is the subreaper of its command: all that descends from that is below it, whoever has
/// made a session of its own or lost its parent.
#[derive(Debug)]
pub(super) struct Waiter {
    pid: i32,
    pidfd: OwnedFd,
}

impl Waiter {
    /// The process of that number; `None`: it is gone, or `is_inside` knows no such process.
    pub(super) fn find(pid: i32, is_inside: impl FnOnce(i32) -> bool) -> io::Result<Option<Self>> {
        let Some(pidfd) = process::hold(pid)? else { return Ok(None) };
        // One that lives after the look has had its number all the while.
        let inside = is_inside(pid) && !process::is_over(&pidfd)?;
        Ok(inside.then_some(Self { pid, pidfd }))
    }

    /// Another hold on it.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { pid: self.pid, pidfd: self.pidfd.try_clone()? })
    }

    /// Kills it alone.
    pub(super) fn kill(&self) -> io::Result<()> {
        process::signal(&self.pidfd, libc::SIGKILL)
    }

    /// Ends the command and all it has started, and then the waiter. Gives whether that is
    /// certain: not where somebody else has ended the waiter, or something doesn't die. Blocks.
    pub(super) fn end(&self) -> io::Result<bool> {
        // Stopped, it forks no command that nobody would look for, and reaps nothing: what has
        // died stays in sight, and each process has either been seen dead or is seen now.
        process::signal(&self.pidfd, libc::SIGSTOP)?;
        let deadline = Instant::now() + END_LIMIT;
        let mut dead = BTreeSet::new();
        loop {
            if process::is_over(&self.pidfd)? {
                return Ok(false);
            }
            let mut still = process::is_stopped(self.pid)?;
            for (pid, member) in process::descendants(self.pid) {
                if process::is_over(&member)? {
                    // Its children have moved since they were looked for.
                    still &= !dead.insert(pid);
                } else {
                    process::signal(&member, libc::SIGKILL)?;
                    still = false;
                }
            }
            if still {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
        self.kill()?;
        process::wait_until_over(&self.pidfd, END_LIMIT)
    }
}
