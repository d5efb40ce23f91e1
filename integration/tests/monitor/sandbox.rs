//! Namespaces, pause, and what is left of them.

use std::fs;
use std::process::Command;

use haled::monitor::client::Notice;
use haled::monitor::wire::Event;
use haled::sys::cgroup;
use haled::sys::userns::{IdMaps, Range};
use serde_json::json;

use super::house::{House, kill, until};
use crate::oci::rig::Cgroup;

fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

fn within(house: &House, kind: &str, args: &[&str]) -> String {
    let flag = format!("--{kind}={}", house.path("pins").join(kind).display());
    let output = Command::new("nsenter").arg(flag).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn namespaces_are_made_set_up_pinned_and_released() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let mut spec = house.sandbox_spec();
    spec.pid = true;
    spec.sysctls = vec![
        ("net.ipv4.ip_forward".into(), "1".into()),
        ("kernel.shm_rmid_forced".into(), "1".into()),
    ];
    let pause = monitor.sandbox(spec.clone()).await.unwrap();
    assert_eq!(monitor.sandbox(spec.clone()).await.unwrap(), pause);
    let other = monitor.sandbox(house.sandbox_spec()).await.unwrap_err().to_string();
    assert!(other.contains("another specification"), "{other}");
    let own = std::process::id() as i32;
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_ne!(namespace(pause.pid, kind), namespace(own, kind), "{kind}");
    }
    assert_eq!(namespace(pause.pid, "mnt"), namespace(own, "mnt"));
    assert_eq!(within(&house, "uts", &["hostname"]), "a-pod");
    let lo = within(&house, "net", &["ip", "-o", "addr", "show", "lo"]);
    assert!(lo.contains("127.0.0.1/8"), "{lo}");
    let forward = within(&house, "net", &["cat", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(forward, "1");
    assert_eq!(within(&house, "ipc", &["cat", "/proc/sys/kernel/shm_rmid_forced"]), "1");
    let name = fs::read(format!("/proc/{}/cmdline", pause.pid)).unwrap();
    assert_eq!(name, b"haled-pause\0");
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", pause.pid))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    open.dedup();
    assert_eq!(open, [std::path::Path::new("/dev/null")]);
    let session = fs::read_to_string(format!("/proc/{}/stat", pause.pid)).unwrap();
    let session = session.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pause.pid.to_string(), "its own session");
    assert_eq!(house.mounts().len(), 4);
    for (what, pid) in [("monitor", monitor.pid()), ("pause", pause.pid)] {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        println!("{what}: {}", smaps.lines().find(|line| line.starts_with("Pss:")).unwrap());
    }

    monitor.shutdown().await.unwrap();
    assert_eq!(notices.next().await, Some(Notice::Gone));
    assert!(house.mounts().is_empty(), "{:?}", house.mounts());
    assert_eq!(fs::read_dir(house.path("pins")).unwrap().count(), 0);
    assert!(haled::sys::process::start_ticks(pause.pid).is_err(), "pause is still there");
}

#[tokio::test]
async fn pause_is_born_into_its_cgroup_of_every_hierarchy() {
    let range = Range { inside: 0, outside: 1 << 16, count: 1 << 16 };
    let mapped = IdMaps { uids: vec![range], gids: vec![range] };
    for userns in [None, Some(mapped)] {
        let house = House::new();
        let (monitor, _notices) = house.spawn().await;
        let group = Cgroup::new();
        let path = format!("{}/pause", group.0);
        cgroup::create(&path).unwrap();
        let mut spec = house.sandbox_spec();
        spec.cgroup = Some(cgroup::birthplace(&path).unwrap());
        spec.pid = true;
        spec.userns = userns;
        let pause = monitor.sandbox(spec).await.unwrap();
        let of_pause = fs::read_to_string(format!("/proc/{}/cgroup", pause.pid)).unwrap();
        let elsewhere: Vec<&str> = of_pause.lines().filter(|line| !line.ends_with(&path)).collect();
        assert_eq!(elsewhere, Vec::<&str>::new());
        assert_eq!(cgroup::processes(&path).unwrap(), [pause.pid], "and nothing else");
        monitor.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_leaves_nothing() {
    let house = House::new();
    let (monitor, _notices) = house.spawn().await;
    let good = house.sandbox_spec();
    let with = |change: &dyn Fn(&mut haled::monitor::wire::SandboxSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    fs::write(house.path("file"), "").unwrap();
    let blocked = house.path("file/pins");
    for (spec, said) in [
        (with(&|s| s.pause = "/nowhere/haled-pause".into()), "/nowhere/haled-pause"),
        (with(&|s| s.hostname = "h".repeat(65)), "hostname"),
        (with(&|s| s.sysctls = vec![("vm.swappiness".into(), "1".into())]), "vm.swappiness"),
        (with(&|s| s.sysctls = vec![("net/../kernel/x".into(), "1".into())]), "net/../kernel/x"),
        (with(&|s| s.sysctls = vec![("net.no.such".into(), "1".into())]), "/proc/sys/net/no/such"),
        (
            with(&|s| {
                s.network = false;
                s.sysctls = vec![("net.ipv4.ip_forward".into(), "1".into())];
            }),
            "uses the host's",
        ),
        (with(&|s| s.pins = blocked.clone()), "pin the net namespace"),
        (
            with(&|s| s.cgroup = Some(cgroup::birthplace("/no-such-cgroup-of-haled").unwrap())),
            "/no-such-cgroup-of-haled",
        ),
        // No policy knows it, whether or not the kernel has one.
        (
            with(&|s| s.label = "no_u:no_r:no_t:s0".into()),
            "cannot give pause the SELinux label no_u:no_r:no_t:s0",
        ),
    ] {
        let error = monitor.sandbox(spec).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(house.mounts().is_empty());
    }
    let children = format!("/proc/{0}/task/{0}/children", monitor.pid());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    monitor.sandbox(good).await.unwrap();
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn pause_reaps_the_orphans_of_a_shared_pid_namespace() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let mut spec = house.sandbox_spec();
    spec.pid = true;
    let pause = monitor.sandbox(spec).await.unwrap();
    // Each inner shell leaves a child behind, which says so once it is pause's.
    let orphan = "p=0; while [ $p != 1 ]; do sleep 0.05; while read k v; do \
                  [ $k = PPid: ] && p=$v; done < /proc/self/status; done; echo orphan";
    let script = format!(
        "i=0; while [ $i -lt 20 ]; do sh -c '({orphan}) & exit'; i=$((i+1)); done; \
         exec /bin/busybox sleep 600"
    );
    let pin = house.path("pins/pid");
    let spec = house.bundle("orphans", &["/bin/sh", "-c", &script], |config| {
        config["linux"]["namespaces"] = json!([{"type": "pid", "path": pin}, {"type": "mount"}]);
    });
    let started = monitor.start(spec).await.unwrap();
    let shared = namespace(pause.pid, "pid");
    assert_eq!(namespace(started.init.pid, "pid"), shared);
    let log = house.path("logs/orphans/0.log");
    until("all have become pause's", || {
        fs::read_to_string(&log).is_ok_and(|text| text.matches("orphan").count() == 20)
    })
    .await;
    // Zombies count as children.
    let children = format!("/proc/{0}/task/{0}/children", pause.pid);
    until("pause has no children", || fs::read_to_string(&children).unwrap().is_empty()).await;
    monitor.signal("orphans", libc::SIGKILL).await.unwrap();
    assert_eq!(notices.exit_of("orphans").await.code, 137);
    assert_eq!(fs::read_to_string(&children).unwrap(), "");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn pause_ending_is_told_and_is_final() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let pause = monitor.sandbox(house.sandbox_spec()).await.unwrap();
    kill(pause.pid, libc::SIGKILL);
    assert_eq!(notices.next().await, Some(Notice::Event(Event::PauseExited)));
    let error = monitor.sandbox(house.sandbox_spec()).await.unwrap_err().to_string();
    assert!(error.contains("has ended"), "{error}");
    monitor.shutdown().await.unwrap();
    assert!(house.mounts().is_empty());
}

#[tokio::test]
async fn a_pause_that_does_not_stay_is_no_sandbox() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let mut spec = house.sandbox_spec();
    spec.pause = "/bin/true".into();
    match monitor.sandbox(spec).await {
        Err(error) => assert!(error.to_string().contains("/bin/true"), "{error}"),
        // It was still alive when it was looked at.
        Ok(_) => {
            assert_eq!(notices.next().await, Some(Notice::Event(Event::PauseExited)));
        }
    }
    monitor.shutdown().await.unwrap();
    assert!(house.mounts().is_empty());
}

#[tokio::test]
async fn a_pause_process_takes_a_shutdown_that_comes_at_once() {
    for _ in 0..10 {
        let house = House::new();
        let (monitor, _notices) = house.spawn().await;
        let mut spec = house.sandbox_spec();
        spec.pid = true;
        monitor.sandbox(spec).await.unwrap();
        let begin = std::time::Instant::now();
        monitor.shutdown().await.unwrap();
        // A signal that was lost is followed by SIGKILL after a second.
        assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}
