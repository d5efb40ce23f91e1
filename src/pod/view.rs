//! What the rest of haled sees of a pod: an immutable picture, published after each event.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::SandboxConfig;
use super::history::History;
use super::record::{Origin, Phase, SandboxRecord};
use crate::container::Place;
use crate::container::config::ContainerConfig;
use crate::container::exec::Executor;
use crate::container::record::RunsAs;
use crate::container::state::State;
use crate::health::{Health, Policy, Report};
use crate::id::{ContainerId, SandboxId};
use crate::oci::Runtime;

/// A pod at one moment.
#[derive(Debug, Clone)]
pub struct PodView {
    /// Its sandbox.
    pub id: SandboxId,
    /// As asked for.
    pub config: Arc<SandboxConfig>,
    /// Who gave it to haled.
    pub origin: Origin,
    /// Probes and restart policy.
    pub policy: Option<Arc<Policy>>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where it stands.
    pub phase: Phase,
    /// Its run directory.
    pub dir: PathBuf,
    /// Of its containers.
    pub runtime: Arc<Runtime>,
    /// Oldest first.
    pub containers: Vec<Arc<ContainerView>>,
    /// Container names that wait for their next start, with the nanoseconds since the epoch
    /// at which it comes.
    pub waiting: Vec<(String, i64)>,
    /// Of each container name: its probes and restarts lately.
    pub histories: BTreeMap<String, Arc<History>>,
}

impl PodView {
    /// Of a pod whose driver has not looked at anything yet.
    pub(super) fn first(
        id: &SandboxId,
        record: &SandboxRecord,
        dir: &Path,
        runtime: &Arc<Runtime>,
    ) -> Self {
        Self {
            id: id.clone(),
            config: Arc::new(record.config.clone()),
            origin: record.origin,
            policy: record.policy.clone().map(Arc::new),
            created_at: record.created_at,
            phase: record.phase.clone(),
            dir: dir.to_owned(),
            runtime: runtime.clone(),
            containers: Vec::new(),
            waiting: Vec::new(),
            histories: BTreeMap::new(),
        }
    }
}

/// A container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// Itself.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// As asked for.
    pub config: Arc<ContainerConfig>,
    /// `sha256:…`.
    pub image_id: String,
    /// A name of that image; its id where it has none.
    pub image_name: String,
    /// A digest reference.
    pub image_ref: String,
    /// Who its process runs as.
    pub user: Option<RunsAs>,
    /// What a stop sends: `SIGTERM`.
    pub stop_signal: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where it stands.
    pub state: State,
    /// Of a running container with probes.
    pub health: Option<Health>,
    /// The last failure in words; empty: none.
    pub health_message: String,
    /// Started, and its readiness probe (if any) passes.
    pub ready: bool,
    /// Every probe.
    pub probes: Vec<Report>,
    /// A rule had every container start again, and all have ended: this one belongs to what
    /// was before, and the pod begins anew.
    pub past: bool,
    /// Its files and cgroup.
    pub place: Place,
    /// Runs commands in it.
    pub executor: Arc<Executor>,
    /// Absolute; empty: no log.
    pub log_path: PathBuf,
}

impl PodView {
    /// Ready in CRI's sense.
    pub fn ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// The pod's addresses, the primary first; none on the host's network.
    pub fn ips(&self) -> &[std::net::IpAddr] {
        match &self.phase {
            Phase::Ready { network: Some(network), .. } => &network.ips,
            _ => &[],
        }
    }

    /// A container by id.
    pub fn container(&self, id: &ContainerId) -> Option<&Arc<ContainerView>> {
        self.containers.iter().find(|container| container.id == *id)
    }

    /// For the next picture: this one's where nothing of the container has changed. Pictures
    /// outlive each other, in listeners' queues and with those who look.
    pub(super) fn same_or_new(&self, container: ContainerView) -> Arc<ContainerView> {
        let same = self.container(&container.id).filter(|same| ***same == container);
        same.cloned().unwrap_or_else(|| Arc::new(container))
    }

    /// The newest attempt of a container name; none where the pod begins anew.
    pub fn newest(&self, name: &str) -> Option<&Arc<ContainerView>> {
        self.containers
            .iter()
            .filter(|container| container.config.name == name && !container.past)
            .max_by_key(|container| container.config.attempt)
    }
}
