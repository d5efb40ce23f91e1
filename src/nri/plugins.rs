//! The plugins that are there, what they have been told, and every event's way through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{Mutex, MutexGuard};

use super::api::{
    Container, ContainerAdjustment, ContainerEviction, ContainerState, ContainerUpdate,
    CreateContainerRequest, CreateContainerResponse, Event, LinuxResources, PodSandbox,
    StopContainerRequest, StopContainerResponse, UpdateContainerRequest, UpdateContainerResponse,
    UpdatePodSandboxRequest, UpdatePodSandboxResponse, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use super::plugin::Plugin;
use super::wishes::Wishes;
use super::{Error, Settings, shown};

/// What plugins want done because of an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// To the container that is being made.
    pub adjust: ContainerAdjustment,
    /// To the limits that a client gives a container.
    pub resources: Option<LinuxResources>,
    /// To the limits of other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be stopped.
    pub evict: Vec<ContainerEviction>,
}

/// Every plugin. Cheap to clone.
///
/// Its methods tell of events, in the order of the plugins' indices, one event at a time. An
/// error: a plugin refuses, and what it was told of must not happen.
#[derive(Clone)]
pub struct Plugins {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
}

/// What is kept under the one lock.
#[derive(Default)]
pub(super) struct State {
    /// By index, then in the order they came.
    plugins: Vec<Plugin>,
    /// What events have told of: what a plugin that comes is told first.
    pods: BTreeMap<String, Pod>,
    containers: BTreeMap<String, Container>,
    /// No plugin is let in any more.
    dismissed: bool,
}

struct Pod {
    told: PodSandbox,
    stopped: bool,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Plugins {
    /// None yet: [`Plugins::serve`] lets them in.
    pub fn new(settings: Settings) -> Self {
        Self { inner: Arc::new(Inner { settings, state: Mutex::default() }) }
    }

    async fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.inner.state.lock().await;
        state.drop_closed();
        state
    }

    /// Takes leave of every plugin: haled stops. None is let in, or told of anything, from then
    /// on. Takes no longer than a plugin's limit for its answer, and once more for its end.
    pub async fn dismiss(&self) {
        let plugins = {
            let mut state = self.lock().await;
            state.dismissed = true;
            std::mem::take(&mut state.plugins)
        };
        join_all(plugins.into_iter().map(Plugin::dismiss)).await;
    }

    /// What was there before any plugin could come.
    pub async fn adopt(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        let mut state = self.lock().await;
        let pods = pods.into_iter().map(|told| (told.id.clone(), Pod { told, stopped: false }));
        state.pods.extend(pods);
        state.containers.extend(containers.into_iter().map(|told| (told.id.clone(), told)));
    }

    /// A sandbox is up, and nobody has been told yet.
    pub async fn run_pod(&self, pod: PodSandbox) -> Result<(), Error> {
        let mut state = self.lock().await;
        state.pods.insert(pod.id.clone(), Pod { told: pod.clone(), stopped: false });
        state.tell(Event::RunPodSandbox, &pod, None).await
    }

    /// A pod's limits are to change.
    pub async fn update_pod(
        &self,
        id: &str,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> Result<(), Error> {
        let state = self.lock().await;
        let Some(pod) = state.pods.get(id) else { return Ok(()) };
        let request = UpdatePodSandboxRequest {
            pod: Some(pod.told.clone()),
            overhead_linux_resources: overhead,
            linux_resources: resources,
        };
        for plugin in &state.plugins {
            let _: Option<UpdatePodSandboxResponse> =
                plugin.ask(Event::UpdatePodSandbox, &request).await?;
        }
        Ok(())
    }

    /// They have changed.
    pub async fn post_update_pod(&self, pod: PodSandbox) -> Result<(), Error> {
        let mut state = self.lock().await;
        let Some(known) = state.pods.get_mut(&pod.id) else { return Ok(()) };
        known.told = pod.clone();
        state.tell(Event::PostUpdatePodSandbox, &pod, None).await
    }

    /// A pod's containers have ended and its network is about to go. Told once, and after the
    /// ends of all its containers.
    pub async fn stop_pod(&self, id: &str) -> Result<Vec<ContainerUpdate>, Error> {
        let mut state = self.lock().await;
        state.stop_pod(id).await
    }

    /// A pod is about to be forgotten.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Error> {
        let mut state = self.lock().await;
        let stopped = state.stop_pod(id).await.map(drop);
        let of_pod = |c: &&Container| c.pod_sandbox_id == id;
        let left: Vec<String> =
            state.containers.values().filter(of_pod).map(|c| c.id.clone()).collect();
        for container in left {
            // Whatever they say, it goes.
            warn(state.remove(&container).await);
        }
        let Some(pod) = state.pods.remove(id) else { return Ok(()) };
        stopped.and(state.tell(Event::RemovePodSandbox, &pod.told, None).await)
    }

    /// A container is about to be made. After an error, and whenever it isn't made after all,
    /// [`Plugins::remove_container`] takes it back.
    pub async fn create_container(&self, container: Container) -> Result<Changes, Error> {
        let mut state = self.lock().await;
        state.containers.insert(container.id.clone(), container.clone());
        let pod = state.pod_of(&container);
        let mut wishes = Wishes::making(&container.id);
        for plugin in &state.plugins {
            let request = CreateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(wishes.show(&container)),
            };
            let answer = plugin.ask(Event::CreateContainer, &request).await?;
            let Some(CreateContainerResponse { adjust, update, evict }) = answer else { continue };
            if let Some(adjust) = adjust {
                wishes.add_adjustment(adjust, &plugin.name)?;
            }
            wishes.add_updates(update, &plugin.name)?;
            wishes.evict.extend(evict);
        }
        state.validate(&pod, &container, &wishes).await?;
        state.containers.insert(container.id.clone(), wishes.show(&container));
        let updates = wishes.updates();
        Ok(Changes { updates, adjust: wishes.adjust, evict: wishes.evict, resources: None })
    }

    /// A container is there. The same for the other events that come after the fact.
    pub async fn post_create_container(&self, id: &str) -> Result<(), Error> {
        self.tell_of(Event::PostCreateContainer, id, |_| {}).await
    }

    /// A container is about to be started.
    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.tell_of(Event::StartContainer, id, |_| {}).await
    }

    /// It runs, since `started_at` (nanoseconds since the epoch).
    pub async fn post_start_container(
        &self,
        id: &str,
        pid: u32,
        started_at: i64,
    ) -> Result<(), Error> {
        let running = |container: &mut Container| {
            container.state = ContainerState::ContainerRunning as i32;
            container.pid = pid;
            container.started_at = started_at;
        };
        self.tell_of(Event::PostStartContainer, id, running).await
    }

    /// A container's limits are to change. Gives what they become.
    pub async fn update_container(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<Changes, Error> {
        let state = self.lock().await;
        let Some(container) = state.containers.get(id) else {
            return Ok(Changes { resources: Some(resources), ..Changes::default() });
        };
        let pod = state.pod_of(container);
        let mut wishes = Wishes::updating(id, resources);
        for plugin in &state.plugins {
            let request = UpdateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(container.clone()),
                linux_resources: wishes.update_of(id).cloned(),
            };
            let answer = plugin.ask(Event::UpdateContainer, &request).await?;
            let Some(UpdateContainerResponse { update, evict }) = answer else { continue };
            wishes.add_updates(update, &plugin.name)?;
            wishes.evict.extend(evict);
        }
        let resources = wishes.take_update(id);
        let updates = wishes.updates();
        Ok(Changes { resources, updates, evict: wishes.evict, ..Changes::default() })
    }

    /// They have changed, by these.
    pub async fn post_update_container(
        &self,
        id: &str,
        resources: &LinuxResources,
    ) -> Result<(), Error> {
        let changed = |container: &mut Container| {
            let linux = container.linux.get_or_insert_default();
            shown::resources(linux.resources.get_or_insert_default(), resources);
        };
        self.tell_of(Event::PostUpdateContainer, id, changed).await
    }

    /// The same where no plugin is to hear of it, because one has asked for it.
    pub async fn updated(&self, id: &str, resources: &LinuxResources) {
        if let Some(container) = self.lock().await.containers.get_mut(id) {
            let linux = container.linux.get_or_insert_default();
            shown::resources(linux.resources.get_or_insert_default(), resources);
        }
    }

    /// A container has ended; told once. `ended` writes how into what plugins see. Gives new
    /// limits of others.
    pub async fn stop_container(
        &self,
        id: &str,
        ended: impl FnOnce(&mut Container) + Send,
    ) -> Result<Vec<ContainerUpdate>, Error> {
        let mut state = self.lock().await;
        if let Some(container) = state.containers.get_mut(id).filter(|c| !is_stopped(c)) {
            ended(container);
        }
        state.stop(id).await
    }

    /// A container is gone, or was never made.
    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        self.lock().await.remove(id).await
    }

    async fn tell_of(
        &self,
        event: Event,
        id: &str,
        change: impl FnOnce(&mut Container) + Send,
    ) -> Result<(), Error> {
        let mut state = self.lock().await;
        let Some(container) = state.containers.get_mut(id) else { return Ok(()) };
        change(container);
        let container = container.clone();
        let pod = state.pod_of(&container);
        state.tell(event, &pod, Some(&container)).await
    }
}

impl State {
    /// What a plugin that comes is told: pods that are ready and containers that live.
    pub(super) fn all(&self) -> (Vec<PodSandbox>, Vec<Container>) {
        let pods = self.pods.values().filter(|pod| !pod.stopped).map(|pod| pod.told.clone());
        let containers = self.containers.values().filter(|container| !is_stopped(container));
        (pods.collect(), containers.cloned().collect())
    }

    /// Takes in a plugin that has been told all that is there.
    pub(super) fn add(&mut self, plugin: Plugin) -> Result<(), String> {
        if self.dismissed {
            return Err("haled stops".to_owned());
        }
        self.plugins.push(plugin);
        // Stable: those of one index stay in their order.
        self.plugins.sort_by(|a, b| a.name.get(..2).cmp(&b.name.get(..2)));
        Ok(())
    }

    pub(super) fn drop_closed(&mut self) {
        self.plugins.retain(|plugin| !plugin.connection.is_closed());
    }

    fn pod_of(&self, container: &Container) -> PodSandbox {
        let id = &container.pod_sandbox_id;
        let unknown = || PodSandbox { id: id.clone(), ..PodSandbox::default() };
        self.pods.get(id).map_or_else(unknown, |pod| pod.told.clone())
    }

    async fn tell(
        &mut self,
        event: Event,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> Result<(), Error> {
        for plugin in &mut self.plugins {
            plugin.tell(event, pod, container).await?;
        }
        Ok(())
    }

    async fn stop(&mut self, id: &str) -> Result<Vec<ContainerUpdate>, Error> {
        let Some(container) = self.containers.get_mut(id).filter(|c| !is_stopped(c)) else {
            return Ok(Vec::new());
        };
        container.state = ContainerState::ContainerStopped as i32;
        container.pid = 0;
        let container = container.clone();
        let pod = self.pod_of(&container);
        let mut wishes = Wishes::default();
        let request = StopContainerRequest { pod: Some(pod), container: Some(container) };
        for plugin in &self.plugins {
            let answer = plugin.ask(Event::StopContainer, &request).await?;
            if let Some(StopContainerResponse { update }) = answer {
                wishes.add_updates(update, &plugin.name)?;
            }
        }
        Ok(wishes.updates())
    }

    async fn stop_pod(&mut self, id: &str) -> Result<Vec<ContainerUpdate>, Error> {
        let Some(pod) = self.pods.get_mut(id).filter(|pod| !pod.stopped) else {
            return Ok(Vec::new());
        };
        pod.stopped = true;
        let told = pod.told.clone();
        let of_pod = |c: &&Container| c.pod_sandbox_id == id;
        let running: Vec<String> =
            self.containers.values().filter(of_pod).map(|c| c.id.clone()).collect();
        let mut updates = Vec::new();
        for container in running {
            match self.stop(&container).await {
                Ok(more) => updates.extend(more),
                // It has ended: nobody can refuse that.
                error => warn(error.map(drop)),
            }
        }
        self.tell(Event::StopPodSandbox, &told, None).await.map(|()| updates)
    }

    async fn remove(&mut self, id: &str) -> Result<(), Error> {
        let stopped = self.stop(id).await.map(drop);
        let Some(container) = self.containers.remove(id) else { return Ok(()) };
        let pod = self.pod_of(&container);
        stopped.and(self.tell(Event::RemoveContainer, &pod, Some(&container)).await)
    }

    /// Asks those that judge what all have asked for.
    async fn validate(
        &self,
        pod: &PodSandbox,
        container: &Container,
        wishes: &Wishes,
    ) -> Result<(), Error> {
        let event = Event::ValidateContainerAdjustment;
        let judges: Vec<&Plugin> =
            self.plugins.iter().filter(|plugin| plugin.wants(event)).collect();
        if judges.is_empty() {
            return Ok(());
        }
        let asked = self.plugins.iter().filter(|plugin| plugin.wants(Event::CreateContainer));
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            adjust: Some(wishes.adjust.clone()),
            update: wishes.updates(),
            owners: Some(wishes.owners.told()),
            plugins: asked.map(Plugin::instance).collect(),
        };
        for plugin in judges {
            let verdict = plugin.ask(event, &request).await?;
            let Some(ValidateContainerAdjustmentResponse { reject, reason }) = verdict else {
                // A judge that can't be heard has not agreed.
                let why = "it was to judge the adjustments and gave no answer".to_owned();
                return Err(Error::Nonsense { plugin: plugin.name.clone(), why });
            };
            if reject {
                let plugin = plugin.name.clone();
                let event = super::plugin::method(event);
                return Err(Error::Refused { plugin, event, message: reason });
            }
        }
        Ok(())
    }
}

fn is_stopped(container: &Container) -> bool {
    container.state == ContainerState::ContainerStopped as i32
}

/// For what happens whatever a plugin says.
fn warn(told: Result<(), Error>) {
    if let Err(error) = told {
        tracing::warn!(%error, "an NRI plugin refuses what has happened");
    }
}
