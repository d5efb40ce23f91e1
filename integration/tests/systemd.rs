//! Cgroups made by systemd. Most of it wants a machine that systemd runs, which
//! `make vm-systemd` boots; elsewhere those tests say so and do nothing.

mod service;

use std::process::Command;

use haled::proto::cri;
use haled::sys::cgroup;
use tonic::Code;

use crate::daemon::{Daemon, systemd_makes_cgroups};

/// Whether systemd runs this machine; where it doesn't, says that a test has not been run.
fn systemd_is_here() -> bool {
    let here = systemd_makes_cgroups();
    if !here {
        eprintln!("SKIPPED: systemd does not run this machine on v2: make vm-systemd has one");
    }
    here
}

fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemctl {args:?}: {text}{errors}");
    text.trim().to_owned()
}

/// One property of a unit.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// The names of the scopes that haled has asked for and that there still are, failed or not.
fn scopes() -> Vec<String> {
    let list = systemctl(&["list-units", "--all", "--plain", "--no-legend", "haled-*.scope"]);
    list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

async fn driver(daemon: &Daemon) -> cri::CgroupDriver {
    let request = cri::RuntimeConfigRequest::default();
    let answer = daemon.runtime().await.runtime_config(request).await.unwrap().into_inner();
    answer.linux.unwrap().cgroup_driver()
}

/// A file of a container's cgroup on v2.
fn read(cgroup: &str, file: &str) -> String {
    let path = cgroup::unified_directory(cgroup).unwrap().join(file);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[test]
fn without_systemd_the_daemon_says_what_is_missing() {
    if haled::sys::systemd::is_here() {
        eprintln!("skipped: systemd runs this machine");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = format!(
        "helper_dir = \"{}\"\n[runtime]\ncgroup_driver = \"systemd\"\n",
        crate::daemon::helper_dir().display()
    );
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_haled"))
        .args(["--config".as_ref(), path.as_os_str()])
        .args(["--root".as_ref(), dir.path().join("root").as_os_str()])
        .args(["--state".as_ref(), dir.path().join("state").as_os_str()])
        .args(["--listen".as_ref(), dir.path().join("haled.sock").as_os_str()])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    for word in ["runtime.cgroup_driver", "systemd does not run this machine", "\"cgroupfs\""] {
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_parent_of_the_other_driver_is_refused_with_both_remedies() {
    let daemon = Daemon::start_without_network().await;
    let (named, other, remedies) = if systemd_makes_cgroups() {
        let remedies = ["cgroupDriver: systemd", "cgroup_driver = \"cgroupfs\""];
        (cri::CgroupDriver::Systemd, "/kubepods/pod1", remedies)
    } else {
        let remedies = ["cgroupDriver: cgroupfs", "cgroup_driver = \"systemd\""];
        (cri::CgroupDriver::Cgroupfs, "kubepods-pod1.slice", remedies)
    };
    assert_eq!(driver(&daemon).await, named);
    let mut config = daemon.host_sandbox("elsewhere");
    config.linux.as_mut().unwrap().cgroup_parent = other.into();
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    for word in [&["linux.cgroup_parent", other][..], &remedies].concat() {
        assert!(error.message().contains(word), "{error}");
    }
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_is_a_delegated_scope_in_its_slice_from_its_start_to_its_removal() {
    if !systemd_is_here() {
        return;
    }
    let mut daemon = Daemon::start_without_network().await;
    let mut config = daemon.host_sandbox("kubelets");
    let slice = daemon.parent("podkubelets");
    // With the path, as kubelets give it.
    config.linux.as_mut().unwrap().cgroup_parent = slice.cgroup.clone();
    let pod = daemon.run(&config).await;
    let unit = format!("haled-{pod}.scope");
    let scope = format!("{}/{unit}", slice.cgroup);
    assert_eq!(property(&unit, "ControlGroup"), scope);
    assert_eq!(property(&unit, "Slice"), slice.text);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "TasksMax"), "infinity");
    assert_eq!(cgroup::processes(&scope).unwrap().len(), 1, "pause");

    let limits = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    let mut app = Daemon::host_container("app", "exec sleep 600");
    app.linux.as_mut().unwrap().resources = Some(limits);
    let id = daemon.run_container(&pod, app).await;
    let own = daemon.cgroup_of(&id).await;
    assert_eq!(own, format!("{scope}/{id}"));
    assert_eq!(cgroup::processes(&own).unwrap(), [daemon.pid(&id).await]);
    let kernel = || ["cpu.max", "cpu.weight", "memory.max"].map(|file| read(&own, file));
    assert_eq!(kernel(), ["50000 100000", "20", "67108864"]);
    let tasks: u64 = property(&unit, "TasksCurrent").parse().unwrap();
    assert_eq!(tasks, 2, "pause and sleep");
    let memory: u64 = property(&unit, "MemoryCurrent").parse().unwrap();
    assert!(memory > 0);

    // A command has a cgroup of its own, inside.
    let (code, where_) = daemon.exec(&id, &["cat", "/proc/self/cgroup"]).await;
    assert!(code == 0 && where_.starts_with("0::/exec-"), "{where_}");

    let change = cri::LinuxContainerResources {
        cpu_quota: 20_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 96 << 20,
        ..Default::default()
    };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(change),
        ..Default::default()
    };
    daemon.runtime().await.update_container_resources(request).await.unwrap();
    let changed = ["20000 100000", "20", "100663296"];
    assert_eq!(kernel(), changed);
    // What systemd does to its own cgroups does not reach them.
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &slice.text, "CPUWeight=50"]);
    assert_eq!(kernel(), changed);

    let stats = daemon.pod_stats(&pod).await;
    assert_eq!(stats.process.unwrap().process_count.unwrap().value, 2);
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);

    let before = daemon.status(&id).await;
    daemon.kill();
    daemon.launch().await;
    assert_eq!(daemon.status(&id).await, before);
    assert_eq!(daemon.exec(&id, &["true"]).await.0, 0);

    daemon.remove_pod(&pod).await;
    assert_eq!(property(&unit, "LoadState"), "not-found");
    assert!(!cgroup::unified_directory(&scope).unwrap().exists(), "{scope}");
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_container_out_of_memory_is_told_and_leaves_no_failed_unit() {
    if !systemd_is_here() {
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let mut config = daemon.host_sandbox("hungry");
    // Without a parent of its own: haled's slice.
    config.linux.as_mut().unwrap().cgroup_parent.clear();
    let pod = daemon.run(&config).await;
    let unit = format!("haled-{pod}.scope");
    assert_eq!(property(&unit, "ControlGroup"), format!("{}/{unit}", daemon.cgroup()));
    let calm = daemon.run_container(&pod, Daemon::host_container("calm", "exec sleep 600")).await;
    let mut hungry =
        Daemon::host_container("hungry", "exec dd if=/dev/zero of=/dev/null bs=100M count=1");
    hungry.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        ..Default::default()
    });
    let hungry = daemon.run_container(&pod, hungry).await;
    let ended = daemon.exited(&hungry).await;
    assert_eq!((ended.reason.as_str(), ended.exit_code), ("OOMKilled", 137));
    assert_eq!(daemon.status(&calm).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(property(&unit, "ActiveState"), "active");
    daemon.remove_pod(&pod).await;
    assert_eq!(property(&unit, "LoadState"), "not-found");
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn what_systemd_stops_is_told_and_can_be_removed() {
    if !systemd_is_here() {
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("stopped")).await;
    let id = daemon.run_container(&pod, Daemon::host_container("app", "exec sleep 600")).await;
    systemctl(&["kill", "--signal", "KILL", &format!("haled-{pod}.scope")]);
    assert_eq!(daemon.exited(&id).await.exit_code, 137);
    daemon.remove_pod(&pod).await;
    assert!(!scopes().iter().any(|unit| unit.contains(&pod)), "{:?}", scopes());
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn pods_of_both_drivers_are_looked_after_when_the_settings_change() {
    if !systemd_is_here() {
        return;
    }
    let mut daemon = Daemon::start_without_network().await;
    let first = daemon.run(&daemon.host_sandbox("scope")).await;
    let app = || Daemon::host_container("app", "exec sleep 600");
    let in_scope = daemon.run_container(&first, app()).await;
    std::fs::create_dir(daemon.path("config.d")).unwrap();
    let path = format!("/{}", daemon.path("").file_name().unwrap().to_str().unwrap());
    let text = format!("[runtime]\ncgroup_driver = \"cgroupfs\"\ncgroup_parent = \"{path}\"\n");
    std::fs::write(daemon.path("config.d/driver.toml"), text).unwrap();
    daemon.kill();
    daemon.launch().await;
    assert_eq!(driver(&daemon).await, cri::CgroupDriver::Cgroupfs);
    assert_eq!(daemon.exec(&in_scope, &["true"]).await.0, 0);

    let mut config = daemon.host_sandbox("directory");
    config.linux.as_mut().unwrap().cgroup_parent.clear();
    let second = daemon.run(&config).await;
    let in_directory = daemon.run_container(&second, app()).await;
    assert_eq!(daemon.cgroup_of(&in_directory).await, format!("{path}/{in_directory}"));
    assert_eq!(daemon.exec(&in_directory, &["true"]).await.0, 0);
    // One more in the first.
    let more = daemon.run_container(&first, Daemon::host_container("more", "exec sleep 600")).await;
    assert!(daemon.cgroup_of(&more).await.ends_with(&format!("/haled-{first}.scope/{more}")));
    for pod in [&first, &second] {
        daemon.remove_pod(pod).await;
    }
    assert!(!scopes().iter().any(|unit| unit.contains(&first)), "{:?}", scopes());
    assert_eq!(cgroup::processes(&path).unwrap(), Vec::<i32>::new());
    cgroup::remove(&path).unwrap();
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn systemd_is_reached_by_the_bus_too_and_told_when_by_neither() {
    if !systemd_is_here() {
        return;
    }
    systemctl(&["start", "dbus.service"]);
    let daemon = Daemon::start_without_network().await;
    // For this daemon alone: it has a mount namespace of its own.
    let node = |command: &str| {
        let output = daemon.on_node(command).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    };
    node("mount --bind /dev/null /run/systemd/private");
    let pod = daemon.run(&daemon.host_sandbox("by-bus")).await;
    let unit = format!("haled-{pod}.scope");
    assert_eq!(property(&unit, "ActiveState"), "active");
    daemon.remove_pod(&pod).await;
    assert_eq!(property(&unit, "LoadState"), "not-found");

    node("mount -t tmpfs tmpfs /run/dbus");
    let config = daemon.host_sandbox("cut-off");
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    for word in ["cannot reach systemd", "/run/systemd/private", "system_bus_socket"] {
        assert!(error.message().contains(word), "{error}");
    }
    node("umount /run/dbus /run/systemd/private");
    daemon
        .until("the remains' end", || {
            std::fs::read_dir(daemon.path("state/pods")).unwrap().count() == 0
        })
        .await;
    daemon.nothing_is_left().await;
}
