//! How the kernel's files are read: through their directory, so that one name is looked up for
//! each, and into a buffer that needn't grow.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::parse;
use crate::sys::cgroup;

/// The longest file that is read, in bytes: memory.stat has about 2 KiB.
const MAX_FILE: u64 = 64 * 1024;
/// Bytes that nearly every file fits in.
const USUAL_FILE: usize = 4096;

/// The files of a cgroup in one hierarchy.
pub(super) struct Files(OwnedFd);

impl Files {
    /// Those of a controller. A cgroup that is gone is `NotFound`.
    pub(super) fn of(controller: &str, path: &str) -> io::Result<Self> {
        Self::within(&cgroup::directory(controller, path).ok_or(io::ErrorKind::NotFound)?)
    }

    pub(super) fn within(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(directory, flags, Mode::empty())?))
    }

    pub(super) fn text(&self, name: &str) -> io::Result<String> {
        whole(openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// A file with one number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        parse::number(&self.text(name).ok()?)
    }
}

/// A file beside the cgroups'.
pub(super) fn text(path: &Path) -> io::Result<String> {
    whole(File::open(path)?)
}

fn whole(file: File) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL_FILE);
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}
