//! PodSandboxStats and ListPodSandboxStats.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tonic::Status;

use super::layer::Asked;
use super::{blocking, runs, usage};
use crate::container::state::nanos;
use crate::cri::Face;
use crate::cri::pod_sandbox::{metadata, selected};
use crate::cri::status::of_pod;
use crate::oci::model::Sharing;
use crate::pod::record::Phase;
use crate::pod::view::{ContainerView, PodView};
use crate::proto::cri;
use crate::stats::network::{self, Network};
use crate::stats::{self, Reading};

impl Face {
    pub(in crate::cri) async fn pod_sandbox_stats(
        &self,
        request: &cri::PodSandboxStatsRequest,
    ) -> Result<cri::PodSandboxStatsResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(of_pod)?;
        Ok(cri::PodSandboxStatsResponse { stats: Some(self.pod_stats(&pod, Asked::Alone).await?) })
    }

    pub(in crate::cri) async fn list_pod_sandbox_stats(
        &self,
        request: cri::ListPodSandboxStatsRequest,
    ) -> Result<cri::ListPodSandboxStatsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let mut stats = Vec::new();
        for pod in self.pods.views() {
            if pod.ready()
                && pod.id.as_str().starts_with(&filter.id)
                && selected(&filter.label_selector, |key| pod.config.labels.get(key))
            {
                stats.push(self.pod_stats(&pod, Asked::InAList).await?);
            }
        }
        Ok(cri::ListPodSandboxStatsResponse { stats })
    }

    /// Of a pod that has ended, there are only its containers' writable layers.
    async fn pod_stats(
        &self,
        pod: &Arc<PodView>,
        asked: Asked,
    ) -> Result<cri::PodSandboxStats, Status> {
        let running: Vec<Arc<ContainerView>> =
            pod.containers.iter().filter(|each| runs(each)).cloned().collect();
        let containers = self.stats_of(running, asked).await?;
        let (face, view) = (self.clone(), pod.clone());
        let linux = blocking(move || face.pod_reading(&view)).await?;
        Ok(cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: pod.id.to_string(),
                metadata: Some(metadata(pod)),
                labels: pod.config.labels.clone().into_iter().collect(),
                annotations: pod.config.annotations.clone().into_iter().collect(),
            }),
            linux: Some(cri::LinuxPodSandboxStats { containers, ..linux }),
            windows: None,
        })
    }

    fn pod_reading(&self, pod: &PodView) -> cri::LinuxPodSandboxStats {
        let cgroups = self.cgroups_of(pod);
        let reading = sum(cgroups.iter().filter_map(|cgroup| stats::read(cgroup).ok()));
        let counts = cgroups.iter().filter_map(|cgroup| stats::process_count(cgroup).ok());
        let processes: u64 = counts.sum();
        let now = Instant::now();
        let timestamp = nanos(SystemTime::now());
        let Some(reading) = reading else { return cri::LinuxPodSandboxStats::default() };
        let rate = self.measured.rates.rate(pod.id.as_str(), now, reading.cpu_nanos);
        cri::LinuxPodSandboxStats {
            cpu: Some(usage::cpu(timestamp, &reading, rate)),
            memory: usage::memory(timestamp, &reading),
            network: network_of(pod).map(|network| usage::network(timestamp, network)),
            process: Some(cri::ProcessUsage { timestamp, process_count: usage::value(processes) }),
            io: usage::io(timestamp, &reading),
            containers: Vec::new(),
        }
    }

    /// Nanoseconds of CPU time of a pod.
    pub(super) fn pod_cpu(&self, pod: &PodView) -> io::Result<u64> {
        self.cgroups_of(pod).iter().map(|cgroup| stats::cpu_nanos(cgroup)).sum()
    }

    /// The cgroups that a pod's use is counted in: the one that was made for this pod alone, by
    /// a kubelet, whose name bears its uid, or as a scope. Elsewhere the parent may hold other pods too, so it is
    /// those of pause and of each container that runs.
    fn cgroups_of(&self, pod: &PodView) -> Vec<String> {
        if let Some(own) = self.own_cgroup(pod) {
            return vec![own];
        }
        let pause = self.pods.cgroups(pod).pause;
        let running = pod.containers.iter().filter(|container| runs(container));
        let containers = running.map(|container| container.place.cgroup.clone());
        std::iter::once(pause).chain(containers).collect()
    }

    /// The cgroup that holds this pod alone, where there is one.
    pub(super) fn own_cgroup(&self, pod: &PodView) -> Option<String> {
        let cgroups = self.pods.cgroups(pod);
        if is_of(&cgroups.parent, &pod.config.uid) {
            return Some(cgroups.parent);
        }
        cgroups.has_scope().then_some(cgroups.within)
    }
}

/// Whether a cgroup is the pod's own: `…/pod<uid>`, or `…-pod<uid>.slice` of systemd, where a
/// dash of the uid is an underscore.
fn is_of(cgroup: &str, uid: &str) -> bool {
    let name = cgroup.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let ends = |uid: &str| name.ends_with(&format!("pod{uid}"));
    !uid.is_empty() && (ends(uid) || ends(&uid.replace('-', "_")))
}

/// The readings of a pod's cgroups together; `None` of none. Pressure and limits don't add up:
/// they are known where the pod has a cgroup of its own.
fn sum(readings: impl Iterator<Item = Reading>) -> Option<Reading> {
    readings.reduce(|one, other| Reading {
        cpu_nanos: one.cpu_nanos + other.cpu_nanos,
        memory: one.memory.zip(other.memory).map(|(one, other)| stats::Memory {
            usage_bytes: one.usage_bytes + other.usage_bytes,
            working_set_bytes: one.working_set_bytes + other.working_set_bytes,
            rss_bytes: one.rss_bytes + other.rss_bytes,
            page_faults: one.page_faults + other.page_faults,
            major_page_faults: one.major_page_faults + other.major_page_faults,
            ..stats::Memory::default()
        }),
        pressure: stats::Pressures::default(),
    })
}

/// Traffic of a pod; `None` on the host's network.
pub(in crate::cri) fn network_of(pod: &PodView) -> Option<Network> {
    match &pod.phase {
        Phase::Ready { pause_pid, .. } if pod.config.network == Sharing::Pod => {
            // Gone meanwhile: nothing to tell.
            network::read(*pause_pid).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_cgroup_is_known_by_its_uid() {
        assert!(is_of("/kubepods/burstable/podab-cd", "ab-cd"));
        assert!(is_of("/kubepods.slice/kubepods-burstable-podab_cd.slice", "ab-cd"));
        assert!(!is_of("/kubepods/podab-cd/x", "ab-cd"));
        assert!(!is_of("/haled", "ab-cd"));
        assert!(!is_of("/pod", ""));
    }

    #[test]
    fn readings_add_up_without_what_does_not() {
        let reading = |cpu_nanos, available_bytes| Reading {
            cpu_nanos,
            memory: Some(stats::Memory { usage_bytes: 10, available_bytes, ..Default::default() }),
            ..Default::default()
        };
        let both = sum([reading(1, Some(5)), reading(2, None)].into_iter()).unwrap();
        let memory = both.memory.unwrap();
        assert_eq!((both.cpu_nanos, memory.usage_bytes), (3, 20));
        assert_eq!(memory.available_bytes, None);
        assert_eq!(sum([reading(1, Some(5))].into_iter()).unwrap(), reading(1, Some(5)));
        assert_eq!(sum(std::iter::empty()), None);
    }
}
