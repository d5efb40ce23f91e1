//! Agents in the containers of a daemon: where they live, and what ends them. `oci::agents` has
//! what they do.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use haled::proto::cri;
use tonic::Code;

use crate::daemon::Daemon;

/// What a container's `sleep 600` is to be in.
fn sandbox(daemon: &Daemon, name: &str, pid: cri::NamespaceMode) -> cri::PodSandboxConfig {
    let mut config = daemon.sandbox(name);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options =
        Some(cri::NamespaceOption { pid: pid.into(), ..Default::default() });
    config
}

fn container(pid: cri::NamespaceMode) -> cri::ContainerConfig {
    let mut config = Daemon::container("app", "trap 'exit 0' TERM; while true; do sleep 0.1; done");
    let options = cri::NamespaceOption { pid: pid.into(), ..Default::default() };
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options = Some(options);
    config
}

/// Where the processes of a container are listed.
fn cgroup(daemon: &Daemon, id: &str) -> PathBuf {
    let mount = if haled::sys::cgroup::has_controller("pids") { "pids" } else { "cpu" };
    let parent = haled::sys::cgroup::directory(mount, daemon.cgroup()).unwrap();
    let mut left = vec![parent];
    while let Some(directory) = left.pop() {
        if directory.file_name().is_some_and(|name| name == id) {
            return directory;
        }
        let below = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
        left.extend(below.filter(|path| path.is_dir()));
    }
    panic!("there is no cgroup of {id}");
}

/// The agents of a container, and waiters.
fn agents(daemon: &Daemon, id: &str) -> Vec<i32> {
    let mut all = Vec::new();
    for entry in fs::read_dir(cgroup(daemon, id)).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("agent-") {
            let listed = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            all.extend(listed.lines().map(|pid| pid.parse::<i32>().unwrap()));
        }
    }
    all.retain(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "haled-agent\n")
    });
    all
}

fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

/// Runs commands until they go through an agent, which is given.
async fn agent_of(daemon: &Daemon, id: &str) -> i32 {
    for _ in 0..3 {
        assert_eq!(daemon.exec(id, &["echo", "hi"]).await, (0, "hi\n".to_owned()));
    }
    daemon.until("an agent and no waiter", || agents(daemon, id).len() == 1).await;
    agents(daemon, id)[0]
}

#[tokio::test]
async fn agents_end_with_their_containers_in_every_pid_namespace() {
    let daemon = Daemon::start().await;
    for (name, mode) in [
        ("own", cri::NamespaceMode::Container),
        ("shared", cri::NamespaceMode::Pod),
        ("host", cri::NamespaceMode::Node),
    ] {
        let pod = daemon.run(&sandbox(&daemon, name, mode)).await;
        let id = daemon.run_container(&pod, container(mode)).await;
        let agent = agent_of(&daemon, &id).await;
        daemon.stop(&id, 5).await;
        daemon.until("the agent has ended", || !lives(agent)).await;
        assert_eq!(daemon.status(&id).await.exit_code, 0, "{name}");

        // Removed under a command that would run for long.
        let mut config = container(mode);
        config.metadata.as_mut().unwrap().name = "second".into();
        let id = daemon.run_container(&pod, config).await;
        let agent = agent_of(&daemon, &id).await;
        let (running, removed) = tokio::join!(daemon.try_exec(&id, &["sleep", "600"], 0), async {
            daemon.until("it runs", || agents(&daemon, &id).len() == 2).await;
            let request = cri::RemoveContainerRequest { container_id: id.clone() };
            daemon.runtime().await.remove_container(request).await
        });
        removed.unwrap();
        assert!(running.is_err() || running.as_ref().unwrap().exit_code == 137, "{running:?}");
        assert!(!lives(agent), "{name}");
        daemon.remove_pod(&pod).await;
    }
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_daemon_that_comes_back_ends_the_agent_of_the_one_before() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("agent")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    let before = agent_of(&daemon, &id).await;
    let request = cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", "setsid sleep 601 & sleep 602"].map(str::to_owned).to_vec(),
        timeout: 0,
    };
    let mut client = daemon.runtime().await;
    let running = tokio::spawn(async move { client.exec_sync(request).await });
    daemon.until("it runs", || agents(&daemon, &id).len() == 2).await;
    let waiter = agents(&daemon, &id).into_iter().find(|pid| *pid != before).unwrap();
    daemon.kill();
    running.await.unwrap().unwrap_err();
    assert!(lives(waiter), "nobody has told it to end");
    daemon.launch().await;
    daemon.until("they are gone", || !lives(before) && !lives(waiter)).await;
    let after = agent_of(&daemon, &id).await;
    assert_ne!(before, after);
    let (code, all) = daemon.exec(&id, &["ps", "-o", "args"]).await;
    assert_eq!(code, 0);
    assert!(!all.contains("sleep 601") && !all.contains("sleep 602"), "{all}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn an_exec_probe_goes_through_an_agent_of_each_attempt() {
    let daemon = Daemon::start().await;
    let probe = r#"{"exec": {"command": ["ls", "/tmp/healthy"]}, "periodMilliseconds": 100, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}"#;
    let mut config = daemon.sandbox("probed");
    config.annotations.insert("liveness.haled/app".to_owned(), probe.to_owned());
    config.annotations.insert("haled/heal".to_owned(), "restart".to_owned());
    let pod = daemon.run(&config).await;
    let script = "touch /tmp/healthy; trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let first = daemon.run_container(&pod, Daemon::container("app", script)).await;
    daemon.until("the first has an agent", || !agents(&daemon, &first).is_empty()).await;
    daemon.exec(&first, &["rm", "/tmp/healthy"]).await;
    let second = daemon.attempt(&pod, "app", 1).await;
    daemon.until("the second has an agent", || !agents(&daemon, &second).is_empty()).await;
    let status = daemon.status(&first).await;
    assert_eq!(status.reason, "LivenessProbeFailed");
    assert!(status.message.contains("/tmp/healthy"), "{}", status.message);
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn limits_that_change_hold_for_what_an_agent_executes() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("updated")).await;
    let mut config = Daemon::container("app", "exec sleep 600");
    config.linux.get_or_insert_default().resources =
        Some(cri::LinuxContainerResources { oom_score_adj: 600, ..Default::default() });
    let id = daemon.run_container(&pod, config).await;
    agent_of(&daemon, &id).await;
    let score = ["cat", "/proc/self/oom_score_adj"];
    assert_eq!(daemon.exec(&id, &score).await.1, "600\n");
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(cri::LinuxContainerResources { oom_score_adj: 700, ..Default::default() }),
        ..Default::default()
    };
    daemon.runtime().await.update_container_resources(request).await.unwrap();
    assert_eq!(daemon.exec(&id, &score).await.1, "700\n");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_command_that_is_not_in_time_is_told_with_its_limit() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("late")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    agent_of(&daemon, &id).await;
    let began = std::time::Instant::now();
    let error = daemon.try_exec(&id, &["sleep", "600"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains("limit of 1000 ms"), "{error}");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let error = daemon.try_exec(&id, &["no-such-program"], 0).await.unwrap_err();
    assert!(error.message().contains("no-such-program"), "{error}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
