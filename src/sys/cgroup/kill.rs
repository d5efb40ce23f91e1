//! Ending everything in a cgroup.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{PAUSE, processes_in};

/// SIGKILL to every process in and below these directories until none is left,
/// frozen or not.
pub(super) fn all(directories: &[PathBuf], limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let mut before = BTreeSet::new();
    loop {
        let listed = processes_in(directories)?;
        if listed.is_empty() {
            return Ok(());
        }
        // One write ends a whole tree of v2, forks in flight included (Linux 5.14). Without
        // it, and on v1, the rounds of this loop outrun a fork.
        for directory in directories {
            drop(
                fs::OpenOptions::new()
                    .write(true)
                    .open(directory.join("cgroup.kill"))
                    .and_then(|mut file| io::Write::write_all(&mut file, b"1")),
            );
        }
        one_round(directories, &listed)?;
        thaw(directories);
        if Instant::now() >= deadline {
            let left = processes_in(directories)?;
            return match left.first() {
                None => Ok(()),
                Some(first) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{} processes of {} are there {limit:?} after SIGKILL, the first is {first}",
                        left.len(),
                        directories[0].display()
                    ),
                )),
            };
        }
        // New ones mean that something forks: no time to lose then.
        if listed.is_subset(&before) {
            std::thread::sleep(PAUSE);
        }
        before = listed;
    }
}

/// Lets frozen processes of v1 take their signal; v2 kills them as they are.
fn thaw(directories: &[PathBuf]) {
    for directory in directories {
        let mut state = fs::OpenOptions::new();
        let opened = state.write(true).open(directory.join("freezer.state"));
        drop(opened.and_then(|mut file| io::Write::write_all(&mut file, b"THAWED")));
    }
}

/// Signals each listed process by a pidfd, and only if its number is listed again after the
/// pidfd was opened: a number that went to another process meanwhile is never hit.
fn one_round(directories: &[PathBuf], listed: &BTreeSet<i32>) -> io::Result<()> {
    let mut opened = Vec::with_capacity(listed.len().min(MAX_PIDFDS));
    for &pid in listed.iter().take(MAX_PIDFDS) {
        let Some(number) = Pid::from_raw(pid) else { continue };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => opened.push((pid, pidfd)),
            // Gone, or a thread whose leader is gone: the next round sees.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let again = processes_in(directories)?;
    for (_, pidfd) in opened.iter().filter(|(pid, _)| again.contains(pid)) {
        match pidfd_send_signal(pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Descriptors held at once; the rest is taken in the next round.
const MAX_PIDFDS: usize = 256;
