//! What the processes of a cgroup hold open, from /proc of each (proc_pid_fd(5)).

use std::io;
use std::path::Path;

use super::files;
use crate::sys::cgroup;

/// Processes looked at, at most: what the others hold isn't counted.
const MAX_PROCESSES: usize = 1024;
/// Descriptors looked at in one cgroup, at most; some tens of milliseconds.
const MAX_DESCRIPTORS: u64 = 65_536;

/// Of one cgroup and what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Their open descriptors; no more than 65,536 are counted.
    pub descriptors: u64,
    /// Sockets among those.
    pub sockets: u64,
}

/// Looks at each. A cgroup that is gone has none.
pub fn read(path: &str) -> io::Result<Processes> {
    let pids = cgroup::processes_counted(path)?;
    let mut found = Processes { count: pids.len() as u64, ..Processes::default() };
    for pid in pids.iter().take(MAX_PROCESSES) {
        count_descriptors(*pid, &mut found);
    }
    Ok(found)
}

fn count_descriptors(pid: i32, found: &mut Processes) {
    // One that ended meanwhile holds nothing.
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    for descriptor in all {
        if found.descriptors == MAX_DESCRIPTORS {
            return;
        }
        found.descriptors += 1;
        let target = std::fs::read_link(descriptor.path());
        found.sockets += u64::from(target.is_ok_and(|target| is_socket(&target)));
    }
}

/// `socket:[1234]`. A file can't be called so: links to files are absolute.
fn is_socket(target: &Path) -> bool {
    target.to_str().is_some_and(|target| target.starts_with("socket:["))
}

/// How many files a process may have open, by its soft limit (getrlimit(2)). `u64::MAX`:
/// unlimited; `None`: the process is gone.
pub fn open_files_limit(pid: i32) -> Option<u64> {
    soft_open_files(&files::text(format!("/proc/{pid}/limits").as_ref()).ok()?)
}

fn soft_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files "))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_a_socket_more_when_it_opens_one() {
        let count = || {
            let mut found = Processes::default();
            count_descriptors(std::process::id().cast_signed(), &mut found);
            found
        };
        // Other tests open and close things meanwhile: these are more than they do.
        let sockets: Vec<_> =
            (0..200).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
        let found = count();
        assert!(found.sockets >= 400 && found.descriptors >= found.sockets, "{found:?}");
        drop(sockets);
        assert!(open_files_limit(std::process::id().cast_signed()).unwrap() >= 400);
    }

    #[test]
    fn a_limit_is_the_first_number() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_open_files(text), Some(1024));
        assert_eq!(
            soft_open_files("Max open files            unlimited  1  files"),
            Some(u64::MAX)
        );
        assert_eq!(soft_open_files("Max open files  x"), None);
        assert_eq!(soft_open_files(""), None);
        assert!(!is_socket(Path::new("/socket:[1]")) && is_socket(Path::new("socket:[1]")));
    }
}
