//! Healing with real pods: each kind of probe, by annotation and by manifest.

mod clients;
mod hooks;
mod house;
mod modes;
mod probes;
mod rules;
mod switches;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use haled::proto::cri;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE};

/// A sandbox whose container `app` has this liveness probe.
fn healed(daemon: &Daemon, name: &str, probe: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        annotations: HashMap::from([
            ("liveness.haled/app".to_owned(), probe.to_owned()),
            ("haled/heal".to_owned(), "restart".to_owned()),
            ("haled/restart-policy".to_owned(), "Always".to_owned()),
        ]),
        ..daemon.sandbox(name)
    }
}

/// Runs the pod until healthy, breaks it from within, and sees it healed.
async fn heals(name: &str, probe: &str, script: &str, hurt: &[&str], output: &str) {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&healed(&daemon, name, probe)).await;
    let mut config = Daemon::container("app", script);
    config.annotations.insert("io.kubernetes.container.restartCount".into(), "0".into());
    let first = daemon.run_container(&pod, config).await;
    daemon.reason(&first, "Healthy").await;
    daemon.exec(&first, hurt).await;

    let second = daemon.attempt(&pod, "app", 1).await;
    let dead = daemon.status(&first).await;
    assert_eq!(dead.state(), cri::ContainerState::ContainerExited);
    assert_eq!(dead.reason, "LivenessProbeFailed");
    let begins = "Liveness probe failed 2 times in a row: ";
    assert!(dead.message.starts_with(begins), "{}", dead.message);
    assert!(dead.message.contains(output), "{}", dead.message);
    let alive = daemon.status(&second).await;
    assert_eq!(alive.annotations["io.kubernetes.container.restartCount"], "1");
    assert!(alive.log_path.ends_with("app/1.log"), "{}", alive.log_path);
    assert!(alive.started_at >= dead.finished_at);
    daemon.reason(&second, "Healthy").await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn an_exec_probe_heals() {
    heals(
        "exec",
        r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 300, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#,
        "touch /tmp/healthy; trap 'exit 3' TERM; while true; do sleep 0.1; done",
        &["rm", "/tmp/healthy"],
        "No such file",
    )
    .await;
}

#[tokio::test]
async fn an_http_probe_heals() {
    heals(
        "http",
        r#"{"httpGet": {"path": "/index.html", "port": 80}, "periodMilliseconds": 300, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#,
        "mkdir /w; echo ok > /w/index.html; exec httpd -f -p 80 -h /w",
        &["rm", "/w/index.html"],
        "HTTP probe failed with statuscode: 404",
    )
    .await;
}

#[tokio::test]
async fn a_tcp_probe_heals() {
    heals(
        "tcp",
        r#"{"tcpSocket": {"port": 6379}, "periodMilliseconds": 300, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#,
        "httpd -p 6379; trap 'exit 3' TERM; while ! test -e /tmp/stop; do sleep 0.1; done; \
         kill $(pidof httpd); while true; do sleep 0.1; done",
        &["touch", "/tmp/stop"],
        "refused",
    )
    .await;
}

#[tokio::test]
async fn a_network_probe_leaves_no_sockets_behind() {
    let daemon = Daemon::start().await;
    let probe = r#"{"tcpSocket": {"port": 80}, "periodMilliseconds": 100}"#;
    let pod = daemon.run(&healed(&daemon, "quiet", probe)).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec httpd -f -p 80 -h /www"));
    let id = id.await;
    daemon.reason(&id, "Healthy").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, sockets) = daemon.exec(&id, &["cat", "/proc/net/tcp"]).await;
    // 06 is TIME_WAIT.
    assert!(!sockets.contains(" 06 "), "{sockets}");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_a_failure() {
    let daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["no-such-command"]}, "periodMilliseconds": 200, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
    let pod = daemon.run(&healed(&daemon, "typo", probe)).await;
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let first = daemon.run_container(&pod, Daemon::container("app", script)).await;
    daemon.attempt(&pod, "app", 1).await;
    let dead = daemon.status(&first).await;
    assert!(dead.message.contains("no-such-command"), "{}", dead.message);
}

#[tokio::test]
async fn what_a_client_stops_stays_stopped() {
    let daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["true"]}, "periodMilliseconds": 200}"#;
    let pod = daemon.run(&healed(&daemon, "stopped", probe)).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    daemon.reason(&id, "Healthy").await;
    daemon.stop(&id, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.containers(&pod).await.len(), 1, "it was started again");
}

#[tokio::test]
async fn what_crashes_is_restarted_with_a_back_off() {
    let settings = "[healing]\nbackoff_initial = \"300ms\"\nbackoff_max = \"10m\"\n";
    let daemon = Daemon::start_with(settings).await;
    let probe = r#"{"exec": {"command": ["true"]}}"#;
    let pod = daemon.run(&healed(&daemon, "crash", probe)).await;
    let mut config = Daemon::container("app", "exit 7");
    config.annotations.insert("io.kubernetes.container.restartCount".into(), "0".into());
    daemon.run_container(&pod, config).await;
    // At once, then after 0.3, 0.6 and 1.2 s.
    let newest = || async {
        let all = daemon.containers(&pod).await;
        all.iter().map(|c| c.metadata.as_ref().unwrap().attempt).max().unwrap()
    };
    let began = Instant::now();
    while newest().await < 4 {
        assert!(began.elapsed() < PATIENCE, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    // The newest dead attempt is kept for its log; older ones that healing made go, the
    // client's own stays.
    let began = Instant::now();
    loop {
        let mut attempts: Vec<u32> = daemon
            .containers(&pod)
            .await
            .iter()
            .map(|c| c.metadata.as_ref().unwrap().attempt)
            .collect();
        attempts.sort_unstable();
        if attempts == [0, 3, 4] || attempts == [0, 4] {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{attempts:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_bad_annotation_is_refused_by_its_key() {
    let daemon = Daemon::start().await;
    let mut config = daemon.sandbox("bad");
    let probe = r#"{"exec": {"comand": ["true"]}}"#;
    config.annotations.insert("liveness.haled/app".into(), probe.into());
    let request =
        cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for needle in ["liveness.haled/app", "comand", "did you mean \"command\"?"] {
        assert!(error.message().contains(needle), "{}", error.message());
    }
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn the_pods_of_the_guide_are_healed() {
    let daemon = Daemon::start().await;
    let manifests = [
        ("liveness-exam", include_str!("../pods/liveness-exam-fast.yaml"), None),
        ("web", include_str!("../pods/web.yaml"), Some("rm /www/index.html")),
        ("tcp", include_str!("../pods/tcp.yaml"), Some("touch /tmp/stop")),
    ];
    for (_, text, _) in manifests {
        daemon.apply(text).await.unwrap();
    }
    for (name, _, hurt) in manifests {
        let first = daemon.settled(name, 0).await;
        if let Some(hurt) = hurt {
            daemon.exec(&first.id, &["sh", "-c", hurt]).await;
        }
        let second = daemon.settled(name, 1).await;
        assert_ne!(first.id, second.id);
        let dead = daemon.status(&first.id).await;
        assert_eq!(dead.reason, "LivenessProbeFailed", "{dead:?}");
    }
    let request = haled::proto::haled::DeleteRequest {
        namespace: "default".into(),
        name: String::new(),
        grace_seconds: Some(0),
        no_wait: false,
    };
    for (name, _, _) in manifests {
        let request = haled::proto::haled::DeleteRequest { name: name.into(), ..request.clone() };
        daemon.haled().await.delete(request).await.unwrap();
        assert!(daemon.pod(name).await.is_none());
    }
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_misspelt_probe_is_refused_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let error = daemon.apply(include_str!("../pods/mistakes/typo.yaml")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let wanted =
        "spec.containers[0]: unknown field \"livenessProve\", did you mean \"livenessProbe\"?";
    assert!(error.message().contains(wanted), "{}", error.message());
    assert!(daemon.pod("typo").await.is_none());
}

/// A kubelet's init container has done its work: healing, which covers every container of the
/// pod, doesn't run it again.
#[tokio::test]
async fn an_init_container_is_not_run_again() {
    let daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["true"]}, "periodMilliseconds": 200}"#;
    let pod = daemon.run(&healed(&daemon, "init", probe)).await;
    let init = daemon.run_container(&pod, Daemon::container("init", "exit 0")).await;
    daemon.exited(&init).await;
    // A kubelet takes its time until it makes the next.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let app = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    daemon.reason(&app, "Healthy").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.containers(&pod).await.len(), 2, "{}", daemon.log());
}

/// A client's log path without a number is every attempt's: pruning old attempts leaves it.
#[tokio::test]
async fn a_log_that_attempts_share_is_kept() {
    let settings = "[healing]\nbackoff_initial = \"100ms\"\nbackoff_max = \"100ms\"\n";
    let daemon = Daemon::start_with(settings).await;
    let probe = r#"{"exec": {"command": ["true"]}}"#;
    let pod = daemon.run(&healed(&daemon, "shared", probe)).await;
    let mut config = Daemon::container("app", "echo line; exit 7");
    config.log_path = "app.log".into();
    daemon.run_container(&pod, config).await;
    daemon.until("lines", || daemon.log_lines("shared", "app.log").len() > 5).await;
}

/// The image a container was made from is the one it is healed with, even when its name is
/// gone from the node.
#[tokio::test]
async fn a_removed_image_does_not_stop_healing() {
    let daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 200, "failureThreshold": 1, "initialDelayMilliseconds": 1000, "terminationGracePeriodSeconds": 2}"#;
    let pod = daemon.run(&healed(&daemon, "image", probe)).await;
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    daemon.run_container(&pod, Daemon::container("app", script)).await;
    let image = Some(cri::ImageSpec { image: crate::daemon::BUSYBOX.into(), ..Default::default() });
    daemon.images().await.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
    daemon.attempt(&pod, "app", 1).await;
}
