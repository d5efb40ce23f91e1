//! The directory a layer is unpacked into, and the way to a path in it.
//!
//! Every component is opened by itself, below the one before, and never followed by the
//! kernel. A symlink on the way is followed here, inside the target: later layers of real
//! images write through the links of lower ones (`lib/x` where `lib` is `usr/lib`). A way
//! that climbs above the root, or ends at a link to nowhere, is refused.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// Symlinks followed on the way to one path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Deepest directory.
const MAX_DEPTH: usize = 512;
/// Longest component: NAME_MAX.
const MAX_NAME: usize = 255;

const WALK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ALONE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Where a layer goes.
pub(in crate::image) struct Target {
    /// The view of this layer on top of those below. What is written here ends in `own`.
    view: OwnedFd,
    /// This layer alone.
    own: OwnedFd,
    /// Whether there are layers below.
    pub(super) stacked: bool,
}

/// The directory that holds a member, by descriptor and by its path without any symlink.
pub(super) struct Place {
    pub(super) dir: OwnedFd,
    pub(super) path: Vec<Vec<u8>>,
    /// Directories that were made on the way.
    pub(super) made: u64,
}

impl Target {
    /// The lowest layer.
    pub(super) fn plain(tree: &Path) -> io::Result<Self> {
        let own = rustix::fs::open(
            tree,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { view: own.try_clone()?, own, stacked: false })
    }

    /// A layer on others; `view` is the overlay of them all.
    pub(in crate::image) fn merged(view: OwnedFd, tree: &Path) -> io::Result<Self> {
        Ok(Self { view, stacked: true, ..Self::plain(tree)? })
    }

    /// Ends the writing through the view, and leaves the layer alone.
    pub(super) fn into_own(self) -> OwnedFd {
        self.own
    }

    /// This layer's own entry of a name: none where it has none.
    pub(super) fn own_entry(&self, path: &[Vec<u8>], name: &[u8]) -> io::Result<Option<Stat>> {
        match open_exactly(self.own.as_fd(), path, WALK | OFlags::DIRECTORY) {
            Ok(dir) => entry(dir.as_fd(), name),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Names in the view's root.
    pub(super) fn root_names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let root = rustix::fs::openat(
            &self.view,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut entries = rustix::fs::Dir::read_from(&root)?;
        while let Some(entry) = entries.read() {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(&*name, b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The directory at these components. Missing ones are made when `create`.
    pub(super) fn walk(&self, components: &[&[u8]], create: bool) -> Result<Place, String> {
        // With each component: whether it comes from a symlink's text.
        let mut todo: VecDeque<(Vec<u8>, bool)> =
            components.iter().map(|c| (c.to_vec(), false)).collect();
        let root = |made| -> Result<Place, String> {
            Ok(Place { dir: self.view.try_clone().map_err(text)?, path: Vec::new(), made })
        };
        let mut place = root(0)?;
        let mut links = 0;
        while let Some((part, of_link)) = todo.pop_front() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    place
                        .path
                        .pop()
                        .ok_or("a symlink on the way climbs above the root of the image")?;
                    place.dir =
                        open_exactly(self.view.as_fd(), &place.path, WALK | OFlags::DIRECTORY)
                            .map_err(text)?;
                    continue;
                }
                _ => {}
            }
            match step(&mut place, &part, create && !of_link) {
                Ok(None) => {}
                Ok(Some(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("too many symlinks on the way".to_owned());
                    }
                    if target.starts_with(b"/") {
                        place = root(place.made)?;
                    }
                    for part in target.split(|&b| b == b'/').rev() {
                        todo.push_front((part.to_vec(), true));
                    }
                }
                Err(Errno::NOENT) if of_link => {
                    return Err("a symlink on the way leads to nothing in the image".to_owned());
                }
                Err(error) => {
                    return Err(format!(
                        "\"{}\" on the way: {}",
                        super::tape::shown(&part),
                        text(error)
                    ));
                }
            }
        }
        Ok(place)
    }
}

/// Enters a directory, or gives the text of a symlink.
fn step(place: &mut Place, part: &[u8], create: bool) -> Result<Option<Vec<u8>>, Errno> {
    if part.len() > MAX_NAME || place.path.len() >= MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let open = |dir: &OwnedFd| rustix::fs::openat2(dir, part, WALK, Mode::empty(), ALONE);
    let fd = match open(&place.dir) {
        Err(Errno::NOENT) if create => {
            make_dir(place.dir.as_fd(), part, Mode::from_raw_mode(0o755))?;
            place.made += 1;
            open(&place.dir)?
        }
        other => other?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::Directory => {
            place.dir = fd;
            place.path.push(part.to_vec());
            Ok(None)
        }
        FileType::Symlink => Ok(Some(rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes())),
        _ => Err(Errno::NOTDIR),
    }
}

/// Makes a directory with exactly this mode.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
}

/// An entry's metadata, its symlink not followed.
pub(super) fn entry(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes an entry with all below it.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    crate::sys::tree::remove_at(dir, &CString::new(name)?)
}

/// A directory by a path in which nothing may be a symlink. Deep ones go piece by piece,
/// since one call takes 4096 bytes.
pub(super) fn open_exactly(
    root: BorrowedFd<'_>,
    path: &[Vec<u8>],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    const AT_ONCE: usize = 15;
    let resolve = ALONE | ResolveFlags::NO_SYMLINKS;
    let mut dir = rustix::fs::openat2(root, ".", WALK | OFlags::DIRECTORY, Mode::empty(), resolve)?;
    for piece in path.chunks(AT_ONCE) {
        dir = rustix::fs::openat2(
            &dir,
            piece.join(&b'/'),
            WALK | OFlags::DIRECTORY,
            Mode::empty(),
            resolve,
        )?;
    }
    rustix::fs::openat2(&dir, ".", flags, Mode::empty(), resolve)
}

/// Hides what lower layers have in a directory of this one.
pub(super) fn make_opaque(own: BorrowedFd<'_>, path: &[Vec<u8>]) -> Result<(), Errno> {
    let dir = open_exactly(own, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
    rustix::fs::fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

fn text(error: impl Into<io::Error>) -> String {
    error.into().to_string()
}
