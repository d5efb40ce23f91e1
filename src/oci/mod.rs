//! The OCI runtime: what goes into config.json, and how runc, crun or youki is called.
//!
//! [`build`] is [`build_on`] with the facts of this machine ([`Host`]), which reads no more
//! than the root file system's users and the devices asked for; the driver only assembles
//! commands and reads their answers. Nothing here knows a container's state.

mod apparmor;
mod blockio;
mod build;
mod capability;
mod cdi;
pub mod checkpoint;
mod command;
mod devices;
mod error;
mod host;
pub mod huge_pages;
mod limits;
pub mod model;
mod mounts;
mod runtime;
mod seccomp;
mod selinux;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::sys::userns::IdMaps;

pub use build::{build, build_on, inject_cdi};
pub use devices::PrivilegedDevices;
pub use error::Error;
pub use host::{Host, resolve_path};
pub use limits::{clamp_oom_score_adj, limits};
pub use runtime::{Exec, Runtime, RuntimeSettings, exec_failure, log_words};
pub use selinux::{Labels, labels, level_of, refuse_relabel};

/// What a container takes from its image unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDefaults<'a> {
    /// Entrypoint.
    pub entrypoint: &'a [String],
    /// Cmd.
    pub cmd: &'a [String],
    /// `NAME=value`.
    pub env: &'a [String],
    /// WorkingDir.
    pub working_dir: &'a str,
    /// User.
    pub user: &'a str,
}

/// Where the namespaces of a container are. `None`: the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Path of the sandbox's.
    pub network: Option<PathBuf>,
    /// Path of the sandbox's.
    pub ipc: Option<PathBuf>,
    /// Path of the sandbox's.
    pub uts: Option<PathBuf>,
    /// The PID namespace.
    pub pid: PidNamespace,
    /// The sandbox's.
    pub user: Option<UserNamespace>,
}

/// A user namespace and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    /// Path.
    pub path: PathBuf,
    /// The ids it was made with.
    pub maps: IdMaps,
}

/// The PID namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidNamespace {
    /// A new one.
    #[default]
    New,
    /// The host's.
    Host,
    /// That at this path.
    Path(PathBuf),
}

/// A file of the sandbox bound over one of the image: /etc/hosts and its like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFile {
    /// On the host.
    pub host_path: PathBuf,
    /// In the container. Left out when a mount of the container has this path.
    pub container_path: PathBuf,
    /// Read-only.
    pub readonly: bool,
}

/// Everything config.json is made from.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The root file system, mounted.
    pub rootfs: &'a Path,
    /// From the image.
    pub image: ImageDefaults<'a>,
    /// In place of the entrypoint (and then of cmd too).
    pub command: &'a [String],
    /// In place of cmd.
    pub args: &'a [String],
    /// Over the image's.
    pub env: &'a [model::EnvVar],
    /// In place of the image's, when not empty.
    pub working_dir: &'a str,
    /// A terminal.
    pub tty: bool,
    /// Of the container's UTS namespace; also HOSTNAME in its environment.
    pub hostname: &'a str,
    /// Mounts, host paths checked.
    pub mounts: &'a [model::Mount],
    /// Devices.
    pub devices: &'a [model::Device],
    /// What of the host's devices it has, if it is privileged.
    pub privileged_devices: PrivilegedDevices,
    /// CDI devices by their full names.
    pub cdi_devices: &'a [String],
    /// Confinement.
    pub security: &'a model::Security,
    /// SELinux labels; `None`: it isn't active.
    pub selinux: Option<&'a Labels>,
    /// Limits.
    pub resources: &'a model::Resources,
    /// Namespaces.
    pub namespaces: &'a Namespaces,
    /// /etc/hosts, /etc/resolv.conf, /etc/hostname, /dev/shm of the sandbox.
    pub sandbox_files: &'a [SandboxFile],
    /// The file of block I/O classes, where there is one.
    pub blockio_config: Option<&'a Path>,
    /// linux.cgroupsPath.
    pub cgroup_path: &'a str,
    /// Into the configuration's annotations.
    pub annotations: &'a BTreeMap<String, String>,
}
