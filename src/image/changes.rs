//! What a container has changed in its root file system, as an archive and a list of what it
//! has deleted.
//!
//! Read off the overlay's upper directory (the kernel's overlayfs.rst): a character device 0/0
//! stands for what is deleted, an opaque directory hides all that lower layers have in it. The
//! archive has neither: CRI-O and podman, whose layout this is, know only added files and
//! names that are gone.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";
/// Bytes of an extended attribute's value, the kernel's own limit.
const MAX_XATTR: usize = 64 << 10;

/// Writes what `upper` adds to `lower` (the topmost first) as an archive, and gives the paths
/// that it takes away. Nothing may change `upper` meanwhile. Sockets are left out.
pub(super) fn write(
    upper: &Path,
    lower: &[PathBuf],
    archive: impl Write,
) -> io::Result<Vec<PathBuf>> {
    let mut archive = Builder::new(archive);
    archive.follow_symlinks(false);
    let mut writing = Writing { upper, lower, archive, links: HashMap::new(), gone: Vec::new() };
    writing.directory(Path::new(""), false)?;
    writing.archive.into_inner()?.flush()?;
    Ok(writing.gone)
}

struct Writing<'a, W: Write> {
    upper: &'a Path,
    lower: &'a [PathBuf],
    archive: Builder<W>,
    /// The first name of a file that has several.
    links: HashMap<u64, PathBuf>,
    gone: Vec<PathBuf>,
}

impl<W: Write> Writing<'_, W> {
    /// All in a directory. `opaque`: nothing of the lower layers shows in it.
    fn directory(&mut self, path: &Path, opaque: bool) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.upper.join(path))? {
            names.insert(entry?.file_name());
        }
        if opaque {
            self.hidden(path, &names);
        }
        for name in names {
            let path = path.join(name);
            self.entry(&path, opaque).map_err(|error| {
                io::Error::new(error.kind(), format!("\"{}\": {error}", path.display()))
            })?;
        }
        Ok(())
    }

    /// What lower layers have in an opaque directory, and this one has not.
    fn hidden(&mut self, path: &Path, names: &BTreeSet<std::ffi::OsString>) {
        let mut hidden = BTreeSet::new();
        for layer in self.lower {
            // A layer that has no such directory has nothing in it.
            for entry in fs::read_dir(layer.join(path)).into_iter().flatten().flatten() {
                hidden.insert(entry.file_name());
            }
        }
        self.gone.extend(hidden.difference(names).map(|name| path.join(name)));
    }

    fn entry(&mut self, path: &Path, opaque: bool) -> io::Result<()> {
        let source = self.upper.join(path);
        let meta = fs::symlink_metadata(&source)?;
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            self.gone.push(path.to_owned());
            return Ok(());
        }
        if kind.is_socket() {
            return Ok(());
        }
        let attribute = |name: &str| attribute(&source, OsStr::new(name));
        if attribute(REDIRECT)?.is_some() {
            let why = "a directory of the image that was renamed by overlayfs itself can't be \
                       saved: set /sys/module/overlay/parameters/redirect_dir to N";
            return Err(io::Error::other(why));
        }
        let mut header = Header::new_gnu();
        header.set_metadata(&meta);
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&meta.ino()) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.archive.append_link(&mut header, path, first.clone());
            }
            self.links.insert(meta.ino(), path.to_owned());
        }
        self.attributes(&source)?;
        if kind.is_dir() {
            self.archive.append_data(&mut header, path, io::empty())?;
            let opaque = opaque || attribute(OPAQUE)?.is_some_and(|value| value == b"y");
            self.directory(path, opaque)
        } else if kind.is_symlink() {
            header.set_size(0);
            self.archive.append_link(&mut header, path, fs::read_link(&source)?)
        } else if kind.is_file() {
            self.archive.append_data(&mut header, path, File::open(&source)?)
        } else {
            special(&mut header, &meta)?;
            self.archive.append_data(&mut header, path, io::empty())
        }
    }

    /// Extended attributes, but not overlayfs's own, as PAX records before the member.
    fn attributes(&mut self, source: &Path) -> io::Result<()> {
        let mut names = Vec::with_capacity(MAX_XATTR);
        match rustix::fs::llistxattr(source, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => {}
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut records = Vec::new();
        for name in names.split(|&byte| byte == 0) {
            if name.is_empty() || name.starts_with(b"trusted.overlay.") {
                continue;
            }
            if let (Some(value), Ok(text)) =
                (attribute(source, OsStr::from_bytes(name))?, std::str::from_utf8(name))
            {
                records.push((format!("SCHILY.xattr.{text}"), value));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.archive.append_pax_extensions(records)
    }
}

fn special(header: &mut Header, meta: &Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    header.set_size(0);
    header.set_entry_type(if kind.is_fifo() {
        EntryType::Fifo
    } else if kind.is_block_device() {
        EntryType::Block
    } else {
        EntryType::Char
    });
    header.set_device_major(rustix::fs::major(meta.rdev()))?;
    header.set_device_minor(rustix::fs::minor(meta.rdev()))
}

fn attribute(path: &Path, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX_XATTR);
    match rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
