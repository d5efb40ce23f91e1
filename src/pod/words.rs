//! haled's own types in NRI's words, and back.

use std::collections::BTreeMap;

use super::config::SandboxConfig;
use crate::container::config::ContainerConfig;
use crate::container::state::{Ended, Init};
use crate::id::{ContainerId, SandboxId};
use crate::image::Image;
use crate::nri::api::{
    self, CdiDevice, Container, ContainerState, HugepageLimit, LinuxCpu, LinuxMemory,
    LinuxPodSandbox, LinuxResources, OptionalInt64, OptionalString, OptionalUInt64, PodSandbox,
};
use crate::oci::model::Resources;

pub(super) fn pod(
    id: &SandboxId,
    config: &SandboxConfig,
    handler: &str,
    cgroup_parent: String,
    cgroups_path: String,
) -> PodSandbox {
    PodSandbox {
        id: id.to_string(),
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: handler.to_owned(),
        linux: Some(LinuxPodSandbox {
            pod_overhead: config.overhead.as_ref().map(resources),
            pod_resources: config.resources.as_ref().map(resources),
            cgroup_parent,
            cgroups_path,
            ..LinuxPodSandbox::default()
        }),
        ..PodSandbox::default()
    }
}

/// One that has yet to be started, without what its config.json says.
pub(super) fn container(
    id: &ContainerId,
    sandbox: &SandboxId,
    config: &ContainerConfig,
) -> Container {
    let devices = config.cdi_devices.iter();
    Container {
        id: id.to_string(),
        pod_sandbox_id: sandbox.to_string(),
        name: config.name.clone(),
        state: ContainerState::ContainerCreated as i32,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        cdi_devices: devices.map(|name| CdiDevice { name: name.clone() }).collect(),
        ..Container::default()
    }
}

pub(super) fn image(config: &ContainerConfig, image: &Image) -> api::Image {
    let asked = [&config.user_image, &config.image].into_iter().find(|name| !name.is_empty());
    let digest = image.digests.first().and_then(|digest| digest.split_once('@'));
    api::Image {
        name: asked.cloned().unwrap_or_default(),
        digest: digest.map(|(_, digest)| digest.to_owned()).unwrap_or_default(),
        config_digest: image.id.clone(),
    }
}

pub(super) fn run(container: &mut Container, init: &Init) {
    container.state = ContainerState::ContainerRunning as i32;
    container.pid = u32::try_from(init.pid).unwrap_or_default();
    container.started_at = init.started_at;
}

pub(super) fn end(container: &mut Container, ended: Ended) {
    container.started_at = ended.started_at;
    container.finished_at = ended.finished_at;
    container.exit_code = ended.code;
    container.status_reason = ended.reason;
    container.status_message = ended.message;
}

pub(super) fn resources(from: &Resources) -> LinuxResources {
    let signed = |value: Option<i64>| value.map(|value| OptionalInt64 { value });
    let unsigned = |value: Option<u64>| value.map(|value| OptionalUInt64 { value });
    let pages = from.hugepage_limits.iter();
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: signed(from.memory_limit_bytes),
            swap: signed(from.memory_swap_bytes),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: unsigned(from.cpu_shares),
            quota: signed(from.cpu_quota_us),
            period: unsigned(from.cpu_period_us),
            cpus: from.cpuset_cpus.clone(),
            mems: from.cpuset_mems.clone(),
            ..LinuxCpu::default()
        }),
        hugepage_limits: pages
            .map(|(size, limit)| HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        rdt_class: from.rdt_class.clone().map(|value| OptionalString { value }),
        blockio_class: from.blockio_class.clone().map(|value| OptionalString { value }),
        unified: from.unified.clone(),
        pids: from.pids_limit.map(|limit| api::LinuxPids { limit }),
        ..LinuxResources::default()
    }
}

/// What haled itself remembers of limits.
pub(super) fn limits(from: &LinuxResources) -> Resources {
    let memory = from.memory.unwrap_or_default();
    let cpu = from.cpu.clone().unwrap_or_default();
    let pages = from.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit));
    Resources {
        cpu_shares: cpu.shares.map(|shares| shares.value),
        cpu_quota_us: cpu.quota.map(|quota| quota.value),
        cpu_period_us: cpu.period.map(|period| period.value),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        memory_limit_bytes: memory.limit.map(|limit| limit.value),
        memory_swap_bytes: memory.swap.map(|swap| swap.value),
        pids_limit: from.pids.as_ref().map(|pids| pids.limit),
        oom_score_adj: 0,
        hugepage_limits: pages.collect::<BTreeMap<_, _>>(),
        unified: from.unified.clone(),
        rdt_class: from.rdt_class.clone().map(|class| class.value),
        blockio_class: from.blockio_class.clone().map(|class| class.value),
    }
}

/// A limit that is set and that can't be changed later.
pub(super) fn fixed(from: &LinuxResources) -> Option<&'static str> {
    let memory = from.memory.unwrap_or_default();
    let cpu = from.cpu.clone().unwrap_or_default();
    [
        ("memory.reservation", memory.reservation.is_some()),
        ("memory.kernel", memory.kernel.is_some()),
        ("memory.kernel_tcp", memory.kernel_tcp.is_some()),
        ("memory.swappiness", memory.swappiness.is_some()),
        ("memory.disable_oom_killer", memory.disable_oom_killer.is_some()),
        ("memory.use_hierarchy", memory.use_hierarchy.is_some()),
        ("cpu.realtime_runtime", cpu.realtime_runtime.is_some()),
        ("cpu.realtime_period", cpu.realtime_period.is_some()),
        ("blockio_class", from.blockio_class.is_some()),
        ("devices", !from.devices.is_empty()),
    ]
    .into_iter()
    .find_map(|(name, set)| set.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_back_as_they_went() {
        let all = Resources {
            cpu_shares: Some(2),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(3),
            cpuset_cpus: "0".into(),
            cpuset_mems: "1".into(),
            memory_limit_bytes: Some(4),
            memory_swap_bytes: Some(5),
            pids_limit: Some(6),
            oom_score_adj: 0,
            hugepage_limits: [("2MB".to_owned(), 7)].into(),
            unified: [("memory.low".to_owned(), "8".to_owned())].into(),
            rdt_class: Some("gold".into()),
            blockio_class: None,
        };
        let class = Resources { blockio_class: Some("fast".into()), ..Resources::default() };
        assert_eq!(limits(&resources(&class)), class);
        assert_eq!(limits(&resources(&all)), all);
        assert_eq!(limits(&resources(&Resources::default())), Resources::default());
        assert_eq!(fixed(&resources(&all)), None);
        let swappiness = Some(OptionalUInt64 { value: 1 });
        let memory = Some(LinuxMemory { swappiness, ..LinuxMemory::default() });
        let more = LinuxResources { memory, ..LinuxResources::default() };
        assert_eq!(fixed(&more), Some("memory.swappiness"));
    }
}
