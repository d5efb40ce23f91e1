//! The room's face: every call of the others comes through here.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;

use super::catalog::{Catalog, Thing};
use super::content::{Content, Scratch};
use super::digest::Digest;
use super::layer::Layers;
use super::pull::{Flights, Turns, blocking};
use super::reference::Reference;
use super::rootfs::{RootFileSystems, Wanted};
use super::{
    Auth, Base, Checkpoint, Error, Image, Owners, Prepared, Progress, Settings, Usage, checkpoint,
    import,
};
use crate::id::ContainerId;
use crate::store::Store;
use crate::sys::tree;

/// Longest measuring of used space: a dead disk must not hold up the caller.
const MEASURE_TIMEOUT: Duration = Duration::from_mins(1);

/// A pull under way: how far it is, and its answer.
type Watched<Answer> = (Arc<Progress>, Answer);

/// The images of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) content: Content,
    pub(super) layers: Layers,
    pub(super) catalog: Arc<Catalog>,
    pub(super) flights: Flights,
    pub(super) turns: Turns,
    rootfs: RootFileSystems,
}

impl Images {
    /// Opens the store below `settings.root`, drops what an interrupted pull left.
    pub fn open(settings: Settings, store: Store) -> Result<Self, Error> {
        let root = &settings.root;
        std::fs::create_dir_all(root).map_err(Error::disk("make the directory", root))?;
        let mode = |path: &Path, mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, permissions)
                .map_err(Error::disk("set the mode of", path))
        };
        // Roots of user namespaces pass through to the root file systems that are theirs.
        mode(root, 0o711)?;
        let inner = Inner {
            content: Content::open(root)?,
            layers: Layers::open(root)?,
            rootfs: RootFileSystems::open(root)?,
            catalog: Arc::new(Catalog::open(store)?),
            flights: Flights::default(),
            turns: Turns::default(),
            settings,
        };
        let entries = std::fs::read_dir(&inner.settings.root);
        for entry in entries.map_err(Error::disk("list", &inner.settings.root))?.flatten() {
            // Layers hold other people's setuid programs: nobody but root walks in there.
            if entry.path() != inner.rootfs.dir() {
                mode(&entry.path(), 0o700)?;
            }
        }
        if let Err(error) = inner.catalog.collect(&inner.content, &inner.layers) {
            tracing::warn!(%error, "content that nothing needs stays on disk");
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Pulls and unpacks; pulls of one image at the same time share the work. Gives the id.
    /// The work goes on if the caller goes away.
    pub async fn pull(&self, reference: &str, auth: Option<Auth>) -> Result<Arc<Image>, Error> {
        let (_, image) = self.pull_watched(reference, auth)?;
        image.await
    }

    /// As [`Images::pull`], with what tells how far it is.
    pub fn pull_watched(
        &self,
        reference: &str,
        auth: Option<Auth>,
    ) -> Result<Watched<impl Future<Output = Result<Arc<Image>, Error>> + use<>>, Error> {
        let reference = Reference::parse(reference)?;
        Ok(Flights::join(&self.inner, reference, auth))
    }

    pub(super) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// The images that no root file system stands on and that aren't pinned, with a tag only
    /// if `tagged`.
    pub fn unused(&self, tagged: bool) -> Vec<Arc<Image>> {
        let users = self.users();
        let mut images = self.list();
        images.retain(|image| {
            !image.pinned && !users.contains_key(&image.id) && (tagged || image.tags.is_empty())
        });
        images
    }

    /// The ids of the containers whose root file systems or volumes stand on an image, by the
    /// image's id.
    pub fn users(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.inner.catalog.users()
    }

    /// Whether [`Images::remove`] would take the image along with this name.
    pub fn is_last_name(&self, name: &str) -> Result<bool, Error> {
        self.inner.catalog.is_last(name)
    }

    /// An image from an archive on disk: OCI layout directory or tar, docker-archive, or a
    /// root file system, each plain, gzip or zstd.
    ///
    /// `name` names a root file system, or stands in for the name in an archive of one image.
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Arc<Image>>, Error> {
        let name = name.map(import::name).transpose()?;
        self.import_as(path, path, name, Arc::default()).await
    }

    async fn import_as(
        &self,
        path: &Path,
        shown: &Path,
        name: Option<Reference>,
        progress: Arc<Progress>,
    ) -> Result<Vec<Arc<Image>>, Error> {
        let (inner, paths) = (Arc::clone(&self.inner), (path.to_owned(), shown.to_owned()));
        let work = tokio::spawn(import::import(inner, paths, name, progress));
        work.await.unwrap_or(Err(Error::Stopped("the import")))
    }

    /// As [`Images::import`], from a stream of at most [`super::MAX_ARCHIVE`] bytes, which is
    /// kept below the root while it is read.
    pub async fn import_stream(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, Error> {
        self.import_watched(reader, Path::new("the stream"), name, Arc::default()).await
    }

    /// The same, with what to call the stream in errors, and what tells how far it is once all
    /// of it is here.
    pub async fn import_watched(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        shown: &Path,
        name: Option<&str>,
        progress: Arc<Progress>,
    ) -> Result<Vec<Arc<Image>>, Error> {
        let name = name.map(import::name).transpose()?;
        let spooled = import::spool(&self.inner, shown, reader).await?;
        self.import_as(&spooled.0, shown, name, progress).await
    }

    /// Every image, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.catalog.now().images.values().cloned().collect()
    }

    /// By tag, digest reference, id, or unambiguous short id (with or without `sha256:`).
    pub fn find(&self, name: &str) -> Result<Arc<Image>, Error> {
        self.inner.catalog.now().find(name)
    }

    /// By id: the image with every tag. By tag or digest: that name, and the image with its
    /// last one. Unknown: no error. What a root file system stands on stays until it goes:
    /// the layers, and the image, which isn't listed but can be found by its id.
    ///
    /// The last tag of a repository takes that repository's digests along.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking("removing an image", move || {
            if inner.catalog.remove(&name)? {
                inner.catalog.collect(&inner.content, &inner.layers)?;
            }
            Ok(())
        })
        .await
    }

    /// Space used by images and by containers' writable layers.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let inner = Arc::clone(&self.inner);
        let path = inner.settings.root.clone();
        self.measured(path, move |root| {
            // Layers were measured when they were unpacked, and don't change.
            let mut sum =
                inner.layers.space().map_err(|error| std::io::Error::other(error.to_string()))?;
            for dir in [&root.join("blobs"), &root.join("partial"), inner.rootfs.dir()] {
                let space = tree::measure(dir)?;
                sum.bytes += space.bytes;
                sum.inodes += space.inodes;
            }
            Ok(sum)
        })
        .await
    }

    /// Space used by one container's writable layer.
    pub async fn writable_usage(&self, container: &ContainerId) -> Result<Usage, Error> {
        self.measured(self.inner.rootfs.upper(container), tree::measure).await
    }

    async fn measured(
        &self,
        path: PathBuf,
        measure: impl FnOnce(&Path) -> std::io::Result<tree::Space> + Send + 'static,
    ) -> Result<Usage, Error> {
        let at = path.clone();
        let work = blocking("measuring", move || measure(&at).map_err(Error::disk("measure", &at)));
        let late = || Error::Disk {
            doing: "measure",
            path: path.clone(),
            cause: format!("it takes longer than {} s", MEASURE_TIMEOUT.as_secs()),
        };
        let space = tokio::time::timeout(MEASURE_TIMEOUT, work).await.map_err(|_| late())??;
        Ok(Usage { path, bytes: space.bytes, inodes: space.inodes })
    }

    /// Makes and mounts a container's root file system (overlayfs). Gives its path.
    ///
    /// Again for the same container and image: the same path, with what is written there.
    pub async fn prepare_rootfs(
        &self,
        container: &ContainerId,
        image: &Image,
    ) -> Result<PathBuf, Error> {
        Ok(self.prepare(container, image, Vec::new(), None, None).await?.rootfs)
    }

    /// The same with images as volumes beside it, and with the owners that files have in a
    /// user namespace. `label`: an SELinux label for all of it. All stays until [`Images::release_rootfs`].
    pub async fn prepare(
        &self,
        container: &ContainerId,
        image: &Image,
        volumes: Vec<Arc<Image>>,
        owners: Option<Owners>,
        label: Option<String>,
    ) -> Result<Prepared, Error> {
        let (inner, container, image) = (Arc::clone(&self.inner), container.clone(), image.clone());
        blocking("making a root file system", move || {
            let Inner { catalog, content, layers, .. } = &*inner;
            let wanted = Wanted {
                image: &image,
                volumes: &volumes,
                owners: owners.as_ref(),
                label: label.as_deref(),
            };
            inner.rootfs.prepare(catalog, content, layers, &container, &wanted)
        })
        .await
    }

    /// A new directory on the disk of the images, for root alone.
    pub async fn scratch(&self) -> Result<Scratch, Error> {
        let inner = Arc::clone(&self.inner);
        blocking("making a directory", move || {
            let scratch = Scratch(inner.content.scratch());
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&scratch.0)
                .map_err(Error::disk("make the directory", &scratch.0))?;
            Ok(scratch)
        })
        .await
    }

    /// Writes what a container has added to its root file system into a new archive, and gives
    /// the paths that it has deleted. Nothing may write there meanwhile.
    pub async fn changes(
        &self,
        container: &ContainerId,
        archive: PathBuf,
    ) -> Result<Vec<PathBuf>, Error> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        blocking("saving a root file system", move || {
            inner.rootfs.changes(&inner.catalog, &inner.layers, &container, &archive)
        })
        .await
    }

    /// What a checkpoint says of its container.
    pub async fn checkpoint_base(&self, from: Checkpoint) -> Result<Base, Error> {
        let home = self.scratch().await?;
        let inner = Arc::clone(&self.inner);
        blocking("reading a checkpoint", move || match &from {
            Checkpoint::Archive(path) => checkpoint::base(&checkpoint::Source::Archive(path)),
            Checkpoint::Image { image } => {
                let image = inner.catalog.now().find(image)?;
                let layers = image.chain.iter().filter_map(|id| Digest::parse(id).ok());
                let _lease = inner.catalog.lease(layers.map(Thing::Layer).collect());
                RootFileSystems::checkpoint_base(&inner.layers, &image, home.path())
            }
        })
        .await
    }

    /// Brings a root file system that was just prepared, without owners of its own, to where
    /// the checkpoint's was, and unpacks the images of its processes; an image that holds the
    /// checkpoint must be one of its volumes. Gives their directory, and one for CRIU's work;
    /// both stay until [`Images::release_rootfs`].
    pub async fn restore(
        &self,
        container: &ContainerId,
        from: Checkpoint,
        label: Option<String>,
    ) -> Result<(PathBuf, PathBuf), Error> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        blocking("unpacking a checkpoint", move || {
            let Inner { catalog, layers, .. } = &*inner;
            let label = label.as_deref();
            inner.rootfs.restore(catalog, layers, &container, &from, label)?;
            Ok(inner.rootfs.processes(&container))
        })
        .await
    }

    /// The directories that [`Images::restore`] gave.
    pub fn restored(&self, container: &ContainerId) -> (PathBuf, PathBuf) {
        self.inner.rootfs.processes(container)
    }

    /// Unmounts and deletes it, its writable layer included. Unknown: no error.
    pub async fn release_rootfs(&self, container: &ContainerId) -> Result<(), Error> {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        blocking("releasing a root file system", move || {
            inner.rootfs.release(&inner.catalog, &inner.content, &container)?;
            inner.catalog.collect(&inner.content, &inner.layers)
        })
        .await
    }

    /// Root file systems on disk or mounted whose container isn't in `live`: released.
    /// Called once at start-up.
    pub async fn release_all_but(&self, live: &[ContainerId]) -> Result<Vec<ContainerId>, Error> {
        let (inner, live) = (Arc::clone(&self.inner), live.to_vec());
        blocking("releasing root file systems", move || {
            let mut gone = inner.rootfs.known(&inner.catalog)?;
            gone.retain(|container| !live.contains(container));
            for container in &gone {
                inner.rootfs.release(&inner.catalog, &inner.content, container)?;
            }
            inner.catalog.collect(&inner.content, &inner.layers)?;
            Ok(gone)
        })
        .await
    }
}
