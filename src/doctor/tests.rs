use std::collections::BTreeMap;

use super::facts::{CONTROLLERS, Cgroups, Disk, Facts, Handler, Plugins, SYSCTLS};
use super::{Finding, State, checks, report};

fn handler(version: &str) -> Handler {
    let version = Ok(version.to_owned());
    Handler { path: "/usr/sbin/runc".into(), version, recursive_readonly: true }
}

/// A network of 1.0.0 whose plugins speak these.
fn plugins(versions: &[&str]) -> Plugins {
    let versions: Vec<String> = versions.iter().map(|&version| version.to_owned()).collect();
    let speak = ["bridge", "host-local"].map(|name| (name.to_owned(), Ok(versions.clone())));
    Plugins { version: "1.0.0".into(), speak: speak.into() }
}

/// A machine with all that pods could want.
fn whole() -> Facts {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let disk = |path: &str, kind: &str| Disk {
        path: path.into(),
        kind: kind.into(),
        bytes: 100 << 30,
        bytes_free: 60 << 30,
        inodes: 1000,
        inodes_free: 900,
    };
    let programs = ["criu", "apparmor_parser"];
    Facts {
        mistake: None,
        root_user: true,
        distribution: "debian ".into(),
        kernel: "6.12.3-amd64".into(),
        cgroups: Cgroups {
            v2: true,
            hybrid: false,
            divided: false,
            controllers: names(&CONTROLLERS),
            handed_down: names(&CONTROLLERS),
            writable: true,
        },
        driver: Ok(("systemd", "haled.slice".into())),
        systemd: Some(Ok("252".into())),
        namespaces: names(&["ipc", "mnt", "net", "pid", "uts", "user"]),
        idmapped_mounts: Ok(()),
        overlay: Ok(()),
        seccomp: true,
        apparmor: true,
        selinux: false,
        capabilities: caps::all().iter().map(ToString::to_string).collect(),
        default_handler: "runc".into(),
        handlers: BTreeMap::from([("runc".into(), handler("runc version 1.3.3"))]),
        programs: programs.map(|name| (name, format!("/usr/sbin/{name}").into())).into(),
        helpers: Ok("/usr/libexec/haled/haled-pause".into()),
        network: Ok(plugins(&["0.4.0", "1.0.0"])),
        iptables: Some(Ok("iptables v1.8.9 (nf_tables)".into())),
        default_bridge: true,
        sysctls: SYSCTLS.map(|name| (name, 1 << 22)).into(),
        root: Ok(disk("/var/lib/haled", "ext4")),
        state: Ok(disk("/run/haled", "tmpfs")),
        clock: Ok(true),
        listen: "/run/haled/haled.sock".into(),
        listener: None,
    }
}

/// One where much is amiss.
fn poor() -> Facts {
    let mut facts = whole();
    facts.kernel = "6.1.0-28-amd64".into();
    facts.cgroups.controllers.remove("memory");
    facts.driver = Ok(("cgroupfs", "/haled".into()));
    facts.capabilities.remove("CAP_SYS_RESOURCE");
    facts.idmapped_mounts = Err("Invalid argument (os error 22)".into());
    let missing =
        Handler { version: Err("crun isn't there".into()), path: "crun".into(), ..handler("") };
    let old = handler("runc version 1.1.5+ds1");
    facts.handlers = BTreeMap::from([("crun".into(), missing), ("runc".into(), old)]);
    facts.programs.clear();
    facts.iptables = None;
    facts.network = Err("no CNI configuration in /etc/cni/net.d: install a network plugin".into());
    facts.sysctls.insert("net/ipv4/ip_forward", 0);
    facts.sysctls.remove("net/bridge/bridge-nf-call-iptables");
    facts.sysctls.insert("fs/inotify/max_user_instances", 128);
    facts.root.as_mut().unwrap().bytes_free = 9 << 30;
    facts.clock = Ok(false);
    facts.listener = Some(("evil\x1b[2J".into(), 7));
    facts
}

fn finding(facts: &Facts, name: &str) -> Finding {
    checks::all(facts).into_iter().find(|finding| finding.name == name).unwrap()
}

#[test]
fn a_whole_machine_is_well_all_through() {
    let findings = checks::all(&whole());
    let amiss: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
    assert!(amiss.is_empty(), "{amiss:#?}");
    assert!(report::text(&findings, false).ends_with("\n\nPods can run on this machine.\n"));
}

#[test]
fn a_poor_machine_is_told_with_its_remedies() {
    insta::assert_snapshot!(report::text(&checks::all(&poor()), false));
}

#[test]
fn whatever_is_amiss_has_a_remedy_and_one_line() {
    for finding in checks::all(&poor()) {
        assert_eq!(finding.remedy.is_none(), finding.state == State::Ok, "{finding:?}");
    }
    let coloured = report::text(&checks::all(&poor()), true);
    assert!(coloured.contains("\x1b[1;31mproblem\x1b[0m") && !coloured.contains("\x1b[2J"));
}

/// What is changed on a whole machine, what that is a check of, and how bad it is.
type Case = (fn(&mut Facts), &'static str, State);

#[test]
fn each_fault_is_found_by_its_own_check() {
    let cases: [Case; 23] = [
        (|facts| facts.mistake = Some("line 3".into()), "settings", State::Problem),
        (
            |facts| {
                facts.capabilities.remove("CAP_SYS_ADMIN");
            },
            "capabilities",
            State::Problem,
        ),
        (|facts| facts.kernel = "5.10.0".into(), "kernel", State::Problem),
        (|facts| facts.kernel = "nonsense".into(), "kernel", State::Problem),
        (|facts| facts.cgroups.writable = false, "cgroups", State::Problem),
        (|facts| facts.cgroups.v2 = false, "cgroups", State::Note),
        (
            |facts| {
                facts.cgroups.controllers.remove("hugetlb");
            },
            "cgroups",
            State::Note,
        ),
        (|facts| facts.driver = Err("no systemd".into()), "cgroup driver", State::Problem),
        (|facts| facts.systemd = Some(Err("gone".into())), "cgroup driver", State::Problem),
        (
            |facts| {
                facts.namespaces.remove("net");
            },
            "namespaces",
            State::Problem,
        ),
        (
            |facts| {
                facts.sysctls.insert(SYSCTLS[5], 0);
            },
            "user namespaces",
            State::Note,
        ),
        (|facts| facts.overlay = Err("no such device".into()), "overlayfs", State::Problem),
        (|facts| facts.helpers = Err("nowhere".into()), "helpers", State::Problem),
        (|facts| facts.iptables = None, "iptables", State::Problem),
        (|facts| facts.iptables = Some(Err("x".into())), "iptables", State::Problem),
        (|facts| facts.iptables = Some(Ok("iptables v1.4.21".into())), "iptables", State::Note),
        (|facts| facts.network = Ok(plugins(&["0.4.0"])), "network", State::Problem),
        (
            |facts| {
                let mut plugins = plugins(&["1.0.0"]);
                plugins.speak.insert("vlan".into(), Err("exec format error".into()));
                facts.network = Ok(plugins);
            },
            "network",
            State::Problem,
        ),
        (|facts| facts.kernel = "5.15.0".into(), "kernel", State::Note),
        (|facts| facts.root.as_mut().unwrap().bytes_free = 1, "root directory", State::Problem),
        (
            |facts| facts.root.as_mut().unwrap().kind = "overlay".into(),
            "root directory",
            State::Problem,
        ),
        (|facts| facts.root.as_mut().unwrap().inodes_free = 1, "root directory", State::Note),
        (
            |facts| facts.state.as_mut().unwrap().kind = "ext4".into(),
            "state directory",
            State::Note,
        ),
    ];
    for (spoil, name, state) in cases {
        let mut facts = whole();
        spoil(&mut facts);
        let amiss: Vec<_> = checks::all(&facts)
            .into_iter()
            .filter(|finding| finding.state != State::Ok)
            .map(|finding| (finding.name, finding.state))
            .collect();
        assert_eq!(amiss, [(name.to_owned(), state)]);
    }
}

#[test]
fn runtimes_are_judged_by_their_version_and_by_who_needs_them() {
    let judged = |version: &str| {
        let mut facts = whole();
        facts.handlers.insert("runc".into(), handler(version));
        finding(&facts, "runtime runc").state
    };
    for (version, state) in [
        ("runc version 1.0.0-rc95", State::Problem),
        ("runc version 1.1.0", State::Note),
        ("runc version 1.1.15", State::Note),
        ("runc version 1.2.7", State::Note),
        ("runc version 1.2.8", State::Ok),
        ("runc version 1.3.2", State::Note),
        ("runc version 1.3.3", State::Ok),
        ("runc version 1.10.0", State::Ok),
        ("crun version 1.2", State::Problem),
        ("crun version 1.4.3", State::Note),
        ("crun version 1.8.1", State::Note),
        ("crun version 1.14", State::Ok),
        ("youki version: 0.3.2", State::Problem),
        ("youki version 0.5.2", State::Note),
        ("youki version 0.5.7", State::Ok),
        ("mine 0.1", State::Ok),
        ("runc of an unknown version", State::Ok),
    ] {
        assert_eq!(judged(version), state, "{version}");
    }
    // crun refuses such a machine, runc doesn't.
    let mut facts = whole();
    (facts.cgroups.v2, facts.cgroups.hybrid, facts.cgroups.divided) = (false, true, true);
    assert_eq!(finding(&facts, "runtime runc").state, State::Ok);
    facts.handlers.insert("runc".into(), handler("crun version 1.14"));
    assert_eq!(finding(&facts, "runtime runc").state, State::Problem);
    facts.default_handler = "other".into();
    assert_eq!(finding(&facts, "runtime runc").state, State::Note);
    let mut facts = poor();
    assert_eq!(finding(&facts, "runtime crun").state, State::Note);
    facts.default_handler = "crun".into();
    assert_eq!(finding(&facts, "runtime crun").state, State::Problem);
    assert_eq!(finding(&facts, "runtime crun").remedy.unwrap(), "apt-get install crun");
}

#[test]
fn a_haled_that_serves_is_no_problem() {
    let mut facts = whole();
    facts.listener = Some(("haled".into(), 7));
    assert_eq!(finding(&facts, "socket").state, State::Ok);
}

#[test]
fn what_only_root_sees_is_left_out_once() {
    let mut facts = whole();
    facts.root_user = false;
    facts.capabilities.clear();
    facts.overlay = Err("Operation not permitted".into());
    facts.idmapped_mounts = Err("Operation not permitted".into());
    let findings = checks::all(&facts);
    let amiss: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
    assert_eq!(amiss.iter().map(|finding| &*finding.name).collect::<Vec<_>>(), ["user"]);
    let end = "\nNothing that can be seen without root stops pods, 1 note.\n";
    assert!(report::text(&findings, false).ends_with(end));
}
