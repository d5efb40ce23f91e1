//! Layers: archives unpacked into directories that overlayfs stacks.
//!
//! Archives are hostile. `tape` and `pax` read one without ever holding more than a bound of it in
//! memory, `tree` resolves every path one component at a time by descriptor, `unpack`
//! applies the members. Nothing here resolves a path by its text, and nothing here knows of
//! registries.

mod pax;
mod stream;
mod tape;
mod tree;
mod unpack;

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(super) use stream::{decoded, diff_id};
pub(super) use tape::{Kind, Tape, shown};
pub(super) use tree::Target;
pub(super) use unpack::components;

use super::Error;
use super::content::{Content, Scratch, sync_dir};
use super::digest::Digest;
use super::manifest::MAX_SIZE;
use crate::sys::overlay::{Changes, Overlay};
use crate::sys::tree::Space;

/// What one image may be at most, all its layers together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Files and directories.
    pub(super) entries: u64,
    /// Uncompressed bytes, sparse files at their full length.
    pub(super) bytes: u64,
    /// Uncompressed bytes for each compressed one. Text and programs reach 10, logs 50.
    pub(super) ratio: u64,
    /// Uncompressed bytes that are allowed whatever the ratio.
    pub(super) slack: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: MAX_SIZE, ratio: 200, slack: 1 << 30 }
    }
}

impl Bounds {
    /// Uncompressed bytes allowed for an archive of this size.
    pub(super) fn for_size(&self, compressed: u64) -> u64 {
        compressed.saturating_mul(self.ratio).max(self.slack).min(self.bytes)
    }

    /// For an image whose layers have so many compressed bytes.
    pub(super) fn budget(&self, compressed: u64) -> Budget {
        Budget { expanded: self.for_size(compressed), bytes: self.bytes, entries: self.entries }
    }
}

/// What an image may still take.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes of uncompressed archives.
    expanded: u64,
    /// Bytes of files, holes included.
    bytes: u64,
    entries: u64,
}

impl Budget {
    fn spend_bytes(&mut self, bytes: u64) -> Result<(), String> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.ok_or("the files of the image are too large in all")?;
        Ok(())
    }

    fn spend_entries(&mut self, entries: u64) -> Result<(), String> {
        let left = self.entries.checked_sub(entries);
        self.entries = left.ok_or("the image has too many files and directories")?;
        Ok(())
    }
}

/// The layers on disk: `layers/<chain id>/{fs,complete}`. Only finished ones have their name.
#[derive(Debug)]
pub(super) struct Layers {
    dir: PathBuf,
    pub(super) bounds: Bounds,
}

/// Written beside a layer's tree when it is whole.
#[derive(Debug, Serialize, Deserialize)]
struct Complete {
    diff_id: Digest,
    bytes: u64,
    inodes: u64,
}

impl Layers {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let dir = root.join("layers");
        std::fs::create_dir_all(&dir).map_err(Error::disk("make the directory", &dir))?;
        Ok(Self { dir, bounds: Bounds::default() })
    }

    /// The directory of a layer with its marker.
    pub(super) fn path(&self, chain_id: &Digest) -> PathBuf {
        self.dir.join(chain_id.hex())
    }

    /// The tree to stack.
    pub(super) fn tree(&self, chain_id: &Digest) -> PathBuf {
        self.path(chain_id).join("fs")
    }

    pub(super) fn has(&self, chain_id: &Digest) -> bool {
        self.path(chain_id).join("complete").exists()
    }

    /// Every layer, and what else lies beside them (none is expected).
    pub(super) fn all(&self) -> Result<Vec<Digest>, Error> {
        let entries = std::fs::read_dir(&self.dir).map_err(Error::disk("list", &self.dir))?;
        Ok(entries.filter_map(|e| Digest::from_hex(e.ok()?.file_name().to_str()?)).collect())
    }

    /// Space of every layer, from their markers.
    pub(super) fn space(&self) -> Result<Space, Error> {
        let mut sum = Space::default();
        for chain_id in self.all()? {
            // Gone or unreadable meanwhile: not counted.
            let Ok(text) = std::fs::read(self.path(&chain_id).join("complete")) else { continue };
            let Ok(complete) = serde_json::from_slice::<Complete>(&text) else { continue };
            sum.bytes += complete.bytes;
            sum.inodes += complete.inodes;
        }
        Ok(sum)
    }

    /// Unpacks a blob as the layer on top of `below` (lowest first), verifying `diff_id`.
    /// `fault` makes the error of a bad archive. Blocks for as long as that takes.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn unpack(
        &self,
        content: &Content,
        blob: &Path,
        below: &[Digest],
        diff_id: &Digest,
        chain_id: &Digest,
        budget: &mut Budget,
        fault: impl Fn(String) -> Error,
    ) -> Result<(), Error> {
        let scratch = Scratch(content.scratch());
        let tree = scratch.0.join("layer/fs");
        std::fs::create_dir_all(&tree).map_err(Error::disk("make the directory", &tree))?;
        let root_like = below.last().map(|below| self.tree(below));
        copy_root(root_like.as_deref(), &tree).map_err(Error::disk("make the directory", &tree))?;
        let target = self
            .target(&scratch.0, &tree, below)
            .map_err(Error::disk("mount an overlay for", &tree))?;

        let file = File::open(blob).map_err(Error::disk("open", blob))?;
        let stream = decoded(file).map_err(|error| fault(error.to_string()))?;
        let entries = budget.entries;
        let found = unpack::unpack(stream, target, budget).map_err(&fault)?;
        if found != *diff_id {
            return Err(fault(format!(
                "its content is {found}, but the image's configuration says {diff_id}"
            )));
        }
        let space = crate::sys::tree::measure(&tree).map_err(Error::disk("measure", &tree))?;
        // Directories of lower layers that the overlay copied up.
        let copied = space.inodes.saturating_sub(entries - budget.entries);
        budget.spend_entries(copied).map_err(&fault)?;
        let complete = Complete { diff_id: found, bytes: space.bytes, inodes: space.inodes };
        self.finish(&scratch.0.join("layer"), chain_id, &complete)
    }

    /// The merged view to unpack into. The lowest layer needs no overlay.
    fn target(
        &self,
        scratch: &Path,
        tree: &Path,
        below: &[Digest],
    ) -> std::io::Result<tree::Target> {
        if below.is_empty() {
            return tree::Target::plain(tree);
        }
        let [work, mount] = ["work", "mount"].map(|name| scratch.join(name));
        std::fs::create_dir(&work)?;
        std::fs::create_dir(&mount)?;
        let lower: Vec<PathBuf> = below.iter().rev().map(|id| self.tree(id)).collect();
        let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
        let changes = Some(Changes { upper: tree, work: &work });
        let overlay = Overlay { lower: &lower, changes, label: None };
        tree::Target::merged(overlay.detached(&mount)?, tree)
    }

    /// Makes an unpacked layer durable, and only then gives it its name.
    fn finish(&self, unpacked: &Path, chain_id: &Digest, complete: &Complete) -> Result<(), Error> {
        let marker = unpacked.join("complete");
        let text = serde_json::to_vec(complete).expect("numbers and a digest are JSON");
        std::fs::write(&marker, text).map_err(Error::disk("write", &marker))?;
        let dir = File::open(unpacked).map_err(Error::disk("open", unpacked))?;
        rustix::fs::syncfs(&dir).map_err(|error| Error::disk("sync", unpacked)(error.into()))?;
        let target = self.path(chain_id);
        // A directory of this name without its marker is the rest of a removal.
        if !self.has(chain_id) {
            crate::sys::tree::remove(&target).map_err(Error::disk("remove", &target))?;
            std::fs::rename(unpacked, &target).map_err(Error::disk("rename to", &target))?;
        }
        sync_dir(&self.dir)
    }
}

/// Takes paths away from a root file system and then applies an archive's members to it, by
/// the rules of a layer. Blocks for as long as that takes.
pub(super) fn change(
    target: Target,
    deleted: &[String],
    archive: Option<&Path>,
    budget: &mut Budget,
) -> Result<(), String> {
    for path in deleted {
        unpack::delete(&target, path.as_bytes()).map_err(|why| format!("{path:?}: {why}"))?;
    }
    let Some(archive) = archive else { return Ok(()) };
    let stream = File::open(archive).and_then(decoded).map_err(|error| error.to_string())?;
    unpack::unpack(stream, target, budget).map(drop)
}

/// Mode and owner of the root directory come from the layer below: the topmost layer's
/// count in the merged view.
pub(super) fn copy_root(from: Option<&Path>, to: &Path) -> std::io::Result<()> {
    let (mode, uid, gid) = match from {
        Some(from) => {
            let meta = std::fs::metadata(from)?;
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        }
        None => (0o755, 0, 0),
    };
    std::os::unix::fs::chown(to, Some(uid), Some(gid))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
}

/// Unpacks any bytes as the lowest layer, within small bounds.
#[cfg(fuzzing)]
pub(super) fn fuzz(archive: impl std::io::Read + Send + 'static, to: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut budget = Budget { expanded: 1 << 20, bytes: 1 << 20, entries: 1000 };
    let target = tree::Target::plain(to).map_err(text)?;
    unpack::unpack(decoded(archive).map_err(text)?, target, &mut budget).map(drop)
}
