//! Takes files from an archive that a container wrote: into one place and nowhere else.
//!
//! Files and directories are made one name at a time below an open directory, and no link is
//! followed. A path that leads elsewhere ends the copy. Links, devices and the rest are left
//! out: a link is where a later file could escape through, here or for the next program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, ftruncate, mkdirat, open, openat, statat};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

/// The longest path and pax records that are read, in bytes.
const MAX_HEADER: u64 = 64 << 10;
/// The bits of a mode that are taken: no set-user-id.
const MODES: u32 = 0o777;

/// Where an archive's files go.
#[derive(Debug)]
pub(super) struct Target {
    /// An open directory.
    dir: OwnedFd,
    path: PathBuf,
    /// What the file or directory is called in it. `None`: what is in the archive's directory
    /// goes into this one.
    name: Option<Vec<u8>>,
    /// What it is called in the archive; `.`: what is in the directory is meant.
    source: String,
}

/// What was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) files: u64,
    pub(super) directories: u64,
    /// What was not, each with what it is.
    pub(super) left_out: Vec<String>,
}

impl Target {
    /// `to` is a directory for it, or else its new name, as for cp.
    pub(super) fn new(to: &Path, source: &str) -> Result<Self, String> {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let (dir, name) = if to.is_dir() {
            (to, (source != ".").then(|| source.as_bytes().to_vec()))
        } else {
            let name = to.file_name().ok_or_else(|| format!("{} has no name", to.display()))?;
            let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
            (dir.unwrap_or(Path::new(".")), Some(name.as_bytes().to_vec()))
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = open(dir, flags, Mode::empty()).map_err(|error| failed(dir, error.into()))?;
        Ok(Self { dir: open, path: dir.to_owned(), name, source: source.to_owned() })
    }

    /// Takes everything, and reads to the end.
    pub(super) fn unpack(&self, mut from: impl Read) -> Result<Unpacked, String> {
        let mut archive = Archive::new(&mut from);
        let mut unpacked = Unpacked::default();
        let broken =
            |error: io::Error| format!("the archive from the container is broken: {error}");
        let mut ahead = Ahead::default();
        // Raw, so that every header that is read into memory is bounded here.
        for entry in archive.entries().map_err(broken)?.raw(true) {
            let mut entry = entry.map_err(broken)?;
            if ahead.take(&mut entry)? {
                continue;
            }
            let path = std::mem::take(&mut ahead).path(&entry);
            self.entry(&path, entry, &mut unpacked)?;
        }
        // tar may write more than the end; it would wait for a reader.
        io::copy(&mut from, &mut io::sink()).map_err(broken)?;
        Ok(unpacked)
    }

    fn entry(
        &self,
        path: &[u8],
        mut entry: Entry<'_, impl Read>,
        unpacked: &mut Unpacked,
    ) -> Result<(), String> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let names = self.names(path).ok_or_else(|| {
            format!(
                "refused: the container's archive has \"{shown}\", which is not in what was asked for"
            )
        })?;
        let told = |error: io::Error| {
            let name = names.iter().map(|name| String::from_utf8_lossy(name));
            let place = name.fold(self.path.clone(), |place, name| place.join(&*name));
            format!("cannot write {}: {error}", place.display())
        };
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & MODES);
        match entry.header().entry_type() {
            EntryType::Directory => {
                // Ours to write into, whatever it was there.
                let mode = mode | Mode::RWXU;
                let dir = self.descend(&names).map_err(told)?;
                if !names.is_empty() {
                    fchmod(&dir, mode).map_err(|error| told(error.into()))?;
                }
                unpacked.directories += 1;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if entry.header().entry_type() == EntryType::GNUSparse {
                    unpacked.left_out.push(format!("{shown}, a sparse file"));
                    return Ok(());
                }
                let (name, above) = names.split_last().ok_or_else(|| told(Errno::ISDIR.into()))?;
                let size = entry.header().entry_size().map_err(told)?;
                let dir = self.descend(above).map_err(told)?;
                let mut file = create(&dir, name, mode).map_err(told)?;
                let copied = io::copy(&mut entry, &mut file).map_err(told)?;
                if copied != size {
                    return Err(format!("the archive ended within \"{shown}\""));
                }
                unpacked.files += 1;
            }
            other => unpacked.left_out.push(format!("{shown}, {}", kind(other, &entry))),
        }
        Ok(())
    }

    /// The names from the open directory on; `None`: the path leads elsewhere.
    fn names<'p>(&'p self, path: &'p [u8]) -> Option<Vec<&'p [u8]>> {
        if path.starts_with(b"/") || path.contains(&0) {
            return None;
        }
        let parts = path.split(|&byte| byte == b'/');
        let mut parts = parts.filter(|part| !part.is_empty() && *part != b".");
        if self.source != "." && parts.next()? != self.source.as_bytes() {
            return None;
        }
        let mut names: Vec<&[u8]> = self.name.as_deref().into_iter().collect();
        names.extend(parts);
        (!names.iter().any(|name| *name == b"..")).then_some(names)
    }

    /// Goes down, making the directories that are missing.
    fn descend(&self, names: &[&[u8]]) -> io::Result<OwnedFd> {
        let mut dir = self.dir.try_clone()?;
        for name in names {
            match mkdirat(&dir, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = openat(&dir, *name, flags, Mode::empty())?;
        }
        Ok(dir)
    }
}

/// A file to write, empty. What is there and is no file stays.
fn create(dir: &OwnedFd, name: &[u8], mode: Mode) -> io::Result<File> {
    if let Ok(there) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        && rustix::fs::FileType::from_raw_mode(there.st_mode) != rustix::fs::FileType::RegularFile
    {
        return Err(io::Error::other("something that is no file is there"));
    }
    // Not blocking, should a pipe have come there since.
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, mode)?;
    ftruncate(&file, 0)?;
    fchmod(&file, mode)?;
    Ok(file.into())
}

/// What comes ahead of an entry: a path that was too long for its header.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
}

impl Ahead {
    /// Whether the entry was such a one.
    fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, String> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut name = read(entry)?;
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                self.path = Some(name);
            }
            EntryType::XHeader => {
                let records = pax(&read(entry)?)?;
                if records.contains_key("size") {
                    return Err("the archive has a file larger than 8 GiB".to_owned());
                }
                if let Some(path) = records.get("path") {
                    self.path = Some(path.clone());
                }
            }
            // Of links, which are left out; and of everything, which has no path.
            EntryType::GNULongLink | EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn path(self, entry: &Entry<'_, impl Read>) -> Vec<u8> {
        self.path.unwrap_or_else(|| entry.header().path_bytes().into_owned())
    }
}

fn read(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = entry.take(MAX_HEADER + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("the archive from the container is broken: {error}"))?;
    if bytes.len() as u64 > MAX_HEADER {
        return Err(format!("refused: the archive has a header of more than {MAX_HEADER} bytes"));
    }
    Ok(bytes)
}

fn pax(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let broken = |error: io::Error| format!("the archive has broken pax records: {error}");
    let mut records = BTreeMap::new();
    for record in tar::PaxExtensions::new(bytes) {
        let record = record.map_err(broken)?;
        let key = record.key().map_err(|error| broken(io::Error::other(error)))?;
        records.insert(key.to_owned(), record.value_bytes().to_vec());
    }
    Ok(records)
}

fn kind(kind: EntryType, entry: &Entry<'_, impl Read>) -> String {
    let to = || {
        let target = entry.header().link_name_bytes().unwrap_or_default();
        String::from_utf8_lossy(&target).into_owned()
    };
    match kind {
        EntryType::Symlink => format!("a link to {}", to()),
        EntryType::Link => format!("another name of {}", to()),
        EntryType::Block | EntryType::Char => "a device".to_owned(),
        EntryType::Fifo => "a pipe".to_owned(),
        other => format!("of type {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// An archive of paths as they are, which the library would refuse to write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4640);
            let is_file = *kind == EntryType::Regular;
            header.set_size(if is_file { content.len() as u64 } else { 0 });
            if !is_file && !content.is_empty() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, if is_file { content.as_bytes() } else { &[] }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(to: &Path, source: &str, bytes: &[u8]) -> Result<Unpacked, String> {
        Target::new(to, source).unwrap().unpack(bytes)
    }

    const FILE: EntryType = EntryType::Regular;
    const DIR: EntryType = EntryType::Directory;

    #[test]
    fn files_go_where_cp_would_put_them() {
        let dir = tempfile::tempdir().unwrap();
        let one = archive(&[("./f", FILE, "text")]);
        assert_eq!(unpack(dir.path(), "f", &one).unwrap().files, 1);
        unpack(&dir.path().join("new"), "f", &one).unwrap();
        for name in ["f", "new"] {
            assert_eq!(std::fs::read_to_string(dir.path().join(name)).unwrap(), "text");
        }
        let mode = std::fs::metadata(dir.path().join("f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let tree = archive(&[("./d", DIR, ""), ("./d/e/", DIR, ""), ("./d/e/g", FILE, "deep")]);
        unpack(dir.path(), "d", &tree).unwrap();
        unpack(&dir.path().join("other"), "d", &tree).unwrap();
        let all = archive(&[(".", DIR, ""), ("./x/y", FILE, "all")]);
        unpack(dir.path(), ".", &all).unwrap();
        for (path, text) in [("d/e/g", "deep"), ("other/e/g", "deep"), ("x/y", "all")] {
            assert_eq!(std::fs::read_to_string(dir.path().join(path)).unwrap(), text);
        }
        // A file over a file is another content; over a directory it is an error.
        unpack(&dir.path().join("f"), "f", &archive(&[("f", FILE, "2")])).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "2");
        unpack(&dir.path().join("d"), "e", &archive(&[("e", FILE, "2")])).unwrap_err();
    }

    #[test]
    fn a_path_that_leads_elsewhere_ends_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        std::fs::create_dir(&into).unwrap();
        for path in ["../evil", "d/../../evil", "/evil", "d/../evil", "other", "./..", "d/.."] {
            let hostile = archive(&[("d", DIR, ""), (path, FILE, "evil")]);
            let error = unpack(&into, "d", &hostile).unwrap_err();
            assert!(error.starts_with("refused: ") && error.contains(path), "{error}");
        }
        let hostile = archive(&[("../evil", FILE, "evil")]);
        unpack(&into, ".", &hostile).unwrap_err();
        assert!(!dir.path().join("evil").exists());
        assert!(!Path::new("/evil").exists());
    }

    #[test]
    fn links_are_left_out_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let into = dir.path().join("into");
        for made in [&outside, &into] {
            std::fs::create_dir(made).unwrap();
        }
        let to = outside.to_str().unwrap();
        let hostile = archive(&[
            ("d", DIR, ""),
            ("d/l", EntryType::Symlink, to),
            ("d/l/evil", FILE, "evil"),
            ("d/h", EntryType::Link, "/etc/passwd"),
            ("d/dev", EntryType::Char, ""),
            ("d/p", EntryType::Fifo, ""),
        ]);
        let unpacked = unpack(&into, "d", &hostile).unwrap();
        assert_eq!(
            unpacked.left_out,
            [
                format!("d/l, a link to {to}"),
                "d/h, another name of /etc/passwd".into(),
                "d/dev, a device".into(),
                "d/p, a pipe".into()
            ]
        );
        // What would have gone through the link is a file below the place.
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(into.join("d/l/evil")).unwrap(), "evil");
        // A link that is there already is not followed either.
        symlink(&outside, into.join("there")).unwrap();
        symlink(outside.join("file"), into.join("d/file")).unwrap();
        unpack(&into, ".", &archive(&[("there/evil", FILE, "evil")])).unwrap_err();
        unpack(&into, "d", &archive(&[("d/file", FILE, "evil")])).unwrap_err();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn long_names_are_read_and_endless_headers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("d/{}", "n".repeat(200));
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o600);
        builder.append_data(&mut header, &long, &b"ok"[..]).unwrap();
        let pax = format!("d/{}", "p".repeat(50));
        builder.append_pax_extensions([("path", pax.as_bytes())]).unwrap();
        builder.append_data(&mut header, "short", &b"ok"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert_eq!(unpack(dir.path(), "d", &bytes).unwrap().files, 2);
        assert!(dir.path().join(long).exists() && dir.path().join(pax).exists());

        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_cksum();
            let endless = (&header.as_bytes()[..]).chain(io::repeat(b'x'));
            let error = Target::new(dir.path(), "d").unwrap().unpack(endless).unwrap_err();
            assert!(error.contains("header of more than"), "{error}");
        }
        let cut = archive(&[("d", FILE, "0123456789")]);
        let error = unpack(&dir.path().join("cut"), "d", &cut[..515]).unwrap_err();
        assert!(error.contains("ended within"), "{error}");
        assert_eq!(unpack(dir.path(), "d", b"").unwrap(), Unpacked::default());
    }
}
