//! A pod's containers, and what is being done to each.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use super::driver::Driver;
use super::inbox::Reply;
use super::{Error, hooks};
use crate::container::config::ContainerConfig;
use crate::container::exec::Executor;
use crate::container::record::ContainerRecord;
use crate::container::state::State;
use crate::container::{self, Place};
use crate::health::Prober;
use crate::id::ContainerId;
use crate::monitor::wire::Exit;

/// A container and all that goes on with it.
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) place: Place,
    pub(super) executor: Arc<Executor>,
    pub(super) config: Arc<ContainerConfig>,
    pub(super) record: ContainerRecord,
    pub(super) work: Work,
    pub(super) stopping: Option<Stopping>,
    /// Asked to be removed: done as soon as nothing is in the way.
    pub(super) remove: Option<Vec<Reply<()>>>,
    pub(super) prober: Option<Prober>,
    /// When its standings were last written.
    pub(super) remembered_at: Option<Instant>,
    /// The postStart hook, while it runs.
    pub(super) post_start: Option<hooks::Running>,
}

impl Container {
    pub(super) fn new(
        id: ContainerId,
        place: Place,
        record: ContainerRecord,
        work: Work,
        executor: Executor,
    ) -> Self {
        let config = Arc::new(record.config.clone());
        Self {
            id,
            place,
            executor: Arc::new(executor),
            config,
            record,
            work,
            stopping: None,
            remove: None,
            prober: None,
            remembered_at: None,
            post_start: None,
        }
    }

    /// Its processes are frozen, so that no probe could succeed.
    pub(super) fn stands_still(&self) -> bool {
        matches!(self.work, Work::Checkpointing(_))
    }

    /// Nothing runs and nothing is being done.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.work, Work::None)
            && !matches!(self.record.state, State::Running(_) | State::Starting)
    }
}

/// What is being done to a container by a child task.
pub(super) enum Work {
    None,
    Creating {
        waiters: Vec<Reply<ContainerId>>,
        then_start: bool,
    },
    Starting {
        waiters: Vec<Reply<()>>,
        ended: Option<Exit>,
    },
    Removing,
    Updating(Reply<()>),
    /// It stands still.
    Checkpointing(Reply<()>),
}

/// A stop that has begun.
pub(super) struct Stopping {
    /// The preStop hook, until it or the grace is over; then the stop signal is sent.
    pub(super) hook: Option<hooks::Running>,
    pub(super) grace_end: Instant,
    /// `None`: SIGKILL has been sent.
    pub(super) kill_at: Option<Instant>,
    /// When people are told that it hasn't died of that.
    pub(super) tell_at: Option<Instant>,
    /// When its callers are.
    pub(super) give_up_at: Option<Instant>,
    pub(super) waiters: Vec<Reply<()>>,
}

impl Stopping {
    /// When its hook has no more time.
    pub(super) fn hook_end(&self) -> Option<Instant> {
        self.hook.as_ref().map(|_| self.grace_end)
    }

    /// When there is something to do for it by itself.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Instant> {
        [self.hook_end(), self.kill_at, self.tell_at, self.give_up_at].into_iter().flatten()
    }
}

impl Driver {
    pub(super) fn find(&self, id: &ContainerId) -> Option<usize> {
        self.containers.iter().position(|container| container.id == *id)
    }

    /// The newest attempt of a name.
    pub(super) fn newest(&self, name: &str) -> Option<usize> {
        let named = self.containers.iter().enumerate().filter(|(_, c)| c.config.name == name);
        named.max_by_key(|(_, c)| c.config.attempt).map(|(at, _)| at)
    }

    /// Where a container's log goes; empty: nowhere.
    pub(super) fn log_path(&self, config: &ContainerConfig) -> PathBuf {
        if config.log_path.as_os_str().is_empty()
            || self.config.log_directory.as_os_str().is_empty()
        {
            return PathBuf::new();
        }
        self.config.log_directory.join(&config.log_path)
    }

    pub(super) fn save_container(&self, at: usize) {
        let container = &self.containers[at];
        if let Err(error) = self.services.store.put(container.id.as_str(), &container.record) {
            tracing::error!(container = %container.id, %error, "cannot write the container's record");
        }
    }

    pub(super) fn drop_record(&mut self, at: usize) {
        let container = self.containers.remove(at);
        if let Err(error) = self.services.store.delete::<ContainerRecord>(container.id.as_str()) {
            tracing::error!(container = %container.id, %error, "cannot delete the container's record");
        }
        self.pods.forget_container(&container.id);
    }
}

pub(super) fn no_container(id: &ContainerId) -> Arc<Error> {
    Arc::new(Error::NotFound { what: "container", id: id.to_string() })
}

/// A container's error as the pod's.
pub(super) fn of_container(error: container::Error) -> Error {
    Error::Container(error)
}
