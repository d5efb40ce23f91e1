//! mount(2) and umount2(2).

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

/// Binds a file or directory onto an existing one.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// A new file system of this kind, `nosuid,nodev` where `flags` say so.
pub fn mount(kind: &str, target: &Path, flags: MsFlags, data: &str) -> io::Result<()> {
    nix::mount::mount(Some(kind), target, Some(kind), flags, Some(data))?;
    Ok(())
}

/// Detaches the mount at a path, and those below it. Not a mount, or gone: no error.
pub fn detach(target: &Path) -> io::Result<()> {
    match nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Detaches every mount below a directory, the newest first. Not there: no error.
pub fn detach_below(directory: &Path) -> io::Result<()> {
    let directory = match std::fs::canonicalize(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let below = |point: &PathBuf| point.starts_with(&directory) && *point != directory;
    for point in points.filter(below).collect::<Vec<_>>().iter().rev() {
        detach(point)?;
    }
    Ok(())
}

/// proc_pid_mountinfo(5) writes four characters as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escaped, plain);
    }
    path.into()
}
