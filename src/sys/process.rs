//! Processes by pidfd and start time, so that a number is never taken for a later process.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Field 22 of /proc/PID/stat: clock ticks from boot to the process's start (proc(5)).
/// `NotFound`: there is no such process.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = stat(pid)?;
    field(&stat, 22).and_then(|text| text.parse().ok()).ok_or_else(|| malformed(pid))
}

/// Field 3 of /proc/PID/stat: `R`, `S`, `D`, `Z`, …
pub fn state(pid: i32) -> io::Result<char> {
    let stat = stat(pid)?;
    field(&stat, 3).and_then(|text| text.chars().next()).ok_or_else(|| malformed(pid))
}

/// The kernel's function that a process sleeps in (proc_pid_wchan(5)); `None`: it doesn't, or
/// the kernel doesn't say.
pub fn waits_in(pid: i32) -> Option<String> {
    let place = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
    Some(place.trim().to_owned()).filter(|place| !place.is_empty() && place != "0")
}

/// Has this thread's next execve(2) give the program an SELinux label (proc_pid_attr(5)). An
/// error where the policy doesn't allow that, or there is no SELinux.
pub fn label_next(label: &str) -> io::Result<()> {
    std::fs::write("/proc/thread-self/attr/exec", label)
}

/// Field 4 of /proc/PID/stat: the number of its parent.
pub fn parent(pid: i32) -> io::Result<i32> {
    let stat = stat(pid)?;
    field(&stat, 4).and_then(|text| text.parse().ok()).ok_or_else(|| malformed(pid))
}

/// A pidfd of the process that has this number and this start; `None`: it is gone.
pub fn open(pid: i32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = hold(pid)? else { return Ok(None) };
    // The start is read after the pidfd is held: were the number reused between the two, the
    // later process would show another start.
    match self::start_ticks(pid) {
        Ok(found) if found == start_ticks => Ok(Some(pidfd)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A pidfd of the process that has this number now; `None`: there is none.
pub fn hold(pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(number) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // The second: it is a thread, and no process.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process has ended with all its threads, reaped or not.
pub fn is_over(pidfd: &OwnedFd) -> io::Result<bool> {
    wait_until_over(pidfd, Duration::ZERO)
}

/// The same within a limit, after which it has not. Blocks.
pub fn wait_until_over(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let mut looked_at = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut looked_at, Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            // Rare, and then it waits anew.
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a process stands still by SIGSTOP. One that is gone doesn't.
pub fn is_stopped(pid: i32) -> io::Result<bool> {
    match stat(pid) {
        Ok(stat) => Ok(matches!(field(&stat, 3), Some("T" | "t"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A process and all that descends from it, as far as it is there to be seen: one whose parent
/// has ended is nobody's descendant any more.
pub fn family(pid: i32) -> Vec<OwnedFd> {
    let own = hold(pid).ok().flatten();
    own.into_iter().chain(descendants(pid).into_iter().map(|(_, member)| member)).collect()
}

/// The same without itself, with the number of each.
pub fn descendants(pid: i32) -> Vec<(i32, OwnedFd)> {
    let mut members = Vec::new();
    let mut left = children(pid);
    while let Some(pid) = left.pop() {
        members.extend(hold(pid).ok().flatten().map(|member| (pid, member)));
        left.extend(children(pid));
    }
    members
}

/// What a process, by any of its threads, is the parent of at this moment (proc(5), children).
pub fn children(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
        let children = thread.and_then(|t| std::fs::read_to_string(t.path().join("children")));
        let children = children.unwrap_or_default();
        all.extend(children.split_ascii_whitespace().filter_map(|c| c.parse::<i32>().ok()));
    }
    all
}

/// Sends a signal by pidfd (pidfd_send_signal(2)), real-time signals too. The process is
/// gone: no error.
pub fn signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: a live descriptor, a number, no siginfo and no flags; nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    gone_is_fine(result == 0)
}

/// Sends a signal to a child that has not been reaped, so its number is its own, or with a
/// negative number to a process group. Gone: no error.
pub fn signal_child(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and touches no memory.
    gone_is_fine(unsafe { libc::kill(pid, signal) } == 0)
}

fn gone_is_fine(sent: bool) -> io::Result<()> {
    if sent {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

fn stat(pid: i32) -> io::Result<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/stat")).map_err(|error| match error.raw_os_error() {
        // The process ended between open and read.
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

/// A field of stat by its number in proc(5), from the third on. The second, the program's
/// name, may hold spaces and parentheses, so counting starts after its last `)`.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

fn malformed(pid: i32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as in proc(5)"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_moves_no_field() {
        let tail = "S 7 9 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        for name in ["sh", "a b", ") R 1 2", "((", "x)\n("] {
            let stat = format!("42 ({name}) {tail}");
            assert_eq!(field(stat.as_bytes(), 22), Some("987654"), "{name}");
            assert_eq!(field(stat.as_bytes(), 4), Some("7"), "{name}");
        }
        assert_eq!(field(b"42 (sh) S 1", 22), None);
        assert_eq!(field(b"", 22), None);
    }

    #[test]
    fn a_process_is_opened_by_number_and_start_alone() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        let ticks = start_ticks(pid).unwrap();
        assert_eq!(parent(pid).unwrap(), std::process::id() as i32);
        assert!(open(pid, ticks + 1).unwrap().is_none());
        let pidfd = open(pid, ticks).unwrap().expect("it runs");
        signal(&pidfd, libc::SIGKILL).unwrap();
        child.wait().unwrap();
        signal(&pidfd, libc::SIGKILL).unwrap();
        assert!(open(pid, ticks).unwrap().is_none());
        assert_eq!(start_ticks(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open(0, 0).unwrap().is_none());
        assert!(open(-1, 0).unwrap().is_none());
    }
}
