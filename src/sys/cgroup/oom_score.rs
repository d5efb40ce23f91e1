//! The OOM killer's preference for all processes of a cgroup (proc(5), oom_score_adj).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

/// How often the processes are listed: more than this only one that does nothing but fork needs.
const ROUNDS: usize = 8;

/// What processes had before [`set`].
#[derive(Debug)]
pub struct Before(Vec<(File, String)>);

impl Before {
    /// Sets it back, as far as there still are such processes.
    pub fn restore(self) {
        for (mut file, old) in self.0 {
            // A process that has ended needs nothing.
            drop(file.rewind().and_then(|()| file.write_all(old.trim().as_bytes())));
        }
    }
}

/// Sets the oom_score_adj of every process in a cgroup and below it: all or none.
pub fn set(cgroup: &str, score: i32) -> io::Result<Before> {
    let mut before = Before(Vec::new());
    match set_all(cgroup, score, &mut before) {
        Ok(()) => Ok(before),
        Err(error) => {
            before.restore();
            Err(error)
        }
    }
}

fn set_all(cgroup: &str, score: i32, before: &mut Before) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    // What was forked just before its parent's turn has the old value, and is new on the list.
    for _ in 0..ROUNDS {
        let mut files = Vec::new();
        for pid in super::processes(cgroup)?.into_iter().filter(|pid| seen.insert(*pid)) {
            let path = format!("/proc/{pid}/oom_score_adj");
            match File::options().read(true).write(true).open(path) {
                Ok(file) => files.push((pid, file)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if files.is_empty() {
            break;
        }
        // An open file stays with its process: one still listed now was the cgroup's when opened.
        let still = super::processes(cgroup)?;
        for (_, mut file) in files.into_iter().filter(|(pid, _)| still.contains(pid)) {
            let mut old = String::new();
            let set = file
                .read_to_string(&mut old)
                .and_then(|_| file.rewind())
                .and_then(|()| file.write_all(score.to_string().as_bytes()));
            match set {
                Ok(()) => before.0.push((file, old)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
