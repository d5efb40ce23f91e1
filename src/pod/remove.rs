//! The driver's part for a container: it is removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::record::Origin;
use super::work::{Work, of_container};
use super::{Error, Result, plugins};
use crate::container::state::State;
use crate::container::{remove, rotation};
use crate::id::ContainerId;
use crate::monitor::client::Error as MonitorError;

impl Driver {
    pub(super) fn remove(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Ok(())) };
        let container = &mut self.containers[at];
        container.record.stopped_by_client = true;
        let name = container.config.name.clone();
        let has_run = container.record.state != State::Created;
        container.remove.get_or_insert_default().push(reply);
        if self.newest(&name) == Some(at) {
            self.waiting.remove(&name);
            if has_run {
                self.rest(&name);
            }
        }
        self.save_container(at);
    }

    pub(super) fn begin_remove(&mut self, at: usize) {
        let container = &mut self.containers[at];
        container.work = Work::Removing;
        let (id, place) = (container.id.clone(), container.place.clone());
        let log = self.log_path(&self.containers[at].config);
        // Clients keep logs as they like; those of haled's own old attempts are haled's.
        let shared = self
            .containers
            .iter()
            .any(|other| other.id != id && self.log_path(&other.config) == log);
        let own =
            self.record.origin == Origin::Manifest || self.containers[at].record.made_by_healing;
        let log = Some(log).filter(|_| own && !shared);
        let (services, monitor) = (self.services.clone(), self.monitor.clone());
        let runtime = self.runtime.clone();
        self.spawn(async move {
            let removed = async {
                let forgotten = match &monitor {
                    Some(monitor) => monitor.forget(id.as_str()).await,
                    None => Err(MonitorError::Gone),
                };
                // The monitor's own `delete` may have failed, or never been called.
                if matches!(forgotten, Err(MonitorError::Gone)) || runtime.knows(id.as_str()) {
                    runtime.delete(id.as_str()).await?;
                }
                remove::files(&services.images, &place).await
            };
            let removed = removed.await;
            if removed.is_ok() {
                plugins::tell_of_removal(&services, &id).await;
            }
            if let Some(log) = log.filter(|_| removed.is_ok()) {
                delete_log(log).await;
            }
            Done::Removed(id, removed.map_err(of_container))
        });
    }

    pub(super) fn removed(&mut self, id: &ContainerId, result: std::result::Result<(), Error>) {
        let Some(at) = self.find(id) else { return };
        self.containers[at].work = Work::None;
        let waiters = self.containers[at].remove.take().unwrap_or_default();
        let result: Result<()> = match result {
            Ok(()) => {
                self.drop_record(at);
                Ok(())
            }
            Err(error) => {
                tracing::error!(container = %id, %error, "cannot remove the container");
                let error = Arc::new(error);
                self.deletion_failed(&error);
                Err(error)
            }
        };
        for reply in waiters {
            self.answers.add(reply, result.clone());
        }
    }
}

/// What can't be deleted is left behind: the container itself is gone.
async fn delete_log(log: PathBuf) {
    let of_task = log.clone();
    let deleted = tokio::task::spawn_blocking(move || rotation::delete(&of_task)).await;
    if let Ok(Err(error)) = deleted {
        tracing::warn!(log = %log.display(), %error, "cannot delete the container's log");
    }
}
