//! Time lost to waiting, against the kernel's pressure files.

use super::*;

/// `total` of both lines of a pressure file, in nanoseconds.
fn totals(cgroup: &str, resource: &str) -> [u64; 2] {
    let directory = cgroup::unified_directory(cgroup).unwrap();
    let text = std::fs::read_to_string(directory.join(format!("{resource}.pressure"))).unwrap();
    ["some ", "full "].map(|kind| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        let (_, total) = line.split_once("total=").unwrap();
        total.parse::<u64>().unwrap() * 1000
    })
}

fn told(stats: &cri::ContainerStats, resource: &str) -> [u64; 2] {
    let psi = match resource {
        "cpu" => stats.cpu.as_ref().unwrap().psi,
        "memory" => stats.memory.as_ref().unwrap().psi,
        "io" => stats.io.unwrap().psi,
        other => panic!("{other}"),
    };
    let psi = psi.unwrap_or_else(|| panic!("no pressure of {resource}"));
    [psi.some.unwrap().total, psi.full.unwrap().total]
}

#[tokio::test]
async fn time_lost_to_waiting_is_what_the_kernel_tells() {
    let accounted = cgroup::unified_directory("/x").is_some_and(|_| {
        cgroup::version() == Version::V2 && std::path::Path::new("/proc/pressure/cpu").exists()
    });
    if !accounted {
        eprintln!("skipped: cgroup v1, or a kernel without pressure stall information");
        return;
    }
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("waiting")).await;
    // A twentieth of a processor for what wants all of it; and memory that is taken back,
    // from files that have to be written out first, as soon as it was given.
    let script = "while :; do :; done & \
                  while :; do dd if=/dev/zero of=/full bs=1M count=24 conv=fsync; done";
    let mut config = Daemon::host_container("app", script);
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        memory_limit_in_bytes: 16 << 20,
        unified: [("memory.high".to_owned(), (6 * MIB).to_string())].into(),
        ..Default::default()
    });
    let id = daemon.run_container(&pod, config).await;
    let cgroup = daemon.cgroup_of(&id).await;
    for resource in ["cpu", "memory", "io"] {
        daemon
            .stats_until(&id, &format!("a wait for {resource}"), |stats| {
                told(stats, resource)[0] > 1_000_000
            })
            .await;
        let before = totals(&cgroup, resource);
        let stats = daemon.stats(&id).await;
        let after = totals(&cgroup, resource);
        for (at, told) in told(&stats, resource).into_iter().enumerate() {
            assert!(before[at] <= told && told <= after[at], "{resource}: {before:?} {stats:?}");
        }
    }
    daemon.remove_pod(&pod).await;
}
