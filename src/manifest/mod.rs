//! Pod manifests: YAML or JSON text → a plan in haled's own words, and that plan carried out.
//!
//! `parse`, `plan`, `variables` and `status` are pure. Only the `controller`, which keeps
//! manifests' pods as they should be, and `volumes`, which makes their files, touch anything.

pub mod controller;
mod dns;
mod expand;
mod parse;
pub mod plan;
mod quantity;
pub mod status;
mod variables;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::config::ContainerConfig;
use crate::health::Policy;
use crate::health::fields::{Mistake, told};
use crate::network::Dns;
use crate::oci::model::Propagation;
use crate::pod::config::SandboxConfig;

pub use parse::{EXPLAINED, parse};
pub use variables::{Facts, Value, Variable};

/// Users, and groups, of a pod that has its own: as many as a kubelet gives one.
const OWN_IDS: u32 = 1 << 16;

/// What a manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// In its order.
    pub pods: Vec<PodPlan>,
    /// What was left out, for people; that is no mistake.
    pub warnings: Vec<String>,
}

/// A Pod as it is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// The sandbox; its `uid`, and the ids of its user namespace if it has one, are empty
    /// until the controller gives them.
    pub sandbox: SandboxConfig,
    /// Init containers and sidecars, in the manifest's order.
    pub init: Vec<Planned>,
    /// The main containers, in the manifest's order.
    pub containers: Vec<Planned>,
    /// Probes, hooks and restart policies.
    pub health: Policy,
    /// terminationGracePeriodSeconds.
    pub grace: Duration,
    /// activeDeadlineSeconds.
    pub deadline: Option<Duration>,
    /// What is added to the node's resolv.conf.
    pub added_dns: Option<Dns>,
    /// In the manifest's order.
    pub volumes: Vec<Volume>,
    /// The group that owns its volumes.
    pub fs_group: Option<u32>,
    /// `Guaranteed`, `Burstable` or `BestEffort`.
    pub qos: String,
    /// The Pod as it was written.
    pub document: serde_json::Value,
}

/// A container as it is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// `attempt` 0; no environment and no mounts yet, and `$(NAME)` still stands in its command.
    pub config: ContainerConfig,
    /// An init container with restartPolicy Always.
    pub sidecar: bool,
    /// When its image is pulled.
    pub pull: PullPolicy,
    /// Its environment.
    pub env: Vec<Variable>,
    /// Its volumes.
    pub mounts: Vec<VolumeMount>,
    /// Refused where its image would run it as root.
    pub non_root: bool,
}

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name in the pod, a DNS label.
    pub name: String,
    /// What is in it.
    pub source: VolumeSource,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// Empty at first; lives as long as the pod.
    EmptyDir {
        /// A tmpfs, of the kernel's default size where there is no limit; else on disk.
        memory: bool,
        /// What it may hold, in bytes: a tmpfs takes no more, and a pod with more on disk
        /// is evicted.
        limit: Option<Limit>,
    },
    /// The host's.
    HostPath {
        /// Absolute.
        path: PathBuf,
        /// What it must be.
        kind: HostPathKind,
    },
    /// A ConfigMap's, a Secret's, the pod's own fields, or several of them in one.
    Files {
        /// What it holds.
        files: Vec<VolumeFile>,
        /// Kept in memory only.
        secret: bool,
    },
    /// An image's content, read-only.
    Image {
        /// As it is written.
        reference: String,
        /// When it is pulled.
        pull: PullPolicy,
    },
}

/// A volume's sizeLimit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// More than 0.
    pub bytes: u64,
    /// As it was written: `64Mi`.
    pub text: String,
}

/// A file of such a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Relative, without `..`.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Of a ConfigMap or a Secret.
    Bytes(Vec<u8>),
    /// Of the pod or its node.
    Value(Value),
}

/// hostPath's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum HostPathKind {
    Unchecked,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Below the volume's root, relative; empty: the whole volume.
    pub sub_path: PathBuf,
    /// In place of it: with `$(NAME)` of the container's variables. Empty: there is none.
    pub sub_path_expr: String,
    /// Read-only.
    pub readonly: bool,
    /// The mounts below it too.
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
}

/// imagePullPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pull what isn't here.
    #[default]
    IfNotPresent,
    /// Ask the registry each time.
    Always,
    /// Fail where it isn't here.
    Never,
}

/// A mistake and where in the text it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// From 1; 0: it has no place.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong.
    pub mistake: Mistake,
}

impl std::fmt::Display for Located {
    /// `8:5: spec.containers[0]: …`, or without a place just the mistake.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        self.mistake.fmt(f)
    }
}

/// Everything wrong with a manifest, in its order: one line each, and no more than are of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", told(.0, "\n"))]
pub struct Errors(pub Vec<Located>);

impl Errors {
    /// Each mistake with the file's name before it, as compilers do.
    pub fn of_file(&self, name: &str) -> String {
        let line = |located: &Located| match located.line {
            0 => format!("{name}: {located}"),
            _ => format!("{name}:{located}"),
        };
        told(self.0.iter().map(line), "\n")
    }
}

impl PodPlan {
    /// Every container, init containers first.
    pub fn all(&self) -> impl Iterator<Item = &Planned> {
        self.init.iter().chain(&self.containers)
    }

    /// A container by name.
    pub fn find(&self, name: &str) -> Option<&Planned> {
        self.all().find(|planned| planned.config.name == name)
    }
}
