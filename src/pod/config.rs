//! What a sandbox was asked to be: kept as it came, in our own words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::SandboxId;
use crate::network::{Dns, PortMapping};
use crate::oci;
use crate::oci::model::{PidMode, Resources, Security, SelinuxOptions, Sharing};
use crate::sys::userns::IdMaps;

/// A sandbox's configuration. Immutable from its creation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Which try this is.
    pub attempt: u32,
    /// Empty: the host's, or none.
    pub hostname: String,
    /// Absolute; empty: no logs.
    pub log_directory: PathBuf,
    /// resolv.conf; `None`: the host's as it is.
    pub dns: Option<Dns>,
    /// Further lines of /etc/hosts.
    #[serde(default)]
    pub host_aliases: Vec<HostAlias>,
    /// Published ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// In the form of the cgroup driver that made its cgroups. Empty, in a request: the daemon's
    /// own.
    pub cgroup_parent: String,
    /// Of the sandbox's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Network namespace.
    pub network: Sharing,
    /// IPC namespace.
    pub ipc: Sharing,
    /// PID namespace.
    pub pid: PidMode,
    /// A user namespace of its own with these ids; `None`: the host's.
    #[serde(default)]
    pub userns: Option<IdMaps>,
    /// May hold privileged containers.
    pub privileged: bool,
    /// SELinux label: the level that its containers have where they don't say.
    #[serde(default)]
    pub selinux: SelinuxOptions,
    /// The pod's limits, when the client says.
    pub resources: Option<Resources>,
    /// What the pod takes beside its containers, when the client says.
    #[serde(default)]
    pub overhead: Option<Resources>,
    /// Empty: the default handler.
    pub runtime_handler: String,
}

impl SandboxConfig {
    /// The level of the pod with this id in SELinux labels.
    pub fn selinux_level(&self, id: &SandboxId) -> String {
        if self.selinux.level.is_empty() {
            oci::level_of(id.as_str())
        } else {
            self.selinux.level.clone()
        }
    }

    /// The SELinux label of the pod's own process; empty: none. Blocks for some reads.
    pub fn selinux_label(&self, id: &SandboxId) -> Result<String, oci::Error> {
        let (privileged, selinux) = (self.privileged, self.selinux.clone());
        let security = Security { privileged, selinux, ..Security::default() };
        let labels = oci::labels(&security, &self.selinux_level(id))?;
        Ok(labels.and_then(|labels| labels.process).unwrap_or_default())
    }
}

/// New limits of a pod as a whole; `None`: as they were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxResources {
    /// What the pod takes beside its containers.
    pub overhead: Option<Resources>,
    /// The limits of its containers together.
    pub resources: Option<Resources>,
}

/// Names of an address, for /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: std::net::IpAddr,
    /// Its names.
    pub names: Vec<String>,
}
