//! Reading the archive of a container's checkpoint, as `container::checkpoint` writes it, and
//! containerd, CRI-O and podman.
//!
//! Such an archive is hostile: names are taken from a short list, sizes have bounds, and what it
//! changes in a root file system goes by the rules of layers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

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

/// Reads what an archive says of its container.
pub(super) fn base(path: &Path) -> Result<Base, Error> {
    let fault = |cause: String| Error::Archive { path: path.to_owned(), cause };
    let (mut config, mut spec) = (None, None);
    let mut reading = Reading::open(path).map_err(fault)?;
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
pub(super) fn unpack(path: &Path, into: &Path, bounds: &Bounds) -> Result<Unpacked, Error> {
    let fault = |cause: String| Error::Archive { path: path.to_owned(), cause };
    let mut reading = Reading::open(path).map_err(fault)?;
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

struct Reading {
    tape: Tape<Box<dyn Read + Send>>,
    /// Bytes of the archive on disk.
    length: u64,
    members: usize,
    kind: Kind,
    seen: BTreeSet<Vec<String>>,
}

impl Reading {
    fn open(path: &Path) -> Result<Self, String> {
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
        let (members, kind, seen) = (0, Kind::File, BTreeSet::new());
        Ok(Self { tape, length: meta.len(), members, kind, seen })
    }

    /// The components of the next member's name, and its size.
    fn next(&mut self) -> Result<Option<(Vec<String>, u64)>, String> {
        let Some(member) = self.tape.next()? else { return Ok(None) };
        let at = |why: &str| format!("\"{}\": {why}", shown(&member.path));
        self.members += 1;
        if self.members > MAX_MEMBERS {
            return Err(at("there are too many members"));
        }
        let parts = components(&member.path).map_err(|why| at(&why))?;
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let name: Vec<String> = parts.into_iter().map(text).collect();
        self.kind = member.kind;
        let wanted = match name.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [IMAGES] if member.kind == Kind::Directory => return Ok(Some((name, 0))),
            [CONFIG | SPEC | DELETED | CHANGES | IMAGES] | [IMAGES, ..] => true,
            _ => false,
        };
        if wanted && member.kind != Kind::File {
            return Err(at("it must be a file"));
        }
        if wanted && !self.seen.insert(name.clone()) {
            return Err(at("it is there twice"));
        }
        Ok(Some((name, member.size)))
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, String> {
        let mut text = Vec::new();
        let read = (&mut self.tape).take(MAX_JSON + 1).read_to_end(&mut text);
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
            .and_then(|mut file| io::copy(&mut (&mut self.tape).take(size), &mut file));
        match copied {
            Ok(length) if length == size => Ok(()),
            Ok(_) => Err(format!("\"{name}\": the archive ends in the midst of it")),
            Err(error) => Err(format!("\"{name}\": {error}")),
        }
    }
}
