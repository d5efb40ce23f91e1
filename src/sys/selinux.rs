//! SELinux labels of files: an extended attribute (selinux(8), xattr(7)).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, XattrFlags};

/// The attribute.
const NAME: &str = "security.selinux";
/// Most entries labelled in one walk.
const MAX_ENTRIES: u64 = 20_000_000;

/// Whether the kernel has a policy to go by: its file system is mounted.
pub fn is_active() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Labels a file, or a directory with all below it on its file system. The path's own links
/// are followed, those below never: who can write there can't lead it elsewhere. What vanishes
/// meanwhile is left out. Blocks.
pub fn relabel(path: &Path, label: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    set(&path, label)?;
    if !path.is_dir() {
        return Ok(());
    }
    let root = rustix::fs::open(&path, dir_flags(), Mode::empty())?;
    let device = rustix::fs::fstat(&root)?.st_dev;
    let mut count = 0;
    let mut pending: Vec<Vec<u8>> = vec![b".".to_vec()];
    while let Some(dir_path) = pending.pop() {
        let Some(dir) = open_below(&root, &dir_path)? else { continue };
        let mut entries = Dir::read_from(&dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if stat.st_dev == device => stat,
                Ok(_) | Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            count += 1;
            if count > MAX_ENTRIES {
                return Err(io::Error::other(format!("more than {MAX_ENTRIES} files")));
            }
            // By the open directory, so that only the last name is looked up.
            let at = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            match set(&at.join(std::ffi::OsStr::from_bytes(name.to_bytes())), label) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push([&dir_path, b"/".as_slice(), name.to_bytes()].concat());
            }
        }
    }
    Ok(())
}

fn dir_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// `None`: it is gone, or has become something else.
fn open_below(root: &OwnedFd, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(root, path, dir_flags(), Mode::empty(), inside) {
        Ok(dir) => Ok(Some(dir)),
        Err(
            rustix::io::Errno::NOENT
            | rustix::io::Errno::NOTDIR
            | rustix::io::Errno::LOOP
            | rustix::io::Errno::XDEV,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file system that has no labels has one for all its files, which is the policy's affair.
fn set(path: &Path, label: &str) -> io::Result<()> {
    // The kernel takes it with its end, as the tools write it.
    let value = [label.as_bytes(), b"\0"].concat();
    match rustix::fs::lsetxattr(path, NAME, &value, XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(path: &Path) -> Option<String> {
        let mut value = [0; 256];
        let length = rustix::fs::lgetxattr(path, NAME, &mut value).ok()?;
        Some(String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned())
    }

    /// Kernels without SELinux keep the attribute all the same.
    #[test]
    fn all_below_is_labelled_and_no_link_is_followed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: labels need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (outside, top) = (dir.path().join("outside"), dir.path().join("top"));
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::write(top.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        relabel(&top, "u:r:t:s0").unwrap();
        for path in ["", "a", "a/b", "a/b/file", "link"] {
            assert_eq!(label(&top.join(path)).as_deref(), Some("u:r:t:s0"), "{path}");
        }
        assert_eq!(label(&outside), None);
        assert_eq!(label(&outside.join("kept")), None);
        // A path that is itself a link: what it leads to.
        relabel(&top.join("link"), "u:r:t:s1").unwrap();
        assert_eq!(label(&outside.join("kept")).as_deref(), Some("u:r:t:s1"));
        assert_eq!(relabel(&top.join("no"), "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
