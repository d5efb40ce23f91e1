//! The OCI runtime: what goes into config.json, and how runc, crun or youki is called.
//!
//! `build` is pure but for the files it is handed; the driver only assembles commands and
//! reads their answers. Nothing here knows a container's state.

pub mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a configuration or a call failed.
#[derive(Debug, thiserror::Error)]
#[error("not written yet")]
pub struct Error;

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
    /// Confinement.
    pub security: &'a model::Security,
    /// Limits.
    pub resources: &'a model::Resources,
    /// Namespaces.
    pub namespaces: &'a Namespaces,
    /// /etc/hosts, /etc/resolv.conf, /etc/hostname, /dev/shm of the sandbox.
    pub sandbox_files: &'a [SandboxFile],
    /// linux.cgroupsPath.
    pub cgroup_path: &'a str,
    /// Into the configuration's annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Builds config.json, users and groups looked up in the root file system.
pub fn build(_input: &Input<'_>) -> Result<oci_spec::runtime::Spec, Error> {
    todo!()
}

/// An OCI runtime by its command line, which runc, crun and youki share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The handler's name.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// `--root`: where it keeps its state.
    pub root: PathBuf,
}

/// A command to execute in a container.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Command and arguments.
    pub command: &'a [String],
    /// The container's process (from its config.json): environment, user, capabilities,
    /// working directory and so on are taken from it.
    pub process: &'a oci_spec::runtime::Process,
    /// A terminal.
    pub tty: bool,
    /// A cgroup below the container's that exists: everything the command starts stays in it.
    pub sub_cgroup: Option<&'a str>,
    /// Where the runtime writes the command's pid.
    pub pid_file: &'a Path,
}

impl Runtime {
    /// Arguments before any command: `--root DIR`.
    pub fn global_args(&self) -> Vec<String> {
        todo!()
    }

    /// `exec`, ready to be given its stdio and spawned. `scratch` takes the process file.
    pub fn exec(
        &self,
        _exec: &Exec<'_>,
        _scratch: &Path,
    ) -> Result<tokio::process::Command, Error> {
        todo!()
    }

    /// `delete --force`; a container that isn't there is no error.
    pub async fn delete(&self, _container: &str) -> Result<(), Error> {
        todo!()
    }

    /// The ids in its state directory.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        todo!()
    }

    /// The first line of `--version`.
    pub async fn version(&self) -> Result<String, Error> {
        todo!()
    }
}
