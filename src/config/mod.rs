//! The daemon's TOML file: schema, defaults, validation, documentation.
//!
//! Parsed once, at start; no other room reads it: each is handed its own settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that can be set. `Default` is what an empty file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Images, records, logs: survives a reboot. `/var/lib/haled`.
    pub root: PathBuf,
    /// Sockets, namespaces, bundles: gone after a reboot. `/run/haled`.
    pub state: PathBuf,
    /// The CRI socket. `/run/haled/haled.sock`.
    pub listen: PathBuf,
    /// Where haled-monitor and haled-pause are; `None`: beside haled, then ../libexec/haled.
    pub helper_dir: Option<PathBuf>,
    /// `[runtime]`.
    pub runtime: RuntimeConfig,
    /// `[network]`.
    pub network: NetworkConfig,
    /// `[image]`.
    pub image: ImageConfig,
    /// `[healing]`.
    pub healing: HealingConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The handler of pods that name none. `runc`.
    pub default_handler: String,
    /// `[runtime.handlers.NAME]`: path, and nothing else yet. `runc` and `crun` by default.
    pub handlers: BTreeMap<String, PathBuf>,
    /// Parent of pods that come without one. `/haled`.
    pub cgroup_parent: String,
    /// Where Localhost seccomp profiles with a relative path are. `/var/lib/kubelet/seccomp`.
    pub seccomp_dir: PathBuf,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// `/opt/cni/bin`, `/usr/lib/cni`, `/usr/libexec/cni`.
    pub plugin_dirs: Vec<PathBuf>,
    /// false.
    pub default_bridge: bool,
    /// `haled0`.
    pub bridge_name: String,
    /// `10.88.0.0/16`.
    pub bridge_subnet: String,
}

/// `[image]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// `/etc/haled/certs.d`, `/etc/containerd/certs.d`.
    pub certs_dirs: Vec<PathBuf>,
    /// Layers fetched at once for one image. 3.
    pub parallel_layers: usize,
}

/// `[healing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealingConfig {
    /// 10 s.
    pub backoff_initial: Duration,
    /// 300 s.
    pub backoff_max: Duration,
    /// 10 min.
    pub backoff_reset: Duration,
}

/// `[log]`: the daemon's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `info`; a tracing filter.
    pub level: String,
    /// JSON lines in place of text.
    pub json: bool,
}

/// Why a file was refused: file, line, key, what was found, what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Config {
    /// Reads a file. An unknown key is refused with the nearest one.
    pub fn load(_path: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// The documented default file, as `haled config default` prints it.
    pub fn default_text() -> &'static str {
        todo!()
    }
}
