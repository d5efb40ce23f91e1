//! Pod networks: CNI configuration, plugins and results.
//!
//! Knows network namespaces by path and nothing of pods, monitors or the CRI.
//! (The loopback interface of a sandbox is brought up where its namespace is made.)

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// In the pod.
    pub container_port: u16,
    /// On the host; never 0.
    pub host_port: u16,
    /// The host's address; `None`: all.
    pub host_ip: Option<IpAddr>,
}

/// A pod's DNS settings (resolv.conf(5)); empty lists: the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// `ndots:5`.
    pub options: Vec<String>,
}

/// What a sandbox asks of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub sandbox_id: String,
    /// CNI_NETNS: where the namespace is pinned.
    pub netns: PathBuf,
    /// For CNI_ARGS' K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
    /// Capability `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// Capability `dns`.
    pub dns: Dns,
    /// The pod's annotations: `kubernetes.io/ingress-bandwidth` and `egress-bandwidth` become
    /// capability `bandwidth`.
    pub annotations: BTreeMap<String, String>,
}

/// What an ADD gave. Stored with the sandbox: DEL and CHECK need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, the first is the primary.
    pub ips: Vec<IpAddr>,
    /// The configuration list as it was used.
    pub conflist: serde_json::Value,
    /// The last plugin's result, for prevResult.
    pub result: serde_json::Value,
}

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
#[error("not written yet")]
pub struct Error;

/// The settings of this room.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where *.conflist, *.conf and *.json are looked for; the first by name is used.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order.
    pub plugin_dirs: Vec<PathBuf>,
    /// CNI's own cache and the bridge's address store go below it.
    pub data_dir: PathBuf,
    /// Use a built-in bridge configuration where `conf_dir` has none.
    pub default_bridge: bool,
    /// The built-in bridge's interface.
    pub bridge_name: String,
    /// The built-in bridge's subnet, in CIDR form.
    pub bridge_subnet: String,
}

/// The pod network of this node.
#[derive(Debug)]
pub struct Network {}

impl Network {
    /// A network by these settings; touches nothing yet.
    pub fn new(_settings: Settings) -> Self {
        todo!()
    }

    /// Whether pods can be attached; else why not, for NetworkReady. The configuration
    /// directory is read anew when it changed.
    pub fn ready(&self) -> Result<(), Error> {
        todo!()
    }

    /// CNI ADD by every plugin of the list. A failure has undone what was done (DEL).
    pub async fn add(&self, _attachment: &Attachment) -> Result<Attached, Error> {
        todo!()
    }

    /// CNI CHECK.
    pub async fn check(&self, _attachment: &Attachment, _attached: &Attached) -> Result<(), Error> {
        todo!()
    }

    /// CNI DEL, in reverse order. Idempotent: what is gone already is no error.
    /// `None`: an ADD whose result is not known was tried with today's configuration.
    pub async fn del(
        &self,
        _attachment: &Attachment,
        _attached: Option<&Attached>,
    ) -> Result<(), Error> {
        todo!()
    }
}
