//! NRI, the Node Resource Interface: plugins that see every pod and container of the node and
//! may change what is created.
//!
//! A plugin connects to a socket, or is started with one end of it, and speaks ttrpc in both
//! directions (`frame`, `connection`). It registers, is configured, is told all that is there
//! and from then on every event (`admission`, `plugins`); what several of them ask for becomes
//! one (`wishes`), and that one is put into the container's configuration (`spec`).
//!
//! Each container reaches a plugin exactly once, either in that first list or as an event: one
//! lock is held over every event and over every synchronisation, so events wait while a plugin
//! is told the list, and the list is what events have made of it. No plugin can hold that lock
//! for longer than its time limit: then it is dropped.
//!
//! Nothing here does anything to a container: that is its pod's, behind [`Node`].

mod admission;
mod connection;
mod describe;
mod frame;
mod launch;
mod owners;
mod plugin;
mod plugins;
mod resources;
mod shown;
mod spec;
mod wishes;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use crate::proto::nri as api;
pub use describe::describe;
pub use plugins::{Changes, Plugins};
pub use spec::apply;

/// How plugins are found and how long they are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where plugins connect; `None`: none may.
    pub socket: Option<PathBuf>,
    /// Programs that are started as plugins.
    pub plugin_path: PathBuf,
    /// Their configurations.
    pub plugin_config_path: PathBuf,
    /// From a plugin's connecting to its registration, and for each part of its first list.
    pub registration_timeout: Duration,
    /// For each answer.
    pub request_timeout: Duration,
}

/// What plugins may have done, of their own accord, to what runs.
pub trait Node: Send + Sync + 'static {
    /// New limits for a container; an error says why not.
    fn update(&self, update: api::ContainerUpdate) -> BoxFuture<'_, Result<(), String>>;
    /// Stops a container.
    fn evict(&self, eviction: api::ContainerEviction) -> BoxFuture<'_, Result<(), String>>;
}

/// Why an event was not passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two plugins want the same.
    #[error(
        "NRI plugins \"{first}\" and \"{second}\" both set {field} of container {container}: configure one of them not to"
    )]
    Conflict {
        /// Which container.
        container: String,
        /// What of it.
        field: String,
        /// Who came first.
        first: String,
        /// Who came then.
        second: String,
    },
    /// A plugin said no.
    #[error("NRI plugin \"{plugin}\" refuses {event}: {message}")]
    Refused {
        /// Which.
        plugin: String,
        /// The event's method.
        event: &'static str,
        /// Its words.
        message: String,
    },
    /// A plugin did not answer, and by its own wish nothing may happen without it.
    #[error("NRI plugin \"{plugin}\" failed to handle {event}: {why}")]
    Failed {
        /// Which.
        plugin: String,
        /// The event's method.
        event: &'static str,
        /// Why.
        why: String,
    },
    /// A plugin asks for what can't be.
    #[error("NRI plugin \"{plugin}\": {why}")]
    Nonsense {
        /// Which.
        plugin: String,
        /// What and why.
        why: String,
    },
    /// What all have asked for can't be put into the configuration.
    #[error("the adjustments of NRI plugins to container {container}: {why}")]
    Unusable {
        /// Which container.
        container: String,
        /// What and why.
        why: String,
    },
}
