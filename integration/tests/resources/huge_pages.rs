//! Huge pages: how many a container may have, and how many it has.

use super::*;

const PAGE: u64 = 2 << 20;

/// Of 2 MiB, that nothing uses; 0: this machine can't limit them, or only for good.
fn free() -> usize {
    if cgroup::version() == cgroup::Version::V1 || !cgroup::has_controller("hugetlb") {
        return 0;
    }
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    std::fs::read_to_string(free).map_or(0, |text| text.trim().parse().unwrap())
}

/// What the kernel has for pages in use, and for those that were only asked for.
async fn maxima(daemon: &Daemon, container: &str) -> [String; 2] {
    let of = daemon.cgroup_of(container).await;
    ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"].map(|file| kernel(&of, "hugetlb", file))
}

fn pages(limits: &[(&str, u64)]) -> cri::LinuxContainerResources {
    let limit = |&(size, limit): &(&str, u64)| cri::HugepageLimit { page_size: size.into(), limit };
    cri::LinuxContainerResources {
        hugepage_limits: limits.iter().map(limit).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn huge_pages_are_limited_counted_and_stay_so_at_other_updates() {
    if free() < 4 {
        eprintln!(
            "skipped: no hugetlb controller of cgroup v2, or less than four free pages of 2 MiB"
        );
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("huge")).await;
    // As a kubelet makes a volume of medium HugePages.
    let volume = daemon.path("huge");
    std::fs::create_dir(&volume).unwrap();
    let mount = format!("mount -t hugetlbfs -o pagesize=2M none {}", volume.display());
    assert!(daemon.on_node(&mount).status().unwrap().success());
    // It sends every size of the machine.
    let mut config = limited("app", pages(&[("2MB", 2 * PAGE), ("1GB", 0)]));
    config.mounts.push(cri::Mount {
        container_path: "/huge".into(),
        host_path: volume.to_str().unwrap().into(),
        ..Default::default()
    });
    let id = daemon.run_container(&pod, config).await;
    assert_eq!(maxima(&daemon, &id).await, [(2 * PAGE).to_string(), (2 * PAGE).to_string()]);

    let take = async |file: &str, size: u64| {
        let (size, file) = (size.to_string(), format!("/huge/{file}"));
        daemon.exec(&id, &["busybox", "fallocate", "-l", &size, &file]).await.0
    };
    assert_eq!(take("two", 2 * PAGE).await, 0);
    assert_ne!(take("third", PAGE).await, 0, "two are all it may have");
    let of = daemon.cgroup_of(&id).await;
    assert_eq!(kernel(&of, "hugetlb", "hugetlb.2MB.current"), (2 * PAGE).to_string());
    let request = cri::ListPodSandboxMetricsRequest {};
    let metrics = daemon.runtime().await.list_pod_sandbox_metrics(request).await.unwrap();
    let app = metrics.into_inner().pod_metrics.remove(0).container_metrics.remove(0).metrics;
    let used = app.iter().find(|each| {
        each.name == "container_hugetlb_usage_bytes" && each.label_values.contains(&"2MB".into())
    });
    assert_eq!(used.unwrap().value.as_ref().unwrap().value, 2 * PAGE);

    update(&daemon, &id, pages(&[("2MB", 3 * PAGE)])).await.unwrap();
    let three = [(3 * PAGE).to_string(), (3 * PAGE).to_string()];
    assert_eq!(maxima(&daemon, &id).await, three, "{}", daemon.log());
    assert_eq!(take("third", PAGE).await, 0);
    // OCI runtimes write what a container began with again at every update.
    let change = cri::LinuxContainerResources { cpu_shares: 300, ..Default::default() };
    update(&daemon, &id, change).await.unwrap();
    assert_eq!(maxima(&daemon, &id).await, three);
    let mut sizes = told(&daemon, &id).await.hugepage_limits;
    sizes.sort_by(|one, other| one.page_size.cmp(&other.page_size));
    assert_eq!(sizes, pages(&[("1GB", 0), ("2MB", 3 * PAGE)]).hugepage_limits);
    // Less than what is in use is refused by the kernel, and a size that the machine doesn't have
    // by haled; and with each the rest of the update.
    for (limits_of_pages, code, word) in [
        (pages(&[("2MB", PAGE)]), Code::FailedPrecondition, "hugetlb.2MB."),
        (pages(&[("2MB", 4 * PAGE), ("3MB", PAGE)]), Code::InvalidArgument, "3MB"),
    ] {
        let change = cri::LinuxContainerResources { cpu_shares: 400, ..limits_of_pages };
        let error = update(&daemon, &id, change).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(word), "{error}");
        assert_eq!(maxima(&daemon, &id).await, three);
        assert_eq!(limits(&daemon, &id).await[0], shares("300"));
    }
    daemon.remove_pod(&pod).await;
}
