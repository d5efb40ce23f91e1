//! Pods and containers as NRI plugins see them, and what plugins may do to them.
//!
//! Child tasks of the driver call these at the moments that NRI has names for. Without plugins
//! let in (`Services::nri`) every one of them does nothing.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use oci_spec::runtime::Spec;

use super::cgroup::Cgroups;
use super::config::{SandboxConfig, SandboxResources};
use super::driver::Driver;
use super::record::Phase;
use super::registry::Pods;
use super::sandbox::Up;
use super::words;
use super::{Error, Services};
use crate::container::Place;
use crate::container::config::ContainerConfig;
use crate::container::create::{Surroundings, finish, prepare};
use crate::container::record::RunsAs;
use crate::container::state::{Ended, Init, State};
use crate::id::{ContainerId, SandboxId};
use crate::image::Image;
use crate::nri::api::{Container, ContainerEviction, ContainerUpdate, LinuxResources, PodSandbox};
use crate::nri::{self, Node};
use crate::oci::model::Resources;

/// What a container is made from.
pub(super) struct Order {
    pub(super) sandbox: SandboxId,
    pub(super) image: Arc<Image>,
    pub(super) place: Place,
    pub(super) config: Arc<ContainerConfig>,
    pub(super) around: Surroundings,
    pub(super) created_at: i64,
}

/// A container that has been made.
pub(super) struct Made {
    pub(super) user: RunsAs,
    /// Its limits, where plugins have made others of them.
    pub(super) resources: Option<Resources>,
}

/// A pod at one moment.
pub(super) fn pod(
    services: &Services,
    id: &SandboxId,
    config: &SandboxConfig,
    handler: &str,
    phase: &Phase,
) -> PodSandbox {
    let (pid, network) = match phase {
        Phase::Ready { pause_pid, network } => (*pause_pid, network.as_ref()),
        _ => (0, None),
    };
    let cgroups = Cgroups::of(services, id, config);
    let mut told = words::pod(id, config, handler, cgroups.parent, cgroups.pause);
    told.pid = u32::try_from(pid).unwrap_or_default();
    told.ips = network.iter().flat_map(|network| &network.ips).map(ToString::to_string).collect();
    told
}

/// The sandbox is up: a plugin that refuses it is its end.
pub(super) async fn tell_of_pod(
    services: &Services,
    id: &SandboxId,
    config: &SandboxConfig,
    handler: &str,
    up: Up,
) -> Result<Up, Error> {
    let Some(plugins) = &services.nri else { return Ok(up) };
    let phase = Phase::Ready { pause_pid: up.pause.pid, network: up.network.clone() };
    match plugins.run_pod(pod(services, id, config, handler, &phase)).await {
        Ok(()) => Ok(up),
        Err(error) => {
            // The namespaces stay pinned, for CNI DEL.
            if let Err(error) = up.monitor.shutdown().await {
                tracing::warn!(sandbox = %id, %error, "the monitor did not shut down by itself");
            }
            Err(error.into())
        }
    }
}

/// The sandbox's containers have ended.
pub(super) async fn tell_of_pods_stop(services: &Services, pods: &Pods, id: &SandboxId) {
    let Some(plugins) = &services.nri else { return };
    match plugins.stop_pod(id.as_str()).await {
        Ok(updates) => warn(obey(pods, updates, Vec::new()).await),
        Err(error) => warn(Err(error.into())),
    }
}

/// The pod goes.
pub(super) async fn tell_of_pods_removal(services: &Services, id: &SandboxId) {
    let Some(plugins) = &services.nri else { return };
    warn(plugins.remove_pod(id.as_str()).await.map_err(Error::from));
}

pub(super) async fn ask_to_update_pod(
    services: &Services,
    id: &SandboxId,
    change: &SandboxResources,
) -> Result<(), Error> {
    let Some(plugins) = &services.nri else { return Ok(()) };
    let overhead = change.overhead.as_ref().map(words::resources);
    let resources = change.resources.as_ref().map(words::resources);
    Ok(plugins.update_pod(id.as_str(), overhead, resources).await?)
}

pub(super) async fn tell_of_pods_update(services: &Services, told: PodSandbox) {
    let Some(plugins) = &services.nri else { return };
    warn(plugins.post_update_pod(told).await.map_err(Error::from));
}

/// Makes a container as plugins want it. What a failure leaves of its files is the caller's.
pub(super) async fn make(services: &Services, pods: &Pods, order: Order) -> Result<Made, Error> {
    let Order { image, place, config, around, .. } = &order;
    let prepared = prepare(&services.images, image, place, config, around);
    let spec = prepared.await.map_err(Error::Container)?;
    let Some(plugins) = &services.nri else {
        let user = finish(place, spec).await?;
        return Ok(Made { user, resources: None });
    };
    let made = Box::pin(adjusted(plugins, pods, &order, spec)).await;
    let id = order.place.id.as_str();
    match &made {
        Ok(_) => warn(plugins.post_create_container(id).await.map_err(Error::from)),
        // Those that have been told of it are told that it isn't.
        Err(_) => warn(plugins.remove_container(id).await.map_err(Error::from)),
    }
    made
}

async fn adjusted(
    plugins: &nri::Plugins,
    pods: &Pods,
    order: &Order,
    spec: Spec,
) -> Result<Made, Error> {
    let id = &order.place.id;
    let mut told = words::container(id, &order.sandbox, &order.config);
    told.created_at = order.created_at;
    told.image = Some(words::image(&order.config, &order.image));
    nri::describe(&mut told, &spec);
    let changes = plugins.create_container(told).await?;
    let unusable =
        |why: String| Error::Plugins(nri::Error::Unusable { container: id.to_string(), why });
    let adjust = changes.adjust.clone();
    let spec = tokio::task::spawn_blocking(move || {
        let mut spec = nri::apply(spec, &adjust)?;
        let devices: Vec<String> = adjust.cdi_devices.into_iter().map(|it| it.name).collect();
        crate::oci::inject_cdi(&mut spec, &devices).map_err(|error| error.to_string())?;
        Ok(spec)
    });
    let spec = spec.await.map_err(|panic| panic.to_string()).flatten().map_err(unusable)?;
    let user = finish(&order.place, spec).await?;
    obey(pods, changes.updates, changes.evict).await?;
    let old = &order.config.resources;
    let mut new = old.clone();
    if let Some(linux) = &changes.adjust.linux {
        if let Some(resources) = &linux.resources {
            new = new.updated(&changed(&Resources::default(), resources));
        }
        if let Some(score) = &linux.oom_score_adj {
            new.oom_score_adj = i32::try_from(score.value).unwrap_or(new.oom_score_adj);
        }
    }
    Ok(Made { user, resources: (new != *old).then_some(new) })
}

/// A plugin that refuses a start is the container's end.
pub(super) async fn ask_to_start(services: &Services, id: &ContainerId) -> Result<(), Error> {
    let Some(plugins) = &services.nri else { return Ok(()) };
    Ok(plugins.start_container(id.as_str()).await?)
}

pub(super) async fn tell_of_start(services: &Services, id: &ContainerId, init: &Init) {
    let Some(plugins) = &services.nri else { return };
    let pid = u32::try_from(init.pid).unwrap_or_default();
    let told = plugins.post_start_container(id.as_str(), pid, init.started_at).await;
    warn(told.map_err(Error::from));
}

pub(super) async fn tell_of_end(services: &Services, pods: &Pods, id: &ContainerId, ended: Ended) {
    let Some(plugins) = &services.nri else { return };
    let write = move |container: &mut Container| words::end(container, ended);
    match plugins.stop_container(id.as_str(), write).await {
        Ok(updates) => warn(obey(pods, updates, Vec::new()).await),
        Err(error) => warn(Err(error.into())),
    }
}

pub(super) async fn tell_of_removal(services: &Services, id: &ContainerId) {
    let Some(plugins) = &services.nri else { return };
    warn(plugins.remove_container(id.as_str()).await.map_err(Error::from));
}

/// What plugins make of new limits that a client wants.
pub(super) async fn ask_to_update(
    services: &Services,
    pods: &Pods,
    id: &ContainerId,
    change: &Resources,
) -> Result<LinuxResources, Error> {
    let told = words::resources(change);
    let Some(plugins) = &services.nri else { return Ok(told) };
    let changes = plugins.update_container(id.as_str(), told.clone()).await?;
    let resources = changes.resources.unwrap_or(told);
    check_update(id, &resources)?;
    obey(pods, changes.updates, changes.evict).await?;
    Ok(resources)
}

/// `by_plugin`: those who have asked for it need not hear of it.
pub(super) async fn tell_of_update(
    services: &Services,
    id: &ContainerId,
    told: &LinuxResources,
    by_plugin: bool,
) {
    let Some(plugins) = &services.nri else { return };
    if by_plugin {
        plugins.updated(id.as_str(), told).await;
    } else {
        warn(plugins.post_update_container(id.as_str(), told).await.map_err(Error::from));
    }
}

/// Refuses limits that haled can't change in what runs.
pub(super) fn check_update(id: &ContainerId, resources: &LinuxResources) -> Result<(), Error> {
    match words::fixed(resources) {
        None => Ok(()),
        Some(what) => {
            let why = format!("{what} can only be set when a container is made");
            Err(nri::Error::Unusable { container: id.to_string(), why }.into())
        }
    }
}

/// Limits with those that a plugin sets in place of their own.
pub(super) fn changed(old: &Resources, by: &LinuxResources) -> Resources {
    old.updated(&words::limits(by))
}

/// Does to other containers what plugins want because of an event.
async fn obey(
    pods: &Pods,
    updates: Vec<ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
) -> Result<(), Error> {
    for update in updates {
        let (id, may_fail) = (update.container_id.clone(), update.ignore_failure);
        match Node::update(pods, update).await {
            Err(why) if may_fail => {
                tracing::warn!(container = id, why, "what an NRI plugin wants can't be done");
            }
            Err(why) => {
                let why = format!("the limits that a plugin wants for it can't be set: {why}");
                return Err(nri::Error::Unusable { container: id, why }.into());
            }
            Ok(()) => {}
        }
    }
    for eviction in evictions {
        let id = eviction.container_id.clone();
        if let Err(why) = pods.evict(eviction).await {
            tracing::warn!(container = id, why, "an NRI plugin's eviction can't be done");
        }
    }
    Ok(())
}

/// For what happens whatever a plugin says.
fn warn(told: Result<(), Error>) {
    if let Err(error) = told {
        tracing::warn!(%error, "what NRI plugins want after the fact is left undone");
    }
}

impl Node for Pods {
    fn update(&self, update: ContainerUpdate) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let Some(resources) = update.linux.and_then(|linux| linux.resources) else {
                return Ok(());
            };
            let id: ContainerId =
                update.container_id.parse().map_err(|error| format!("{error}"))?;
            self.update_for_plugin(&id, resources).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn evict(&self, eviction: ContainerEviction) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let (pod, container) =
                self.container(&eviction.container_id).map_err(|error| error.to_string())?;
            tracing::info!(
                sandbox = %pod.id, container = %container.id, reason = eviction.reason,
                "an NRI plugin evicts a container"
            );
            let (pods, id) = (self.clone(), container.id.clone());
            // It may take its whole grace, for which no plugin waits.
            tokio::spawn(async move {
                if let Err(error) = pods.stop(&id, super::heal::DEFAULT_GRACE).await {
                    tracing::warn!(container = %id, %error, "cannot stop an evicted container");
                }
            });
            Ok(())
        }
        .boxed()
    }
}

/// Tells the plugins that are yet to come what an earlier daemon has left.
pub(super) async fn adopt(services: &Services, drivers: impl Iterator<Item = &Driver>) {
    let Some(plugins) = &services.nri else { return };
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for driver in drivers {
        if !matches!(driver.record.phase, Phase::Ready { .. }) {
            continue;
        }
        let handler = &driver.runtime.name;
        pods.push(pod(services, &driver.id, &driver.config, handler, &driver.record.phase));
        for container in &driver.containers {
            let mut told = words::container(&container.id, &driver.id, &container.config);
            told.created_at = container.record.created_at;
            match &container.record.state {
                State::Exited(_) => continue,
                State::Running(init) => words::run(&mut told, init),
                State::Created | State::Starting => {}
            }
            containers.push((told, container.place.clone()));
        }
    }
    let described = tokio::task::spawn_blocking(move || {
        let described = containers.into_iter().map(|(mut told, place)| {
            match place.spec() {
                Ok(mut spec) => {
                    let linux = spec.linux_mut().as_mut();
                    if let Some(limits) = linux.and_then(|it| it.resources_mut().as_mut()) {
                        crate::oci::huge_pages::from_files(limits);
                    }
                    nri::describe(&mut told, &spec);
                }
                Err(error) => {
                    tracing::warn!(container = %place.id, %error, "NRI plugins see less of it");
                }
            }
            told
        });
        described.collect::<Vec<_>>()
    });
    plugins.adopt(pods, described.await.unwrap_or_default()).await;
}
