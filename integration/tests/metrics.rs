//! Metrics of pods and containers, against what the kernel says beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use haled::proto::cri;
use haled::sys::cgroup::{self, Version};
use tokio_stream::StreamExt as _;

use crate::daemon::{BUSYBOX, Daemon, PATIENCE};

const MIB: u64 = 1024 * 1024;

/// What kubelets and their users look for (critest's own list, after v1.36).
const WANTED: &str = "\
container_blkio_device_usage_total container_cpu_cfs_periods_total \
container_cpu_cfs_throttled_periods_total container_cpu_cfs_throttled_seconds_total \
container_cpu_system_seconds_total container_cpu_usage_seconds_total \
container_cpu_user_seconds_total container_file_descriptors container_fs_inodes_free \
container_fs_inodes_total container_fs_limit_bytes container_fs_reads_bytes_total \
container_fs_reads_total container_fs_usage_bytes container_fs_writes_bytes_total \
container_fs_writes_total container_hugetlb_max_usage_bytes container_hugetlb_usage_bytes \
container_last_seen container_memory_cache container_memory_failcnt \
container_memory_failures_total container_memory_kernel_usage container_memory_mapped_file \
container_memory_max_usage_bytes container_memory_rss container_memory_swap \
container_memory_usage_bytes container_memory_working_set_bytes \
container_network_receive_bytes_total container_network_receive_errors_total \
container_network_receive_packets_dropped_total container_network_receive_packets_total \
container_network_transmit_bytes_total container_network_transmit_errors_total \
container_network_transmit_packets_dropped_total container_network_transmit_packets_total \
container_oom_events_total container_pressure_cpu_stalled_seconds_total \
container_pressure_cpu_waiting_seconds_total container_pressure_io_stalled_seconds_total \
container_pressure_io_waiting_seconds_total container_pressure_memory_stalled_seconds_total \
container_pressure_memory_waiting_seconds_total container_processes container_sockets \
container_spec_cpu_period container_spec_cpu_quota container_spec_cpu_shares \
container_spec_memory_limit_bytes container_spec_memory_reservation_limit_bytes \
container_spec_memory_swap_limit_bytes container_start_time_seconds container_threads \
container_threads_max container_ulimits_soft";
/// Those of them that a machine may not have: devices that were not used, huge pages and
/// pressure that its kernel doesn't account.
const MAY_LACK: [&str; 5] = [
    "container_blkio_",
    "container_hugetlb_",
    "container_pressure_",
    "container_fs_reads_",
    "container_fs_writes_",
];

impl Daemon {
    async fn metrics(&self) -> Vec<cri::PodSandboxMetrics> {
        let request = cri::ListPodSandboxMetricsRequest {};
        let response = self.runtime().await.list_pod_sandbox_metrics(request).await;
        response.unwrap_or_else(|error| panic!("{error}\n{}", self.log())).into_inner().pod_metrics
    }

    /// The label keys of each metric.
    async fn descriptors(&self) -> BTreeMap<String, Vec<String>> {
        let request = cri::ListMetricDescriptorsRequest {};
        let response = self.runtime().await.list_metric_descriptors(request).await.unwrap();
        let described = response.into_inner().descriptors;
        let count = described.len();
        let keys: BTreeMap<_, _> =
            described.into_iter().map(|each| (each.name, each.label_keys)).collect();
        assert_eq!(keys.len(), count, "none is described twice");
        keys
    }

    /// The same, once its container's layer has been measured.
    async fn until_measured(&self) -> (Samples, Samples) {
        let began = Instant::now();
        loop {
            let (own, app) = self.one_pod().await;
            if app.names().contains("container_fs_usage_bytes") {
                return (own, app);
            }
            assert!(began.elapsed() < PATIENCE, "no layer: {app:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The only pod's, with what is in it.
    async fn one_pod(&self) -> (Samples, Samples) {
        let mut pods = self.metrics().await;
        assert_eq!(pods.len(), 1);
        let pod = pods.remove(0);
        assert_eq!(pod.container_metrics.len(), 1);
        let container = pod.container_metrics.into_iter().next().unwrap().metrics;
        let descriptors = self.descriptors().await;
        (Samples::new(pod.metrics, &descriptors), Samples::new(container, &descriptors))
    }
}

/// Samples with their labels by key.
#[derive(Debug)]
struct Samples(Vec<(String, BTreeMap<String, String>, u64)>);

impl Samples {
    fn new(metrics: Vec<cri::Metric>, descriptors: &BTreeMap<String, Vec<String>>) -> Self {
        let sample = |metric: cri::Metric| {
            let keys = descriptors.get(&metric.name);
            let keys = keys.unwrap_or_else(|| panic!("{} is not described", metric.name));
            assert_eq!(keys.len(), metric.label_values.len(), "{metric:?}");
            assert!(metric.timestamp > 0, "{metric:?}");
            let labels = keys.iter().cloned().zip(metric.label_values).collect();
            (metric.name, labels, metric.value.expect("a value").value)
        };
        Self(metrics.into_iter().map(sample).collect())
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(name, ..)| name.as_str()).collect()
    }

    /// The only sample of that name with that further label.
    fn with(&self, name: &str, key: &str, value: &str) -> u64 {
        let name = format!("container_{name}");
        let wanted = |labels: &BTreeMap<String, String>| {
            key.is_empty() || labels.get(key).is_some_and(|each| each == value)
        };
        let found: Vec<u64> = self
            .0
            .iter()
            .filter(|(each, labels, _)| *each == name && wanted(labels))
            .map(|(.., value)| *value)
            .collect();
        assert_eq!(found.len(), 1, "{name} {key}={value}");
        found[0]
    }

    fn of(&self, name: &str) -> u64 {
        self.with(name, "", "")
    }
}

/// A file of a cgroup, by its name on v1 and on v2.
fn kernel(cgroup: &str, controller: &str, v1: &str, v2: &str) -> String {
    let file = if cgroup::version() == Version::V1 { v1 } else { v2 };
    let path = cgroup::directory(controller, cgroup).unwrap().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn every_metric_that_is_looked_for_is_there_and_labelled_as_described() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("web")).await;
    let mut config = Daemon::container("app", "exec sleep 600");
    config.linux = Some(cri::LinuxContainerConfig {
        resources: Some(cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: 64 << 20,
            ..Default::default()
        }),
        ..Default::default()
    });
    let id = daemon.run_container(&pod, config).await;
    let (own, app) = daemon.until_measured().await;
    let described = daemon.descriptors().await;
    let sent: BTreeSet<&str> = own.names().union(&app.names()).copied().collect();
    for name in WANTED.split(' ') {
        assert!(described.contains_key(name), "{name} is not described");
        let may_lack = MAY_LACK.iter().any(|prefix| name.starts_with(prefix));
        assert!(may_lack || sent.contains(name), "{name} is not sent");
    }

    for (name, labels, _) in &app.0 {
        let label = |key: &str| labels[key].as_str();
        assert_eq!((label("container"), label("name")), ("app", id.as_str()), "{name}");
        assert_eq!(label("image"), BUSYBOX);
        assert_eq!((label("namespace"), label("pod")), ("default", "web"));
        assert!(label("id").ends_with(&format!("/{id}")), "{}", label("id"));
    }
    for (name, labels, _) in &own.0 {
        let label = |key: &str| labels[key].as_str();
        assert_eq!((label("container"), label("image")), ("", ""), "{name}");
        assert_eq!((label("name"), label("pod")), (pod.as_str(), "web"));
    }
    assert!(app.of("fs_limit_bytes") > app.of("fs_usage_bytes"));

    let stream = cri::StreamPodSandboxMetricsRequest {};
    let stream = daemon.runtime().await.stream_pod_sandbox_metrics(stream).await.unwrap();
    let parts: Vec<_> =
        stream.into_inner().map(|part| part.unwrap().pod_sandbox_metrics).collect().await;
    let streamed = parts.concat();
    assert_eq!(streamed.len(), 1);
    assert_eq!(streamed[0].container_metrics[0].metrics.len(), app.0.len());
}

#[tokio::test]
async fn a_container_s_values_are_the_kernels() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("values")).await;
    // Two processes, a socket, and files that are held open; 24 MiB of memory in a file.
    let script = "dd if=/dev/zero of=/dev/shm/full bs=1M count=24; httpd -p 8080 -h /www; \
                  exec 7</etc/passwd 8</etc/passwd; touch /ready; while :; do sleep 600; done";
    let mut config = Daemon::host_container("app", script);
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 40_000,
        cpu_shares: 2,
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let before = std::time::SystemTime::now();
    let id = daemon.run_container(&pod, config).await;
    let ready = "until [ -e /ready ]; do sleep 0.05; done";
    assert_eq!(daemon.exec(&id, &["sh", "-c", ready]).await.0, 0);
    let cgroup = daemon.cgroup_of(&id).await;
    let usage = |text: String| text.trim().parse::<u64>().unwrap();

    let (_, app) = daemon.one_pod().await;
    assert_eq!(app.of("spec_cpu_period"), 50_000);
    assert_eq!(app.of("spec_cpu_quota"), 40_000);
    assert_eq!(app.of("spec_cpu_shares"), 2);
    assert_eq!(app.of("spec_memory_limit_bytes"), 64 * MIB);
    assert_eq!(app.of("spec_memory_reservation_limit_bytes"), 0);
    assert!(app.of("memory_max_usage_bytes") >= app.of("memory_usage_bytes"));
    assert!(app.of("memory_cache") >= 24 * MIB, "a file in memory is cache");
    let charged = usage(kernel(&cgroup, "memory", "memory.usage_in_bytes", "memory.current"));
    assert!(app.of("memory_usage_bytes").abs_diff(charged) < 2 * MIB, "{charged}");
    let faults = app.0.iter().filter(|(name, ..)| name == "container_memory_failures_total");
    assert_eq!(faults.count(), 4);
    assert_eq!(app.of("oom_events_total"), 0);

    let threads = usage(kernel(&cgroup, "pids", "pids.current", "pids.current"));
    assert_eq!(app.of("threads"), threads);
    let pids = cgroup::processes(&cgroup).unwrap();
    assert_eq!(app.of("processes"), pids.len() as u64);
    let open = |pid: &i32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        fds.map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let open: Vec<_> = pids.iter().flat_map(open).collect();
    assert_eq!(app.of("file_descriptors"), open.len() as u64, "{open:?}");
    let sockets = open.iter().filter(|each| each.to_str().unwrap().starts_with("socket:"));
    let sockets = sockets.count() as u64;
    assert!(sockets > 0, "{open:?}");
    assert_eq!(app.of("sockets"), sockets);
    let (_, limit) = daemon.exec(&id, &["sh", "-c", "ulimit -n"]).await;
    let soft = app.with("ulimits_soft", "ulimit", "max_open_files");
    assert_eq!(soft, usage(limit));

    let started = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(app.of("start_time_seconds") >= started);
    assert!(app.of("last_seen") >= app.of("start_time_seconds"));
    assert_eq!(app.with("cpu_usage_seconds_total", "cpu", "total") / 60, 0);
    let stat = kernel(&cgroup, "cpu", "cpu.stat", "cpu.stat");
    let periods = stat.lines().find_map(|line| line.strip_prefix("nr_periods "));
    assert!(app.of("cpu_cfs_periods_total") <= usage(periods.unwrap().to_owned()));
}

#[tokio::test]
async fn a_kill_for_want_of_memory_and_the_traffic_of_a_pod_are_counted() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("web")).await;
    // The shell stays while what it runs is killed.
    let script = "httpd -p 8080 -h /www; while :; do sleep 600; done";
    let mut config = Daemon::container("web", script);
    config.linux = Some(cri::LinuxContainerConfig {
        resources: Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            memory_swap_limit_in_bytes: 16 << 20,
            ..Default::default()
        }),
        ..Default::default()
    });
    let id = daemon.run_container(&pod, config).await;
    let grow = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"];
    assert_ne!(daemon.exec(&id, &grow).await.0, 0);
    let address = daemon.pod_ip(&pod).await;
    daemon
        .until("an answer", || {
            let curl = format!("curl -s -m 2 http://{address}:8080/");
            daemon.on_node(&curl).output().unwrap().stdout == b"it works\n"
        })
        .await;
    let (own, web) = daemon.one_pod().await;
    assert_eq!(web.of("oom_events_total"), 1);
    let received = own.with("network_receive_bytes_total", "interface", "eth0");
    let (_, seen) = daemon.exec(&id, &["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).await;
    assert!(received >= 100 && received <= seen.trim().parse().unwrap(), "{received} {seen}");
    assert!(own.with("network_transmit_packets_total", "interface", "eth0") >= 3);
    assert!(!web.names().iter().any(|name| name.contains("network")), "it is the pod's");

    // A pod that has ended and a container that doesn't run have no metrics.
    daemon.stop(&id, 0).await;
    assert_eq!(daemon.metrics().await[0].container_metrics, []);
    daemon.stop_pod(&pod).await;
    assert_eq!(daemon.metrics().await, []);
}

#[tokio::test]
async fn a_pods_own_cgroup_is_told_as_a_whole() {
    let daemon = Daemon::start().await;
    let mut config = daemon.host_sandbox("kubelets");
    let uid = config.metadata.as_ref().unwrap().uid.clone();
    let parent = daemon.parent(&format!("pod{uid}"));
    config.linux.as_mut().unwrap().cgroup_parent = parent.text;
    let pod = daemon.run(&config).await;
    daemon.run_container(&pod, Daemon::host_container("app", "exec sleep 600")).await;
    let (own, app) = daemon.one_pod().await;
    assert!(own.0.iter().all(|(_, labels, _)| labels["id"] == parent.cgroup));
    assert!(own.of("memory_usage_bytes") > app.of("memory_usage_bytes"), "pause is there too");
    assert_eq!(own.of("threads"), app.of("threads") + 1);
    assert!(!own.names().iter().any(|name| name.contains("network")), "the host's isn't its own");
}
