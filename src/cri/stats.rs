//! ContainerStats and ListContainerStats.

use std::time::SystemTime;

use tonic::Status;

use super::Face;
use super::container::metadata;
use super::image::filesystem;
use super::pod_sandbox::selected;
use super::status::{of_image, of_pod};
use crate::container::state::{State, nanos};
use crate::pod::view::ContainerView;
use crate::proto::cri;
use crate::stats;

impl Face {
    pub(super) async fn container_stats(
        &self,
        request: cri::ContainerStatsRequest,
    ) -> Result<cri::ContainerStatsResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        Ok(cri::ContainerStatsResponse { stats: Some(self.stats_of(&container).await?) })
    }

    pub(super) async fn list_container_stats(
        &self,
        request: cri::ListContainerStatsRequest,
    ) -> Result<cri::ListContainerStatsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let wanted = |container: &ContainerView| {
            matches!(container.state, State::Running(_))
                && container.id.as_str().starts_with(&filter.id)
                && container.sandbox.as_str().starts_with(&filter.pod_sandbox_id)
                && selected(&filter.label_selector, |key| container.config.labels.get(key))
        };
        let pods = self.pods.views();
        let containers = pods.iter().flat_map(|pod| &pod.containers);
        let mut stats = Vec::new();
        for container in containers.filter(|container| wanted(container)) {
            stats.push(self.stats_of(container).await?);
        }
        Ok(cri::ListContainerStatsResponse { stats })
    }

    /// Of a container that has ended, only its writable layer is left to tell of.
    async fn stats_of(&self, container: &ContainerView) -> Result<cri::ContainerStats, Status> {
        let layer = self.images.writable_usage(&container.id).await.map_err(of_image)?;
        let reading = stats::read(&container.place.cgroup).ok();
        let memory = reading.and_then(|reading| reading.memory);
        let timestamp = nanos(SystemTime::now());
        let value = |value| Some(cri::UInt64Value { value });
        let config = &container.config;
        Ok(cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: container.id.to_string(),
                metadata: Some(metadata(container)),
                labels: config.labels.clone().into_iter().collect(),
                annotations: config.annotations.clone().into_iter().collect(),
            }),
            cpu: reading.map(|reading| cri::CpuUsage {
                timestamp,
                usage_core_nano_seconds: value(reading.cpu_nanos),
                usage_nano_cores: None,
                psi: None,
            }),
            memory: memory.map(|memory| cri::MemoryUsage {
                timestamp,
                working_set_bytes: value(memory.working_set_bytes),
                available_bytes: memory.available_bytes.and_then(value),
                usage_bytes: value(memory.usage_bytes),
                rss_bytes: value(memory.rss_bytes),
                page_faults: value(memory.page_faults),
                major_page_faults: value(memory.major_page_faults),
                psi: None,
            }),
            swap: memory.and_then(|memory| memory.swap_bytes).map(|swap| cri::SwapUsage {
                timestamp,
                swap_available_bytes: None,
                swap_usage_bytes: value(swap),
            }),
            writable_layer: Some(filesystem(&layer)),
            io: None,
        })
    }
}
