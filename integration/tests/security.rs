//! What keeps pods apart from the node: user namespaces, and whose their files are.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use haled::proto::cri;
use tonic::Code;

use crate::daemon::{BUSYBOX, Daemon};

mod apparmor;
mod cdi;
mod handlers;
mod image_volumes;

/// The host's id of a pod's root, and how many follow.
const FIRST: u32 = 200_000;
const COUNT: u32 = 65_536;

fn mappings() -> Vec<cri::IdMapping> {
    vec![cri::IdMapping { host_id: FIRST, container_id: 0, length: COUNT }]
}

/// Namespace options of a pod with a user namespace.
fn own_users() -> cri::NamespaceOption {
    cri::NamespaceOption {
        pid: cri::NamespaceMode::Container.into(),
        userns_options: Some(cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: mappings(),
            gids: mappings(),
        }),
        ..Default::default()
    }
}

fn sandbox(daemon: &Daemon, name: &str, options: cri::NamespaceOption) -> cri::PodSandboxConfig {
    let mut config = daemon.sandbox(name);
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options = Some(options);
    config
}

/// A container of such a pod.
fn container(name: &str, script: &str) -> cri::ContainerConfig {
    let mut config = Daemon::container(name, script);
    config.linux = Some(cri::LinuxContainerConfig {
        security_context: Some(cri::LinuxContainerSecurityContext {
            namespace_options: Some(own_users()),
            ..Default::default()
        }),
        ..Default::default()
    });
    config
}

/// Who a mapped root is must be able to come to its root file system.
fn open_the_way(daemon: &Daemon) {
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(daemon.path(""), mode).unwrap();
}

#[tokio::test]
async fn root_of_a_pod_with_user_namespaces_is_nobody_on_the_node() {
    let daemon = Daemon::start().await;
    open_the_way(&daemon);
    let status = daemon.runtime().await.status(cri::StatusRequest::default()).await.unwrap();
    let handlers = status.into_inner().runtime_handlers;
    assert!(handlers.iter().all(|h| h.features.as_ref().unwrap().user_namespaces), "{handlers:?}");

    let pod = daemon.run(&sandbox(&daemon, "users", own_users())).await;
    let volume = daemon.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("from-node"), "hello").unwrap();
    let mut config = container("app", "echo to the log; exec sleep 600");
    config.mounts = vec![cri::Mount {
        container_path: "/volume".into(),
        host_path: volume.to_str().unwrap().into(),
        uid_mappings: mappings(),
        gid_mappings: mappings(),
        ..Default::default()
    }];
    let id = daemon.run_container(&pod, config).await;

    // The kernel's own words, inside and outside.
    let (_, map) = daemon.exec(&id, &["cat", "/proc/self/uid_map"]).await;
    let map: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(map, [0, FIRST, COUNT]);
    let pid = daemon.pid(&id).await;
    assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST);

    // The image's files are the container's root's, and so is what is written over them.
    let script = "stat -c %u:%g / /bin/busybox /etc/hosts /volume/from-node | sort -u
        touch /written /volume/written /dev/shm/written && chown 7:8 /volume/written
        echo more >> /bin/busybox.copy && cp /bin/busybox /bin/copied && chmod 4755 /bin/copied
        hostname; ip link show lo | grep -o LOWER_UP";
    let (_, seen) = daemon.exec(&id, &["sh", "-c", script]).await;
    assert_eq!(seen, "0:0\nusers\nLOWER_UP\n", "{}", daemon.log());
    let written = std::fs::metadata(volume.join("written")).unwrap();
    assert_eq!((written.uid(), written.gid()), (7, 8), "on disk as inside");
    let upper = daemon.path("root/images/rootfs").join(&id).join("upper");
    assert_eq!(std::fs::metadata(upper.join("written")).unwrap().uid(), FIRST);

    // Nothing of the node is its own: neither the node's network nor its files.
    let script = "echo 1 > /proc/sys/kernel/printk; mknod /n b 8 0; mount -t tmpfs t /mnt; id -u";
    let (_, seen) = daemon.exec(&id, &["sh", "-c", script]).await;
    assert_eq!(seen, "0\n");
    let log = daemon.path("logs/users/app/0.log");
    assert!(std::fs::read_to_string(log).unwrap().contains("to the log"));

    // A daemon that comes back still knows it, and all goes when it goes.
    let mut daemon = daemon;
    daemon.kill();
    daemon.launch().await;
    let (_, seen) = daemon.exec(&id, &["cat", "/volume/from-node"]).await;
    assert_eq!(seen, "hello");
    let second = container("second", "stat -c %u / /proc/1; exec sleep 600");
    let second = daemon.run_container(&pod, second).await;
    let (_, seen) =
        daemon.exec(&second, &["busybox", "stat", "-c", "%u", "/", "/bin/busybox"]).await;
    assert_eq!(seen, "0\n0\n");
    daemon.stop_pod(&pod).await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
    assert_eq!(std::fs::read_to_string(volume.join("from-node")).unwrap(), "hello");
    // The layers on disk are as they were: another pod's root owns them as before.
    let plain = daemon.run(&daemon.sandbox("plain")).await;
    let id = daemon.run_container(&plain, Daemon::container("app", "exec sleep 600")).await;
    let (_, seen) = daemon.exec(&id, &["busybox", "stat", "-c", "%u", "/bin/busybox"]).await;
    assert_eq!(seen, "0\n");
}

#[tokio::test]
async fn a_user_and_a_terminal_in_a_user_namespace() {
    let daemon = Daemon::start().await;
    open_the_way(&daemon);
    let pod = daemon.run(&sandbox(&daemon, "users", own_users())).await;
    let mut config =
        container("app", "id -u > /dev/stderr; echo out > /dev/stdout; exec sleep 600");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_user = Some(cri::Int64Value { value: 1000 });
    let id = daemon.run_container(&pod, config).await;
    assert_eq!(
        std::fs::metadata(format!("/proc/{}", daemon.pid(&id).await)).unwrap().uid(),
        FIRST + 1000
    );
    // What is executed in it has pipes of its own, opened by path just so.
    let script = "read line < /dev/stdin; id -u > /dev/stderr; echo out > /dev/stdout";
    // By the runtime, and by an agent.
    for _ in 0..3 {
        let given = daemon.try_exec(&id, &["sh", "-c", script], 0).await.unwrap();
        let outputs = (given.stdout.as_slice(), given.stderr.as_slice());
        assert_eq!(outputs, (&b"out\n"[..], &b"1000\n"[..]));
    }
    assert!(has_agent(&daemon.pid(&id).await.to_string()));
    let log = daemon.path("logs/users/app/0.log");
    daemon
        .until("both lines", || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.contains("stderr F 1000") && log.contains("stdout F out")
        })
        .await;
    let mut config = container("tty", "tty; exec sleep 600");
    config.tty = true;
    daemon.run_container(&pod, config).await;
    let log = daemon.path("logs/users/tty/0.log");
    daemon
        .until("the terminal's name", || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("/dev/pts/0")
        })
        .await;
}

/// Whether there is an agent in the PID namespace of a process.
fn has_agent(pid: &str) -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let agent = |pid: &str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "haled-agent\n")
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .any(|each| agent(&each) && namespace(&each) == namespace(pid))
}

#[tokio::test]
async fn user_namespaces_that_cannot_be_are_refused_by_name() {
    let daemon = Daemon::start_without_network().await;
    for (change, needle) in [
        (
            (|o| o.userns_options.as_mut().unwrap().uids.clear()) as fn(&mut cri::NamespaceOption),
            "0 uid mappings",
        ),
        (|o| o.userns_options.as_mut().unwrap().gids[0].container_id = 5, "gid mapping has 0"),
        (|o| o.network = cri::NamespaceMode::Node.into(), "the host's network"),
        (|o| o.pid = cri::NamespaceMode::Node.into(), "the host's pid"),
        (
            |o| o.userns_options.as_mut().unwrap().mode = cri::NamespaceMode::Container.into(),
            "CONTAINER",
        ),
        (
            |o| o.userns_options.as_mut().unwrap().mode = cri::NamespaceMode::Node.into(),
            "takes no mappings",
        ),
    ] {
        let mut options = own_users();
        change(&mut options);
        let request = cri::RunPodSandboxRequest {
            config: Some(sandbox(&daemon, "bad", options)),
            runtime_handler: String::new(),
        };
        let error = daemon.runtime().await.run_pod_sandbox(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(needle), "{needle}: {error}");
    }
    let pod = daemon.run(&daemon.host_sandbox("plain")).await;
    let mut config = Daemon::host_container("app", "true");
    config.mounts = vec![cri::Mount {
        container_path: "/volume".into(),
        host_path: daemon.path("").to_str().unwrap().into(),
        uid_mappings: mappings(),
        gid_mappings: mappings(),
        ..Default::default()
    }];
    let error = daemon.create(&pod, config).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("/volume"), "{error}");
}

#[tokio::test]
async fn selinux_options_are_ignored_aloud_where_there_is_no_selinux() {
    if haled::sys::selinux::is_active() {
        eprintln!("skipped: SELinux is active here");
        return;
    }
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.host_sandbox("labels")).await;
    let labelled = |name: &str, kind: &str| {
        let mut config = Daemon::host_container(name, "exec sleep 600");
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.selinux_options = Some(cri::SeLinuxOption {
            r#type: kind.into(),
            level: "s0:c1,c2".into(),
            ..Default::default()
        });
        let host_path = daemon.path(name).to_str().unwrap().to_owned();
        config.mounts.push(cri::Mount {
            container_path: "/volume".into(),
            host_path,
            selinux_relabel: true,
            ..Default::default()
        });
        config
    };
    for name in ["one", "two"] {
        let id = daemon.run_container(&pod, labelled(name, "svirt_t")).await;
        assert_eq!(daemon.exec(&id, &["ls", "/volume"]).await, (0, String::new()));
    }
    assert_eq!(daemon.log().matches("selinux_options are ignored").count(), 1, "{}", daemon.log());
    let error = daemon.create(&pod, labelled("three", "a:b")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("selinux_options.type"), "{error}");
}
