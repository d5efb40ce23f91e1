//! What is remembered of a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::SandboxConfig;
use crate::health::{Backoff, Policy};
use crate::network::Attached;
use crate::store;

/// A pod as stored, under its sandbox id. Written before anything of the sandbox is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// As asked for.
    pub config: SandboxConfig,
    /// Who gave it to haled.
    pub origin: Origin,
    /// Probes and restart policy; `None`: the pod is left alone.
    pub policy: Option<Policy>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where it stands.
    pub phase: Phase,
    /// What restarting remembers, by container name.
    pub restarts: BTreeMap<String, Restarting>,
}

impl store::Record for SandboxRecord {
    const KIND: &'static str = "sandbox";
    const VERSION: u32 = 1;
}

/// Who gave a pod to haled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A CRI client.
    Cri,
    /// A manifest.
    Manifest,
}

/// The life of a sandbox.
///
/// ```text
///  run ──▶ Starting ──▶ Ready ──▶ Stopping ──▶ Stopped ──remove──▶ (gone)
///             │           │           ▲
///             │           └▶ Lost ────┤   pause or monitor died
///             └───────────────────────┘   could not start: undone, then gone
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Being made. What a crash leaves of it is undone.
    Starting,
    /// Its namespaces and network are there.
    Ready {
        /// The pause process' pid, in the host's namespace.
        pause_pid: i32,
        /// What CNI gave; `None` on the host's network.
        network: Option<Attached>,
    },
    /// Its pause process or its monitor died: not ready, and to be stopped by its owner.
    Lost {
        /// For CNI DEL.
        network: Option<Attached>,
        /// For people.
        why: String,
    },
    /// Being taken down.
    Stopping {
        /// For CNI DEL; `None`: ADD's result isn't known.
        network: Option<Attached>,
        /// Forgotten when down: it never became ready, or was asked to be removed.
        then_remove: bool,
    },
    /// Nothing runs and nothing is held but records, logs and writable layers.
    Stopped,
}

/// What restarting remembers of one container name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restarting {
    /// How often it has been restarted in a row.
    pub backoff: Backoff,
    /// Nanoseconds since the epoch: when it starts next, if it waits.
    pub next_start_at: Option<i64>,
    /// The id of the attempt after whose end that was decided.
    pub after: Option<String>,
}
