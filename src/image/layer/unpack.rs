//! Applies an archive's members to a layer's directory.
//!
//! Whiteouts and opaque marks hide lower layers only, wherever they stand in the archive,
//! so they are noted and made when everything else is there, in this layer's own directory:
//! a character device 0/0, and the attribute `trusted.overlay.opaque`, as overlayfs wants
//! them. Directories get their times last, for the same reason.

use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Budget;
use super::stream::Measured;
use super::tape::{Kind, Member, Tape, shown};
use super::tree::{Place, Target, entry, make_dir, make_opaque, open_exactly, remove};
use crate::image::digest::Digest;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BUFFER: usize = 128 << 10;

type Path = Vec<Vec<u8>>;

/// What is done when every member is there.
#[derive(Default)]
struct Later {
    whiteouts: Vec<(Path, Vec<u8>)>,
    opaque: Vec<Path>,
    times: Vec<(Path, (i64, u32))>,
}

struct Unpacking<'a> {
    target: Target,
    later: Later,
    budget: &'a mut Budget,
    buffer: Vec<u8>,
}

/// Unpacks a whole uncompressed stream, and gives its digest. An error has the path in it;
/// what was written by then is the caller's to remove.
pub(super) fn unpack(
    stream: impl Read,
    target: Target,
    budget: &mut Budget,
) -> Result<Digest, String> {
    let mut tape = Tape::new(Measured::new(stream, budget.expanded));
    let buffer = vec![0; COPY_BUFFER];
    let mut work = Unpacking { target, later: Later::default(), budget, buffer };
    while let Some(member) = tape.next()? {
        let at = |why: String| format!("\"{}\": {why}", shown(&member.path));
        work.budget.spend_entries(1).map_err(at)?;
        work.apply(&member, &mut tape).map_err(at)?;
    }
    let (digest, left) = tape.into_inner().finish().map_err(|error| error.to_string())?;
    work.budget.expanded = left;
    work.finish()?;
    Ok(digest)
}

/// The components of a member's name. Absolute names are meant from the image's root.
pub(in crate::image) fn components(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    let parts: Vec<&[u8]> =
        path.split(|&b| b == b'/').filter(|c| !matches!(*c, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("its path climbs with \"..\"".to_owned());
    }
    if parts.iter().any(|c| c.len() > 255) {
        return Err("a name in its path is longer than 255 bytes".to_owned());
    }
    Ok(parts)
}

/// Takes a path away with all below it; not there is no error.
pub(super) fn delete(target: &Target, path: &[u8]) -> Result<(), String> {
    let parts = components(path)?;
    let (&name, parents) = parts.split_last().ok_or("the root can't be taken away")?;
    // In a directory that is nowhere there is nothing to take away.
    let Ok(place) = target.walk(parents, false) else { return Ok(()) };
    match entry(place.dir.as_fd(), name).map_err(text)? {
        Some(_) => remove(place.dir.as_fd(), name).map_err(text),
        None => Ok(()),
    }
}

fn text(error: impl Into<std::io::Error>) -> String {
    error.into().to_string()
}

impl Unpacking<'_> {
    fn apply(&mut self, member: &Member, tape: &mut impl Read) -> Result<(), String> {
        let path = components(&member.path)?;
        let Some((&name, parents)) = path.split_last() else {
            return self.root(member);
        };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, hidden, parents);
        }
        let place = self.target.walk(parents, true)?;
        self.budget.spend_entries(place.made)?;
        let dir = place.dir.as_fd();
        let existing = entry(dir, name).map_err(text)?;
        let both_dirs = member.kind == Kind::Directory
            && existing
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if member.kind == Kind::Hardlink {
            return self.hardlink(member, &place, name);
        }
        if existing.is_some() && !both_dirs {
            remove(dir, name).map_err(text)?;
        }
        match member.kind {
            Kind::File => self.file(dir, name, member, tape)?,
            Kind::Directory => {
                if !both_dirs {
                    make_dir(dir, name, Mode::RWXU).map_err(text)?;
                }
            }
            Kind::Symlink => {
                if member.link.is_empty() {
                    return Err("a symlink to nothing".to_owned());
                }
                rustix::fs::symlinkat(member.link.as_slice(), dir, name).map_err(text)?;
            }
            kind => special(dir, name, kind, member.device)?,
        }
        describe(dir, name, member)?;
        if member.kind == Kind::Directory {
            let mut own = place.path;
            own.push(name.to_vec());
            self.later.times.push((own, member.mtime));
        }
        Ok(())
    }

    /// The member for the root directory itself.
    fn root(&mut self, member: &Member) -> Result<(), String> {
        if member.kind != Kind::Directory {
            return Err("the root of the image must be a directory".to_owned());
        }
        let place = self.target.walk(&[], false)?;
        describe(place.dir.as_fd(), b".", member)?;
        self.later.times.push((Vec::new(), member.mtime));
        Ok(())
    }

    fn whiteout(&mut self, name: &[u8], hidden: &[u8], parents: &[&[u8]]) -> Result<(), String> {
        let opaque = name == OPAQUE;
        if !opaque && name.starts_with(WHITEOUT_META) {
            // What aufs kept for itself.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err("a whiteout of nothing".to_owned());
        }
        if !self.target.stacked {
            return Ok(());
        }
        // In a directory that is nowhere nothing can be hidden.
        let Ok(place) = self.target.walk(parents, opaque) else { return Ok(()) };
        self.budget.spend_entries(place.made)?;
        if !opaque && entry(place.dir.as_fd(), hidden).map_err(text)?.is_none() {
            return Ok(());
        }
        // The directory must be in this layer; setting the mode it has copies it up.
        let mode =
            Mode::from_raw_mode(rustix::fs::fstat(&place.dir).map_err(text)?.st_mode & 0o7777);
        let dir = rustix::fs::openat(
            &place.dir,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        rustix::fs::fchmod(dir.map_err(text)?, mode).map_err(text)?;
        if opaque {
            self.later.opaque.push(place.path);
        } else {
            self.later.whiteouts.push((place.path, hidden.to_vec()));
        }
        Ok(())
    }

    fn hardlink(&mut self, member: &Member, place: &Place, name: &[u8]) -> Result<(), String> {
        let target = components(&member.link).map_err(|_| {
            format!("a hardlink that leaves the image, to \"{}\"", shown(&member.link))
        })?;
        let (&last, parents) = target.split_last().ok_or("a hardlink to a directory")?;
        let to = |why: String| format!("a hardlink to \"{}\": {why}", shown(&member.link));
        let source = self.target.walk(parents, false).map_err(to)?;
        let dir = source.dir.as_fd();
        match entry(dir, last).map_err(text)? {
            None => return Err(to("there is no such file in the image".to_owned())),
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(to("it is a directory".to_owned()));
            }
            Some(stat) => {
                // A file of a lower layer is copied up by the overlay.
                if self.target.own_entry(&source.path, last).map_err(text)?.is_none() {
                    self.budget.spend_bytes(u64::try_from(stat.st_size).unwrap_or(0))?;
                }
            }
        }
        if source.path == place.path && last == name {
            return Ok(());
        }
        remove(place.dir.as_fd(), name).map_err(text)?;
        // One of a lower layer has both names here then.
        rustix::fs::linkat(dir, last, &place.dir, name, AtFlags::empty())
            .map_err(|error| to(text(error)))
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        member: &Member,
        tape: &mut impl Read,
    ) -> Result<(), String> {
        self.budget.spend_bytes(member.size)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(text)?;
        let mut file = std::fs::File::from(fd);
        let whole = [(0, member.size)];
        for &(offset, length) in member.pieces.as_deref().unwrap_or(&whole) {
            if offset > 0 {
                file.seek(SeekFrom::Start(offset)).map_err(text)?;
            }
            self.copy(tape, &mut file, length)?;
        }
        if member.pieces.is_some() {
            file.set_len(member.size).map_err(text)?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        tape: &mut impl Read,
        file: &mut std::fs::File,
        mut left: u64,
    ) -> Result<(), String> {
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = tape.read(&mut self.buffer[..most]).map_err(text)?;
            if length == 0 {
                return Err("the archive ends in the middle of it".to_owned());
            }
            file.write_all(&self.buffer[..length]).map_err(text)?;
            left -= length as u64;
        }
        Ok(())
    }

    /// Whiteouts, opaque marks and the directories' times, in this layer alone.
    fn finish(mut self) -> Result<(), String> {
        self.open_root()?;
        let Self { target, later, .. } = self;
        let own: OwnedFd = target.into_own();
        for (path, name) in &later.whiteouts {
            hide(own.as_fd(), path, name)
                .map_err(|why| format!("whiteout of \"{}\": {why}", shown(name)))?;
        }
        for path in &later.opaque {
            match make_opaque(own.as_fd(), path) {
                // It was replaced by a later member.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    return Err(format!(
                        "\"{}\": cannot mark it opaque: {}",
                        shown(&path.join(&b'/')),
                        text(error)
                    ));
                }
            }
        }
        for (path, mtime) in &later.times {
            match open_exactly(
                own.as_fd(),
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            ) {
                Ok(dir) => rustix::fs::futimens(&dir, &times(*mtime)).map_err(text)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    return Err(format!("\"{}\": {}", shown(&path.join(&b'/')), text(error)));
                }
            }
        }
        Ok(())
    }

    /// overlayfs ignores an opaque mark on a layer's root: there each name is hidden.
    fn open_root(&mut self) -> Result<(), String> {
        if !self.later.opaque.iter().any(Vec::is_empty) {
            return Ok(());
        }
        self.later.opaque.retain(|path| !path.is_empty());
        for name in self.target.root_names().map_err(text)? {
            match self.target.own_entry(&[], &name).map_err(text)? {
                None => self.later.whiteouts.push((Vec::new(), name)),
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    self.later.opaque.push(vec![name]);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Hides a lower layer's name: a whiteout where this layer has nothing of that name, an
/// opaque mark where it has a directory; a file of this layer hides the lower one already.
fn hide(own: BorrowedFd<'_>, path: &[Vec<u8>], name: &[u8]) -> Result<(), String> {
    let dir = match open_exactly(own, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(text(error)),
    };
    match entry(dir.as_fd(), name).map_err(text)? {
        None => rustix::fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(text),
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let whole: Vec<Vec<u8>> = path.iter().cloned().chain([name.to_vec()]).collect();
            make_opaque(own, &whole).map_err(text)
        }
        Some(_) => Ok(()),
    }
}

fn special(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    (major, minor): (u32, u32),
) -> Result<(), String> {
    let (file_type, device) = match kind {
        Kind::CharDevice if (major, minor) == (0, 0) => {
            return Err("a character device 0/0, which is overlayfs's own whiteout".to_owned());
        }
        Kind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
        Kind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        _ => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(dir, name, file_type, Mode::RUSR | Mode::WUSR, device).map_err(text)
}

/// Owner, mode, attributes, times. In this order: a change of owner clears setuid bits and
/// capabilities.
fn describe(dir: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| format!("cannot set its owner: {}", text(error)))?;
    if member.kind != Kind::Symlink {
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
            .map_err(|error| format!("cannot set its mode: {}", text(error)))?;
    }
    for (key, value) in &member.xattrs {
        attribute(dir, name, key, value)?;
    }
    rustix::fs::utimensat(dir, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| format!("cannot set its time: {}", text(error)))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn attribute(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), String> {
    let shown_key = shown(key);
    if key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.") {
        return Err(format!(
            "the attribute {shown_key} belongs to overlayfs and may not come from an image"
        ));
    }
    // There is no call for an entry of a directory; this link to our descriptor leads to
    // the directory itself, and the name in it is not followed.
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    match rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        // A file system without such attributes: only a lost capability changes what a
        // program may do, so only that is an error (as in other runtimes).
        Err(Errno::OPNOTSUPP) if key != b"security.capability" => Ok(()),
        Err(error) => Err(format!("cannot set its attribute {shown_key}: {}", text(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// The archive of some members, each with the modification time given.
    fn tar(members: &[(&str, tar::EntryType, u64)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for &(path, kind, mtime) in members {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_uid(rustix::process::getuid().as_raw().into());
            header.set_gid(rustix::process::getgid().as_raw().into());
            header.set_mtime(mtime);
            header.set_size(0);
            builder.append_data(&mut header, path, std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(dir: &std::path::Path, archive: &[u8], entries: u64) -> Result<u64, String> {
        let mut budget = Budget { expanded: 1 << 20, bytes: 0, entries };
        unpack(archive, Target::plain(dir).unwrap(), &mut budget).map(|_| budget.entries)
    }

    #[test]
    fn directories_that_are_only_implied_count() {
        let dir = tempfile::tempdir().unwrap();
        let archive = tar(&[("a/b/c/file", tar::EntryType::Regular, 0)]);
        let error = unpacked(dir.path(), &archive, 3).unwrap_err();
        assert!(error.contains("too many files and directories"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpacked(dir.path(), &archive, 4), Ok(0));
    }

    #[test]
    fn directories_get_the_last_time_told_after_what_is_in_them() {
        use tar::EntryType::{Directory, Regular};
        let dir = tempfile::tempdir().unwrap();
        let archive = tar(&[
            ("d/", Directory, 1),
            ("d/file", Regular, 2),
            ("d/", Directory, 3),
            ("d/e", Regular, 4),
        ]);
        unpacked(dir.path(), &archive, 10).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("d")).unwrap().mtime(), 3);
    }
}
