//! The daemon's side of a monitor's socket.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::wire::{Event, Inventory, Process, SandboxSpec, StartSpec, Started};

/// Why a request to a monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor is gone: killed, or never there.
    #[error("the pod's monitor is gone")]
    Gone,
    /// It did what it could; its own words.
    #[error("{0}")]
    Refused(String),
}

/// What comes from a monitor unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something happened.
    Event(Event),
    /// The connection ended and the monitor is not there any more. Comes once, last.
    Gone,
}

/// A live connection. Cheap to clone; the last clone's drop closes the socket, which the
/// monitor takes as the daemon's being away.
#[derive(Debug, Clone)]
pub struct Monitor {}

impl Monitor {
    /// Starts a monitor that outlives this process: own session, no inherited descriptors,
    /// its standard error to `<dir>/monitor.log`. `dir` exists and is the pod's own run
    /// directory: socket, exit records and pid file go there.
    pub async fn spawn(
        _executable: PathBuf,
        _dir: PathBuf,
        _notices: mpsc::Sender<Notice>,
    ) -> Result<Self, Error> {
        todo!()
    }

    /// Connects to the monitor that runs in `dir`.
    pub async fn connect(
        _dir: PathBuf,
        _notices: mpsc::Sender<Notice>,
    ) -> Result<(Self, Inventory), Error> {
        todo!()
    }

    /// Exit records left in `dir` by a monitor that is gone.
    pub fn exits_on_disk(_dir: &std::path::Path) -> Vec<(String, super::wire::Exit)> {
        todo!()
    }

    /// Makes namespaces and pause.
    pub async fn sandbox(&self, _spec: SandboxSpec) -> Result<Process, Error> {
        todo!()
    }

    /// Runs a container.
    pub async fn start(&self, _spec: StartSpec) -> Result<Started, Error> {
        todo!()
    }

    /// Signals a container's init.
    pub async fn signal(&self, _container: &str, _signal: i32) -> Result<(), Error> {
        todo!()
    }

    /// Reopens a log.
    pub async fn reopen_log(&self, _container: &str) -> Result<(), Error> {
        todo!()
    }

    /// Drops an exited container.
    pub async fn forget(&self, _container: &str) -> Result<(), Error> {
        todo!()
    }

    /// Ends pause and monitor.
    pub async fn shutdown(&self) -> Result<(), Error> {
        todo!()
    }
}
