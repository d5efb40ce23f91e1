//! What confines a container, seen from inside it.

use haled::oci::model::{CapabilityRequest, Profile, Resources, Security, UserRequest};
use haled::oci::{Host, Namespaces, PidNamespace};

use super::rig::{Rig, Wanted, status_field};

fn secured(text: &str, security: Security) -> Wanted {
    Wanted { security, ..Wanted::shell(text) }
}

fn default() -> Security {
    Security { seccomp: Profile::RuntimeDefault, ..Default::default() }
}

#[test]
fn a_default_container_has_fourteen_capabilities_and_a_filter() {
    let status = Rig::new().run(&secured("cat /proc/self/status", default())).good();
    // The set that other runtimes give: 0xa80425fb.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status_field(&status, set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status_field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_field(&status, "NoNewPrivs"), "0");
    assert_eq!(status_field(&status, "Seccomp"), "2");
}

#[test]
fn the_default_filter_refuses_what_leads_out_and_nothing_else() {
    // A user namespace needs no capability: it is the filter that refuses it.
    let text = "unshare -U true; echo user=$?
        unshare -m true; echo unshare=$?
        mount -t tmpfs none /tmp; echo mount=$?
        hostname other; echo hostname=$?
        chroot / true; echo chroot=$?
        (true); echo fork=$?
        true | true; echo pipe=$?";
    let free = Rig::new().run(&secured(text, Security::default())).good();
    assert!(free.contains("user=0"), "this kernel lets nobody make user namespaces: {free}");
    let ended = Rig::new().run(&secured(text, default()));
    let out = ended.good();
    for (call, works) in [
        ("user", false),
        ("unshare", false),
        ("mount", false),
        ("hostname", false),
        ("chroot", true),
        ("fork", true),
        ("pipe", true),
    ] {
        assert_eq!(out.contains(&format!("{call}=0")), works, "{call}: {out}");
    }
}

#[test]
fn with_sys_admin_the_filter_lets_namespaces_through() {
    let security = Security {
        capabilities: CapabilityRequest { add: vec!["sys_admin".into()], ..Default::default() },
        // The default profile of AppArmor refuses mounts whatever the capabilities.
        apparmor: Some(Profile::Unconfined),
        ..default()
    };
    Rig::new().run(&secured("unshare -m mount -t tmpfs none /tmp", security)).good();
}

#[test]
fn a_profile_of_the_node_is_applied() {
    let rig = Rig::new();
    let path = rig.path("profile.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&path, profile).unwrap();
    let seccomp = Profile::Localhost(path.to_str().unwrap().to_owned());
    let security = Security { seccomp, ..Default::default() };
    let out = rig.run(&secured("touch /tmp/f && ! mkdir /tmp/d && echo as asked", security)).good();
    assert_eq!(out, "as asked\n");
}

#[test]
fn unconfined_has_no_filter() {
    let status = Rig::new().run(&secured("cat /proc/self/status", Security::default())).good();
    assert_eq!(status_field(&status, "Seccomp"), "0");
}

#[test]
fn a_restricted_container_is_what_it_asked_to_be() {
    let security = Security {
        capabilities: CapabilityRequest {
            drop: vec!["ALL".into()],
            ambient: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        },
        user: UserRequest {
            uid: Some(1000),
            gid: Some(3000),
            supplemental_groups: vec![4000],
            ..Default::default()
        },
        readonly_rootfs: true,
        no_new_privs: true,
        ..default()
    };
    let text = "cat /proc/self/status; echo home=$HOME; ! touch /file 2>/dev/null && echo readonly";
    let out = Rig::new().run(&secured(text, security)).good();
    assert_eq!(status_field(&out, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status_field(&out, "Gid"), "3000\t3000\t3000\t3000");
    assert_eq!(status_field(&out, "Groups"), "3000 4000 50000");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(&out, set), "0000000000000400", "{set}");
    }
    assert_eq!(status_field(&out, "NoNewPrivs"), "1");
    assert!(out.contains("home=/home/app\n"), "{out}");
    assert!(out.ends_with("readonly\n"), "{out}");
}

#[test]
fn the_images_user_and_strict_groups_count() {
    let rig = Rig::new();
    let wanted = Wanted { image_user: "app".to_owned(), ..Wanted::shell("id -u; id -g; id -G") };
    assert_eq!(rig.run(&wanted).good(), "1000\n1000\n1000 50000\n");
    let user = UserRequest { strict_groups: true, ..Default::default() };
    let security = Security { user, ..default() };
    let wanted = Wanted { image_user: "app".to_owned(), ..secured("id -G", security) };
    assert_eq!(rig.run(&wanted).good(), "1000\n");
    // A number that the image doesn't know, as a user and as a group.
    let wanted = Wanted { image_user: "1234:5678".to_owned(), ..Wanted::shell("id -u; id -G") };
    assert_eq!(rig.run(&wanted).good(), "1234\n5678\n");
}

#[test]
fn what_is_masked_is_empty_and_what_is_readonly_cant_be_written() {
    let text = "cat /proc/timer_list | wc -c; cat /proc/interrupts | wc -c
        ls /sys/firmware | wc -l
        ! echo x 2>/dev/null > /proc/sys/kernel/hostname && echo sys
        ! echo h 2>/dev/null > /proc/sysrq-trigger && echo sysrq
        d=/sys/fs/cgroup; [ -d $d/pids ] && d=$d/pids
        ! mkdir $d/x 2>/dev/null && echo cgroup";
    let out = Rig::new().run(&secured(text, default())).good();
    assert_eq!(out, "0\n0\n0\nsys\nsysrq\ncgroup\n");
}

#[test]
fn a_privileged_container_has_what_the_host_can_give() {
    let text = "cat /proc/self/status; ls /sys/firmware | wc -l; ls /dev
        mount -t tmpfs none /tmp && echo mounted
        mkdir /sys/none 2>&1 | grep -q 'Read-only' || echo writable";
    let out = Rig::new().run(&secured(text, Security { privileged: true, ..default() })).good();
    let held: u64 = Host::read().unwrap().capabilities.iter().map(caps::Capability::bitmask).sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(u64::from_str_radix(status_field(&out, set), 16).unwrap(), held, "{set}");
    }
    assert_eq!(status_field(&out, "Seccomp"), "0");
    assert!(out.contains("\nkmsg\n"), "the host's devices are there: {out}");
    assert!(out.ends_with("mounted\nwritable\n"), "{out}");
}

#[test]
fn the_hosts_namespaces_are_the_hosts() {
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let text = "for n in net ipc uts pid mnt; do ls -l /proc/self/ns/$n; done; ls /sys/class/net";
    let mut wanted = Wanted::shell(text);
    wanted.namespaces.pid = PidNamespace::Host;
    wanted.hostname = "ignored".to_owned();
    let out = Rig::new().run(&wanted).good();
    for name in ["net", "ipc", "uts", "pid"] {
        assert!(out.contains(own(name).to_str().unwrap()), "{name}: {out}");
    }
    assert!(!out.contains(own("mnt").to_str().unwrap()), "{out}");
    assert!(out.contains("lo\n"), "{out}");
}

/// A process in namespaces of its own, as a sandbox's would be.
struct Sandbox(std::process::Child);

impl Sandbox {
    fn new() -> Self {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]);
        unshare.args(["sh", "-c", "hostname pod-0; echo; exec sleep 600"]);
        unshare.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let mut child = unshare.spawn().unwrap();
        // One line: the namespaces are there.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        format!("/proc/{}/ns/{name}", self.0.id()).into()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_sandboxs_namespaces_are_joined() {
    let sandbox = Sandbox::new();
    let text =
        "for n in net ipc uts pid cgroup; do ls -l /proc/self/ns/$n; done; hostname; echo $$";
    let mut wanted = Wanted::shell(text);
    wanted.hostname = "pod-0".to_owned();
    wanted.namespaces = Namespaces {
        network: Some(sandbox.path("net")),
        ipc: Some(sandbox.path("ipc")),
        uts: Some(sandbox.path("uts")),
        pid: PidNamespace::Path(sandbox.path("pid_for_children")),
        user: None,
    };
    let out = Rig::new().run(&wanted).good();
    for (name, path) in
        [("net", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid_for_children")]
    {
        let link = std::fs::read_link(sandbox.path(path)).unwrap();
        assert!(out.contains(link.to_str().unwrap()), "{name}: {out}");
    }
    let own = std::fs::read_link("/proc/self/ns/cgroup").unwrap();
    assert_eq!(out.contains(own.to_str().unwrap()), !Host::read().unwrap().cgroup_v2, "{out}");
    let tail: Vec<&str> = out.lines().rev().take(2).collect();
    assert_eq!(tail[1], "pod-0");
    // Not the first there: the sandbox's own process is.
    assert_ne!(tail[0], "1");
}

#[test]
fn limits_are_in_the_cgroup() {
    let rig = Rig::new();
    let mut wanted = Wanted::shell("sleep 600");
    wanted.resources = Resources {
        memory_limit_bytes: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        pids_limit: Some(77),
        oom_score_adj: 500,
        ..Default::default()
    };
    rig.start(&wanted);
    let read = |controller: &str, v1: &str, v2: &str| {
        std::fs::read_to_string(rig.cgroup_file(controller, v1, v2)).unwrap().trim().to_owned()
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("pids", "pids.max", "pids.max"), "77");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let pid = haled::sys::cgroup::processes(&rig.cgroup_path()).unwrap()[0];
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "500");
    let oom = std::fs::read_to_string(haled::sys::cgroup::oom_events(&rig.cgroup_path())).unwrap();
    assert!(oom.contains("oom_kill 0"), "{oom}");
}

#[test]
fn too_much_memory_is_counted_as_an_oom_kill() {
    let rig = Rig::new();
    let mut wanted =
        Wanted::shell("dd if=/dev/zero of=/dev/null bs=200M count=1 & wait $!; sleep 600");
    wanted.resources.memory_limit_bytes = Some(32 << 20);
    rig.start(&wanted);
    let events = haled::sys::cgroup::oom_events(&rig.cgroup_path());
    let killed = || std::fs::read_to_string(&events).unwrap().contains("oom_kill 1");
    let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
    while !killed() {
        assert!(std::time::Instant::now() < deadline, "nothing was killed for its memory");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn more_processes_than_allowed_are_refused() {
    let rig = Rig::new();
    // Enough for runc's own threads, which are there before the shell is.
    let mut wanted = Wanted::shell(
        "for i in 1 2 3 4; do for j in 1 2 3 4 5 6 7 8 9 0; do sleep 600 & done; done",
    );
    wanted.resources.pids_limit = Some(32);
    let ended = rig.run(&wanted);
    assert!(ended.code != Some(0) && ended.err.contains("can't fork"), "{ended:?}");
}

#[test]
fn a_score_below_our_own_starts_all_the_same() {
    let mut wanted = Wanted::shell("cat /proc/self/oom_score_adj");
    wanted.resources.oom_score_adj = -998;
    let host = Host::read().unwrap();
    let expected = if host.lower_oom_score_adj { -998 } else { host.oom_score_adj };
    assert_eq!(Rig::new().run(&wanted).good(), format!("{expected}\n"));
}
