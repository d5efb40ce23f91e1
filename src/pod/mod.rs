//! Pods: the sandbox, its driver task, its namespaces and files.
//!
//! One task per pod (`driver`) owns the pod and its containers and takes events one after
//! another; long work runs in child tasks that report back as events. Everyone else reads
//! the published [`view`]. No gRPC type and no manifest comes here.

pub mod cgroup;
pub mod changes;
mod checkpoint;
pub mod config;
mod course;
mod create;
mod driver;
pub mod events;
mod files;
mod heal;
pub mod history;
mod hooks;
mod inbox;
mod loss;
pub mod orchestrator;
mod plugins;
mod publish;
pub mod record;
pub mod recovery;
pub mod registry;
mod remove;
mod restart;
pub mod rotation;
mod sandbox;
mod start;
mod stop;
mod update;
pub mod view;
mod words;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::container::exec::Program;
use crate::health::BackoffSettings;
use crate::id::{ContainerId, SandboxId};
use crate::image::Images;
use crate::network::Network;
use crate::oci::Runtime;
use crate::store::Store;
use crate::{container, health, monitor, network, nri, store};

pub use files::host_resolv_conf;
pub use registry::Pods;

/// What every pod works with.
#[derive(Debug)]
pub struct Services {
    /// Records.
    pub store: Store,
    /// Images and root file systems.
    pub images: Images,
    /// The pod network.
    pub network: Network,
    /// OCI runtimes by handler.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The handler of pods that name none.
    pub default_handler: String,
    /// Run directories go below it, one a pod, named by id.
    pub pods_dir: PathBuf,
    /// The haled-monitor executable.
    pub monitor: PathBuf,
    /// The haled-pause executable.
    pub pause: PathBuf,
    /// What executes commands in containers, where the machine allows it.
    pub agent: Option<Arc<Program>>,
    /// Who makes the cgroups of new pods.
    pub cgroup_driver: cgroup::Driver,
    /// Of pods that come without a cgroup parent, in the driver's form.
    pub cgroup_parent: String,
    /// Between restarts; changed by a reload of the settings.
    pub backoff: ArcSwap<BackoffSettings>,
    /// What happens to pods, for people.
    pub events: events::Events,
    /// The same for clients of the CRI.
    pub changes: changes::Changes,
    /// Whether an orchestrator is there.
    pub presence: orchestrator::Presence,
    /// Plugins of the node, where they are let in.
    pub nri: Option<nri::Plugins>,
}

/// Why something could not be done to a pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such pod or container.
    #[error("{what} \"{id}\" not found")]
    NotFound {
        /// `pod sandbox` or `container`.
        what: &'static str,
        /// As asked for.
        id: String,
    },
    /// A short id that fits several.
    #[error("{what} id \"{id}\" fits {count} of them: give more digits")]
    Ambiguous {
        /// `pod sandbox` or `container`.
        what: &'static str,
        /// As asked for.
        id: String,
        /// How many.
        count: usize,
    },
    /// The request makes no sense, whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state.
    #[error("{0}")]
    WrongState(String),
    /// The name is taken by something that isn't the same.
    #[error("{0}")]
    Exists(String),
    /// A bad annotation.
    #[error(transparent)]
    Annotation(#[from] health::BadAnnotation),
    /// A container's own failure.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// A plugin's refusal, or that what plugins ask for can't be done.
    #[error(transparent)]
    Plugins(#[from] nri::Error),
    /// The network's.
    #[error("pod {id}: {source}")]
    Network {
        /// Which.
        id: SandboxId,
        /// Why.
        source: network::Error,
    },
    /// The monitor's.
    #[error("pod {id}: {source}")]
    Monitor {
        /// Which.
        id: SandboxId,
        /// Why.
        source: monitor::client::Error,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// SIGKILL was sent and the container is still there.
    #[error(
        "container {0} does not die of SIGKILL: a process of it is stuck in the kernel (a dead mount?)"
    )]
    WontDie(ContainerId),
    /// The pod's task is gone, which is a fault of haled's.
    #[error("the task of pod {0} has ended unexpectedly; see haled's log")]
    TaskGone(SandboxId),
}

/// Several callers may wait for one deed, so its error is shared.
pub type Result<T> = std::result::Result<T, std::sync::Arc<Error>>;

impl Error {
    /// For `map_err`: what was being done to which path.
    fn io(doing: &str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }
}
