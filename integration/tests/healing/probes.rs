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

/// A first process that reaps what is left to it.
const REAPS: &str = "while true; do sleep 0.1; done";

/// The whole of a container's first probe, as `crictl inspect` shows it.
async fn report(daemon: &Daemon, container: &str) -> serde_json::Value {
    let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: true };
    let response = daemon.runtime().await.container_status(request).await.unwrap().into_inner();
    let health: serde_json::Value = serde_json::from_str(&response.info["health"]).unwrap();
    health["probes"][0].clone()
}

/// Runs one shell script, once, as readiness probe and gives the container once it counts.
async fn readiness(daemon: &Daemon, script: &str, limit_ms: u32, reason: &str) -> String {
    let probe = serde_json::json!({
        "exec": { "command": ["sh", "-c", script] },
        "timeoutMilliseconds": limit_ms, "periodSeconds": 600, "failureThreshold": 1,
    });
    let config = probed(daemon, "command", &[("readiness", &probe.to_string())]);
    let pod = daemon.run(&config).await;
    let id = daemon.run_container(&pod, Daemon::container("app", REAPS)).await;
    daemon.reason(&id, reason).await;
    id
}

#[tokio::test]
async fn a_command_that_hangs_fails_and_is_ended() {
    let daemon = Daemon::start().await;
    let id = readiness(&daemon, "trap '' TERM INT HUP; sleep 777", 500, "NotReady").await;
    let message = daemon.status(&id).await.message;
    assert!(message.contains("command timed out after 0.5 s"), "{message}");
    let (_, processes) = daemon.exec(&id, &["ps"]).await;
    assert!(!processes.contains("777"), "{processes}");
}

#[tokio::test]
async fn what_a_timed_out_command_forked_is_ended_with_it() {
    let daemon = Daemon::start().await;
    // In the background, in a session of its own, and left to the first process.
    let script = "sleep 771 & setsid sleep 772 & (nohup setsid sh -c 'sleep 773; true' &); \
                  touch /tmp/forked; wait";
    let id = readiness(&daemon, script, 1000, "NotReady").await;
    assert_eq!(daemon.exec(&id, &["ls", "/tmp/forked"]).await.0, 0, "it never forked");
    let (_, processes) = daemon.exec(&id, &["ps"]).await;
    assert!(!processes.contains("sleep 77"), "{processes}");
    assert!(!processes.contains("nohup"), "{processes}");
}

#[tokio::test]
async fn ten_kib_of_a_flood_are_kept() {
    let daemon = Daemon::start().await;
    let flood = "yes flood | head -c 30000000; yes flood | head -c 30000000 >&2";
    let id = readiness(&daemon, flood, 30_000, "Healthy").await;
    let output = report(&daemon, &id).await["lastOutput"].as_str().unwrap().to_owned();
    assert_eq!(output.len(), 10 << 10);
    assert!(output.starts_with("flood\nflood\n"), "{output}");
}

/// Bytes that are no text take more room as text.
#[tokio::test]
async fn ten_kib_of_a_binary_flood_are_kept() {
    let daemon = Daemon::start().await;
    let flood = "head -c 100000 /dev/urandom; exit 1";
    let id = readiness(&daemon, flood, 30_000, "NotReady").await;
    let length = report(&daemon, &id).await["lastOutput"].as_str().unwrap().len();
    assert!((10_000..=10 << 10).contains(&length), "{length}");
}
