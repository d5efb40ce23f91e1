//! The gRPC face: CRI v1 and haled v1 on one unix socket.
//!
//! One file per RPC or small family. Requests are parsed into haled's own types before
//! anything else sees them, and only `status` knows gRPC codes. No state is kept here but what
//! was measured lately.

mod attach;
mod batches;
mod checkpoint;
mod classes;
mod container;
mod container_config;
mod events;
mod exec;
mod exec_sync;
mod haled_v1;
mod image;
mod measure;
mod pod_sandbox;
mod port_forward;
mod runtime_status;
mod sandbox_config;
pub mod server;
mod service;
mod stats;
mod status;
mod update;

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::image::{self as image_room, Images, Usage};
use crate::manifest::controller::Manifests;
use crate::pod::Pods;
use crate::stream::Server;
use stats::Measured;

/// What the RPCs work with.
#[derive(Clone)]
pub struct Face {
    pods: Pods,
    images: Images,
    manifests: Manifests,
    streams: Server,
    about: Arc<About>,
    measured: Arc<Measured>,
}

/// What Version, Status and RuntimeConfig say of this daemon beside its state.
#[derive(Debug, Clone)]
pub struct About {
    /// The effective configuration, for Status' verbose info.
    pub config: Arc<ArcSwap<String>>,
    /// The directory of Localhost seccomp profiles with a relative path.
    pub seccomp_dir: std::path::PathBuf,
    /// Containers may go on from checkpoints.
    pub restore_checkpoints: bool,
    /// The handlers whose runtime can make mounts recursively read-only.
    pub recursive_readonly: BTreeSet<String>,
    /// Pods may have user namespaces: the kernel gives them, and images can be mounted with
    /// their owners. Every OCI runtime can join one.
    pub user_namespaces: bool,
}

impl Face {
    /// A face for these pods and images.
    pub fn new(
        pods: Pods,
        images: Images,
        manifests: Manifests,
        streams: Server,
        about: About,
    ) -> Self {
        let (about, measured) = (Arc::new(about), Arc::default());
        Self { pods, images, manifests, streams, about, measured }
    }

    /// How many images there are, and what they and the containers' writable layers take of
    /// the disk.
    pub async fn images_on_disk(&self) -> Result<(usize, Usage), image_room::Error> {
        Ok((self.images.list().len(), self.images.usage().await?))
    }
}
