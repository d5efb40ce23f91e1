//! kill -9 of the daemon while pods run: nothing stops, nothing is lost.

use std::collections::HashMap;
use std::time::Duration;

use haled::proto::cri;

use crate::daemon::Daemon;

#[tokio::test]
async fn pods_run_on_and_everything_is_known_afterwards() {
    let mut daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 200, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
    let mut config = daemon.sandbox("survivor");
    config.annotations = HashMap::from([
        ("liveness.haled/app".to_owned(), probe.to_owned()),
        ("haled/heal".to_owned(), "restart".to_owned()),
    ]);
    let pod = daemon.run(&config).await;
    let script = "touch /tmp/healthy; trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let first = daemon.run_container(&pod, Daemon::container("app", script)).await;
    daemon.exec(&first, &["rm", "/tmp/healthy"]).await;
    let second = daemon.attempt(&pod, "app", 1).await;

    let ticks = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
    let ticker = daemon.run_container(&pod, Daemon::container("ticker", ticks)).await;
    let ends = "while ! test -e /tmp/end; do sleep 0.05; done; exit 7";
    let ender = daemon.run_container(&pod, Daemon::container("ender", ends)).await;
    let (before_first, before_second) = (daemon.status(&first).await, daemon.status(&second).await);
    let (before_ticker, address) = (daemon.status(&ticker).await, daemon.pod_ip(&pod).await);

    // What is to end while the daemon is away is told so beforehand, and heeds it later.
    daemon.exec(&ender, &["sh", "-c", "(sleep 0.5; touch /tmp/end) >/dev/null 2>&1 &"]).await;
    daemon.kill();
    let lines = daemon.log_lines("survivor", "ticker/0.log").len();
    daemon.until("ticks", || daemon.log_lines("survivor", "ticker/0.log").len() > lines + 20).await;
    daemon.launch().await;

    let ended = daemon.exited(&ender).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
    assert!(ended.finished_at > ended.started_at);
    assert_eq!(daemon.status(&ticker).await, before_ticker);
    assert_eq!(daemon.status(&first).await, before_first);
    assert_eq!(daemon.status(&second).await, before_second);
    assert_eq!(daemon.pod_ip(&pod).await, address);
    let ticks: Vec<usize> = daemon
        .log_lines("survivor", "ticker/0.log")
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(ticks.iter().copied().eq(1..=ticks.len()), "a line is missing: {ticks:?}");

    // Probing goes on, and what is unhealthy is healed as the next attempt.
    daemon.exec(&second, &["rm", "/tmp/healthy"]).await;
    let third = daemon.attempt(&pod, "app", 2).await;
    assert_eq!(daemon.status(&second).await.reason, "LivenessProbeFailed");
    assert_eq!(daemon.exec(&third, &["echo", "hi"]).await, (0, "hi\n".to_owned()));
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn sigterm_ends_the_daemon_and_leaves_pods_running() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("stays")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    let before = daemon.status(&id).await;
    assert!(daemon.terminate(), "it ends with 0: {}", daemon.log());
    assert!(!daemon.socket().exists(), "its socket is gone");
    daemon.launch().await;
    assert_eq!(daemon.status(&id).await, before);
    assert_eq!(daemon.exec(&id, &["true"]).await.0, 0);
}

#[tokio::test]
async fn a_second_daemon_on_the_same_root_is_refused() {
    let daemon = Daemon::start().await;
    let command = format!(
        "{} --config {} --root {} --state {} --listen {}",
        env!("CARGO_BIN_EXE_haled"),
        daemon.path("config.toml").display(),
        daemon.path("root").display(),
        daemon.path("state").display(),
        daemon.path("second.sock").display(),
    );
    let output = daemon.on_node(&command).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(daemon.path("root").to_str().unwrap()), "{said}");
    assert!(said.contains("another haled"), "{said}");
    daemon.runtime().await.version(cri::VersionRequest::default()).await.unwrap();
}

/// Killed at moments spread over the whole of a pod's life: whatever is there afterwards is
/// consistent, and can be removed without a trace.
#[tokio::test]
async fn killed_at_any_moment_it_recovers() {
    let mut daemon = Daemon::start().await;
    for round in 0..12u64 {
        let config = daemon.sandbox(&format!("round-{round}"));
        let life = async {
            let pod = daemon.run(&config).await;
            let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
            daemon.stop(&id, 0).await;
            daemon.remove_pod(&pod).await;
        };
        // A whole life takes about half a second in a debug build.
        let moment = Duration::from_millis(20 + round * 50);
        let life = std::panic::AssertUnwindSafe(tokio::time::timeout(moment, life));
        drop(futures_util::FutureExt::catch_unwind(life).await);
        daemon.kill();
        daemon.launch().await;
        for pod in daemon.pods().await {
            for container in daemon.containers(&pod.id).await {
                daemon.status(&container.id).await;
            }
            // A CNI plugin of the killed daemon's may still be at work, and DEL collide with it.
            daemon.remove_pod_at_last(&pod.id).await;
        }
        let all = daemon.containers("").await;
        assert!(all.is_empty(), "containers without a pod: {all:?}");
        daemon.nothing_is_left().await;
    }
}

/// A pod whose monitor is gone can't be driven any more: it is lost, what ran in it has ended,
/// and it can be removed. With the daemon there, and with both killed.
#[tokio::test]
async fn a_lost_monitor_takes_its_pod_along_and_nothing_else() {
    for daemon_too in [false, true] {
        let mut daemon = Daemon::start().await;
        let pod = daemon.run(&daemon.sandbox("lost")).await;
        let other = daemon.run(&daemon.sandbox("other")).await;
        let script = || Daemon::container("app", "exec sleep 600");
        let id = daemon.run_container(&pod, script()).await;
        let spared = daemon.run_container(&other, script()).await;
        let pid = daemon.pid(&id).await;
        if daemon_too {
            daemon.kill();
            daemon.kill_monitor(&pod);
            daemon.launch().await;
        } else {
            daemon.kill_monitor(&pod);
        }
        let ended = daemon.exited(&id).await;
        assert_ne!(ended.exit_code, 0);
        assert!(ended.message.contains("monitor"), "{ended:?}");
        let process = std::path::PathBuf::from(format!("/proc/{pid}"));
        daemon.until("the container's end", || !process.exists()).await;
        let state = daemon.pods().await.into_iter().find(|p| p.id == pod).unwrap().state();
        assert_eq!(state, cri::PodSandboxState::SandboxNotready);
        assert_eq!(daemon.status(&spared).await.state(), cri::ContainerState::ContainerRunning);
        daemon.remove_pod(&pod).await;
        daemon.remove_pod(&other).await;
        daemon.nothing_is_left().await;
    }
}

/// What has no record, because the database was lost, is found and goes with its addresses.
#[tokio::test]
async fn a_lost_database_leaves_nothing_behind() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("forgotten")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    let process = std::path::PathBuf::from(format!("/proc/{}", daemon.pid(&id).await));
    daemon.kill();
    for file in ["haled.db", "haled.db-wal", "haled.db-shm"] {
        std::fs::remove_file(daemon.path("root").join(file)).ok();
    }
    daemon.launch().await;
    assert!(daemon.pods().await.is_empty());
    assert!(!process.exists(), "a container runs on that nobody knows");
    daemon.nothing_is_left().await;
}

/// What a probe has condemned is stopped by the next daemon, too, and for the same reason.
#[tokio::test]
async fn a_kill_that_was_cut_off_is_finished() {
    let mut daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["false"]}, "periodMilliseconds": 200, "failureThreshold": 2, "terminationGracePeriodSeconds": 600}"#;
    let mut config = daemon.sandbox("condemned");
    config.annotations = HashMap::from([
        ("liveness.haled/app".to_owned(), probe.to_owned()),
        ("haled/heal".to_owned(), "restart".to_owned()),
    ]);
    let pod = daemon.run(&config).await;
    let mut deaf = Daemon::container("app", "trap '' TERM; exec sleep 600");
    deaf.annotations.insert("io.kubernetes.pod.terminationGracePeriod".into(), "2".into());
    let id = daemon.run_container(&pod, deaf).await;
    daemon.reason(&id, "Unhealthy").await;
    daemon.kill();
    daemon.launch().await;
    let ended = daemon.exited(&id).await;
    assert_eq!(ended.reason, "LivenessProbeFailed", "{ended:?}");
    daemon.attempt(&pod, "app", 1).await;
}
