//! Limits that are changed: in the kernel, in what Status says, and over restarts.

use std::collections::HashMap;

use haled::proto::cri;
use haled::sys::cgroup;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE};

mod huge_pages;
mod processors;
mod swap;
mod unified;

const MIB: i64 = 1 << 20;

/// A container that does nothing, with these limits.
fn limited(name: &str, resources: cri::LinuxContainerResources) -> cri::ContainerConfig {
    let mut container = Daemon::host_container(name, "exec sleep 600");
    container.linux.as_mut().unwrap().resources = Some(resources);
    container
}

async fn update(
    daemon: &Daemon,
    container: &str,
    linux: cri::LinuxContainerResources,
) -> Result<(), tonic::Status> {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: container.into(),
        linux: Some(linux),
        ..Default::default()
    };
    daemon.runtime().await.update_container_resources(request).await.map(drop)
}

async fn told(daemon: &Daemon, container: &str) -> cri::LinuxContainerResources {
    daemon.status(container).await.resources.unwrap().linux.unwrap()
}

/// CPU shares, quota and period, and the memory limit, as the kernel has them.
async fn limits(daemon: &Daemon, container: &str) -> [String; 4] {
    let of = daemon.cgroup_of(container).await;
    let read = |controller: &str, file: &str| kernel(&of, controller, file);
    match cgroup::version() {
        cgroup::Version::V1 => [
            read("cpu", "cpu.shares"),
            read("cpu", "cpu.cfs_quota_us"),
            read("cpu", "cpu.cfs_period_us"),
            read("memory", "memory.limit_in_bytes"),
        ],
        cgroup::Version::V2 => {
            let max = read("cpu", "cpu.max");
            let (quota, period) = max.trim().split_once(' ').unwrap();
            let [quota, period] = [quota, period].map(str::to_owned);
            [read("cpu", "cpu.weight"), quota, period, read("memory", "memory.max")]
        }
    }
}

/// What a file of a cgroup holds.
fn kernel(of: &str, controller: &str, file: &str) -> String {
    let path = cgroup::directory(controller, of).unwrap().join(file);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn shares(shares: &str) -> String {
    let number: u64 = shares.parse().unwrap();
    match cgroup::version() {
        cgroup::Version::V1 => number.to_string(),
        // As runc 1.1 has it.
        cgroup::Version::V2 => (1 + ((number - 2) * 9999) / 262_142).to_string(),
    }
}

#[tokio::test]
async fn new_limits_hold_in_the_kernel_in_the_record_and_for_the_next_attempt() {
    let mut daemon = Daemon::start_without_network().await;
    let probe = r#"{"exec": {"command": ["sh", "-c", "! [ -e /tmp/sick ]"]}, "timeoutSeconds": 60, "periodMilliseconds": 200, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
    let mut config = daemon.host_sandbox("resized");
    config.annotations = HashMap::from([
        ("liveness.haled/app".to_owned(), probe.to_owned()),
        ("haled/heal".to_owned(), "restart".to_owned()),
    ]);
    let pod = daemon.run(&config).await;
    let script = "sleep 600 & trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let mut container = Daemon::host_container("app", script);
    container.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 64 * MIB,
        ..Default::default()
    });
    let id = daemon.run_container(&pod, container).await;
    let first = limits(&daemon, &id).await;
    assert_eq!((&first[0], &first[3]), (&shares("512"), &(64 * MIB).to_string()));

    let change = cri::LinuxContainerResources {
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 96 * MIB,
        oom_score_adj: 700,
        ..Default::default()
    };
    update(&daemon, &id, change.clone()).await.unwrap();
    let expected = [shares("512"), "50000".into(), "100000".into(), (96 * MIB).to_string()];
    assert_eq!(limits(&daemon, &id).await, expected);
    let merged = cri::LinuxContainerResources { cpu_shares: 512, ..change };
    assert_eq!(told(&daemon, &id).await, merged);
    // What is executed in it from now on, though runc gives it what the container began with;
    // a moment after its start.
    let script = "until [ \"$(cat /proc/$$/oom_score_adj)\" = 700 ] && [ \"$(cat /proc/self/oom_score_adj)\" = 700 ]; do sleep 0.02; done";
    assert_eq!(daemon.try_exec(&id, &["sh", "-c", script], 30).await.unwrap().exit_code, 0);
    // And all that it runs itself.
    let init = daemon.pid(&id).await;
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    for pid in children.split_whitespace().chain([init.to_string().as_str()]) {
        // The loop's own sleep comes and goes; it inherits.
        if let Ok(score) = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")) {
            assert_eq!(score.trim(), "700");
        }
    }

    daemon.kill();
    daemon.launch().await;
    assert_eq!(told(&daemon, &id).await, merged);
    daemon.exec(&id, &["touch", "/tmp/sick"]).await;
    let next = daemon.attempt(&pod, "app", 1).await;
    assert_eq!(limits(&daemon, &next).await, expected);
    assert_eq!(told(&daemon, &next).await, merged);
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("refused")).await;
    // 16 MiB of anonymous memory are in use for as long as it runs.
    let script =
        "x=$(head -c 16777216 /dev/zero | tr '\\0' x); touch /tmp/full; sleep 600; echo ${#x}";
    let mut container = Daemon::host_container("app", script);
    container.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 256 * MIB,
        ..Default::default()
    });
    let id = daemon.run_container(&pod, container).await;
    let full = async { while daemon.exec(&id, &["ls", "/tmp/full"]).await.0 != 0 {} };
    tokio::time::timeout(PATIENCE, full).await.expect("it fills its memory");
    let (kernel, status) = (limits(&daemon, &id).await, told(&daemon, &id).await);
    let spec = || {
        let bundle = daemon.path("state").join("pods").join(&pod).join("containers").join(&id);
        let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
        let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        (spec["linux"]["resources"].clone(), spec["process"]["oomScoreAdj"].clone())
    };
    let before = spec();

    let all =
        cri::LinuxContainerResources { cpu_shares: 300, oom_score_adj: 600, ..Default::default() };
    let cases = [
        (
            cri::LinuxContainerResources { cpuset_cpus: "4095".into(), ..all.clone() },
            Code::FailedPrecondition,
            "cpuset",
        ),
        (
            cri::LinuxContainerResources { cpuset_cpus: "a".into(), ..all.clone() },
            Code::InvalidArgument,
            "cpuset_cpus",
        ),
        (
            cri::LinuxContainerResources { memory_limit_in_bytes: 4 * MIB, ..all.clone() },
            Code::FailedPrecondition,
            "below what it uses",
        ),
        (
            cri::LinuxContainerResources { cpu_period: 1, ..all.clone() },
            Code::InvalidArgument,
            "cpu_period",
        ),
    ];
    for (change, code, word) in cases {
        let error = update(&daemon, &id, change).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(word), "{error}");
        assert_eq!(limits(&daemon, &id).await, kernel, "{error}");
        assert_eq!(told(&daemon, &id).await, status, "{error}");
        assert_eq!(spec(), before, "{error}");
        let pid = daemon.pid(&id).await;
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_ne!(score.trim(), "600", "{error}");
    }
    daemon.stop(&id, 0).await;
    let error = update(&daemon, &id, all.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let unknown = update(&daemon, &"0".repeat(64), all).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    daemon.remove_pod(&pod).await;
}

#[tokio::test]
async fn a_container_that_has_yet_to_start_gets_them_at_its_start() {
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("created")).await;
    let container = Daemon::host_container("app", "exec sleep 600");
    let id = daemon.create(&pod, container).await.unwrap();
    let change = cri::LinuxContainerResources {
        cpu_shares: 256,
        cpu_quota: 20_000,
        cpu_period: 50_000,
        memory_limit_in_bytes: 32 * MIB,
        oom_score_adj: 800,
        ..Default::default()
    };
    update(&daemon, &id, change).await.unwrap();
    let request = cri::StartContainerRequest { container_id: id.clone() };
    daemon.runtime().await.start_container(request).await.unwrap();
    let expected = [shares("256"), "20000".into(), "50000".into(), (32 * MIB).to_string()];
    assert_eq!(limits(&daemon, &id).await, expected);
    let pid = daemon.pid(&id).await;
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "800");
    daemon.remove_pod(&pod).await;
}

#[tokio::test]
async fn what_a_pod_may_take_is_remembered() {
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("whole")).await;
    let resources = |limit| {
        Some(cri::LinuxContainerResources { memory_limit_in_bytes: limit, ..Default::default() })
    };
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead: resources(MIB),
        resources: resources(7 * MIB),
    };
    daemon.runtime().await.update_pod_sandbox_resources(request).await.unwrap();
    daemon.kill();
    daemon.launch().await;
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let status = daemon.runtime().await.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    assert_eq!(info["config"]["overhead"]["memory_limit_bytes"], MIB);
    assert_eq!(info["config"]["resources"]["memory_limit_bytes"], 7 * MIB);
    daemon.remove_pod(&pod).await;
}

#[tokio::test]
async fn a_class_that_can_not_be_given_is_refused_by_name() {
    let daemon = Daemon::start_without_network().await;
    let mut config = daemon.host_sandbox("classes");
    let key = "rdt.resources.beta.kubernetes.io/container.cached";
    config.annotations.insert(key.into(), "no-such-class".into());
    let pod = daemon.run(&config).await;
    let cases = [("cached", "no-such-class"), ("disk", "blockio_class: \"fast\" needs a file")];
    for (name, word) in cases {
        let mut container = Daemon::host_container(name, "true");
        if name == "disk" {
            let key = "io.kubernetes.cri.blockio-class".to_owned();
            container.annotations.insert(key, "fast".into());
        }
        let error = daemon.create(&pod, container).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(word), "{error}");
    }
    daemon.create(&pod, Daemon::host_container("plain", "true")).await.unwrap();
    daemon.remove_pod(&pod).await;
}

/// The first disk that is no partition, as `254:0`, with its path.
fn disk() -> Option<(String, String)> {
    let name = std::fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let path = format!("/dev/{name}");
        std::path::Path::new(&path).exists().then_some((name, path))
    });
    let (name, path) = name?;
    let number = std::fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
    Some((number.trim().to_owned(), path))
}

#[tokio::test]
async fn a_class_of_block_io_throttles_a_disk() {
    let (controller, file) = match cgroup::version() {
        cgroup::Version::V1 => ("blkio", "blkio.throttle.read_bps_device"),
        cgroup::Version::V2 => ("io", "io.max"),
    };
    let Some((number, path)) = disk().filter(|_| cgroup::has_controller(controller)) else {
        eprintln!("skipped: no disk, or no {controller} controller");
        return;
    };
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("disks")).await;
    let of_class = |name: &str, class: &str| {
        let mut config = Daemon::host_container(name, "exec sleep 600");
        config.annotations.insert("io.kubernetes.cri.blockio-class".into(), class.into());
        config
    };
    let error = daemon.create(&pod, of_class("early", "slow")).await.unwrap_err();
    assert!(error.message().contains("runtime.blockio_config_file"), "{error}");

    let classes = daemon.path("blockio.yaml");
    let text = format!("Classes:\n  slow:\n    - Devices: [{path}]\n      ThrottleReadBps: 1M\n");
    std::fs::write(&classes, text).unwrap();
    std::fs::create_dir(daemon.path("config.d")).unwrap();
    let setting = format!("[runtime]\nblockio_config_file = \"{}\"\n", classes.display());
    std::fs::write(daemon.path("config.d/blockio.toml"), setting).unwrap();
    daemon.kill();
    daemon.launch().await;
    let error = daemon.create(&pod, of_class("wrong", "fast")).await.unwrap_err();
    assert!(error.message().contains("there are: slow"), "{error}");
    let id = daemon.run_container(&pod, of_class("app", "slow")).await;
    let path = daemon.cgroup_of(&id).await;
    let limit = || {
        let path = cgroup::directory(controller, &path).unwrap().join(file);
        std::fs::read_to_string(path).unwrap()
    };
    let throttled =
        |text: &str| text.lines().any(|line| line.starts_with(&number) && line.contains("1000000"));
    assert!(throttled(&limit()), "{}", limit());
    // An update of other limits leaves it alone.
    let change = cri::LinuxContainerResources { cpu_shares: 300, ..Default::default() };
    update(&daemon, &id, change).await.unwrap();
    assert!(throttled(&limit()), "{}", limit());
}
