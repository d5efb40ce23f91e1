//! Containers: configuration, state, create, start, stop, remove, exec, logs.
//!
//! Functions here do one thing to one container and are called by its pod's driver; nothing
//! here holds a list of containers or decides that one be restarted.

pub mod attach;
pub mod checkpoint;
pub mod config;
pub mod create;
pub mod exec;
pub mod log;
pub mod record;
pub mod remove;
mod restore;
pub mod rotation;
pub mod session;
pub mod start;
pub mod state;
pub mod stop;
pub mod update;

use std::path::{Path, PathBuf};

use crate::id::ContainerId;
use crate::{image, monitor, oci};

/// Why something could not be done to a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense, whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// Its image is missing, or its root file system can't be made.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The configuration can't be built, or the OCI runtime refused.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// The OCI runtime could not run it.
    #[error("container {id} can't be started: {why}")]
    Start {
        /// Which.
        id: ContainerId,
        /// The runtime's words.
        why: String,
    },
    /// The monitor is gone or refused.
    #[error("container {id}: {source}")]
    Monitor {
        /// Which.
        id: ContainerId,
        /// Why.
        source: monitor::client::Error,
    },
    /// A file operation failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// A command's time limit passed; it and its descendants have been killed.
    #[error("command {command} in container {id} was killed at its limit of {} ms", limit.as_millis())]
    ExecTimeout {
        /// Which.
        id: ContainerId,
        /// The command's name.
        command: String,
        /// The limit.
        limit: std::time::Duration,
    },
    /// A client could not be attached, or not any longer.
    #[error("attach to container {id}: {why}")]
    Attach {
        /// Which.
        id: ContainerId,
        /// Why.
        why: String,
    },
    /// Its limits can't be changed as asked; they are as they were.
    #[error("the limits of container {id} can't be changed: {why}")]
    Update {
        /// Which.
        id: ContainerId,
        /// The runtime's words.
        why: String,
    },
    /// It could not be written to an archive; it runs as before.
    #[error("container {id} can't be checkpointed: {why}")]
    Checkpoint {
        /// Which.
        id: ContainerId,
        /// What is missing, or the runtime's or CRIU's words.
        why: String,
    },
    /// That took too long, and was given up.
    #[error("the checkpoint of container {id} took longer than {} s", limit.as_secs())]
    CheckpointTimeout {
        /// Which.
        id: ContainerId,
        /// The limit.
        limit: std::time::Duration,
    },
    /// A command could not be started.
    #[error("command {command} can't be run in container {id}: {why}")]
    Exec {
        /// Which.
        id: ContainerId,
        /// The command's name.
        command: String,
        /// The runtime's words.
        why: String,
    },
}

impl Error {
    /// For `map_err`: what was being done to which path.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }

    /// Whether it is haled, or the whole machine, that is short of something: descriptors,
    /// processes, memory. It says nothing of the container.
    pub fn is_shortage(&self) -> bool {
        let short = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let errno =
                error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
            if errno.is_some_and(|errno| short.contains(&errno)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// A command could not be started in that container.
    fn exec(place: &Place, command: &[String], why: String) -> Self {
        let command = command.first().cloned().unwrap_or_default();
        Self::Exec { id: place.id.clone(), command, why }
    }
}

/// Where a container's files and cgroup are, derived from its id and its pod alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The container.
    pub id: ContainerId,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Its cgroup, from the hierarchy's root.
    pub cgroup: String,
}

impl Place {
    /// The place of `id` in the pod whose run directory is `pod_dir`.
    pub fn new(id: &ContainerId, pod_dir: &Path, cgroup_parent: &str) -> Self {
        Self {
            id: id.clone(),
            bundle: pod_dir.join("containers").join(id),
            cgroup: format!("{}/{id}", cgroup_parent.trim_end_matches('/')),
        }
    }

    /// What the OCI runtime goes by.
    pub fn config_file(&self) -> PathBuf {
        self.bundle.join("config.json")
    }

    /// What is in it. Blocks.
    pub fn spec(&self) -> Result<oci_spec::runtime::Spec, Error> {
        let path = self.config_file();
        let unreadable = |error| Error::io("cannot read", &path)(std::io::Error::other(error));
        oci_spec::runtime::Spec::load(&path).map_err(unreadable)
    }
}
