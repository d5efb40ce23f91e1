//! Images: references, registries, the content store, layers and root file systems.
//!
//! Knows containers only as the holders of root file systems. Nothing here runs anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::store::Store;

/// Why an image operation failed. Its text names the image and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such image here.
    #[error("image \"{0}\" is not on this node: pull it first")]
    NotFound(String),
    /// A short id that fits several.
    #[error("image id \"{id}\" fits {count} images: give more digits")]
    Ambiguous {
        /// As given.
        id: String,
        /// How many.
        count: usize,
    },
    /// The reference can't be parsed.
    #[error("\"{reference}\" is not an image reference: {why}")]
    BadReference {
        /// As given.
        reference: String,
        /// What is wrong.
        why: String,
    },
}

/// What a container takes from its image unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Defaults {
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Cmd.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// WorkingDir.
    pub working_dir: String,
    /// User: `uid`, `name`, `uid:gid`, `name:group`.
    pub user: String,
    /// StopSignal.
    pub stop_signal: String,
    /// Volumes' paths.
    pub volumes: Vec<String>,
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:…`, the digest of its configuration.
    pub id: String,
    /// `registry/repository:tag`, normalized.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of its layers as stored in the registry (compressed), its configuration included.
    pub size_bytes: u64,
    /// Never collected.
    pub pinned: bool,
    /// Chain ids (OCI image-spec), the lowest layer first.
    pub chain: Vec<String>,
    /// What containers take from it.
    pub defaults: Defaults,
}

/// Credentials of a pull, from the CRI's AuthConfig.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// Basic.
    pub username: String,
    /// Basic.
    pub password: String,
    /// base64 of `user:password`.
    pub auth: String,
    /// OAuth2 refresh token.
    pub identity_token: String,
    /// Bearer token sent as it is.
    pub registry_token: String,
}

/// The settings of this room.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Blobs, layers and root file systems live below it.
    pub root: PathBuf,
    /// Directories with `<host>/hosts.toml`, looked at in order.
    pub certs_dirs: Vec<PathBuf>,
    /// Layers fetched at once for one image.
    pub parallel_layers: usize,
}

/// Space used below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Where.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// The images of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {}

impl Images {
    /// Opens the store below `settings.root`, drops what an interrupted pull left.
    pub fn open(_settings: Settings, _store: Store) -> Result<Self, Error> {
        todo!()
    }

    /// Pulls and unpacks; pulls of one image at the same time share the work. Gives the id.
    /// The work goes on if the caller goes away.
    pub async fn pull(&self, _reference: &str, _auth: Option<Auth>) -> Result<Arc<Image>, Error> {
        todo!()
    }

    /// An image from an archive on disk: OCI layout directory or tar, docker-archive, or a
    /// root file system, each plain, gzip or zstd.
    pub async fn import(
        &self,
        _path: &Path,
        _name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, Error> {
        todo!()
    }

    /// Every image, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        todo!()
    }

    /// By tag, digest reference, id, or unambiguous short id (with or without `sha256:`).
    pub fn find(&self, _name: &str) -> Result<Arc<Image>, Error> {
        todo!()
    }

    /// By id: the image with every tag. By tag or digest: that name, and the image with its
    /// last one. Unknown: no error. Layers that a root file system stands on stay until it goes.
    pub async fn remove(&self, _name: &str) -> Result<(), Error> {
        todo!()
    }

    /// Space used by images and by containers' writable layers.
    pub async fn usage(&self) -> Result<Usage, Error> {
        todo!()
    }

    /// Space used by one container's writable layer.
    pub async fn writable_usage(&self, _container: &ContainerId) -> Result<Usage, Error> {
        todo!()
    }

    /// Makes and mounts a container's root file system (overlayfs). Gives its path.
    pub async fn prepare_rootfs(
        &self,
        _container: &ContainerId,
        _image: &Image,
    ) -> Result<PathBuf, Error> {
        todo!()
    }

    /// Unmounts and deletes it, its writable layer included. Unknown: no error.
    pub async fn release_rootfs(&self, _container: &ContainerId) -> Result<(), Error> {
        todo!()
    }

    /// Root file systems on disk or mounted whose container isn't in `live`: released.
    /// Called once at start-up.
    pub async fn release_all_but(&self, _live: &[ContainerId]) -> Result<Vec<ContainerId>, Error> {
        todo!()
    }
}
