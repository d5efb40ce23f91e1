//! What is remembered of a container.

use serde::{Deserialize, Serialize};

use super::config::ContainerConfig;
use super::state::State;
use crate::health::Standing;
use crate::id::SandboxId;
use crate::oci::model::Resources;
use crate::store;

/// A container as stored, under its id. Written before its root file system is made, so that
/// whatever exists of it can be found and removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its pod.
    pub sandbox: SandboxId,
    /// As asked for.
    pub config: ContainerConfig,
    /// `sha256:…` of the image it stands on.
    pub image_id: String,
    /// A name of that image, for people; its id where it has none.
    pub image_name: String,
    /// A digest reference of that image, for CRI's image_ref; its id where it has none.
    pub image_ref: String,
    /// What a stop sends: the configuration's, else the image's, else `SIGTERM`.
    pub stop_signal: String,
    /// Who its process runs as, once that has been looked up in the image.
    pub user: Option<RunsAs>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where it stands.
    pub state: State,
    /// Made by haled's own restart, so haled may remove it.
    pub made_by_healing: bool,
    /// A client stopped it: it is not restarted.
    pub stopped_by_client: bool,
    /// Why haled itself is stopping it: reason and message of its end.
    pub killed: Option<(String, String)>,
    /// What its probes had come to while it runs, for the next daemon.
    #[serde(default)]
    pub standings: Vec<Standing>,
    /// A rule has all containers of the pod start again: what comes next under this name is a
    /// new beginning, and no restart of this one.
    #[serde(default)]
    pub run_again: bool,
    /// The limits as clients have asked for them, where plugins have made others of them.
    #[serde(default)]
    pub asked_resources: Option<Resources>,
}

impl ContainerRecord {
    /// The configuration as asked for, without what plugins have made of it.
    pub fn asked(&self) -> ContainerConfig {
        let resources = self.asked_resources.as_ref().unwrap_or(&self.config.resources).clone();
        ContainerConfig { resources, ..self.config.clone() }
    }
}

/// A user and its groups, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsAs {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All further groups.
    pub groups: Vec<u32>,
}

impl store::Record for ContainerRecord {
    const KIND: &'static str = "container";
    const VERSION: u32 = 1;
}
