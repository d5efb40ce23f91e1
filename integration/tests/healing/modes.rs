//! Who acts on a verdict, as `haled/heal` says; and what is known of a container's health over
//! a restart of the daemon.

use std::collections::HashMap;

use haled::proto::cri;
use serde_json::Value;

use crate::daemon::Daemon;

/// Fails when /tmp/healthy goes.
const FRAIL: &str = r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 100, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
/// Is healthy until that is taken from it, and ends with 3 when it is told to.
const SCRIPT: &str = "touch /tmp/healthy; trap 'exit 3' TERM; while true; do sleep 0.1; done";

/// A pod on the host's network whose container `app` has these annotations.
async fn run(daemon: &Daemon, name: &str, annotations: &[(&str, &str)]) -> (String, String) {
    let annotations = annotations.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let sandbox = cri::PodSandboxConfig {
        annotations: annotations.collect::<HashMap<_, _>>(),
        ..daemon.host_sandbox(name)
    };
    let pod = daemon.run(&sandbox).await;
    let id = daemon.run_container(&pod, Daemon::host_container("app", SCRIPT)).await;
    (pod, id)
}

/// A pod that is healed so, made healthy and then hurt.
async fn hurt(daemon: &Daemon, mode: &str) -> (String, String) {
    let (pod, id) = run(daemon, mode, &[("liveness.haled/app", FRAIL), ("haled/heal", mode)]).await;
    daemon.reason(&id, "Healthy").await;
    daemon.exec(&id, &["rm", "/tmp/healthy"]).await;
    (pod, id)
}

#[tokio::test]
async fn restart_stops_and_restarts() {
    let daemon = Daemon::start_without_network().await;
    let (pod, id) = hurt(&daemon, "restart").await;
    let second = daemon.attempt(&pod, "app", 1).await;
    let dead = daemon.status(&id).await;
    assert_eq!((dead.reason.as_str(), dead.exit_code), ("LivenessProbeFailed", 3));
    daemon.reason(&second, "Healthy").await;
}

/// What ends is never restarted beside what is: a pod healed by `restart` at the same time
/// says when haled would long have done it.
#[tokio::test]
async fn kill_stops_with_a_reason_and_leaves_the_restart_to_others() {
    let daemon = Daemon::start_without_network().await;
    let (pod, id) = hurt(&daemon, "kill").await;
    let dead = daemon.exited(&id).await;
    assert_eq!((dead.reason.as_str(), dead.exit_code), ("LivenessProbeFailed", 3));
    let begins = "Liveness probe failed 2 times in a row: ";
    assert!(dead.message.starts_with(begins), "{}", dead.message);
    let (restarted, _) = hurt(&daemon, "restart").await;
    daemon.attempt(&restarted, "app", 1).await;
    assert_eq!(daemon.containers(&pod).await.len(), 1, "{}", daemon.log());

    // Whoever restarts it finds nothing in the way.
    let mut next = Daemon::host_container("app", SCRIPT);
    next.metadata.as_mut().unwrap().attempt = 1;
    let next = daemon.run_container(&pod, next).await;
    daemon.reason(&next, "Healthy").await;
}

#[tokio::test]
async fn observe_only_tells() {
    let daemon = Daemon::start_without_network().await;
    let (pod, id) = hurt(&daemon, "observe").await;
    daemon.reason(&id, "Unhealthy").await;
    let message = daemon.status(&id).await.message;
    assert!(message.starts_with("Liveness probe failed ("), "{message}");
    let (restarted, _) = hurt(&daemon, "restart").await;
    daemon.attempt(&restarted, "app", 1).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(daemon.containers(&pod).await.len(), 1, "{}", daemon.log());
    // It is probed on, and may be healthy again.
    daemon.exec(&id, &["touch", "/tmp/healthy"]).await;
    daemon.reason(&id, "Healthy").await;
}

/// A container's health in full, but for when its probes run next.
async fn health(daemon: &Daemon, id: &str) -> Value {
    let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let response = daemon.runtime().await.container_status(request).await.unwrap().into_inner();
    let mut health: Value = serde_json::from_str(&response.info["health"]).unwrap();
    for probe in health["probes"].as_array_mut().unwrap() {
        assert!(probe.as_object_mut().unwrap().remove("nextRunAt").is_some(), "{probe}");
    }
    health
}

/// Each probe runs once before the daemon is killed and, but for a stroke of luck, not again
/// before it is asked: what it says then is what it remembers.
#[tokio::test]
async fn health_is_remembered_over_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start_without_network().await;
    let passes = r#"{"exec": {"command": ["echo", "fine"]}, "periodSeconds": 3600}"#;
    let fails =
        r#"{"exec": {"command": ["ls", "/none"]}, "periodSeconds": 3600, "failureThreshold": 1}"#;
    let kinds = ["startup.haled/app", "liveness.haled/app"];
    let mut annotations: Vec<_> = kinds.into_iter().map(|kind| (kind, passes)).collect();
    annotations.push(("readiness.haled/app", passes));
    let (_, ready) = run(&daemon, "ready", &annotations).await;
    *annotations.last_mut().unwrap() = ("readiness.haled/app", fails);
    let (_, not_ready) = run(&daemon, "not-ready", &annotations).await;
    daemon.reason(&ready, "Healthy").await;
    daemon.reason(&not_ready, "NotReady").await;
    let before = [health(&daemon, &ready).await, health(&daemon, &not_ready).await];
    daemon.kill();
    daemon.launch().await;
    assert_eq!([health(&daemon, &ready).await, health(&daemon, &not_ready).await], before);
}
