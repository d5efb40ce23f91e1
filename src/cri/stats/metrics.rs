//! ListMetricDescriptors, ListPodSandboxMetrics: what cAdvisor told of containers, for
//! kubelets that take it from the runtime (KEP-2371).

mod names;
mod samples;

use std::sync::Arc;
use std::time::SystemTime;

use tonic::Status;

use super::blocking;
use super::layer::Asked;
use super::pod::network_of;
use crate::container::state::State;
use crate::cri::Face;
use crate::pod::view::{ContainerView, PodView};
use crate::proto::cri;
use crate::stats::detail::{self, DiskNames};
use crate::stats::{self, processes};
use crate::sys::filesystem;
use names::{ALL, Labels};
use samples::Samples;

impl Face {
    pub(in crate::cri) fn list_metric_descriptors() -> cri::ListMetricDescriptorsResponse {
        let descriptors = ALL.iter().map(|metric| metric.descriptor()).collect();
        cri::ListMetricDescriptorsResponse { descriptors }
    }

    /// Of the pods that are ready, and of their containers that run.
    pub(in crate::cri) async fn list_pod_sandbox_metrics(
        &self,
    ) -> Result<Vec<cri::PodSandboxMetrics>, Status> {
        let pods: Vec<_> = self.pods.views().into_iter().filter(|pod| pod.ready()).collect();
        // Layers are measured in the background where they must be: nothing waits for long.
        for container in pods.iter().flat_map(|pod| &pod.containers) {
            if let State::Running(_) = container.state {
                self.layer(&container.id, Asked::InAList).await;
            }
        }
        let face = self.clone();
        blocking(move || {
            let disks = DiskNames::read();
            pods.iter().map(|pod| face.metrics_of(pod, &disks)).collect()
        })
        .await
    }

    fn metrics_of(&self, pod: &Arc<PodView>, disks: &DiskNames) -> cri::PodSandboxMetrics {
        let containers = pod.containers.iter();
        let containers = containers.filter_map(|each| self.container_metrics(pod, each, disks));
        cri::PodSandboxMetrics {
            pod_sandbox_id: pod.id.to_string(),
            metrics: self.pod_metrics(pod, disks),
            container_metrics: containers.collect(),
        }
    }

    /// Of a pod as a whole: its network, and its cgroup where it has one of its own.
    fn pod_metrics(&self, pod: &PodView, disks: &DiskNames) -> Vec<cri::Metric> {
        let (own, cgroup) = match self.own_cgroup(pod) {
            Some(cgroup) => (true, cgroup),
            None => (false, self.pods.cgroups(pod).pause),
        };
        let labels = Labels {
            id: cgroup.clone(),
            name: pod.id.to_string(),
            namespace: pod.config.namespace.clone(),
            pod: pod.config.name.clone(),
            ..Labels::default()
        };
        let mut samples = Samples::new(labels, SystemTime::now());
        samples.times(pod.created_at);
        if own && let Ok(reading) = stats::read(&cgroup) {
            samples.cgroup(&reading, &detail::read(&cgroup), disks);
        }
        for interface in network_of(pod).into_iter().flat_map(|network| network.interfaces) {
            samples.interface(&interface);
        }
        samples.into_list()
    }

    /// `None`: it doesn't run, or ended meanwhile.
    fn container_metrics(
        &self,
        pod: &PodView,
        container: &ContainerView,
        disks: &DiskNames,
    ) -> Option<cri::ContainerMetrics> {
        let State::Running(init) = &container.state else { return None };
        let cgroup = &container.place.cgroup;
        let reading = stats::read(cgroup).ok()?;
        let labels = Labels {
            container: container.config.name.clone(),
            id: cgroup.clone(),
            image: container.image_name.clone(),
            name: container.id.to_string(),
            namespace: pod.config.namespace.clone(),
            pod: pod.config.name.clone(),
        };
        let mut samples = Samples::new(labels, SystemTime::now());
        samples.times(init.started_at);
        samples.cgroup(&reading, &detail::read(cgroup), disks);
        if let Ok(found) = processes::read(cgroup) {
            samples.processes(&found, processes::open_files_limit(init.pid));
        }
        // Not measured yet: told the next time.
        if let Some((layer, _)) = self.measured.layers.last(container.id.as_str())
            && let Ok(on) = filesystem::of(&layer.path)
        {
            samples.layer(layer.bytes, &on);
        }
        let container_id = container.id.to_string();
        Some(cri::ContainerMetrics { container_id, metrics: samples.into_list() })
    }
}
