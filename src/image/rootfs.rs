//! Containers' root file systems: `rootfs/<container id>/{upper,work,merged}`, and beside them
//! in `volumes/N` the images that they have as volumes.
//!
//! In a user namespace layers are laid through mounts with its owners (`lower/N`), which are
//! gone once the overlay holds them: shared layers serve every pod, whichever ids it has.
//!
//! The record is written before anything is made and deleted after all is gone, so that a
//! restart finds whatever was left half-way.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{Catalog, RootfsRecord, VolumeRecord};
use super::content::{Content, Scratch};
use super::digest::Digest;
use super::layer::{Layers, Target, change, copy_root};
use super::{Base, Error, Image, Owners, Prepared, changes, checkpoint};
use crate::id::ContainerId;
use crate::meter::{self, System};
use crate::sys::overlay::{Changes, Overlay};
use crate::sys::{idmap, mount};
use checkpoint::{Checkpoint, Source};

/// Where images that a container has as volumes are mounted, by number.
const VOLUMES: &str = "volumes";
/// Where the images of a container's processes are that it goes on from.
const RESTORED: &str = "restored";
/// Where layers are mounted with other owners while an overlay is made of them.
const LOWER: &str = "lower";
/// An empty directory where older kernels mount what others can keep out of sight.
const MOUNT: &str = "mount";
/// Mounts stacked on one directory that are taken away.
const MAX_STACKED: usize = 16;

/// What a container is to run on.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) image: &'a Image,
    /// Mounted beside it.
    pub(super) volumes: &'a [Arc<Image>],
    /// Whose the files are; `None`: as on disk.
    pub(super) owners: Option<&'a Owners>,
    /// The SELinux label that every file of it has; `None`: as on disk.
    pub(super) label: Option<&'a str>,
}

/// The directories of root file systems.
#[derive(Debug)]
pub(super) struct RootFileSystems {
    dir: PathBuf,
}

impl RootFileSystems {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let dir = root.join("rootfs");
        std::fs::create_dir_all(&dir).map_err(Error::disk("make the directory", &dir))?;
        // Each one below lets in its own root alone.
        set_mode(&dir, 0o711).map_err(Error::disk("set the mode of", &dir))?;
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
        wanted: &Wanted<'_>,
    ) -> Result<Prepared, Error> {
        let Wanted { image, volumes, owners, label } = *wanted;
        let fault = |cause: String| Error::Rootfs { container: container.to_string(), cause };
        let volumes = volumes
            .iter()
            .map(|volume| Ok(VolumeRecord { image: volume.id.clone(), chain: chain(volume)? }))
            .collect::<Result<_, _>>()
            .map_err(fault)?;
        let chain = chain(image).map_err(fault)?;
        let record = RootfsRecord { image: image.id.clone(), chain, volumes };
        let is_new =
            catalog.add_rootfs(container.as_str(), record.clone(), layers).map_err(fault)?;
        let home = self.dir.join(container);
        let error = match Self::mount_all(&home, layers, &record, owners, label) {
            Ok(prepared) => return Ok(prepared),
            Err(error) => error,
        };
        if is_new && let Err(undoing) = self.release(catalog, content, container) {
            tracing::warn!(%container, error = %undoing, "a failed root file system is released at the next start");
        }
        Err(fault(format!(
            "cannot mount an overlay at {}: {error}: the image directory must be on a file system \
             that overlayfs can write to (ext4, xfs with ftype=1, btrfs, tmpfs){}",
            home.display(),
            if owners.is_some() { " and that can be mounted with other owners" } else { "" }
        )))
    }

    fn mount_all(
        home: &Path,
        layers: &Layers,
        record: &RootfsRecord,
        owners: Option<&Owners>,
        label: Option<&str>,
    ) -> std::io::Result<Prepared> {
        std::fs::create_dir_all(home)?;
        if let Some(Owners { root: (user, group), .. }) = owners {
            // The OCI runtime walks in as root of the user namespace.
            std::os::unix::fs::chown(home, Some(*user), Some(*group))?;
        }
        set_mode(home, 0o700)?;
        let rootfs = Self::mount(home, layers, &record.chain, owners, label)?;
        let volume = |(at, volume): (usize, &VolumeRecord)| {
            let target = home.join(VOLUMES).join(at.to_string());
            Self::mount_volume(home, &target, layers, &volume.chain, owners, label)?;
            Ok(target)
        };
        let volumes = record.volumes.iter().enumerate().map(volume);
        Ok(Prepared { rootfs, volumes: volumes.collect::<std::io::Result<_>>()? })
    }

    fn mount(
        home: &Path,
        layers: &Layers,
        chain: &[Digest],
        owners: Option<&Owners>,
        label: Option<&str>,
    ) -> std::io::Result<PathBuf> {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| home.join(name));
        if merged.exists() && is_mount(&merged)? {
            return Ok(merged);
        }
        let fresh = !upper.exists();
        for dir in [&upper, &work, &merged] {
            std::fs::create_dir_all(dir)?;
        }
        let lower = Lower::new(home, layers, chain, 1, owners)?;
        if fresh {
            // Seen through the mapping, so that its owner is the container's.
            copy_root(lower.dirs.first().map(PathBuf::as_path), &upper)?;
        }
        let changes = Some(Changes { upper: &upper, work: &work });
        let overlay = Overlay { lower: &lower.paths(), changes, label };
        meter::timed_blocking(System::Mount, "overlay", "mount", || overlay.attach(&merged))?;
        lower.detach()?;
        Ok(merged)
    }

    fn mount_volume(
        home: &Path,
        target: &Path,
        layers: &Layers,
        chain: &[Digest],
        owners: Option<&Owners>,
        label: Option<&str>,
    ) -> std::io::Result<()> {
        std::fs::create_dir_all(target)?;
        if is_mount(target)? {
            return Ok(());
        }
        let lower = Lower::new(home, layers, chain, 2, owners)?;
        Overlay { lower: &lower.paths(), changes: None, label }.attach(target)?;
        lower.detach()
    }

    /// Writes what a container has changed; as [`changes::write`] has it.
    pub(super) fn changes(
        &self,
        catalog: &Catalog,
        layers: &Layers,
        container: &ContainerId,
        archive: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        let fault = |cause: String| Error::Rootfs { container: container.to_string(), cause };
        let chain = catalog.rootfs_chain(container.as_str());
        let chain = chain.ok_or_else(|| fault("it has none".to_owned()))?;
        let lower: Vec<PathBuf> = chain.iter().rev().map(|id| layers.tree(id)).collect();
        std::fs::File::create_new(archive)
            .map(std::io::BufWriter::new)
            .and_then(|file| changes::write(&self.upper(container), &lower, file))
            .map_err(|error| fault(format!("its changes can't be saved: {error}")))
    }

    /// Where the images of a container's processes are, once [`RootFileSystems::restore`] has
    /// put them there, and beside them a directory for CRIU's work.
    pub(super) fn processes(&self, container: &ContainerId) -> (PathBuf, PathBuf) {
        let home = self.dir.join(container).join(RESTORED);
        (home.join("checkpoint"), home.join("work"))
    }

    /// What the checkpoint in an image says of its container. `home` is an empty directory.
    pub(super) fn checkpoint_base(
        layers: &Layers,
        image: &Image,
        home: &Path,
    ) -> Result<Base, Error> {
        let source = |dir| Source::Image { name: image.name(), dir };
        let seen = chain(image).and_then(|chain| {
            let mount = home.join(MOUNT);
            let view = std::fs::create_dir(&mount)
                .and_then(|()| Lower::new(home, layers, &chain, 2, None))
                .and_then(|lower| {
                    let overlay = Overlay { lower: &lower.paths(), changes: None, label: None };
                    overlay.detached(&mount)
                });
            view.map_err(|error| format!("its layers can't be mounted: {error}"))
        });
        let view = seen.map_err(|cause| source(home).fault(cause))?;
        let dir = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
        checkpoint::base(&source(&dir))
    }

    /// Where an image is mounted that a container has as a volume.
    fn volume(&self, catalog: &Catalog, container: &ContainerId, image: &str) -> Option<PathBuf> {
        let at = catalog.rootfs_volumes(container.as_str()).iter().position(|id| id == image)?;
        Some(self.dir.join(container).join(VOLUMES).join(at.to_string()))
    }

    /// Brings a prepared root file system that nothing uses yet to where a checkpoint's was, and
    /// unpacks the images of its processes. An image with the checkpoint is one of its volumes.
    pub(super) fn restore(
        &self,
        catalog: &Catalog,
        layers: &Layers,
        container: &ContainerId,
        from: &Checkpoint,
        label: Option<&str>,
    ) -> Result<(), Error> {
        let (dir, found);
        let source = match from {
            Checkpoint::Archive(path) => Source::Archive(path),
            Checkpoint::Image { image } => {
                let volume = self.volume(catalog, container, image);
                dir = volume.ok_or_else(|| Error::NotFound(image.clone()))?;
                found = catalog.now().find(image)?;
                Source::Image { name: found.name(), dir: &dir }
            }
        };
        let home = self.dir.join(container);
        let restored = home.join(RESTORED);
        let (_, work) = self.processes(container);
        std::fs::create_dir_all(&work).map_err(Error::disk("make the directory", &work))?;
        set_mode(&restored, 0o700).map_err(Error::disk("set the mode of", &restored))?;
        let mut unpacked = checkpoint::unpack(&source, &restored, &layers.bounds)?;
        let changes = unpacked.changes.as_deref();
        if changes.is_none() && unpacked.deleted.is_empty() {
            return Ok(());
        }
        let fault = |cause: String| Error::Rootfs { container: container.to_string(), cause };
        let chain = catalog.rootfs_chain(container.as_str());
        let chain = chain.ok_or_else(|| fault("it has none".to_owned()))?;
        // Whiteouts go straight into the upper directory, which no overlay may use then.
        let [upper, work, merged, mount] =
            ["upper", "work", "merged", RESTORED].map(|name| home.join(name));
        let mount = mount.join(MOUNT);
        let remade = |error: std::io::Error| fault(format!("cannot be mounted again: {error}"));
        std::fs::create_dir_all(&mount).map_err(remade)?;
        mount::detach(&merged).map_err(remade)?;
        let lower = Lower::new(&home, layers, &chain, 1, None).map_err(remade)?;
        let changing = || Some(Changes { upper: &upper, work: &work });
        let overlay = Overlay { lower: &lower.paths(), changes: changing(), label };
        let target = overlay.detached(&mount).and_then(|view| Target::merged(view, &upper));
        change(target.map_err(remade)?, &unpacked.deleted, changes, &mut unpacked.budget)
            .map_err(|cause| source.fault(cause))?;
        if let Some(changes) = changes {
            std::fs::remove_file(changes).map_err(Error::disk("remove", changes))?;
        }
        Overlay { lower: &lower.paths(), changes: changing(), label }
            .attach(&merged)
            .map_err(remade)
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
            meter::timed_blocking(System::Mount, "overlay", "unmount", || {
                crate::sys::mount::detach(&merged)
            })
            .map_err(|error| fault(format!("cannot unmount {}: {error}", merged.display())))?;
        }
        // What of these stayed mounted would be deleted with the rest: shared layers.
        if [VOLUMES, LOWER].iter().any(|name| home.join(name).exists()) {
            mount::detach_below(&home).map_err(|error| {
                fault(format!("cannot unmount what is below {}: {error}", home.display()))
            })?;
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

/// The directories of layers, as an overlay is to have them.
struct Lower {
    /// The topmost first.
    dirs: Vec<PathBuf>,
    /// Those of them that were mounted for this.
    mounted: Vec<PathBuf>,
}

impl Lower {
    /// Those of a chain, with empty ones below as overlayfs wants `least`.
    fn new(
        home: &Path,
        layers: &Layers,
        chain: &[Digest],
        least: usize,
        owners: Option<&Owners>,
    ) -> std::io::Result<Self> {
        let mut lower = Self { dirs: Vec::new(), mounted: Vec::new() };
        lower.dirs.extend(chain.iter().rev().map(|id| layers.tree(id)));
        for at in lower.dirs.len()..least {
            let empty = home.join("empty").join(at.to_string());
            std::fs::create_dir_all(&empty)?;
            if let Some(Owners { root: (user, group), .. }) = owners.filter(|_| chain.is_empty()) {
                std::os::unix::fs::chown(&empty, Some(*user), Some(*group))?;
            }
            lower.dirs.push(empty);
        }
        if let Some(owners) = owners {
            let users = std::fs::File::open(&owners.users)?;
            for at in 0..chain.len() {
                let target = home.join(LOWER).join(at.to_string());
                std::fs::create_dir_all(&target)?;
                // A crash may have left one here, and two would need two unmounts.
                mount::detach(&target)?;
                idmap::bind(&lower.dirs[at], &target, &users, false)?;
                lower.mounted.push(target.clone());
                lower.dirs[at] = target;
            }
        }
        Ok(lower)
    }

    fn paths(&self) -> Vec<&Path> {
        self.dirs.iter().map(PathBuf::as_path).collect()
    }

    /// The overlay holds mounts of its own by now.
    fn detach(self) -> std::io::Result<()> {
        self.mounted.iter().try_for_each(|mounted| mount::detach(mounted))
    }
}

fn chain(image: &Image) -> Result<Vec<Digest>, String> {
    image.chain.iter().map(|id| Digest::parse(id)).collect()
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Whether something is mounted on a directory: it is then on another device than the
/// directory that holds it.
fn is_mount(path: &Path) -> std::io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(std::fs::symlink_metadata(path)?.dev() != std::fs::symlink_metadata(parent)?.dev())
}
