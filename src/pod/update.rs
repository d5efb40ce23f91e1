//! The driver's part for new limits: of one container, and of the pod.

use std::sync::Arc;

use super::config::{SandboxConfig, SandboxResources};
use super::driver::{Done, Driver, Reply, Work, of_container};
use super::lifecycle::no_container;
use super::{Error, Result};
use crate::container::config::ContainerConfig;
use crate::container::state::State;
use crate::container::update::update;
use crate::id::ContainerId;
use crate::oci::model::Resources;

impl Driver {
    /// UpdateContainerResources: the record changes only after the kernel has taken it.
    pub(super) fn update(&mut self, id: &ContainerId, change: &Resources, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        let container = &mut self.containers[at];
        let running = match (&container.work, &container.record.state) {
            (_, State::Exited(_)) => Err("has exited, so it has no limits any more"),
            (Work::None, State::Created) => Ok(None),
            (Work::None, State::Running(_)) => Ok(Some(self.runtime.clone())),
            _ => Err("is being created, started, changed or removed: ask again"),
        };
        let running = match running {
            Ok(running) => running,
            Err(why) => {
                let error = Error::WrongState(format!("container {id} {why}"));
                return self.answers.add(reply, Err(Arc::new(error)));
            }
        };
        container.work = Work::Updating(reply);
        let old = container.config.resources.clone();
        let new = old.updated(change);
        let (id, place) = (id.clone(), container.place.clone());
        self.spawn(async move {
            let done = update(running.as_ref(), &place, old, new.clone()).await;
            Done::Updated(id, Box::new(done.map(|()| new).map_err(of_container)))
        });
    }

    pub(super) fn updated(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<Resources, Error>,
    ) {
        let Some(at) = self.find(id) else { return };
        let work = std::mem::replace(&mut self.containers[at].work, Work::None);
        let Work::Updating(reply) = work else { return };
        let kept: Result<()> = result.map_err(Arc::new).and_then(|resources| {
            let container = &mut self.containers[at];
            let config = ContainerConfig { resources, ..ContainerConfig::clone(&container.config) };
            container.record.config = config.clone();
            container.config = Arc::new(config);
            let record = &container.record;
            self.services.store.put(id.as_str(), record).map_err(|error| Arc::new(error.into()))
        });
        self.answers.add(reply, kept);
    }

    /// UpdatePodSandboxResources: what the pod may take is remembered, and shown.
    pub(super) fn update_sandbox(&mut self, change: SandboxResources, reply: Reply<()>) {
        let merged = |old: &Option<Resources>, change: Option<Resources>| match (old, change) {
            (Some(old), Some(change)) => Some(old.updated(&change)),
            (old, change) => change.or_else(|| old.clone()),
        };
        let config = SandboxConfig {
            resources: merged(&self.config.resources, change.resources),
            overhead: merged(&self.config.overhead, change.overhead),
            ..SandboxConfig::clone(&self.config)
        };
        self.record.config = config.clone();
        self.config = Arc::new(config);
        let kept = self.services.store.put(self.id.as_str(), &self.record);
        self.answers.add(reply, kept.map_err(|error| Arc::new(error.into())));
    }
}
