//! CreateContainer, StartContainer, StopContainer, RemoveContainer, ContainerStatus,
//! ListContainers, ReopenContainerLog.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Status;

use super::pod_sandbox::{gone_is_fine, selected};
use super::status::{invalid, of_image, of_pod};
use super::{Face, classes, container_config};
use crate::container::state::State;
use crate::container::stop::signal_number;
use crate::health::{Health, Report};
use crate::oci::model::{Propagation, Resources};
use crate::pod::view::{ContainerView, PodView};
use crate::proto::cri;
use crate::sys::userns::{IdMaps, Range};

impl Face {
    pub(super) async fn create_container(
        &self,
        request: cri::CreateContainerRequest,
    ) -> Result<cri::CreateContainerResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(of_pod)?;
        let config = request.config.ok_or_else(|| invalid("config is missing"))?;
        let mut config = container_config::parse(config, &self.about.seccomp_dir)?;
        if config.security.privileged && !pod.config.privileged {
            let why = "a privileged container needs a privileged sandbox";
            return Err(invalid(format!("config.linux.security_context.privileged: {why}")));
        }
        let (pods, own) = (&pod.config.annotations, &config.annotations);
        config.resources.blockio_class = classes::block_io(pods, own, &config.name);
        config.resources.rdt_class = classes::rdt(pods, own, &config.name);
        if config.user_image.is_empty() {
            config.user_image.clone_from(&config.image);
        }
        if let Some(checkpoint) = self.checkpoint_named(&config.image) {
            self.go_on_from(checkpoint, &mut config).await?;
        }
        config.find_images(&self.images).map_err(of_image)?;
        let id = self.pods.create(&pod.id, config).await.map_err(of_pod)?;
        Ok(cri::CreateContainerResponse { container_id: id.into() })
    }

    pub(super) async fn start_container(
        &self,
        request: cri::StartContainerRequest,
    ) -> Result<cri::StartContainerResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        self.pods.start(&container.id).await.map_err(of_pod)?;
        Ok(cri::StartContainerResponse {})
    }

    pub(super) async fn stop_container(
        &self,
        request: cri::StopContainerRequest,
    ) -> Result<cri::StopContainerResponse, Status> {
        // A negative time-out has no meaning in the CRI's text; it is taken as none.
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let found = self.pods.container(&request.container_id).map_err(of_pod);
        if let Some((_, container)) = gone_is_fine(found)? {
            gone_is_fine(self.pods.stop(&container.id, grace).await.map_err(of_pod))?;
        }
        Ok(cri::StopContainerResponse {})
    }

    pub(super) async fn remove_container(
        &self,
        request: cri::RemoveContainerRequest,
    ) -> Result<cri::RemoveContainerResponse, Status> {
        let found = self.pods.container(&request.container_id).map_err(of_pod);
        if let Some((_, container)) = gone_is_fine(found)? {
            gone_is_fine(self.pods.remove(&container.id).await.map_err(of_pod))?;
        }
        Ok(cri::RemoveContainerResponse {})
    }

    pub(super) async fn reopen_container_log(
        &self,
        request: cri::ReopenContainerLogRequest,
    ) -> Result<cri::ReopenContainerLogResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        self.pods.reopen_log(&container.id).await.map_err(of_pod)?;
        Ok(cri::ReopenContainerLogResponse {})
    }

    pub(super) fn container_status(
        &self,
        request: &cri::ContainerStatusRequest,
    ) -> Result<cri::ContainerStatusResponse, Status> {
        let (pod, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        let info = if request.verbose { verbose(&pod, &container) } else { HashMap::new() };
        Ok(cri::ContainerStatusResponse { status: Some(status(&pod, &container)), info })
    }

    pub(super) fn list_containers(
        &self,
        request: cri::ListContainersRequest,
    ) -> cri::ListContainersResponse {
        let filter = request.filter.unwrap_or_default();
        let wanted = |container: &ContainerView| {
            container.id.as_str().starts_with(&filter.id)
                && container.sandbox.as_str().starts_with(&filter.pod_sandbox_id)
                && filter.state.is_none_or(|wanted| wanted.state() == state(container))
                && selected(&filter.label_selector, |key| container.config.labels.get(key))
        };
        let pods = self.pods.views();
        let mut found: Vec<&ContainerView> = pods
            .iter()
            .flat_map(|pod| &pod.containers)
            .map(|container| &**container)
            .filter(|container| wanted(container))
            .collect();
        found.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let containers = found.into_iter().map(|container| cri::Container {
            id: container.id.to_string(),
            pod_sandbox_id: container.sandbox.to_string(),
            metadata: Some(metadata(container)),
            image: Some(image_spec(container)),
            image_ref: container.image_ref.clone(),
            state: state(container).into(),
            created_at: container.created_at,
            labels: container.config.labels.clone().into_iter().collect(),
            annotations: container.config.annotations.clone().into_iter().collect(),
            image_id: container.image_id.clone(),
        });
        cri::ListContainersResponse { containers: containers.collect() }
    }
}

pub(super) fn metadata(container: &ContainerView) -> cri::ContainerMetadata {
    cri::ContainerMetadata {
        name: container.config.name.clone(),
        attempt: container.config.attempt,
    }
}

fn image_spec(container: &ContainerView) -> cri::ImageSpec {
    cri::ImageSpec {
        image: container.image_name.clone(),
        user_specified_image: container.config.user_image.clone(),
        ..Default::default()
    }
}

fn state(container: &ContainerView) -> cri::ContainerState {
    match container.state {
        State::Created | State::Starting => cri::ContainerState::ContainerCreated,
        State::Running(_) => cri::ContainerState::ContainerRunning,
        State::Exited(_) => cri::ContainerState::ContainerExited,
    }
}

/// A running container's health as the CRI's one-word reason.
pub(super) fn health_word(health: Health) -> &'static str {
    match health {
        Health::Starting => "Starting",
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
        Health::NotReady => "NotReady",
    }
}

pub(super) fn status(pod: &PodView, container: &ContainerView) -> cri::ContainerStatus {
    let config = &container.config;
    let mut status = cri::ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(metadata(container)),
        state: state(container).into(),
        created_at: container.created_at,
        image: Some(image_spec(container)),
        image_ref: container.image_ref.clone(),
        image_id: container.image_id.clone(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(&config.resources)),
            windows: None,
        }),
        user: container.user.as_ref().map(|user| cri::ContainerUser {
            linux: Some(cri::LinuxContainerUser {
                uid: user.uid.into(),
                gid: user.gid.into(),
                supplemental_groups: user.groups.iter().map(|group| (*group).into()).collect(),
            }),
        }),
        stop_signal: stop_signal(&container.stop_signal).into(),
        ..Default::default()
    };
    match &container.state {
        State::Created | State::Starting => {}
        State::Running(init) => {
            status.started_at = init.started_at;
            if let Some(health) = container.health {
                health_word(health).clone_into(&mut status.reason);
                status.message.clone_from(&container.health_message);
            }
        }
        State::Exited(ended) => {
            status.started_at = ended.started_at;
            status.finished_at = ended.finished_at;
            status.exit_code = ended.code;
            status.reason.clone_from(&ended.reason);
            status.message.clone_from(&ended.message);
            let waits = |(name, _): &&(String, i64)| *name == config.name;
            if let Some((_, at)) = pod.waiting.iter().find(waits)
                && pod.newest(&config.name).is_some_and(|newest| newest.id == container.id)
            {
                let now = crate::container::state::nanos(std::time::SystemTime::now());
                let left = (at - now).max(0) / 1_000_000_000;
                let waiting = format!("haled starts it again in {left} s");
                status.message = [ended.message.as_str(), waiting.as_str()]
                    .join("; ")
                    .trim_start_matches("; ")
                    .to_owned();
            }
        }
    }
    status
}

/// By number, so that every spelling of an image is understood; unknown ones are 15.
fn stop_signal(name: &str) -> cri::Signal {
    let number = signal_number(name).unwrap_or(libc::SIGTERM);
    let mut all = (0..=70).filter_map(|value| cri::Signal::try_from(value).ok());
    all.find(|signal| signal_number(signal.as_str_name()) == Some(number))
        .unwrap_or(cri::Signal::Sigterm)
}

fn mount(mount: &crate::oci::model::Mount) -> cri::Mount {
    cri::Mount {
        container_path: mount.container_path.to_string_lossy().into_owned(),
        host_path: mount.host_path.to_string_lossy().into_owned(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: match mount.propagation {
            Propagation::Private => cri::MountPropagation::PropagationPrivate,
            Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
            Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
        }
        .into(),
        uid_mappings: id_mappings(mount, |maps| &maps.uids),
        gid_mappings: id_mappings(mount, |maps| &maps.gids),
        image: mount.image.as_ref().map(|image| cri::ImageSpec {
            image: image.name.clone(),
            // What PullImage answered for it.
            image_ref: image.id.clone(),
            ..Default::default()
        }),
        image_sub_path: mount
            .image
            .as_ref()
            .map_or_else(String::new, |image| image.sub_path.to_string_lossy().into_owned()),
    }
}

fn id_mappings(
    mount: &crate::oci::model::Mount,
    kind: fn(&IdMaps) -> &Vec<Range>,
) -> Vec<cri::IdMapping> {
    let mapping = |range: &Range| cri::IdMapping {
        container_id: range.inside,
        host_id: range.outside,
        length: range.count,
    };
    mount.id_maps.iter().flat_map(kind).map(mapping).collect()
}

fn resources(resources: &Resources) -> cri::LinuxContainerResources {
    let wire = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    cri::LinuxContainerResources {
        cpu_period: wire(resources.cpu_period_us),
        cpu_quota: resources.cpu_quota_us.unwrap_or(0),
        cpu_shares: wire(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit_bytes.unwrap_or(0),
        oom_score_adj: resources.oom_score_adj.into(),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(size, limit)| cri::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: resources.memory_swap_bytes.unwrap_or(0),
    }
}

fn verbose(pod: &PodView, container: &ContainerView) -> HashMap<String, String> {
    let pid = match container.state {
        State::Running(init) => Some(init.pid),
        _ => None,
    };
    // Only read for a person's question; gone with the bundle.
    let spec = std::fs::read(container.place.config_file()).ok();
    let spec = spec.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let info = json!({
        "pid": pid,
        "sandboxID": container.sandbox,
        "bundle": container.place.bundle,
        "cgroup": container.place.cgroup,
        "runtime": { "handler": pod.runtime.name, "path": pod.runtime.path },
        "config": &*container.config,
        "runtimeSpec": spec,
    });
    let mut verbose = HashMap::from([("info".to_owned(), info.to_string())]);
    if !container.probes.is_empty() {
        let probes: Vec<Value> = container.probes.iter().map(probe).collect();
        let health = json!({
            "state": container.health.map(health_word),
            "ready": container.ready,
            "message": container.health_message,
            "probes": probes,
        });
        verbose.insert("health".to_owned(), health.to_string());
    }
    verbose
}

fn probe(report: &Report) -> Value {
    let time = |time: Option<std::time::SystemTime>| time.map(crate::container::state::nanos);
    json!({
        "kind": report.kind,
        "handler": report.handler,
        "result": report.result,
        "run": report.run,
        "successThreshold": report.success_threshold,
        "failureThreshold": report.failure_threshold,
        "lastOutput": report.last.as_ref().map(|last| &last.output),
        "lastSuccess": report.last.as_ref().map(|last| last.success),
        "lastRunAt": time(report.last_run_at),
        "lastChangeAt": time(report.last_change_at),
        "nextRunAt": time(report.next_run_at),
    })
}
