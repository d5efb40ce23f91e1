//! ContainerStats and ListContainerStats.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tonic::Status;

use super::layer::Asked;
use super::{blocking, runs, usage};
use crate::container::state::nanos;
use crate::cri::Face;
use crate::cri::container::metadata;
use crate::cri::pod_sandbox::selected;
use crate::cri::status::of_pod;
use crate::pod::view::ContainerView;
use crate::proto::cri;
use crate::stats;

impl Face {
    pub(in crate::cri) async fn container_stats(
        &self,
        request: cri::ContainerStatsRequest,
    ) -> Result<cri::ContainerStatsResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        let mut stats = self.stats_of(vec![container], Asked::Alone).await?;
        Ok(cri::ContainerStatsResponse { stats: stats.pop() })
    }

    pub(in crate::cri) async fn list_container_stats(
        &self,
        request: cri::ListContainerStatsRequest,
    ) -> Result<cri::ListContainerStatsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let wanted = |container: &Arc<ContainerView>| {
            runs(container)
                && container.id.as_str().starts_with(&filter.id)
                && container.sandbox.as_str().starts_with(&filter.pod_sandbox_id)
                && selected(&filter.label_selector, |key| container.config.labels.get(key))
        };
        let pods = self.pods.views();
        let containers = pods.iter().flat_map(|pod| pod.containers.iter().cloned());
        let stats = self.stats_of(containers.filter(wanted).collect(), Asked::InAList).await?;
        Ok(cri::ListContainerStatsResponse { stats })
    }

    /// One for each, in their order.
    pub(super) async fn stats_of(
        &self,
        containers: Vec<Arc<ContainerView>>,
        asked: Asked,
    ) -> Result<Vec<cri::ContainerStats>, Status> {
        let (face, all) = (self.clone(), containers.clone());
        let read = move || all.iter().map(|each| face.reading_of(each)).collect::<Vec<_>>();
        let mut stats = blocking(read).await?;
        for (stats, container) in stats.iter_mut().zip(&containers) {
            stats.writable_layer = self.layer(&container.id, asked).await;
        }
        Ok(stats)
    }

    /// Of a container that has ended, only its writable layer is left to tell of.
    fn reading_of(&self, container: &ContainerView) -> cri::ContainerStats {
        let reading = stats::read(&container.place.cgroup).ok();
        let now = Instant::now();
        let timestamp = nanos(SystemTime::now());
        let config = &container.config;
        let rate = |reading: &stats::Reading| {
            self.measured.rates.rate(container.id.as_str(), now, reading.cpu_nanos)
        };
        cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: container.id.to_string(),
                metadata: Some(metadata(container)),
                labels: config.labels.clone().into_iter().collect(),
                annotations: config.annotations.clone().into_iter().collect(),
            }),
            cpu: reading.as_ref().map(|reading| usage::cpu(timestamp, reading, rate(reading))),
            memory: reading.as_ref().and_then(|reading| usage::memory(timestamp, reading)),
            swap: reading
                .as_ref()
                .and_then(|reading| usage::swap(timestamp, reading.memory.as_ref()?)),
            io: reading.as_ref().and_then(|reading| usage::io(timestamp, reading)),
            writable_layer: None,
        }
    }
}
