//! The driver's part of CheckpointContainer.

use std::sync::Arc;

use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::work::{Work, no_container, of_container};
use super::{Error, Result};
use crate::container::checkpoint::{Wanted, checkpoint};
use crate::container::state::State;
use crate::id::ContainerId;

impl Driver {
    /// Begins to write a container to an archive. It stands still meanwhile, so its probes wait.
    pub(super) fn checkpoint(&mut self, id: &ContainerId, wanted: Wanted, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        let container = &mut self.containers[at];
        let wrong = match (&container.work, &container.record.state) {
            _ if self.config.userns.is_some() => {
                Some("is in a user namespace: such can't be checkpointed")
            }
            (Work::None, State::Running(_)) if container.stopping.is_some() => {
                Some("is being stopped")
            }
            (Work::None, State::Running(_)) => None,
            (_, State::Running(_)) => Some("is being changed: ask again"),
            _ => Some("does not run: only a running container can be checkpointed"),
        };
        if let Some(why) = wrong {
            let error = Error::WrongState(format!("container {id} {why}"));
            return self.answers.add(reply, Err(Arc::new(error)));
        }
        container.work = Work::Checkpointing(reply);
        let (id, place, record) = (id.clone(), container.place.clone(), container.record.clone());
        let (services, runtime) = (self.services.clone(), self.runtime.clone());
        let executor = container.executor.clone();
        self.spawn(async move {
            // CRIU can't save a process that has a socket of ours.
            let _rest = executor.rest().await;
            let done = checkpoint(&services.images, &runtime, &place, record, wanted).await;
            Done::Checkpointed(id, done.map_err(of_container))
        });
    }

    pub(super) fn checkpointed(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<(), Error>,
    ) {
        let Some(at) = self.find(id) else { return };
        let work = std::mem::replace(&mut self.containers[at].work, Work::None);
        let Work::Checkpointing(reply) = work else { return };
        let name = self.containers[at].config.name.clone();
        let result: Result<()> = match result {
            Ok(()) => {
                let message = format!("container {} was checkpointed", id.short());
                self.event(&name, "Checkpointed", message, false);
                Ok(())
            }
            Err(error) => {
                self.event(&name, "FailedCheckpoint", error.to_string(), true);
                Err(Arc::new(error))
            }
        };
        self.answers.add(reply, result);
    }
}
