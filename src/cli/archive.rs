//! A tar of a directory, made while it is sent.
//!
//! Names, owners, modes, times in seconds, symbolic and hard links, devices, and the extended
//! attributes that a program can depend on (file capabilities, `user.*`).

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// The longest extended attribute the kernel has (XATTR_SIZE_MAX), in bytes.
const XATTR_LIMIT: usize = 64 << 10;
/// The longest list of names it gives (XATTR_LIST_MAX), in bytes.
const XATTR_LIST_LIMIT: usize = 64 << 10;

/// Writes everything below `directory`. Gives the sockets, which no archive can hold.
pub(super) fn write<W: Write>(directory: &Path, out: W) -> io::Result<Vec<PathBuf>> {
    let mut walk = Walk::new(directory, Path::new(""), out);
    walk.directory(Path::new(""))?;
    walk.finish()
}

/// Writes a file, or a directory and everything below it, under this name. Gives the sockets.
pub(super) fn write_as<W: Write>(source: &Path, name: &Path, out: W) -> io::Result<Vec<PathBuf>> {
    let metadata = source.metadata().map_err(|error| named(source, &error))?;
    let mut walk = Walk::new(source, name, out);
    walk.entry(Path::new(""), source, &metadata)?;
    if metadata.is_dir() {
        walk.directory(Path::new(""))?;
    }
    walk.finish()
}

struct Walk<'r, W: Write> {
    root: &'r Path,
    /// Comes before every path in the archive.
    name: &'r Path,
    builder: Builder<W>,
    /// Where a file with several names was written, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
    left_out: Vec<PathBuf>,
}

impl<'r, W: Write> Walk<'r, W> {
    fn new(root: &'r Path, name: &'r Path, out: W) -> Self {
        let (linked, left_out) = Default::default();
        Self { root, name, builder: Builder::new(out), linked, left_out }
    }

    fn finish(self) -> io::Result<Vec<PathBuf>> {
        self.builder.into_inner()?.flush()?;
        Ok(self.left_out)
    }

    /// What is in a directory, sorted, so that the same tree is the same archive.
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let full = self.root.join(path);
        let read = || -> io::Result<Vec<_>> {
            std::fs::read_dir(&full)?.map(|entry| Ok(entry?.file_name())).collect()
        };
        let mut names = read().map_err(|error| named(&full, &error))?;
        names.sort_unstable();
        for name in names {
            let path = path.join(name);
            let full = self.root.join(&path);
            let entry = |error: io::Error| named(&full, &error);
            let metadata = full.symlink_metadata().map_err(entry)?;
            self.entry(&path, &full, &metadata).map_err(|error| match error.kind() {
                // The other side has gone: not this file's fault.
                io::ErrorKind::BrokenPipe => error,
                _ => entry(error),
            })?;
            if metadata.is_dir() {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, full: &Path, metadata: &Metadata) -> io::Result<()> {
        // Nothing joined would end it in a slash.
        let path =
            if path.as_os_str().is_empty() { self.name.to_owned() } else { self.name.join(path) };
        let path = path.as_path();
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.left_out.push(path.to_owned());
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_metadata(metadata);
        if metadata.nlink() > 1 && !metadata.is_dir() {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&inode) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(&mut header, path, first);
            }
            self.linked.insert(inode, path.to_owned());
        }
        self.attributes(full)?;
        if kind.is_symlink() {
            header.set_size(0);
            return self.builder.append_link(&mut header, path, std::fs::read_link(full)?);
        }
        if kind.is_block_device() || kind.is_char_device() {
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        }
        if !kind.is_file() {
            header.set_size(0);
            return self.builder.append_data(&mut header, path, io::empty());
        }
        let mut data = File::open(full)?.take(metadata.len());
        self.builder.append_data(&mut header, path, &mut data)?;
        if data.limit() > 0 {
            return Err(io::Error::other("it got shorter while it was read"));
        }
        Ok(())
    }

    /// Extended attributes, as pax records before the entry that has them.
    fn attributes(&mut self, full: &Path) -> io::Result<()> {
        let mut list = vec![0u8; XATTR_LIST_LIMIT];
        let length = match rustix::fs::llistxattr(full, list.as_mut_slice()) {
            Ok(length) => length,
            Err(rustix::io::Errno::NOTSUP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut records = Vec::new();
        for name in list[..length].split(|&byte| byte == 0) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name != "security.capability" && !name.starts_with("user.") {
                continue;
            }
            let mut value = vec![0u8; XATTR_LIMIT];
            let length = rustix::fs::lgetxattr(full, name, value.as_mut_slice())?;
            value.truncate(length);
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    type Seen = BTreeMap<String, (EntryType, u32, String, Option<String>)>;

    /// Path → type, mode, content, link target.
    fn unpacked(bytes: &[u8]) -> Seen {
        let mut archive = tar::Archive::new(bytes);
        let seen = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (path, (kind, mode & 0o7777, content, link))
        });
        seen.collect()
    }

    #[test]
    fn every_kind_of_file_comes_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("bin/deep")).unwrap();
        std::fs::write(at("bin/sh"), "a shell").unwrap();
        std::fs::set_permissions(at("bin/sh"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::hard_link(at("bin/sh"), at("bin/zsh")).unwrap();
        symlink("/bin/sh", at("bin/deep/ash")).unwrap();
        let long = format!("bin/{}", "long".repeat(50));
        std::fs::write(at(&long), "long").unwrap();
        std::fs::write(at("empty"), "").unwrap();
        let fifo = at("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

        let mut bytes = Vec::new();
        let left_out = write(dir.path(), &mut bytes).unwrap();
        assert_eq!(left_out, [PathBuf::from("socket")]);
        let seen = unpacked(&bytes);
        let names: Vec<_> = seen.keys().map(String::as_str).collect();
        let mut expected =
            vec!["bin", "bin/deep", "bin/deep/ash", &long, "bin/sh", "bin/zsh", "empty", "fifo"];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(seen["bin/sh"], (EntryType::Regular, 0o4755, "a shell".into(), None));
        let (kind, _, content, link) = &seen["bin/zsh"];
        assert_eq!(
            (*kind, content.as_str(), link.as_deref()),
            (EntryType::Link, "", Some("bin/sh"))
        );
        assert_eq!(seen["bin/deep/ash"].3.as_deref(), Some("/bin/sh"));
        assert_eq!(seen["bin/deep/ash"].0, EntryType::Symlink);
        assert_eq!(seen[&long].2, "long");
        assert_eq!(seen["fifo"].0, EntryType::Fifo);
        assert_eq!(seen["bin"].0, EntryType::Directory);
    }

    #[test]
    fn extended_attributes_come_through() {
        // tmpfs may have none of user.*; the build folder's file system has.
        let dir = tempfile::tempdir_in(env!("OUT_DIR")).unwrap();
        let file = dir.path().join("ping");
        std::fs::write(&file, "x").unwrap();
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&file, "user.colour", b"red\xff", none).unwrap();
        let mut bytes = Vec::new();
        write(dir.path(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let found: Vec<_> = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| record.map(|r| (r.key().unwrap().to_owned(), r.value_bytes().to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(found, [("SCHILY.xattr.user.colour".to_owned(), b"red\xff".to_vec())]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = write(Path::new("/nowhere/at/all"), Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/at/all/: "), "{error}");
    }
}
