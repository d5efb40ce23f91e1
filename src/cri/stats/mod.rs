//! ContainerStats, ListContainerStats, PodSandboxStats, ListPodSandboxStats: one file for
//! containers, one for pods, and what both are made of. The metrics beside them.

mod container;
mod layer;
mod metrics;
mod pod;
mod usage;

use std::collections::HashSet;
use std::time::Instant;

use tonic::Status;

use super::Face;
use crate::container::state::State;
use crate::image::Usage;
use crate::pod::view::ContainerView;
use crate::stats::{self, Lately, Rates};

/// What was measured lately.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// CPU of containers and pods, by id.
    rates: Rates,
    /// Writable layers, by container id.
    layers: Lately<Usage>,
    /// Held while a layer is measured in the background, so that disks see one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Face {
    /// Reads the CPU time of everything that runs, again and again, so that a rate is known
    /// whenever someone asks. Never ends.
    pub async fn sample(self) {
        let mut ticks = tokio::time::interval(stats::PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let face = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || face.sample_once()).await {
                tracing::error!(%error, "reading CPU times failed");
            }
        }
    }

    fn sample_once(&self) {
        let mut there = HashSet::new();
        for pod in self.pods.views() {
            if let Ok(nanos) = self.pod_cpu(&pod) {
                self.measured.rates.rate(pod.id.as_str(), Instant::now(), nanos);
            }
            there.insert(pod.id.to_string());
            for container in &pod.containers {
                // One that ended while this looked is no concern.
                if runs(container)
                    && let Ok(nanos) = stats::cpu_nanos(&container.place.cgroup)
                {
                    self.measured.rates.rate(container.id.as_str(), Instant::now(), nanos);
                }
                there.insert(container.id.to_string());
            }
        }
        self.measured.rates.retain(|id| there.contains(id));
        self.measured.layers.retain(|id| there.contains(id));
    }
}

fn runs(container: &ContainerView) -> bool {
    matches!(container.state, State::Running(_))
}

/// Reading many files, where blocking is allowed.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let failed = |error| Status::internal(format!("reading statistics failed: {error}"));
    tokio::task::spawn_blocking(read).await.map_err(failed)
}
