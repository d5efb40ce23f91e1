//! Reading a container's checkpoint, as `container::checkpoint` writes it, and containerd, CRI-O
//! and podman: an archive, or an image that holds the archive's members as files.
//!
//! It is hostile: names are taken from a short list, sizes have bounds, no link is followed, and
//! what it changes in a root file system goes by the rules of layers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::layer::{Bounds, Budget, Kind, Tape, components, decoded, shown};

const CONFIG: &str = "config.dump";
const SPEC: &str = "spec.dump";
const DELETED: &str = "deleted.files";
const CHANGES: &str = "rootfs-diff.tar";
const IMAGES: &str = "checkpoint";
/// One of CRIU's images that every checkpoint has.
const INVENTORY: &str = "inventory.img";
/// Bytes of one JSON member.
const MAX_JSON: u64 = 16 << 20;
/// Members of an archive.
const MAX_MEMBERS: usize = 100_000;
/// The annotations of a manifest that make an image a checkpoint: checkpointctl's, which
/// containerd reads, CRI-O's and podman's. Their value is the container's name.
const ANNOTATIONS: [&str; 3] = [
    "org.criu.checkpoint.container.name",
    "io.kubernetes.cri-o.annotations.checkpoint.name",
    "io.podman.annotations.checkpoint.name",
];

/// Where a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Checkpoint {
    /// An archive on the node.
    Archive(PathBuf),
    /// An image.
    Image {
        /// Its id.
        image: String,
    },
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archive(path) => write!(f, "{}", path.display()),
            Self::Image { image } => f.write_str(image),
        }
    }
}

/// The container that an image is a checkpoint of, by its manifest's annotations.
pub(super) fn annotated(annotations: &BTreeMap<String, String>) -> Option<&str> {
    ANNOTATIONS.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
}

/// A checkpoint that can be read.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Archive(&'a Path),
    /// What is in the image of this name is seen in the directory.
    Image {
        name: &'a str,
        dir: &'a Path,
    },
}

impl Source<'_> {
    /// It isn't what it should be.
    pub(super) fn fault(&self, cause: String) -> Error {
        match *self {
            Self::Archive(path) => Error::Archive { path: path.to_owned(), cause },
            Self::Image { name, .. } => Error::Corrupt { image: name.to_owned(), cause },
        }
    }
}

/// What an archive says of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Names of the image that it stood on, the most certain first.
    pub images: Vec<String>,
    /// What it ran, by its runtime configuration.
    pub args: Vec<String>,
}

/// What an archive was unpacked to.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// An archive of what is added to the root file system.
    pub(super) changes: Option<PathBuf>,
    /// Paths in the root file system.
    pub(super) deleted: Vec<String>,
    pub(super) budget: Budget,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigDump {
    #[serde(rename = "rootfsImage")]
    id: String,
    #[serde(rename = "rootfsImageRef")]
    reference: String,
    #[serde(rename = "rootfsImageName")]
    name: String,
}

#[derive(Deserialize)]
struct SpecDump {
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    args: Vec<String>,
}

/// Reads what a checkpoint says of its container.
pub(super) fn base(source: &Source<'_>) -> Result<Base, Error> {
    let fault = |cause: String| source.fault(cause);
    let (mut config, mut spec) = (None, None);
    let mut reading = Reading::open(source).map_err(fault)?;
    while config.is_none() || spec.is_none() {
        let Some((name, _)) = reading.next().map_err(fault)? else { break };
        match name.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [CONFIG] => config = Some(reading.json::<ConfigDump>(CONFIG).map_err(fault)?),
            [SPEC] => spec = Some(reading.json::<SpecDump>(SPEC).map_err(fault)?),
            _ => {}
        }
    }
    let none = |name| fault(format!("it is no container's checkpoint: it has no {name}"));
    let config = config.ok_or_else(|| none(CONFIG))?;
    let spec = spec.ok_or_else(|| none(SPEC))?;
    let mut images = vec![config.reference, config.name, config.id];
    images.retain(|image| !image.is_empty());
    if images.is_empty() {
        return Err(fault(format!("its {CONFIG} names no image that it stands on")));
    }
    Ok(Base { images, args: spec.process.map(|process| process.args).unwrap_or_default() })
}

/// Unpacks CRIU's images to `into/checkpoint`, and what else is needed to `into`, a directory
/// that is there and empty.
pub(super) fn unpack(source: &Source<'_>, into: &Path, bounds: &Bounds) -> Result<Unpacked, Error> {
    let fault = |cause: String| source.fault(cause);
    let mut reading = Reading::open(source).map_err(fault)?;
    let images = into.join(IMAGES);
    std::fs::create_dir(&images).map_err(Error::disk("make the directory", &images))?;
    let mut left = bounds.for_size(reading.length);
    let budget = bounds.budget(reading.length);
    let mut unpacked = Unpacked { changes: None, deleted: Vec::new(), budget };
    let mut whole = false;
    while let Some((name, size)) = reading.next().map_err(fault)? {
        let full = name.join("/");
        left = left.checked_sub(size).ok_or_else(|| {
            fault(format!("\"{full}\": it expands too much for the archive's size"))
        })?;
        match name.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [DELETED] => unpacked.deleted = reading.json(DELETED).map_err(fault)?,
            [CHANGES] => {
                let changes = into.join(CHANGES);
                reading.copy(&full, size, &changes).map_err(fault)?;
                unpacked.changes = Some(changes);
            }
            [IMAGES, file] => {
                whole |= file == INVENTORY;
                reading.copy(&full, size, &images.join(file)).map_err(fault)?;
            }
            [IMAGES, ..] if name.len() > 1 => {
                return Err(fault(format!("\"{full}\": CRIU's images lie in no directories")));
            }
            _ => {}
        }
    }
    if !whole {
        return Err(fault(format!("it has no {IMAGES}/{INVENTORY}: nothing to go on from")));
    }
    Ok(unpacked)
}

/// What a checkpoint consists of, one after the other.
enum Members {
    Archive(Tape<Box<dyn Read + Send>>),
    Files {
        dir: PathBuf,
        /// The last one first.
        names: Vec<Vec<OsString>>,
        current: Option<File>,
    },
}

impl Members {
    fn of_archive(path: &Path) -> Result<(Self, u64), String> {
        let text = |error: io::Error| error.to_string();
        // A pipe of this name must not hold anyone up.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(text)?;
        let meta = file.metadata().map_err(text)?;
        if !meta.is_file() {
            return Err("it is no file".to_owned());
        }
        let tape = Tape::new(decoded(file).map_err(text)?);
        Ok((Self::Archive(tape), meta.len()))
    }

    /// Those of an image, whose layers were bounded when they were unpacked.
    fn of_image(dir: &Path) -> Result<(Self, u64), String> {
        let text = |error: io::Error| error.to_string();
        let mut names: Vec<Vec<OsString>> = Vec::new();
        let (mut length, images) = (0, dir.join(IMAGES));
        let nested = std::fs::symlink_metadata(&images).is_ok_and(|meta| meta.is_dir());
        for (at, below) in [(dir, None), (&images, Some(IMAGES))] {
            if below.is_some() && !nested {
                continue;
            }
            for entry in std::fs::read_dir(at).map_err(text)? {
                let entry = entry.map_err(text)?;
                length += entry.metadata().map_err(text)?.len();
                let name = entry.file_name();
                names.push(below.map(OsString::from).into_iter().chain([name]).collect());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok((Self::Files { dir: dir.to_owned(), names, current: None }, length))
    }

    fn next(&mut self) -> Result<Option<Member>, String> {
        match self {
            Self::Archive(tape) => {
                let Some(member) = tape.next()? else { return Ok(None) };
                let at = |why: String| format!("\"{}\": {why}", shown(&member.path));
                let parts = components(&member.path).map_err(at)?;
                let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
                let name = parts.into_iter().map(text).collect();
                Ok(Some(Member { name, kind: member.kind, size: member.size }))
            }
            Self::Files { dir, names, current } => {
                let Some(parts) = names.pop() else { return Ok(None) };
                let path: PathBuf = parts.iter().collect();
                let at = |error: io::Error| format!("\"{}\": {error}", path.display());
                let whole = dir.join(&path);
                let meta = std::fs::symlink_metadata(&whole).map_err(at)?;
                let kind = match meta.file_type() {
                    kind if kind.is_file() => Kind::File,
                    kind if kind.is_dir() => Kind::Directory,
                    _ => Kind::Symlink,
                };
                *current = match kind {
                    Kind::File => Some(File::open(&whole).map_err(at)?),
                    _ => None,
                };
                let text = |part: OsString| part.to_string_lossy().into_owned();
                let name = parts.into_iter().map(text).collect();
                let size = if kind == Kind::File { meta.len() } else { 0 };
                Ok(Some(Member { name, kind, size }))
            }
        }
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Archive(tape) => tape.read(buffer),
            Self::Files { current, .. } => current.as_mut().map_or(Ok(0), |file| file.read(buffer)),
        }
    }
}

struct Member {
    name: Vec<String>,
    /// A symlink stands for all that is neither file nor directory.
    kind: Kind,
    size: u64,
}

struct Reading {
    members: Members,
    /// Bytes of it on disk.
    length: u64,
    count: usize,
    seen: BTreeSet<Vec<String>>,
}

impl Reading {
    fn open(source: &Source<'_>) -> Result<Self, String> {
        let (members, length) = match *source {
            Source::Archive(path) => Members::of_archive(path)?,
            Source::Image { dir, .. } => Members::of_image(dir)?,
        };
        Ok(Self { members, length, count: 0, seen: BTreeSet::new() })
    }

    /// The components of the next member's name, and its size.
    fn next(&mut self) -> Result<Option<(Vec<String>, u64)>, String> {
        let Some(Member { name, kind, size }) = self.members.next()? else { return Ok(None) };
        let at = |why: &str| format!("\"{}\": {why}", name.join("/"));
        self.count += 1;
        if self.count > MAX_MEMBERS {
            return Err(at("there are too many members"));
        }
        let wanted = match name.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [IMAGES] if kind == Kind::Directory => return Ok(Some((name, 0))),
            [CONFIG | SPEC | DELETED | CHANGES | IMAGES] | [IMAGES, ..] => true,
            _ => false,
        };
        if wanted && kind != Kind::File {
            return Err(at("it must be a file"));
        }
        if wanted && !self.seen.insert(name.clone()) {
            return Err(at("it is there twice"));
        }
        Ok(Some((name, size)))
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, String> {
        let mut text = Vec::new();
        let read = (&mut self.members).take(MAX_JSON + 1).read_to_end(&mut text);
        read.map_err(|error| format!("\"{name}\": {error}"))?;
        if text.len() as u64 > MAX_JSON {
            return Err(format!("\"{name}\": it is larger than {MAX_JSON} bytes"));
        }
        serde_json::from_slice(&text)
            .map_err(|error| format!("\"{name}\" is not what it should be: {error}"))
    }

    fn copy(&mut self, name: &str, size: u64, to: &Path) -> Result<(), String> {
        let copied = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .and_then(|mut file| io::copy(&mut (&mut self.members).take(size), &mut file));
        match copied {
            Ok(length) if length == size => Ok(()),
            Ok(_) => Err(format!("\"{name}\": the archive ends in the midst of it")),
            Err(error) => Err(format!("\"{name}\": {error}")),
        }
    }
}
