//! Swap: the limit beside that of memory, and what is in it.

use super::*;

fn memory(limit: i64, with_swap: i64) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        memory_limit_in_bytes: limit * MIB,
        memory_swap_limit_in_bytes: with_swap * MIB,
        ..Default::default()
    }
}

/// MiB of swap beside the memory's limit, as the kernel has it.
async fn swap(daemon: &Daemon, container: &str) -> i64 {
    let of = daemon.cgroup_of(container).await;
    let read = |file: &str| kernel(&of, "memory", file).parse::<i64>().unwrap();
    let bytes = match cgroup::version() {
        cgroup::Version::V1 => read("memory.memsw.limit_in_bytes") - read("memory.limit_in_bytes"),
        cgroup::Version::V2 => read("memory.swap.max"),
    };
    bytes / MIB
}

fn is_accounted() -> bool {
    haled::oci::Host::read().unwrap().swap_limit
}

#[tokio::test]
async fn a_container_has_the_swap_it_was_given_whatever_its_memory_becomes() {
    if !is_accounted() {
        eprintln!("skipped: this kernel doesn't account swap");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("swapping")).await;
    let some = daemon.run_container(&pod, limited("some", memory(64, 96))).await;
    let none = daemon.run_container(&pod, limited("none", memory(64, 64))).await;
    let silent = daemon.run_container(&pod, limited("silent", memory(64, 0))).await;
    let all = async || {
        [swap(&daemon, &some).await, swap(&daemon, &none).await, swap(&daemon, &silent).await]
    };
    assert_eq!(all().await, [32, 0, 0]);
    // More memory, and less again; nothing is said of swap.
    for limit in [128, 48] {
        for id in [&some, &none, &silent] {
            update(&daemon, id, memory(limit, 0)).await.unwrap();
        }
        assert_eq!(all().await, [32, 0, 0], "with {limit} MiB of memory");
        let both = async |id: &str| {
            let told = told(&daemon, id).await;
            (told.memory_limit_in_bytes / MIB, told.memory_swap_limit_in_bytes / MIB)
        };
        assert_eq!(both(&some).await, (limit, limit + 32));
        assert_eq!(both(&none).await, (limit, limit));
        assert_eq!(both(&silent).await, (limit, 0));
    }
    update(&daemon, &some, memory(0, 60)).await.unwrap();
    assert_eq!(all().await, [12, 0, 0]);
    let error = update(&daemon, &some, memory(0, 40)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("memory_swap"), "{error}");
    assert_eq!(all().await, [12, 0, 0]);
    daemon.remove_pod(&pod).await;
}

/// MiB of swap that nothing uses.
fn free() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("SwapFree:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10)
}

#[tokio::test]
async fn what_does_not_fit_goes_to_swap_or_is_killed() {
    if free() < 64 || cgroup::version() == cgroup::Version::V1 {
        eprintln!("skipped: no swap, or cgroup v1");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("swapping")).await;
    let some = daemon.run_container(&pod, limited("some", memory(24, 56))).await;
    let none = daemon.run_container(&pod, limited("none", memory(24, 24))).await;
    // A file in memory stays, and is swapped as what a program allocates is.
    let run = async |id: &str, command: &str| {
        daemon.exec(id, &["sh", "-c", &format!("{command}; echo $?")]).await.1
    };
    assert_eq!(run(&some, "dd if=/dev/zero of=/dev/shm/full bs=1M count=40").await, "0\n");
    assert_eq!(run(&none, "dd if=/dev/zero of=/dev/null bs=40M count=1").await, "137\n");

    let request = cri::ContainerStatsRequest { container_id: some.clone() };
    let stats = daemon.runtime().await.container_stats(request).await.unwrap().into_inner();
    let swap = stats.stats.unwrap().swap.unwrap();
    let used = swap.swap_usage_bytes.unwrap().value;
    let of = daemon.cgroup_of(&some).await;
    let kernels: u64 = kernel(&of, "memory", "memory.swap.current").parse().unwrap();
    // 40 MiB don't fit into 24; the kernel may go on writing out what is idle.
    assert!(used >= 16 << 20 && used.abs_diff(kernels) < 4 << 20, "{used} {kernels}");
    assert_eq!(swap.swap_available_bytes.unwrap().value, (32 << 20) - used);
    daemon.remove_pod(&pod).await;
}
