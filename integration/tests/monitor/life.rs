//! Starts, exits and what a daemon learns of them.

use std::fs;
use std::process::Command;

use haled::monitor::client::{Error, Monitor, Notice};
use serde_json::json;

use super::house::{House, Notices, kill, until};

#[tokio::test]
async fn exit_codes_signals_and_output_are_told() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    for (id, script, code, signal) in [
        ("zero", "echo out; echo err >&2", 0, 0),
        ("one", "exit 1", 1, 0),
        ("killed", "sleep 600", 137, 9),
        ("ended", "trap 'exit 143' TERM; kill -15 $$; sleep 600", 143, 0),
    ] {
        let started = monitor.start(house.script(id, script)).await.unwrap();
        assert!(started.init.pid > 0 && started.init.start_ticks > 0);
        if id == "killed" {
            monitor.signal(id, libc::SIGKILL).await.unwrap();
        }
        let exit = notices.exit_of(id).await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (code, signal, false), "{id}");
        assert_eq!(exit.started_at, started.at);
        assert!(exit.finished_at > 0 && exit.finished_at >= exit.started_at, "{exit:?}");
        monitor.signal(id, libc::SIGTERM).await.unwrap();
        let on_disk = Monitor::exits_on_disk(&house.run_dir());
        assert!(on_disk.contains(&(id.to_owned(), exit)), "{on_disk:?}");
    }
    assert_eq!(house.output("zero"), "out\nerr\n");
    let left = fs::read_dir(house.path("runc")).unwrap().count();
    assert_eq!(left, 0, "runc still knows a container");
    for id in ["zero", "one", "killed", "ended"] {
        monitor.forget(id).await.unwrap();
    }
    assert!(Monitor::exits_on_disk(&house.run_dir()).is_empty());
    monitor.shutdown().await.unwrap();
    assert_eq!(notices.next().await, Some(Notice::Gone));
    assert_eq!(notices.next().await, None);
    let names = fs::read_dir(house.run_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["monitor.log"]);
}

#[tokio::test]
async fn a_real_time_signal_ends_a_container_by_its_number() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    // Not PID 1 of a namespace, which the kernel would protect.
    let spec = house.bundle("rt", &["/bin/sleep", "600"], |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    monitor.start(spec).await.unwrap();
    monitor.signal("rt", 37).await.unwrap();
    let exit = notices.exit_of("rt").await;
    assert_eq!((exit.code, exit.signal), (128 + 37, 37));
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_oom_kill_is_told() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let args = ["/bin/sh", "-c", "exec tail /dev/zero"];
    let mut spec = house.bundle("oom", &args, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20});
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev/pts");
        config["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}
        ));
    });
    spec.oom_events = house.oom_events("oom");
    monitor.start(spec).await.unwrap();
    let exit = notices.exit_of("oom").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, true));
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_was_away_learns_the_exit() {
    let house = House::new();
    let (monitor, notices) = house.spawn().await;
    let pause = monitor.sandbox(house.sandbox_spec()).await.unwrap();
    let script = "until [ -e /tmp/go ]; do sleep 0.1; done; echo went; exit 7";
    let spec = house.script("away", script);
    let go = spec.bundle.join("rootfs/tmp/go");
    let started = monitor.start(spec.clone()).await.unwrap();
    drop((monitor, notices));

    let (sender, notices) = Notices::new();
    let (monitor, inventory) = Monitor::connect(house.run_dir(), sender).await.unwrap();
    assert_eq!(inventory.pause, Some(pause));
    assert_eq!(inventory.containers.len(), 1);
    assert_eq!(inventory.containers[0].started, started);
    assert_eq!(inventory.containers[0].exit, None);
    assert_eq!(monitor.start(spec).await.unwrap(), started);
    assert!(notices.is_empty());
    drop((monitor, notices));

    fs::write(go, "").unwrap();
    let run_dir = house.run_dir();
    until("the record is on disk", || !Monitor::exits_on_disk(&run_dir).is_empty()).await;
    let (sender, mut notices) = Notices::new();
    let (monitor, inventory) = Monitor::connect(house.run_dir(), sender).await.unwrap();
    let exit = match inventory.containers[0].exit.clone() {
        Some(exit) => exit,
        // It came back while the runtime was still deleting.
        None => notices.exit_of("away").await,
    };
    assert_eq!((exit.code, exit.signal), (7, 0));
    assert_eq!(house.output("away"), "went\n");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let house = House::new();
    let (monitor, _notices) = house.spawn().await;
    let spec = house.bundle("nope", &["/bin/not-there"], |_| {});
    let error = monitor.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("/bin/not-there"), "{error}");
    assert_eq!(house.output("nope"), "", "the runtime's words are in the container's log");
    assert_eq!(fs::read_dir(house.path("runc")).unwrap().count(), 0);

    let mut spec = house.script("none", "true");
    spec.runtime = "/nowhere/runc".into();
    let error = monitor.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/runc"), "{error}");

    let mut spec = house.script("false", "true");
    spec.runtime = "/bin/false".into();
    let error = monitor.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("/bin/false ended with code 1"), "{error}");

    for bad in ["", "../x", "-rf", "a/b"] {
        let mut spec = house.script("bad", "true");
        fs::remove_dir_all(&spec.bundle).unwrap();
        spec.container = bad.into();
        let error = monitor.start(spec).await.unwrap_err().to_string();
        assert!(error.contains("no container id"), "{error}");
        assert!(monitor.forget(bad).await.is_err());
    }
    let names = fs::read_dir(house.run_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["monitor.log", "monitor.pid", "monitor.sock"]);
    // The same name is free again.
    fs::remove_dir_all(house.path("bundle-nope")).unwrap();
    monitor.start(house.script("nope", "exit 0")).await.unwrap();
}

#[tokio::test]
async fn what_outlives_init_is_ended_and_its_output_kept() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let spec = house.bundle("left", &["/bin/sh", "-c", "(echo child; sleep 600) & exit 3"], |c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    monitor.start(spec).await.unwrap();
    let exit = notices.exit_of("left").await;
    assert_eq!(exit.code, 3);
    assert_eq!(house.output("left"), "child\n");
    assert!(!house.oom_events("left").exists(), "the cgroup is still there");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_quick_exits_at_once_are_all_told() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let specs: Vec<_> =
        (0..8).map(|n| house.bundle(&format!("quick{n}"), &["/bin/true"], |_| {})).collect();
    let starts = specs.into_iter().map(|spec| {
        let monitor = monitor.clone();
        tokio::spawn(async move { monitor.start(spec).await.unwrap() })
    });
    for start in starts.collect::<Vec<_>>() {
        assert!(start.await.unwrap().init.start_ticks > 0);
    }
    let mut told = Vec::new();
    while told.len() < 8 {
        match notices.next().await {
            Some(Notice::Event(haled::monitor::wire::Event::Exited { container, exit })) => {
                assert_eq!(exit.code, 0);
                told.push(container);
            }
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 8);
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_killed_monitor_is_gone_once() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let second =
        Command::new(&house.executable).arg("--dir").arg(house.run_dir()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another monitor serves"), "{said}");
    for ignored in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        kill(monitor.pid(), ignored);
    }
    let error = monitor.reopen_log("none").await.unwrap_err().to_string();
    assert!(error.contains("no container none"), "{error}");
    kill(monitor.pid(), libc::SIGKILL);
    assert_eq!(notices.next().await, Some(Notice::Gone));
    assert_eq!(notices.next().await, None);
    assert!(matches!(monitor.forget("x").await.unwrap_err(), Error::Gone));
    let (sender, _notices) = Notices::new();
    let error = Monitor::connect(house.run_dir(), sender).await.unwrap_err();
    assert!(matches!(error, Error::Gone), "{error:?}");
    // Another can take its place, its socket's file notwithstanding.
    let (monitor, _notices) = house.spawn().await;
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn hostile_packets_are_answered_or_end_their_connection_alone() {
    let house = House::new();
    let (monitor, _notices) = house.spawn().await;
    let dir = fs::File::open(house.run_dir()).unwrap();
    let open = || haled::sys::socket::connect_at(std::os::fd::AsFd::as_fd(&dir), "monitor.sock");
    let answer = |packet: &[u8]| {
        let socket = open().unwrap();
        haled::sys::socket::send_packet(&socket, packet).unwrap();
        let end = std::time::Instant::now() + super::house::PATIENCE;
        loop {
            match haled::sys::socket::receive_packet(&socket, 1 << 20) {
                Ok(answer) => return answer.map(|text| String::from_utf8(text).unwrap()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    assert!(std::time::Instant::now() < end, "no answer");
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        }
    };
    assert_eq!(answer(b"no json"), None);
    assert_eq!(answer(&[0xff; 100]), None);
    assert_eq!(answer("[".repeat(100_000).as_bytes()), None);
    assert_eq!(answer(&vec![b' '; 129 * 1024]), None);
    assert_eq!(answer(b"{\"id\":-1,\"body\":\"shutdown\"}"), None);
    let refused = answer(br#"{"id":7,"body":{"fly":{"to":"the moon"}}}"#).unwrap();
    assert!(refused.contains("\"id\":7") && refused.contains("fly"), "{refused}");
    let refused = answer(br#"{"id":8,"body":{"signal":{"container":"x","signal":-9}}}"#).unwrap();
    assert!(refused.contains("-9 is no signal"), "{refused}");
    // More connections than it takes, and one that never reads.
    let idle: Vec<_> = (0..40).map_while(|_| open().ok()).collect();
    let hello = br#"{"id":1,"body":{"hello":{"version":1}}}"#;
    let sent = idle.first().map(|socket| {
        (0..100_000).take_while(|_| haled::sys::socket::send_packet(socket, hello).is_ok()).count()
    });
    assert!(sent.is_some());
    let error = monitor.reopen_log("none").await.unwrap_err().to_string();
    assert!(error.contains("no container none"), "{error}");
    drop(idle);
    monitor.shutdown().await.unwrap();
}

/// A monitor with limits of its own, started by hand.
fn by_hand(house: &House, option: &str, seconds: &str) -> std::process::Child {
    let mut child = Command::new(&house.executable)
        .arg("--dir")
        .arg(house.run_dir())
        .args([option, seconds])
        .stdout(std::process::Stdio::piped())
        .stderr(fs::File::create(house.path("run/monitor.log")).unwrap())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(said, "ready\n");
    child
}

#[tokio::test]
async fn a_runtime_that_hangs_is_ended_and_the_start_fails() {
    let house = House::new();
    let mut child = by_hand(&house, "--start-seconds", "1");
    let (sender, _notices) = Notices::new();
    let (monitor, _) = Monitor::connect(house.run_dir(), sender).await.unwrap();
    let runtime = house.path("slow-runtime");
    let called = house.path("called");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *delete*) echo deleted >> {0};; *) sleep 600 & sleep 600;; esac\n",
        called.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = house.script("slow", "true");
    spec.runtime = runtime;
    let error = monitor.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("did not start container slow in time"), "{error}");
    assert_eq!(fs::read_to_string(called).unwrap(), "deleted\n");
    let children = format!("/proc/{0}/task/{0}/children", monitor.pid());
    until("the runtime's own child is gone", || fs::read_to_string(&children).unwrap().is_empty())
        .await;
    monitor.shutdown().await.unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_monitor_without_use_ends_itself() {
    let house = House::new();
    let mut unused = by_hand(&house, "--idle-seconds", "1");
    until("the unused one has ended", || unused.try_wait().unwrap().is_some()).await;

    let mut child = by_hand(&house, "--idle-seconds", "1");
    let (sender, notices) = Notices::new();
    let (monitor, _) = Monitor::connect(house.run_dir(), sender).await.unwrap();
    let pause = monitor.sandbox(house.sandbox_spec()).await.unwrap();
    drop((monitor, notices));
    // Without a daemon it stays, for longer than its limit.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(child.try_wait().unwrap().is_none(), "it left its pod");
    // Nobody can ever reach it now.
    fs::remove_dir_all(house.run_dir()).unwrap();
    until("the lost one has ended", || child.try_wait().unwrap().is_some()).await;
    assert!(haled::sys::process::start_ticks(pause.pid).is_err(), "pause is still there");
    assert!(house.mounts().is_empty());
}
