//! What healing makes of a client that does only half of a restart, or undoes one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use haled::proto::cri;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE};

const PROBE: &str = r#"{"exec": {"command": ["true"]}}"#;

/// A pod on the host's network whose container `app` has a probe and this restart policy.
async fn run(daemon: &Daemon, name: &str, policy: &str) -> String {
    let annotations = [
        ("liveness.haled/app", PROBE),
        ("haled/heal", "restart"),
        ("haled/restart-policy", policy),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let sandbox = cri::PodSandboxConfig {
        annotations: HashMap::from(annotations),
        ..daemon.host_sandbox(name)
    };
    daemon.run(&sandbox).await
}

fn attempt(number: u32, script: &str) -> cri::ContainerConfig {
    let mut config = Daemon::host_container("app", script);
    config.metadata.as_mut().unwrap().attempt = number;
    config.log_path = format!("app/{number}.log");
    config
}

/// A kubelet may die between CreateContainer and StartContainer.
#[tokio::test]
async fn what_a_client_leaves_unstarted_is_started() {
    let settings = "[healing]\nbackoff_initial = \"10m\"\nbackoff_max = \"10m\"\norchestrator_used = \"100ms\"\n";
    let mut daemon = Daemon::start_so("", settings).await;
    let pod = run(&daemon, "left", "Always").await;
    daemon.run_container(&pod, attempt(0, "exit 7")).await;
    // The first restart is at once, and the next is far away.
    ended(&daemon, &pod, 1).await;
    let third = daemon.create(&pod, attempt(2, "exec sleep 600")).await.unwrap();
    daemon.reason(&third, "Healthy").await;

    // It lives, so nothing is made beside it, of whatever number.
    for number in [0, 1, 3] {
        let refused = daemon.create(&pod, attempt(number, "exec sleep 600")).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{number}: {refused}");
    }

    // The next daemon does the same for what was left to the one before.
    // Its end can't be told where it kills who would tell it.
    drop(daemon.try_exec(&third, &["sh", "-c", "kill -9 -1"], 0).await);
    daemon.stop(&third, 0).await;
    let fourth = daemon.create(&pod, attempt(3, "exec sleep 600")).await.unwrap();
    daemon.kill();
    daemon.launch().await;
    daemon.reason(&fourth, "Healthy").await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

/// What has never run is a beginning, which is its client's: haled only goes on with restarts.
#[tokio::test]
async fn a_first_attempt_waits_for_its_client() {
    let settings = "[healing]\nbackoff_initial = \"100ms\"\norchestrator_used = \"100ms\"\n";
    let daemon = Daemon::start_so("", settings).await;
    let pod = run(&daemon, "first", "Always").await;
    let first = daemon.create(&pod, attempt(0, "exec sleep 600")).await.unwrap();
    passes(&daemon).await;
    assert_eq!(daemon.status(&first).await.state(), cri::ContainerState::ContainerCreated);
}

#[tokio::test]
async fn what_a_client_removes_does_not_bring_back_what_was_before() {
    let settings = "[healing]\nbackoff_initial = \"100ms\"\nbackoff_max = \"100ms\"\n";
    let daemon = Daemon::start_so("", settings).await;
    let pod = run(&daemon, "removed", "OnFailure").await;
    let out = daemon.path("out");
    std::fs::create_dir(&out).unwrap();
    let mut first = attempt(0, "test -e /out/ran && exit 0; touch /out/ran; exit 7");
    first.mounts.push(cri::Mount {
        host_path: out.to_str().unwrap().into(),
        container_path: "/out".into(),
        ..Default::default()
    });
    daemon.run_container(&pod, first).await;
    let second = ended(&daemon, &pod, 1).await;
    assert_eq!(daemon.status(&second).await.exit_code, 0);
    let request = cri::RemoveContainerRequest { container_id: second };
    daemon.runtime().await.remove_container(request).await.unwrap();
    passes(&daemon).await;
    assert_eq!(daemon.containers(&pod).await.len(), 1, "{}", daemon.log());
}

/// So much time that another pod is restarted after a back-off.
async fn passes(daemon: &Daemon) {
    let other = run(daemon, "other", "Always").await;
    daemon.run_container(&other, attempt(0, "exit 1")).await;
    ended(daemon, &other, 2).await;
}

/// Waits until this attempt of the pod's container, or a later one, has ended.
async fn ended(daemon: &Daemon, pod: &str, attempt: u32) -> String {
    let began = Instant::now();
    loop {
        let all = daemon.containers(pod).await;
        let ended = all.iter().find(|c| {
            c.state() == cri::ContainerState::ContainerExited
                && c.metadata.as_ref().unwrap().attempt >= attempt
        });
        if let Some(ended) = ended {
            return ended.id.clone();
        }
        assert!(began.elapsed() < PATIENCE, "no attempt {attempt} ended: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
