//! The life of pods and containers through the CRI, with a real daemon.

use haled::proto::cri;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE};

#[tokio::test]
async fn a_pod_lives_and_dies_and_leaves_nothing() {
    let daemon = Daemon::start().await;
    let config = daemon.sandbox("life");
    let pod = daemon.run(&config).await;
    assert_eq!(daemon.run(&config).await, pod, "the same again is the same");

    let id =
        daemon.run_container(&pod, Daemon::container("app", "echo hello; exec sleep 600")).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(daemon.exec(&id, &["hostname"]).await, (0, "life\n".into()));
    daemon.until("a log line", || daemon.log_lines("life", "app/0.log") == ["hello"]).await;

    daemon.stop(&id, 0).await;
    let status = daemon.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    daemon.stop(&id, 0).await;

    for _ in 0..2 {
        daemon.stop_pod(&pod).await;
        assert_eq!(daemon.pods().await[0].state(), cri::PodSandboxState::SandboxNotready);
    }
    daemon.remove_pod(&pod).await;
    daemon.remove_pod(&pod).await;
    let error = daemon
        .runtime()
        .await
        .pod_sandbox_status(cri::PodSandboxStatusRequest { pod_sandbox_id: pod, verbose: true })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn exit_codes_signals_and_oom_are_told_apart() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("ends")).await;
    let ends = |name: &'static str, script: &'static str| {
        let daemon = &daemon;
        let pod = pod.clone();
        async move {
            let id = daemon.run_container(&pod, Daemon::container(name, script)).await;
            let status = daemon.exited(&id).await;
            assert!(status.finished_at >= status.started_at && status.started_at > 0);
            // To the nanosecond: it would be odd for both to be whole milliseconds.
            assert!(status.finished_at % 1_000_000 != 0 || status.started_at % 1_000_000 != 0);
            (status.exit_code, status.reason)
        }
    };
    assert_eq!(ends("zero", "exit 0").await, (0, "Completed".into()));
    assert_eq!(ends("one", "exit 1").await, (1, "Error".into()));
    // PID 1 can't kill itself by a signal it doesn't handle: its child can be.
    assert_eq!(ends("child", "sh -c 'kill -TERM $$'; exit $?").await, (143, "Error".into()));

    let script = "trap 'exit 143' TERM; touch /tmp/trapped; while true; do sleep 0.05; done";
    let term = daemon.run_container(&pod, Daemon::container("term", script)).await;
    // Until its trap is set, PID 1 is deaf to the signal.
    let trapped = async { while daemon.exec(&term, &["ls", "/tmp/trapped"]).await.0 != 0 {} };
    tokio::time::timeout(PATIENCE, trapped).await.expect("it sets its trap");
    daemon.stop(&term, 30).await;
    assert_eq!(daemon.exited(&term).await.exit_code, 143);
    let deaf =
        daemon.run_container(&pod, Daemon::container("deaf", "trap '' TERM; exec sleep 600")).await;
    daemon.stop(&deaf, 1).await;
    assert_eq!(daemon.exited(&deaf).await.exit_code, 137);

    let mut greedy =
        Daemon::container("greedy", "exec dd if=/dev/zero of=/dev/null bs=100M count=1");
    greedy.linux = Some(cri::LinuxContainerConfig {
        resources: Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            ..Default::default()
        }),
        ..Default::default()
    });
    let greedy = daemon.run_container(&pod, greedy).await;
    let status = daemon.exited(&greedy).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn pause_reaps_the_zombies_of_a_shared_pid_namespace() {
    let daemon = Daemon::start().await;
    let mut config = daemon.sandbox("shared");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let pod = daemon.run(&config).await;
    let container = |name: &str, script: &str| {
        let mut container = Daemon::container(name, script);
        container.linux = Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Pod.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
        container
    };
    // Orphans: their parent ends before they do, so PID 1 of the namespace is to reap them.
    let script = "for i in $(seq 20); do sh -c 'sleep 0.2 & exit 0'; done; exec sleep 600";
    let id = daemon.run_container(&pod, container("orphans", script)).await;
    let (_, one) = daemon.exec(&id, &["cat", "/proc/1/comm"]).await;
    assert_eq!(one, "haled-pause\n");
    let count =
        "cat /proc/[0-9]*/stat | awk '{ all++; if ($3 == \"Z\") z++ } END { print all+0, z+0 }'";
    let began = std::time::Instant::now();
    loop {
        // pause, the sleep, and the three of this command.
        let (_, seen) = daemon.exec(&id, &["sh", "-c", count]).await;
        let mut numbers = seen.split_whitespace().map(|n| n.parse::<u32>().unwrap());
        let (all, zombies) = (numbers.next().unwrap(), numbers.next().unwrap());
        if all <= 6 && zombies == 0 {
            break;
        }
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{all} processes, {zombies} zombies");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // And one container sees another's processes.
    let other = daemon.run_container(&pod, container("other", "exec sleep 601")).await;
    let (_, seen) =
        daemon.exec(&other, &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).await;
    assert!(seen.contains("sleep 600"), "{seen}");
}

#[tokio::test]
async fn exec_keeps_its_time_limit_and_takes_every_descendant_along() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("exec")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    let script = "setsid sh -c 'sleep 7777' & setsid sleep 7778 & sleep 7779";
    let error = daemon.try_exec(&id, &["sh", "-c", script], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    let (_, left) =
        daemon.exec(&id, &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).await;
    assert!(!left.contains("777"), "{left}");
    assert_eq!(daemon.status(&id).await.state(), cri::ContainerState::ContainerRunning);

    // What holds the pipe open after the command has ended delays the answer by a second.
    let began = std::time::Instant::now();
    let held =
        daemon.try_exec(&id, &["sh", "-c", "echo out; sleep 8888 & exit 4"], 60).await.unwrap();
    assert_eq!((held.exit_code, held.stdout.as_slice()), (4, &b"out\n"[..]));
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());

    let both = daemon.try_exec(&id, &["sh", "-c", "echo a; echo b >&2; exit 9"], 0).await.unwrap();
    assert_eq!((both.exit_code, both.stdout, both.stderr), (9, b"a\n".to_vec(), b"b\n".to_vec()));
    let error = daemon.try_exec(&id, &["no-such-command"], 0).await.unwrap_err();
    assert!(error.message().contains("no-such-command"), "{error}");
}

/// The tests' process must not become the reaper of everything: this test runs again in one of
/// its own.
#[test]
fn a_command_at_its_limit_is_left_to_no_init() {
    const ALONE: &str = "HALED_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "lifecycle::a_command_at_its_limit_is_left_to_no_init"]);
        let output = again.env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    // As an init is to the daemon: whoever has lost its parent comes here, and nobody reaps it.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let daemon = Daemon::start().await;
        let pod = daemon.run(&daemon.sandbox("limit")).await;
        let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
        for _ in 0..3 {
            let error = daemon.try_exec(&id, &["tail", "-f", "/dev/null"], 1).await.unwrap_err();
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        }
        let own = std::process::id().to_string();
        let orphans: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
            .filter(|stat| stat.contains("(tail) Z ") && stat.split(' ').nth(3) == Some(&own))
            .collect();
        assert!(orphans.is_empty(), "{orphans:?}");
    });
}

#[tokio::test]
async fn what_cannot_be_done_says_which_why_and_what_to_do() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("errors")).await;
    let start = |id: &str| {
        let id = id.to_owned();
        let daemon = &daemon;
        async move {
            let request = cri::StartContainerRequest { container_id: id };
            daemon.runtime().await.start_container(request).await.map(drop)
        }
    };
    let unknown = "0".repeat(64);
    assert_eq!(start(&unknown).await.unwrap_err().code(), Code::NotFound);
    let error = daemon.create(&unknown, Daemon::container("a", "true")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");

    let mut no_image = Daemon::container("no-image", "true");
    no_image.image =
        Some(cri::ImageSpec { image: "example.com/none:1".into(), ..Default::default() });
    let error = daemon.create(&pod, no_image).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("example.com/none:1"), "{error}");

    let mut no_source = Daemon::container("no-source", "true");
    no_source.mounts = vec![cri::Mount {
        container_path: "/data".into(),
        // A directory that isn't there is made; below a file none can be.
        host_path: "/etc/hostname/none".into(),
        ..Default::default()
    }];
    let error = daemon.create(&pod, no_source).await.unwrap_err();
    assert!(error.message().contains("/etc/hostname/none"), "{error}");

    let id = daemon.create(&pod, Daemon::container("app", "exec sleep 600")).await.unwrap();
    assert_eq!(daemon.create(&pod, Daemon::container("app", "exec sleep 600")).await.unwrap(), id);
    let error = daemon.create(&pod, Daemon::container("app", "true")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    let error = daemon.try_exec(&id, &["true"], 0).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    start(&id).await.unwrap();
    assert_eq!(start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    daemon.stop(&id, 0).await;
    assert_eq!(start(&id).await.unwrap_err().code(), Code::FailedPrecondition);

    let error = daemon.create(&pod, {
        let mut bad = Daemon::container("bad-user", "true");
        bad.linux = Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                run_as_username: "nobody-here".into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        bad
    });
    let error = error.await.unwrap_err();
    assert!(error.message().contains("nobody-here"), "{error}");

    daemon.stop_pod(&pod).await;
    let error = daemon.create(&pod, Daemon::container("late", "true")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn short_ids_work_while_they_fit_one() {
    let daemon = Daemon::start().await;
    let mut config = daemon.sandbox("pod");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(cri::NamespaceOption {
            network: cri::NamespaceMode::Node.into(),
            pid: cri::NamespaceMode::Container.into(),
            ..Default::default()
        });
    // With seventeen, two must begin with the same digit.
    let mut ids = Vec::new();
    for at in 0..17 {
        config.metadata.as_mut().unwrap().name = format!("pod-{at}");
        ids.push(daemon.run(&config).await);
    }
    let status = |id: String| {
        let daemon = &daemon;
        async move {
            let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id, verbose: false };
            daemon.runtime().await.pod_sandbox_status(request).await
        }
    };
    let found = status(ids[3][..20].into()).await.unwrap().into_inner().status.unwrap();
    assert_eq!(found.id, ids[3]);
    let twice = ids
        .iter()
        .map(|id| &id[..1])
        .find(|first| ids.iter().filter(|id| id.starts_with(*first)).count() > 1)
        .unwrap();
    let error = status(twice.into()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("more digits"), "{error}");
    for id in ids {
        daemon.remove_pod(&id).await;
    }
    daemon.nothing_is_left().await;
}

/// A client that gives up changes nothing: the work goes on and is found by its next call.
#[tokio::test]
async fn a_cancelled_call_is_joined_by_the_next() {
    let daemon = Daemon::start().await;
    for round in 0..10u64 {
        let config = daemon.sandbox(&format!("cancelled-{round}"));
        let moment = std::time::Duration::from_millis(round * 15);
        drop(tokio::time::timeout(moment, daemon.run(&config)).await);
        let pod = daemon.run(&config).await;
        let container = || Daemon::container("app", "exec sleep 600");
        drop(tokio::time::timeout(moment, daemon.create(&pod, container())).await);
        let id = daemon.create(&pod, container()).await.unwrap();
        assert_eq!(daemon.containers(&pod).await.len(), 1);
        assert_eq!(daemon.containers(&pod).await[0].id, id);
        assert_eq!(daemon.pods().await.len(), 1);
        daemon.remove_pod(&pod).await;
    }
    daemon.nothing_is_left().await;
}
