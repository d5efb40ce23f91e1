//! The driver's part for new limits: of one container, and of the pod.

use std::sync::Arc;

use super::config::{SandboxConfig, SandboxResources};
use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::work::{Work, no_container, of_container};
use super::{Error, Result, plugins};
use crate::container::config::ContainerConfig;
use crate::container::state::State;
use crate::container::update::update;
use crate::id::ContainerId;
use crate::nri::api::LinuxResources;
use crate::oci::model::Resources;

/// New limits of a container, by who wants them.
pub(super) enum Limits {
    /// A client; plugins may make others of them.
    Asked(Resources),
    /// A plugin.
    OfPlugin(LinuxResources),
}

/// What the limits have become.
pub(super) struct Changed {
    resources: Resources,
    /// As clients have asked for them.
    asked: Resources,
}

impl Driver {
    /// UpdateContainerResources: the record changes only after the kernel has taken it.
    pub(super) fn update(&mut self, id: &ContainerId, limits: Limits, reply: Reply<()>) {
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
        let asked = container.record.asked().resources;
        let (id, place) = (id.clone(), container.place.clone());
        let (services, pods) = (self.services.clone(), self.pods.clone());
        self.spawn(async move {
            let by_plugin = matches!(limits, Limits::OfPlugin(_));
            let done = async {
                let (change, asked, told) = match limits {
                    Limits::Asked(change) => {
                        let told = plugins::ask_to_update(&services, &pods, &id, &change).await?;
                        (plugins::changed(&change, &told), asked.updated(&change), told)
                    }
                    Limits::OfPlugin(told) => {
                        plugins::check_update(&id, &told)?;
                        (plugins::changed(&Resources::default(), &told), asked, told)
                    }
                };
                let resources = old.updated(&change);
                update(running.as_deref(), &place, old, resources.clone())
                    .await
                    .map_err(of_container)?;
                Ok((Changed { resources, asked }, told))
            };
            let done = done.await;
            if let Ok((_, told)) = &done {
                plugins::tell_of_update(&services, &id, told, by_plugin).await;
            }
            Done::Updated(id, Box::new(done.map(|(changed, _)| changed)))
        });
    }

    pub(super) fn updated(
        &mut self,
        id: &ContainerId,
        result: std::result::Result<Changed, Error>,
    ) {
        let Some(at) = self.find(id) else { return };
        let work = std::mem::replace(&mut self.containers[at].work, Work::None);
        let Work::Updating(reply) = work else { return };
        let kept: Result<()> = result.map_err(Arc::new).and_then(|Changed { resources, asked }| {
            let container = &mut self.containers[at];
            container.record.asked_resources = (asked != resources).then_some(asked);
            let config = ContainerConfig { resources, ..ContainerConfig::clone(&container.config) };
            container.record.config = config.clone();
            container.config = Arc::new(config);
            let record = &container.record;
            self.services.store.put(id.as_str(), record).map_err(|error| Arc::new(error.into()))
        });
        self.answers.add(reply, kept);
    }

    /// UpdatePodSandboxResources: plugins are asked first.
    pub(super) fn update_sandbox(&mut self, change: SandboxResources, reply: Reply<()>) {
        if self.services.nri.is_none() {
            return self.sandbox_updated(change, reply, Ok(()));
        }
        let (services, id) = (self.services.clone(), self.id.clone());
        self.spawn(async move {
            let allowed = plugins::ask_to_update_pod(&services, &id, &change).await;
            Done::SandboxUpdate(Box::new(change), reply, allowed)
        });
    }

    /// What the pod may take is remembered, and shown.
    pub(super) fn sandbox_updated(
        &mut self,
        change: SandboxResources,
        reply: Reply<()>,
        allowed: std::result::Result<(), Error>,
    ) {
        if let Err(error) = allowed {
            return self.answers.add(reply, Err(Arc::new(error)));
        }
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
        let kept = kept.map_err(|error| Arc::new(error.into()));
        if self.services.nri.is_none() || kept.is_err() {
            return self.answers.add(reply, kept);
        }
        let (handler, phase) = (&self.runtime.name, &self.record.phase);
        let told = plugins::pod(&self.services, &self.id, &self.config, handler, phase);
        let services = self.services.clone();
        self.spawn(async move {
            plugins::tell_of_pods_update(&services, told).await;
            Done::EndTold(vec![reply])
        });
    }
}
