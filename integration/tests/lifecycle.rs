//! The life of pods and containers through the CRI, with a real daemon.

use haled::proto::cri;
use tonic::Code;

use crate::daemon::Daemon;

#[tokio::test]
async fn a_pod_lives_and_dies_and_leaves_nothing() {
    let daemon = Daemon::start().await;
    let config = daemon.sandbox("life");
    let pod = daemon.run(&config).await;
    assert_eq!(daemon.run(&config).await, pod, "the same again is the same");

    let id =
        daemon.run_container(&pod, daemon.container("app", "echo hello; exec sleep 600")).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(daemon.exec(&id, &["hostname"]).await, (0, "life\n".into()));
    daemon.until("a log line", || daemon.log_lines("life", "app/0.log") == ["hello"]).await;

    daemon.stop(&id, 0).await;
    let status = daemon.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    daemon.stop(&id, 0).await;

    daemon.remove_pod(&pod).await;
    daemon.remove_pod(&pod).await;
    let error = daemon
        .runtime()
        .await
        .pod_sandbox_status(cri::PodSandboxStatusRequest { pod_sandbox_id: pod, verbose: true })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    nothing_is_left(&daemon).await;
}

/// No process, mount, interface but the bridge, rule, cgroup or file of a pod.
async fn nothing_is_left(daemon: &Daemon) {
    daemon
        .until("an empty cgroup", || {
            haled::sys::cgroup::processes(daemon.cgroup()).is_ok_and(|all| all.is_empty())
        })
        .await;
    let pods = std::fs::read_dir(daemon.path("state/pods")).unwrap().count();
    assert_eq!(pods, 0, "run directories are left");
    let rootfs = daemon.path("root/images/rootfs");
    assert_eq!(
        std::fs::read_dir(rootfs).map_or(0, Iterator::count),
        0,
        "root file systems are left"
    );
    let see = |command: &str| {
        let output = daemon.on_node(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dir = daemon.path("").display().to_string();
    let mounts = see("cat /proc/self/mountinfo");
    assert!(!mounts.contains(&dir), "mounts are left: {mounts}");
    assert!(!see("ip -o link").contains("veth"), "an interface is left");
    assert!(!see("iptables-save").contains("CNI-DN-"), "port mappings are left");
    let addresses = see(&format!("ls {dir}/root/network/addresses/haled-bridge"));
    assert!(!addresses.contains("10."), "addresses are left: {addresses}");
}
