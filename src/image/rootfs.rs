//! Containers' root file systems: `rootfs/<container id>/{upper,work,merged}`.
//!
//! The record is written before anything is made and deleted after all is gone, so that a
//! restart finds whatever was left half-way.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::catalog::{Catalog, RootfsRecord};
use super::content::{Content, Scratch};
use super::digest::Digest;
use super::layer::{Layers, copy_root};
use super::{Error, Image};
use crate::id::ContainerId;
use crate::sys::overlay::Overlay;

/// Mounts stacked on one directory that are taken away.
const MAX_STACKED: usize = 16;

/// The directories of root file systems.
#[derive(Debug)]
pub(super) struct RootFileSystems {
    dir: PathBuf,
}

impl RootFileSystems {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let dir = root.join("rootfs");
        std::fs::create_dir_all(&dir).map_err(Error::disk("make the directory", &dir))?;
        Ok(Self { dir })
    }

    /// All of them.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A container's writable layer.
    pub(super) fn upper(&self, container: &ContainerId) -> PathBuf {
        self.dir.join(container).join("upper")
    }

    /// Makes and mounts. Again for the same container and image: the same path; what the
    /// container wrote is kept. After a failure nothing new stays.
    pub(super) fn prepare(
        &self,
        catalog: &Catalog,
        content: &Content,
        layers: &Layers,
        container: &ContainerId,
        image: &Image,
    ) -> Result<PathBuf, Error> {
        let fault = |cause: String| Error::Rootfs { container: container.to_string(), cause };
        let chain = image
            .chain
            .iter()
            .map(|id| Digest::parse(id))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fault)?;
        let record = RootfsRecord { image: image.id.clone(), chain: chain.clone() };
        let is_new = catalog.add_rootfs(container.as_str(), record, layers).map_err(fault)?;
        let home = self.dir.join(container);
        let error = match Self::mount(&home, layers, &chain) {
            Ok(merged) => return Ok(merged),
            Err(error) => error,
        };
        if is_new && let Err(undoing) = self.release(catalog, content, container) {
            tracing::warn!(%container, error = %undoing, "a failed root file system is released at the next start");
        }
        Err(fault(format!(
            "cannot mount an overlay at {}: {error}: the image directory must be on a file system \
             that overlayfs can write to (ext4, xfs with ftype=1, btrfs, tmpfs)",
            home.display()
        )))
    }

    fn mount(home: &Path, layers: &Layers, chain: &[Digest]) -> std::io::Result<PathBuf> {
        let [upper, work, merged, empty] =
            ["upper", "work", "merged", "empty"].map(|name| home.join(name));
        if merged.exists() && is_mount(&merged)? {
            return Ok(merged);
        }
        let fresh = !upper.exists();
        for dir in [&upper, &work, &merged] {
            std::fs::create_dir_all(dir)?;
        }
        let mut lower: Vec<PathBuf> = chain.iter().rev().map(|id| layers.tree(id)).collect();
        if fresh {
            copy_root(lower.first().map(PathBuf::as_path), &upper)?;
        }
        if lower.is_empty() {
            // overlayfs wants at least one.
            std::fs::create_dir_all(&empty)?;
            lower.push(empty);
        }
        let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
        Overlay { lower: &lower, upper: &upper, work: &work }.attach(&merged)?;
        Ok(merged)
    }

    /// Unmounts and deletes. Not there: no error.
    pub(super) fn release(
        &self,
        catalog: &Catalog,
        content: &Content,
        container: &ContainerId,
    ) -> Result<(), Error> {
        let home = self.dir.join(container);
        let merged = home.join("merged");
        let fault = |cause: String| Error::Rootfs { container: container.to_string(), cause };
        for _ in 0..MAX_STACKED {
            if !merged.exists() || !is_mount(&merged).map_err(|error| fault(error.to_string()))? {
                break;
            }
            crate::sys::mount::detach(&merged)
                .map_err(|error| fault(format!("cannot unmount {}: {error}", merged.display())))?;
        }
        // Out of the way at once; deleting may take its time.
        let trash = content.scratch();
        match std::fs::rename(&home, &trash) {
            Ok(()) => {
                let trash = Scratch(trash);
                catalog.remove_rootfs(container.as_str())?;
                drop(trash);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                catalog.remove_rootfs(container.as_str())?;
            }
            Err(error) => return Err(fault(format!("cannot remove {}: {error}", home.display()))),
        }
        Ok(())
    }

    /// The containers that have a directory or a record here.
    pub(super) fn known(&self, catalog: &Catalog) -> Result<Vec<ContainerId>, Error> {
        let mut names = catalog.rootfs();
        let entries = std::fs::read_dir(&self.dir).map_err(Error::disk("list", &self.dir))?;
        names.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
        names.sort();
        names.dedup();
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// Whether something is mounted on a directory: it is then on another device than the
/// directory that holds it.
fn is_mount(path: &Path) -> std::io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(std::fs::symlink_metadata(path)?.dev() != std::fs::symlink_metadata(parent)?.dev())
}
