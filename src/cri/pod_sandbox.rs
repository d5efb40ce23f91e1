//! RunPodSandbox, StopPodSandbox, RemovePodSandbox, PodSandboxStatus, ListPodSandbox.

use std::collections::HashMap;

use serde_json::json;
use tonic::{Code, Status};

use super::Face;
use super::status::{invalid, of_pod};
use super::{container, sandbox_config};
use crate::health::Policy;
use crate::oci::model::{PidMode, Sharing};
use crate::pod::record::{Origin, Phase};
use crate::pod::view::PodView;
use crate::proto::cri;

impl Face {
    pub(super) async fn run_pod_sandbox(
        &self,
        request: cri::RunPodSandboxRequest,
    ) -> Result<cri::RunPodSandboxResponse, Status> {
        let config = request.config.ok_or_else(|| invalid("config is missing"))?;
        let config = sandbox_config::parse(config, request.runtime_handler)?;
        let policy = Policy::from_annotations(&config.annotations)
            .map_err(|bad| invalid(bad.to_string()))?;
        let id = self.pods.run(config, Origin::Cri, policy).await.map_err(of_pod)?;
        Ok(cri::RunPodSandboxResponse { pod_sandbox_id: id.into() })
    }

    pub(super) async fn stop_pod_sandbox(
        &self,
        request: cri::StopPodSandboxRequest,
    ) -> Result<cri::StopPodSandboxResponse, Status> {
        if let Some(pod) = gone_is_fine(self.pods.pod(&request.pod_sandbox_id).map_err(of_pod))? {
            gone_is_fine(self.pods.stop_sandbox(&pod.id).await.map_err(of_pod))?;
        }
        Ok(cri::StopPodSandboxResponse {})
    }

    pub(super) async fn remove_pod_sandbox(
        &self,
        request: cri::RemovePodSandboxRequest,
    ) -> Result<cri::RemovePodSandboxResponse, Status> {
        if let Some(pod) = gone_is_fine(self.pods.pod(&request.pod_sandbox_id).map_err(of_pod))? {
            gone_is_fine(self.pods.remove_sandbox(&pod.id).await.map_err(of_pod))?;
        }
        Ok(cri::RemovePodSandboxResponse {})
    }

    pub(super) fn pod_sandbox_status(
        &self,
        request: &cri::PodSandboxStatusRequest,
    ) -> Result<cri::PodSandboxStatusResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(of_pod)?;
        let info = if request.verbose { verbose(&pod) } else { HashMap::new() };
        let statuses = pod.containers.iter().map(|container| container::status(&pod, container));
        Ok(cri::PodSandboxStatusResponse {
            status: Some(status(&pod)),
            info,
            containers_statuses: statuses.collect(),
            timestamp: crate::container::state::nanos(std::time::SystemTime::now()),
        })
    }

    pub(super) fn list_pod_sandbox(
        &self,
        request: cri::ListPodSandboxRequest,
    ) -> cri::ListPodSandboxResponse {
        let filter = request.filter.unwrap_or_default();
        let wanted = |pod: &PodView| {
            // One that is being made can't be used, so it isn't shown.
            pod.phase != Phase::Starting
                && pod.id.as_str().starts_with(&filter.id)
                && filter.state.is_none_or(|wanted| wanted.state() == state(pod))
                && selected(&filter.label_selector, |key| pod.config.labels.get(key))
        };
        let mut pods = self.pods.views();
        // The newest first, as crictl shows them.
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        let items = pods.iter().filter(|pod| wanted(pod)).map(|pod| cri::PodSandbox {
            id: pod.id.to_string(),
            metadata: Some(metadata(pod)),
            state: state(pod).into(),
            created_at: pod.created_at,
            labels: pod.config.labels.clone().into_iter().collect(),
            annotations: pod.config.annotations.clone().into_iter().collect(),
            runtime_handler: pod.config.runtime_handler.clone(),
        });
        cri::ListPodSandboxResponse { items: items.collect() }
    }
}

/// Stopping and removing are idempotent: what isn't there is stopped and removed.
pub(super) fn gone_is_fine<T>(result: Result<T, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Every pair of a label selector is there.
pub(super) fn selected<'a>(
    selector: &HashMap<String, String>,
    label: impl Fn(&str) -> Option<&'a String>,
) -> bool {
    selector.iter().all(|(key, value)| label(key) == Some(value))
}

pub(super) fn metadata(pod: &PodView) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: pod.config.name.clone(),
        uid: pod.config.uid.clone(),
        namespace: pod.config.namespace.clone(),
        attempt: pod.config.attempt,
    }
}

fn state(pod: &PodView) -> cri::PodSandboxState {
    if pod.ready() {
        cri::PodSandboxState::SandboxReady
    } else {
        cri::PodSandboxState::SandboxNotready
    }
}

pub(super) fn status(pod: &PodView) -> cri::PodSandboxStatus {
    let mut ips = pod.ips().iter().map(ToString::to_string);
    let network = cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    };
    let mode = |sharing| match sharing {
        Sharing::Pod => cri::NamespaceMode::Pod,
        Sharing::Node => cri::NamespaceMode::Node,
    };
    let options = cri::NamespaceOption {
        network: mode(pod.config.network).into(),
        ipc: mode(pod.config.ipc).into(),
        pid: match pod.config.pid {
            PidMode::Pod => cri::NamespaceMode::Pod,
            PidMode::Node => cri::NamespaceMode::Node,
            PidMode::Container | PidMode::Target(_) => cri::NamespaceMode::Container,
        }
        .into(),
        ..Default::default()
    };
    cri::PodSandboxStatus {
        id: pod.id.to_string(),
        metadata: Some(metadata(pod)),
        state: state(pod).into(),
        created_at: pod.created_at,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(options) }),
        }),
        labels: pod.config.labels.clone().into_iter().collect(),
        annotations: pod.config.annotations.clone().into_iter().collect(),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

fn verbose(pod: &PodView) -> HashMap<String, String> {
    let (pause_pid, network, why) = match &pod.phase {
        Phase::Ready { pause_pid, network } => (Some(*pause_pid), network.as_ref(), None),
        Phase::Lost { network, why } => (None, network.as_ref(), Some(why.as_str())),
        Phase::Stopping { network, .. } => (None, network.as_ref(), Some("being stopped")),
        Phase::Starting => (None, None, Some("being made")),
        Phase::Stopped => (None, None, Some("stopped")),
    };
    let info = json!({
        "pid": pause_pid,
        "notReady": why,
        "runDirectory": pod.dir,
        "netns": (pod.config.network == Sharing::Pod).then(|| pod.dir.join("pins/net")),
        "runtime": { "handler": pod.runtime.name, "path": pod.runtime.path },
        "cniResult": network.map(|network| &network.result),
        "healing": pod.policy.as_deref(),
        "config": &*pod.config,
    });
    [("info".to_owned(), info.to_string())].into()
}
