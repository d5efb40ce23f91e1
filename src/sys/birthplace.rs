//! How a process is born into a cgroup, rather than moved there.
//!
//! To move a process the kernel first stops every fork and exit on the machine, for which it
//! waits for an RCU grace period: some 10 ms. It needn't where a process is cloned into its
//! cgroup (v2) or its only thread moves itself (v1).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directories of the cgroup that a process is to be born into.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Birthplace {
    /// In the unified hierarchy.
    pub unified: Option<PathBuf>,
    /// In those of v1.
    pub v1: Vec<PathBuf>,
}

impl Birthplace {
    /// The parent's part: what the child is cloned into.
    pub fn open(&self) -> io::Result<Option<File>> {
        let open = |path: &PathBuf| {
            let mut directory = OpenOptions::new();
            let directory = directory.read(true).custom_flags(libc::O_DIRECTORY).open(path);
            directory.map_err(|error| about(path, &error))
        };
        self.unified.as_ref().map(open).transpose()
    }

    /// The child's own part. It has one thread.
    pub fn enter(&self) -> io::Result<()> {
        for directory in &self.v1 {
            // 0 is whoever writes.
            fs::write(directory.join("tasks"), "0").map_err(|error| about(directory, &error))?;
        }
        Ok(())
    }
}

fn about(cgroup: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot enter cgroup {}: {error}", cgroup.display()))
}
