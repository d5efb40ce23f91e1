//! What each probe sees in a real pod: slow starts, flapping, commands that misbehave, and
//! servers that answer in odd ways.

use std::collections::HashMap;
use std::time::Duration;

use haled::proto::cri;

use crate::daemon::Daemon;

/// A sandbox whose container `app` has these probes, by kind.
fn probed(daemon: &Daemon, name: &str, probes: &[(&str, &str)]) -> cri::PodSandboxConfig {
    let mut annotations = HashMap::from([("haled/heal".to_owned(), "restart".to_owned())]);
    for (kind, probe) in probes {
        annotations.insert(format!("{kind}.haled/app"), (*probe).to_owned());
    }
    cri::PodSandboxConfig { annotations, ..daemon.sandbox(name) }
}

/// How many containers the pod has had: more than one, and it was restarted.
async fn attempts(daemon: &Daemon, pod: &str) -> usize {
    daemon.containers(pod).await.len()
}

#[tokio::test]
async fn liveness_waits_for_a_slow_start() {
    let daemon = Daemon::start().await;
    // Both look at the same file, so liveness would kill long before the start is over.
    let startup = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 200, "failureThreshold": 100}"#;
    let liveness = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 100, "failureThreshold": 1, "terminationGracePeriodSeconds": 2}"#;
    let probes = [("startup", startup), ("liveness", liveness)];
    let pod = daemon.run(&probed(&daemon, "slow", &probes)).await;
    let script = "trap 'exit 3' TERM; sleep 2; touch /tmp/up; while true; do sleep 0.1; done";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(status.reason, "Starting");
    daemon.reason(&id, "Healthy").await;
    assert_eq!(attempts(&daemon, &pod).await, 1, "{}", daemon.log());
    // From here on liveness counts.
    daemon.exec(&id, &["rm", "/tmp/up"]).await;
    assert_eq!(daemon.exited(&id).await.reason, "LivenessProbeFailed");
}

#[tokio::test]
async fn a_start_that_never_ends_is_killed_for_it() {
    let daemon = Daemon::start().await;
    let startup = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 200, "failureThreshold": 3, "terminationGracePeriodSeconds": 2}"#;
    let pod = daemon.run(&probed(&daemon, "stuck", &[("startup", startup)])).await;
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    let dead = daemon.exited(&id).await;
    assert_eq!((dead.reason.as_str(), dead.exit_code), ("StartupProbeFailed", 3));
    let begins = "Startup probe failed 3 times in a row: ";
    assert!(dead.message.starts_with(begins), "{}", dead.message);
    assert!(dead.message.contains("No such file"), "{}", dead.message);
    daemon.attempt(&pod, "app", 1).await;
}

#[tokio::test]
async fn readiness_comes_and_goes_without_a_restart() {
    let daemon = Daemon::start().await;
    let readiness = r#"{"exec": {"command": ["ls", "/tmp/ready"]}, "periodMilliseconds": 100, "failureThreshold": 2}"#;
    let pod = daemon.run(&probed(&daemon, "flaps", &[("readiness", readiness)])).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    for _ in 0..2 {
        daemon.reason(&id, "NotReady").await;
        let message = daemon.status(&id).await.message;
        assert!(message.starts_with("Readiness probe failed"), "{message}");
        daemon.exec(&id, &["touch", "/tmp/ready"]).await;
        daemon.reason(&id, "Healthy").await;
        daemon.exec(&id, &["rm", "/tmp/ready"]).await;
    }
    daemon.reason(&id, "NotReady").await;
    // Long enough for a liveness probe to have killed it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.status(&id).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(attempts(&daemon, &pod).await, 1, "{}", daemon.log());
}
