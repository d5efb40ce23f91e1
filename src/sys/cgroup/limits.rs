//! The limits of a cgroup as its files hold them, to be put back.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Version, about, directory, version};

/// By controller: what an OCI runtime's update may write.
const V1: [(&str, &str); 8] = [
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("pids", "pids.max"),
];
const V2: [(&str, &str); 7] = [
    ("cpu", "cpu.weight"),
    ("cpu", "cpu.max"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
    ("memory", "memory.max"),
    ("memory", "memory.swap.max"),
    ("pids", "pids.max"),
];
/// One value may only go back after another, in either order: memory and swap, quota and period.
const PASSES: usize = 2;

/// What the files held at one moment.
#[derive(Debug)]
pub struct Limits(Vec<(PathBuf, String)>);

impl Limits {
    /// Those of a cgroup, with these further files of v2. Files that aren't there are left out.
    pub fn read<'a>(path: &str, unified: impl Iterator<Item = &'a str>) -> Self {
        let (fixed, unified): (&[_], _) = match version() {
            Version::V1 => (&V1, None),
            Version::V2 => (&V2, Some(unified.map(|file| ("", file)))),
        };
        let files = fixed.iter().copied().chain(unified.into_iter().flatten());
        let read = files.filter_map(|(controller, file)| {
            let path = directory(controller, path)?.join(file);
            let text = fs::read_to_string(&path).ok()?;
            Some((path, text))
        });
        Self(read.collect())
    }

    /// One file that held this.
    #[cfg(test)]
    pub fn held(path: &str, text: &str) -> Self {
        Self(vec![(path.into(), text.to_owned())])
    }

    /// Puts back whatever has changed since.
    pub fn restore(&self) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..PASSES {
            result = Ok(());
            for (path, old) in &self.0 {
                let differs = fs::read_to_string(path).is_ok_and(|now| now != *old);
                if differs && let Err(error) = fs::write(path, old) {
                    result = Err(about("write", path, &error));
                }
            }
        }
        result
    }
}
