//! mount(2) and umount2(2).

use std::io;
use std::path::Path;

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
