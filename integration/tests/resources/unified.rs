//! Files of cgroup v2 that are written as they are told.

use super::*;

fn files(all: &[(&str, &str)]) -> cri::LinuxContainerResources {
    let pair = |&(file, value): &(&str, &str)| (file.to_owned(), value.to_owned());
    cri::LinuxContainerResources { unified: all.iter().map(pair).collect(), ..Default::default() }
}

#[tokio::test]
async fn files_of_version_2_are_refused_where_there_are_none() {
    if cgroup::version() == cgroup::Version::V2 {
        eprintln!("skipped: this machine has cgroup v2");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("unified")).await;
    let high = files(&[("memory.high", "50331648")]);
    let error = daemon.create(&pod, limited("app", high.clone())).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("unified") && error.message().contains("v1"), "{error}");
    let id = daemon.run_container(&pod, limited("app", files(&[]))).await;
    let error = update(&daemon, &id, high).await.unwrap_err();
    assert!(error.message().contains("unified"), "{error}");
    assert_eq!(told(&daemon, &id).await, files(&[]));
    daemon.remove_pod(&pod).await;
}

#[tokio::test]
async fn files_of_version_2_hold_what_was_told_and_limit() {
    if cgroup::version() == cgroup::Version::V1 {
        eprintln!("skipped: this machine has cgroup v1");
        return;
    }
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("unified")).await;
    // As kubelets with quality of service for memory, without swap, send it; and a limit of
    // processes, which the CRI has no field for.
    let began = [("memory.high", "50331648"), ("memory.swap.max", "0"), ("pids.max", "40")];
    let id = daemon.run_container(&pod, limited("app", files(&began))).await;
    let of = daemon.cgroup_of(&id).await;
    let read = |file: &str| kernel(&of, "", file);
    for (file, value) in began {
        assert_eq!(read(file), value, "{file}");
    }
    let forks = "for i in $(seq 60); do sleep 600 & done; echo all";
    let (code, out) = daemon.exec(&id, &["sh", "-c", forks]).await;
    assert!(code != 0 && !out.contains("all"), "{code} {out}");
    let events = read("pids.events");
    assert!(events.starts_with("max ") && events != "max 0", "{events}");

    let change = [("memory.high", "67108864"), ("memory.oom.group", "1")];
    update(&daemon, &id, files(&change)).await.unwrap();
    let now = [change[0], change[1], began[1], began[2]];
    for (file, value) in now {
        assert_eq!(read(file), value, "{file}");
    }
    assert_eq!(told(&daemon, &id).await, files(&now));
    daemon.kill();
    daemon.launch().await;
    assert_eq!(told(&daemon, &id).await, files(&now));

    // One that the kernel refuses, and with it the rest.
    let wrong = [("memory.high", "33554432"), ("memory.max", "much")];
    let error = update(&daemon, &id, files(&wrong)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("memory.max"), "{error}");
    for (file, value) in now {
        assert_eq!(read(file), value, "{file}");
    }
    assert_eq!(told(&daemon, &id).await, files(&now));
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_and_the_container_does_not_start() {
    if cgroup::version() == cgroup::Version::V1 {
        eprintln!("skipped: this machine has cgroup v1");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("unified")).await;
    for file in ["cgroup.procs", "../memory.max", "memory"] {
        let error = daemon.create(&pod, limited("app", files(&[(file, "1")]))).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(file), "{error}");
    }
    for file in ["memory.nonsense", "nonsense.max"] {
        let config = limited(&file.replace('.', "-"), files(&[(file, "1")]));
        let container_id = daemon.create(&pod, config).await.unwrap();
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        let error = daemon.runtime().await.start_container(request).await.unwrap_err();
        assert!(error.message().contains(file), "{error}");
        let status = daemon.status(&container_id).await;
        assert_eq!(status.state(), cri::ContainerState::ContainerExited, "{status:?}");
    }
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
