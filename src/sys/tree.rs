//! Directory trees that someone else wrote: removed and measured by descriptor, so that
//! neither depth nor links lead out of them or exhaust our descriptors.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

/// Directories held open at once. A deeper one is moved up before it is removed, where that
/// can be done.
const MAX_OPEN: usize = 64;
/// Deepest directory where nothing can be moved up. Image layers end at 512.
const MAX_DEPTH: usize = 768;
/// Most entries measured in one walk.
const MAX_ENTRIES: u64 = 20_000_000;

/// Space taken below a directory, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Blocks allocated, in bytes.
    pub bytes: u64,
    /// Inodes; one with several names counts once.
    pub inodes: u64,
}

/// Removes a file, or a directory with all below it. Not there: no error. Never follows a
/// link, and never enters another mount (such a directory is an error).
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    remove_at(parent.as_fd(), &CString::new(name.as_bytes())?)
}

/// As [`remove`], by the name in an open directory.
pub fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = open_dir(parent, name)?;
    empty(dir.as_fd(), dir.as_fd(), 0, &mut 0)?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(
        parent,
        name,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Removes everything in `dir`. What is too deep is moved into `top`, which is read again
/// until it is empty.
fn empty(
    dir: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> io::Result<()> {
    loop {
        let mut found = false;
        let mut entries = Dir::read_from(dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => continue,
                Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            if depth >= MAX_OPEN {
                *moved += 1;
                match rustix::fs::renameat(dir, name, top, format!(".moved-up-{moved}")) {
                    Ok(()) => continue,
                    // An overlay doesn't move directories of its lower layers.
                    Err(rustix::io::Errno::XDEV) if depth < MAX_DEPTH => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let below = open_dir(dir, name)?;
            empty(below.as_fd(), top, depth + 1, moved)?;
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        }
        // Only the top is filled while it is being emptied.
        if depth > 0 || !found {
            return Ok(());
        }
    }
}

/// Measures a tree without leaving its file system or following links. What is below a
/// path longer than PATH_MAX isn't counted. Files that vanish meanwhile are no error.
pub fn measure(path: &Path) -> io::Result<Space> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(root) => root,
        Err(rustix::io::Errno::NOENT) => return Ok(Space::default()),
        Err(error) => return Err(error.into()),
    };
    let top = rustix::fs::fstat(&root)?;
    let mut space = Space { bytes: top.st_blocks as u64 * 512, inodes: 1 };
    let mut seen = HashSet::new();
    let mut pending: Vec<Vec<u8>> = vec![b".".to_vec()];
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    while let Some(dir_path) = pending.pop() {
        let Ok(dir) =
            rustix::fs::openat2(&root, &dir_path, flags | OFlags::NOFOLLOW, Mode::empty(), inside)
        else {
            continue;
        };
        let mut entries = Dir::read_from(&dir)?;
        while let Some(Ok(entry)) = entries.read() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_dev != top.st_dev
                || (stat.st_nlink > 1 && !is_dir(&stat) && !seen.insert(stat.st_ino))
            {
                continue;
            }
            space.inodes += 1;
            space.bytes += stat.st_blocks as u64 * 512;
            if space.inodes > MAX_ENTRIES {
                return Err(io::Error::other(format!("more than {MAX_ENTRIES} files")));
            }
            if is_dir(&stat) {
                pending.push([&dir_path, b"/".as_slice(), name.to_bytes()].concat());
            }
        }
    }
    Ok(space)
}

fn is_dir(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(&top, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            at = rustix::fs::openat(&at, "deeper", flags, Mode::empty()).unwrap();
        }
        drop(at);
        measure(&top).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
        remove(&top.join("neither/here")).unwrap();
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, top) = (dir.path().join("outside"), dir.path().join("top"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::create_dir(&top).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        remove(&top).unwrap();
        assert!(outside.join("kept").exists() && !top.exists());
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 10_000]).unwrap();
        let before = measure(dir.path()).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("c")).unwrap();
        let after = measure(dir.path()).unwrap();
        assert_eq!((before.inodes, after.inodes), (2, 3));
        assert!(before.bytes >= 10_000);
    }
}
