//! Images: references, registries, the content store, layers and root file systems.
//!
//! Reading order: `reference`, `manifest`, `digest` (what an image is called and made of),
//! `hosts`, `certificates`, `challenge`, `server`, `registry` (whom to ask), `content`, `layer` (the disk), `fetch`, `pull`,
//! `archive` and `import` (the two ways in), `inspect` and `export` (what is in it, and the way out), `catalog` (what there is, what is no longer needed),
//! `rootfs` (what a container gets).
//!
//! Knows containers only as the holders of root file systems. Nothing here runs anything.

mod archive;
mod catalog;
mod certificates;
mod challenge;
mod changes;
mod checkpoint;
mod content;
mod digest;
mod error;
mod export;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod hosts;
mod images;
mod import;
mod inspect;
mod layer;
mod manifest;
mod progress;
mod pull;
mod reference;
mod registry;
mod rootfs;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use checkpoint::{Base, Checkpoint};
pub use content::Scratch;
pub use error::{Error, StoreFailed};
pub use export::Export;
pub use images::Images;
use images::Inner;
pub use import::MAX_ARCHIVE;
pub use progress::{Part, Progress, Stage};

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
    /// The name of the container that it is a checkpoint of, by its manifest; it then holds no
    /// root file system.
    pub checkpoint: Option<String>,
}

impl Image {
    /// A tag, or a digest reference, or its id.
    pub fn name(&self) -> &str {
        self.tags.first().or(self.digests.first()).unwrap_or(&self.id)
    }
}

/// Whose files are in a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    /// Path of the namespace.
    pub users: PathBuf,
    /// Its root as the host sees it: user and group.
    pub root: (u32, u32),
}

/// What a container runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The root file system.
    pub rootfs: PathBuf,
    /// The images asked for as volumes, in that order, each mounted read-only.
    pub volumes: Vec<PathBuf>,
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
    /// The registry they are for, host or URL; empty: whichever asks.
    pub server_address: String,
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
