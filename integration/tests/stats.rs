//! Statistics of containers and pods, against what the kernel says beside them.

use std::time::{Duration, Instant};

use haled::proto::cri;
use haled::sys::cgroup::{self, Version};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE};

mod pressure;

const MIB: u64 = 1024 * 1024;

impl Daemon {
    async fn stats(&self, container: &str) -> cri::ContainerStats {
        let request = cri::ContainerStatsRequest { container_id: container.into() };
        let response = self.runtime().await.container_stats(request).await.unwrap();
        response.into_inner().stats.unwrap()
    }

    pub(crate) async fn pod_stats(&self, pod: &str) -> cri::LinuxPodSandboxStats {
        let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.into() };
        let response = self.runtime().await.pod_sandbox_stats(request).await.unwrap();
        response.into_inner().stats.unwrap().linux.unwrap()
    }

    /// The cgroup of a container.
    pub(crate) async fn cgroup_of(&self, container: &str) -> String {
        let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: true };
        let response = self.runtime().await.container_status(request).await.unwrap();
        let info: serde_json::Value =
            serde_json::from_str(&response.into_inner().info["info"]).unwrap();
        info["cgroup"].as_str().unwrap().to_owned()
    }

    /// Asks for a container's statistics until they are as wanted.
    async fn stats_until(
        &self,
        container: &str,
        what: &str,
        wanted: impl Fn(&cri::ContainerStats) -> bool,
    ) -> cri::ContainerStats {
        let began = Instant::now();
        loop {
            let stats = self.stats(container).await;
            if wanted(&stats) {
                return stats;
            }
            assert!(began.elapsed() < PATIENCE, "never came: {what}: {stats:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A number in a cgroup file of v1 or v2.
fn kernel(cgroup: &str, controller: &str, v1: &str, v2: &str) -> u64 {
    let file = if cgroup::version() == Version::V1 { v1 } else { v2 };
    let path = cgroup::directory(controller, cgroup).unwrap().join(file);
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Nanoseconds of CPU time.
fn kernel_cpu(cgroup: &str) -> u64 {
    match cgroup::version() {
        Version::V1 => kernel(cgroup, "cpuacct", "cpuacct.usage", ""),
        Version::V2 => {
            let path = cgroup::directory("cpu", cgroup).unwrap().join("cpu.stat");
            let text = std::fs::read_to_string(path).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
            line.parse::<u64>().unwrap() * 1000
        }
    }
}

fn number(value: Option<&cri::UInt64Value>) -> u64 {
    value.expect("it is told").value
}

#[tokio::test]
async fn a_busy_container_uses_cpu_and_an_idle_one_does_not() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("cpu")).await;
    let busy = Daemon::host_container("busy", "while :; do :; done");
    let busy = daemon.run_container(&pod, busy).await;
    let idle = Daemon::host_container("idle", "exec sleep 600");
    let idle = daemon.run_container(&pod, idle).await;

    let rate =
        |stats: &cri::ContainerStats| Some(stats.cpu.as_ref()?.usage_nano_cores.as_ref()?.value);
    // A twentieth of a core: the machine may be busy with other things.
    daemon.stats_until(&busy, "a rate", |stats| rate(stats) > Some(50_000_000)).await;
    let stats = daemon.stats_until(&idle, "a rate", |stats| rate(stats).is_some()).await;
    assert!(rate(&stats) < Some(50_000_000), "{stats:?}");

    let cgroup = daemon.cgroup_of(&busy).await;
    let before = kernel_cpu(&cgroup);
    let cpu = daemon.stats(&busy).await.cpu.unwrap();
    let used = number(cpu.usage_core_nano_seconds.as_ref());
    assert!(before <= used && used <= kernel_cpu(&cgroup), "{before} {used}");
    let pressure = cgroup::unified_directory(&cgroup).unwrap().join("cpu.pressure");
    assert_eq!(cpu.psi.is_some(), pressure.exists());
    if let Some(psi) = cpu.psi {
        assert!(psi.some.unwrap().total >= psi.full.unwrap().total);
    }
}

#[tokio::test]
async fn memory_is_what_the_kernel_charges_and_what_the_limit_leaves() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("memory")).await;
    let mut config = Daemon::host_container("app", "exec sleep 600");
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        ..Default::default()
    });
    let id = daemon.run_container(&pod, config).await;
    let before = daemon.stats(&id).await.memory.unwrap();
    let (code, _) =
        daemon.exec(&id, &["dd", "if=/dev/zero", "of=/dev/shm/full", "bs=1M", "count=32"]).await;
    assert_eq!(code, 0);
    let stats = daemon.stats(&id).await;
    let memory = stats.memory.unwrap();
    let usage = number(memory.usage_bytes.as_ref());
    assert!(usage >= number(before.usage_bytes.as_ref()) + 31 * MIB, "{before:?} {memory:?}");
    let working_set = number(memory.working_set_bytes.as_ref());
    assert!(working_set <= usage);
    assert_eq!(number(memory.available_bytes.as_ref()), 128 * MIB - working_set);
    assert!(number(memory.page_faults.as_ref()) > 0);
    // Nothing happens in it now but what the kernel does by itself.
    let cgroup = daemon.cgroup_of(&id).await;
    let charged = kernel(&cgroup, "memory", "memory.usage_in_bytes", "memory.current");
    assert!(usage.abs_diff(charged) < 2 * MIB, "{usage} {charged}");
}

#[tokio::test]
async fn a_writable_layer_is_measured_and_a_list_does_not_wait_for_it() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("disk")).await;
    let config = Daemon::host_container("app", "exec sleep 600");
    let id = daemon.run_container(&pod, config).await;
    let used = |stats: &cri::ContainerStats| {
        let layer = stats.writable_layer.as_ref()?;
        Some((layer.used_bytes.as_ref()?.value, layer.timestamp))
    };
    let first = daemon.stats_until(&id, "a layer", |stats| used(stats).is_some()).await;
    let first = used(&first).unwrap();
    assert!(first.0 < 4 * MIB, "{first:?}");
    let (code, _) =
        daemon.exec(&id, &["dd", "if=/dev/urandom", "of=/full", "bs=1M", "count=8"]).await;
    assert_eq!(code, 0);
    let later =
        daemon.stats_until(&id, "a larger layer", |stats| used(stats) > Some((8 * MIB, 0))).await;
    let later = used(&later).unwrap();
    assert!(later.1 > first.1, "its time is when it was measured");
    let list = cri::ListContainerStatsRequest::default();
    let list = daemon.runtime().await.list_container_stats(list).await.unwrap().into_inner();
    assert_eq!(used(&list.stats[0]), Some(later));
}

#[tokio::test]
async fn a_pod_tells_its_network_its_processes_and_its_containers() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("web")).await;
    let web = Daemon::container("web", "exec httpd -f -p 8080 -h /www");
    let id = daemon.run_container(&pod, web).await;
    let address = daemon.pod_ip(&pod).await;
    let traffic = |stats: &cri::LinuxPodSandboxStats| {
        let network = stats.network.as_ref().unwrap();
        let eth0 = network.default_interface.as_ref().unwrap();
        assert_eq!(eth0.name, "eth0");
        assert!(network.interfaces.iter().all(|each| each.name != "lo" && each.name != "eth0"));
        (number(eth0.rx_bytes.as_ref()), number(eth0.tx_bytes.as_ref()))
    };
    let before = traffic(&daemon.pod_stats(&pod).await);
    daemon
        .until("an answer", || {
            let curl = format!("curl -s -m 2 http://{address}:8080/");
            daemon.on_node(&curl).output().unwrap().stdout == b"it works\n"
        })
        .await;
    let stats = daemon.pod_stats(&pod).await;
    let after = traffic(&stats);
    assert!(after.0 >= before.0 + 100 && after.1 >= before.1 + 100, "{before:?} {after:?}");
    let statistics = "cat /sys/class/net/eth0/statistics/rx_bytes";
    let (_, seen) = daemon.exec(&id, &["sh", "-c", statistics]).await;
    assert!(after.0 <= seen.trim().parse().unwrap(), "{after:?} {seen}");

    // Pause and httpd.
    assert_eq!(number(stats.process.unwrap().process_count.as_ref()), 2);
    let names: Vec<String> = stats
        .containers
        .into_iter()
        .map(|each| each.attributes.unwrap().metadata.unwrap().name)
        .collect();
    assert_eq!(names, ["web"]);
    let cpu = number(stats.cpu.unwrap().usage_core_nano_seconds.as_ref());
    assert!(cpu >= kernel_cpu(&daemon.cgroup_of(&id).await) / 2, "{cpu}");
}

#[tokio::test]
async fn a_pods_own_cgroup_counts_what_its_containers_have_used_before() {
    let daemon = Daemon::start().await;
    let mut config = daemon.host_sandbox("kubelets");
    let uid = config.metadata.as_ref().unwrap().uid.clone();
    let parent = daemon.parent(&format!("pod{uid}"));
    config.linux.as_mut().unwrap().cgroup_parent = parent.text;
    let pod = daemon.run(&config).await;
    let work = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
    let id = daemon.run_container(&pod, Daemon::host_container("work", work)).await;
    daemon.exited(&id).await;
    let before = kernel_cpu(&parent.cgroup);
    let stats = daemon.pod_stats(&pod).await;
    let used = number(stats.cpu.unwrap().usage_core_nano_seconds.as_ref());
    assert!(before <= used && used <= kernel_cpu(&parent.cgroup), "{before} {used}");
    assert!(used > 1_000_000, "the container's work counts: {used}");
    assert_eq!(stats.network, None, "the host's network is not the pod's");
    assert!(stats.containers.is_empty());
    // Its layer alone is left.
    let stats = daemon.stats(&id).await;
    assert!(stats.cpu.is_none() && stats.writable_layer.is_some(), "{stats:?}");
}

#[tokio::test]
async fn lists_take_filters_and_streams_give_the_same() {
    let daemon = Daemon::start().await;
    let mut config = daemon.host_sandbox("one");
    config.labels.insert("app".into(), "one".into());
    let one = daemon.run(&config).await;
    let two = daemon.run(&daemon.host_sandbox("two")).await;
    for pod in [&one, &two] {
        let app = Daemon::host_container("app", "exec sleep 600");
        daemon.run_container(pod, app).await;
    }
    let mut client = daemon.runtime().await;
    let filter = cri::PodSandboxStatsFilter {
        label_selector: [("app".to_owned(), "one".to_owned())].into(),
        ..Default::default()
    };
    let request = cri::ListPodSandboxStatsRequest { filter: Some(filter.clone()) };
    let list = client.list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
    let ids = |list: &[cri::PodSandboxStats]| {
        list.iter().map(|each| each.attributes.clone().unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&list), [one.as_str()]);
    let request = cri::StreamPodSandboxStatsRequest { filter: Some(filter) };
    let stream = client.stream_pod_sandbox_stats(request).await.unwrap().into_inner();
    let parts: Vec<_> = stream.map(|part| part.unwrap().pod_sandbox_stats).collect().await;
    assert_eq!(ids(&parts.concat()), [one.as_str()]);

    let filter = cri::ContainerStatsFilter { pod_sandbox_id: two.clone(), ..Default::default() };
    let request = cri::StreamContainerStatsRequest { filter: Some(filter) };
    let stream = client.stream_container_stats(request).await.unwrap().into_inner();
    let parts: Vec<_> = stream.map(|part| part.unwrap().container_stats).collect().await;
    assert_eq!(parts.concat().len(), 1);

    let stream = client.stream_containers(cri::StreamContainersRequest::default()).await.unwrap();
    let parts: Vec<_> = stream.into_inner().map(|part| part.unwrap().containers).collect().await;
    let request = cri::ListContainersRequest::default();
    let list = client.list_containers(request).await.unwrap().into_inner().containers;
    assert_eq!(parts.concat(), list);
    let stream = client.stream_pod_sandboxes(cri::StreamPodSandboxesRequest::default()).await;
    let stream = stream.unwrap().into_inner();
    let parts: Vec<_> = stream.map(|part| part.unwrap().pod_sandboxes).collect().await;
    assert_eq!(parts.concat(), daemon.pods().await);
    let mut images = daemon.images().await;
    let stream = images.stream_images(cri::StreamImagesRequest::default()).await.unwrap();
    let parts: Vec<_> = stream.into_inner().map(|part| part.unwrap().images).collect().await;
    let list = images.list_images(cri::ListImagesRequest::default()).await.unwrap();
    assert_eq!(parts.concat(), list.into_inner().images);

    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: "nothing".into() };
    let error = client.pod_sandbox_stats(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
