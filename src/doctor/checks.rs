//! What the facts mean for pods: one function for each thing, all of them pure. `programs` has
//! those of others, `limits` what is a matter of numbers.

use super::facts::{CONTROLLERS, Cgroups, Facts};
use super::{Finding, limits, programs};

/// close_range(2) that marks descriptors (Linux 5.11) is the newest call that pods can't do without.
const OLDEST_KERNEL: (u32, u32) = (5, 11);
/// What a kernel before each of these can't do.
const NEWER_KERNELS: [((u32, u32), &str); 3] = [
    ((5, 12), "no recursively read-only mounts, no user namespaces for pods"),
    ((6, 3), "no memory volumes or Secrets in pods with hostUsers: false"),
    // From here on overlayfs takes each layer by itself, 500 of them.
    ((6, 7), "images of over about 200 layers can't be mounted"),
];
/// Without one of these no container can be made.
const CAPABILITIES: [&str; 12] = [
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];
/// Every sandbox has these of its own.
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// What a finding is called that says who asks, and what can't be seen for that.
pub(super) const USER: &str = "user";

/// All of them, in the order in which they are worth reading.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![settings(facts)];
    // Whoever asks isn't who runs haled: what only that one can tell is left out, once.
    if facts.root_user {
        findings.push(capabilities(facts));
    } else {
        findings.push(user());
    }
    findings.extend([
        kernel(facts),
        cgroups(&facts.cgroups),
        cgroup_driver(facts),
        namespaces(facts),
    ]);
    if facts.root_user {
        findings.extend([user_namespaces(facts), overlay(facts)]);
    }
    findings.extend([seccomp(facts), apparmor(facts), selinux(facts)]);
    let runtimes = facts.handlers.iter();
    findings.extend(runtimes.map(|(name, handler)| programs::runtime(facts, name, handler)));
    findings.extend([helpers(facts), programs::network(facts), programs::iptables(facts)]);
    findings.extend(limits::sysctls(facts));
    findings.extend([limits::root(facts), limits::state(facts)]);
    findings.extend([clock(facts), criu(facts)]);
    if facts.root_user {
        findings.push(socket(facts));
    }
    findings
}

fn user() -> Finding {
    Finding::note(
        USER,
        "not root: capabilities, user namespaces, overlayfs and the socket aren't looked at",
        "sudo haled doctor",
    )
}

/// How a program is installed here.
pub(super) fn install(facts: &Facts, package: &str) -> String {
    let is = |name: &str| facts.distribution.split_whitespace().any(|each| each == name);
    let command = match () {
        () if is("debian") || is("ubuntu") => "apt-get install",
        () if is("fedora") || is("rhel") => "dnf install",
        () if is("alpine") => "apk add",
        () if is("arch") => "pacman -S",
        () if is("suse") || is("opensuse") => "zypper install",
        () => return format!("install {package}"),
    };
    format!("{command} {package}")
}

fn settings(facts: &Facts) -> Finding {
    match &facts.mistake {
        None => Finding::ok("settings", "no mistakes"),
        Some(mistake) => Finding::problem(
            "settings",
            format!("{mistake} (what follows is by the defaults)"),
            "mend the file; haled config check /etc/haled/config.toml tells when it is right",
        ),
    }
}

fn capabilities(facts: &Facts) -> Finding {
    const NAME: &str = "capabilities";
    let lacks = |name: &&str| !facts.capabilities.contains(*name);
    let lacking: Vec<&str> = CAPABILITIES.iter().copied().filter(lacks).collect();
    if !lacking.is_empty() {
        let remedy = "run haled on the machine itself, or in a privileged container";
        return Finding::problem(NAME, format!("lacks {}", lacking.join(", ")), remedy);
    }
    if lacks(&"CAP_SYS_RESOURCE") {
        let found = "lacks CAP_SYS_RESOURCE: oom_score_adj can't be lowered, so that guaranteed pods are no safer than others";
        return Finding::note(NAME, found, "run haled with CAP_SYS_RESOURCE");
    }
    Finding::ok(NAME, "all that pods need")
}

/// The first numbers of a text like `6.1.0-rc3` or `1.1.12+ds1`.
pub(super) fn numbers(text: &str) -> Vec<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

fn kernel(facts: &Facts) -> Finding {
    const NAME: &str = "kernel";
    let found = format!("Linux {}", facts.kernel);
    let numbers = numbers(&facts.kernel);
    let version =
        (numbers.first().copied().unwrap_or_default(), numbers.get(1).copied().unwrap_or_default());
    if version < OLDEST_KERNEL {
        let found = format!(
            "{found}: older than 5.11, whose close_range keeps the node's files out of containers"
        );
        return Finding::problem(NAME, found, "boot Linux 5.11 or newer, best 6.7");
    }
    let lacking = NEWER_KERNELS.iter().filter(|(since, _)| version < *since);
    let lacking: Vec<&str> = lacking.map(|(_, what)| *what).collect();
    if !lacking.is_empty() {
        let found = format!("{found}: {}", lacking.join("; "));
        return Finding::note(NAME, found, "boot Linux 6.7 or newer, if pods need that");
    }
    Finding::ok(NAME, found)
}

fn cgroups(cgroups: &Cgroups) -> Finding {
    const NAME: &str = "cgroups";
    let lacks = |name: &&str| !cgroups.controllers.contains(*name);
    let lacking: Vec<&str> = CONTROLLERS.iter().copied().filter(lacks).collect();
    let version = match (cgroups.v2, cgroups.hybrid) {
        (true, _) => "v2",
        (false, true) => "v1 with v2 beside it (hybrid)",
        (false, false) => "v1",
    };
    if !cgroups.writable {
        let found = format!("{version}, and read-only or not mounted");
        return Finding::problem(NAME, found, "mount -o remount,rw /sys/fs/cgroup");
    }
    // Without these, limits that pods ordinarily have can't be set.
    let grave: Vec<&str> = lacking
        .iter()
        .copied()
        .filter(|name| ["cpu", "cpuset", "memory", "pids", "devices"].contains(name))
        .collect();
    if !grave.is_empty() {
        let found = format!("{version}, without {}", grave.join(", "));
        let remedy = "add cgroup_enable=memory cgroup_memory=1 to the kernel's command line and reboot; else boot a kernel that has them";
        return Finding::problem(NAME, found, remedy);
    }
    let all: Vec<&str> = cgroups.controllers.iter().map(String::as_str).collect();
    let mut found = format!("{version}: {}", all.join(", "));
    let waiting: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| *name != "devices" && !cgroups.handed_down.contains(*name))
        .collect();
    if cgroups.v2 && !waiting.is_empty() {
        found = format!("{found} (haled has yet to enable {})", waiting.join(", "));
    }
    if !lacking.is_empty() {
        let found = format!("{found}; without {}", lacking.join(", "));
        return Finding::note(NAME, found, "boot a kernel with them, if pods are to be limited so");
    }
    if !cgroups.v2 {
        let remedy =
            "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line and reboot";
        return Finding::note(NAME, format!("{found}; Kubernetes is leaving v1 behind"), remedy);
    }
    Finding::ok(NAME, found)
}

fn cgroup_driver(facts: &Facts) -> Finding {
    const NAME: &str = "cgroup driver";
    let (driver, parent) = match &facts.driver {
        Ok(found) => found,
        Err(why) => {
            let remedy = "[runtime] cgroup_driver = \"auto\" in /etc/haled/config.toml, without cgroup_parent";
            return Finding::problem(NAME, why, remedy);
        }
    };
    match (*driver, &facts.systemd) {
        ("systemd", Some(Err(why))) => {
            let remedy =
                "run haled as root and on the machine itself: /run/systemd must be the machine's";
            Finding::problem(NAME, why, remedy)
        }
        ("systemd", Some(Ok(version))) => {
            Finding::ok(NAME, format!("systemd {version}: pods are scopes, by default in {parent}"))
        }
        (_, Some(_)) => Finding::note(
            NAME,
            format!(
                "{driver}, beside systemd: two write to one tree, and each may undo what the other did"
            ),
            "[runtime] cgroup_driver = \"auto\", and cgroupDriver: systemd in the kubelet's configuration",
        ),
        (_, None) => Finding::ok(NAME, format!("{driver}: pods are by default below {parent}")),
    }
}

fn namespaces(facts: &Facts) -> Finding {
    let lacks = |name: &&str| !facts.namespaces.contains(*name);
    let lacking: Vec<&str> = NAMESPACES.iter().copied().filter(lacks).collect();
    if lacking.is_empty() {
        return Finding::ok("namespaces", NAMESPACES.join(", "));
    }
    let remedy = "boot a kernel that is built with CONFIG_NAMESPACES and all below it";
    Finding::problem("namespaces", format!("lacks {}", lacking.join(", ")), remedy)
}

fn user_namespaces(facts: &Facts) -> Finding {
    const NAME: &str = "user namespaces";
    const WHAT: &str = "pods can't have them (hostUsers: false)";
    if !facts.namespaces.contains("user") {
        let found = format!("not in this kernel: {WHAT}");
        return Finding::note(NAME, found, "boot a kernel with CONFIG_USER_NS");
    }
    if facts.sysctls.get("user/max_user_namespaces") == Some(&0) {
        let remedy = limits::set("user/max_user_namespaces", 15_000);
        return Finding::note(NAME, format!("switched off: {WHAT}"), remedy);
    }
    match &facts.idmapped_mounts {
        Ok(()) => Finding::ok(NAME, "with idmapped mounts"),
        Err(_) if facts.helpers.is_err() => {
            let found = "whether idmapped mounts work can't be tried without haled-pause";
            Finding::note(NAME, found, "install the helpers (see below) and run this again")
        }
        Err(why) => Finding::note(
            NAME,
            format!("no idmapped mounts below the root directory ({why}): {WHAT}"),
            "have Linux 5.12 or newer, and root on ext4, xfs, btrfs or tmpfs",
        ),
    }
}

fn overlay(facts: &Facts) -> Finding {
    match &facts.overlay {
        Ok(()) => Finding::ok("overlayfs", "there"),
        Err(why) => {
            let remedy = "modprobe overlay && echo overlay > /etc/modules-load.d/haled.conf";
            Finding::problem("overlayfs", format!("can't be used: {why}"), remedy)
        }
    }
}

fn seccomp(facts: &Facts) -> Finding {
    if facts.seccomp {
        return Finding::ok("seccomp", "there");
    }
    let found = "not in this kernel: containers with a seccomp profile can't start";
    Finding::note("seccomp", found, "boot a kernel with CONFIG_SECCOMP_FILTER")
}

fn apparmor(facts: &Facts) -> Finding {
    match (facts.apparmor, facts.programs.get("apparmor_parser")) {
        (false, _) => Finding::ok("AppArmor", "not active"),
        (true, Some(_)) => Finding::ok("AppArmor", "active"),
        (true, None) => {
            let found = "active, but without apparmor_parser haled's profile can't be loaded";
            Finding::note("AppArmor", found, install(facts, "apparmor"))
        }
    }
}

fn selinux(facts: &Facts) -> Finding {
    Finding::ok("SELinux", if facts.selinux { "active" } else { "not active" })
}

fn helpers(facts: &Facts) -> Finding {
    match &facts.helpers {
        Ok(path) => {
            let dir = path.parent().unwrap_or(path);
            Finding::ok("helpers", format!("in {}", dir.display()))
        }
        Err(why) => Finding::problem("helpers", why, "install haled whole: make install"),
    }
}

fn clock(facts: &Facts) -> Finding {
    match &facts.clock {
        Ok(true) => Finding::ok("clock", "synchronised"),
        Ok(false) => {
            let found = "not synchronised: certificates of registries may seem invalid";
            Finding::note("clock", found, "timedatectl set-ntp true")
        }
        Err(why) => Finding::note("clock", format!("can't be asked: {why}"), "look at it: date"),
    }
}

fn criu(facts: &Facts) -> Finding {
    if let Some(path) = facts.programs.get("criu") {
        return Finding::ok("CRIU", path.display().to_string());
    }
    let found = "not found: containers can't be checkpointed";
    Finding::note("CRIU", found, install(facts, "criu"))
}

fn socket(facts: &Facts) -> Finding {
    let listen = facts.listen.display();
    match &facts.listener {
        None => Finding::ok("socket", format!("nobody listens on {listen} yet")),
        Some((name, pid)) if name == "haled" => {
            Finding::ok("socket", format!("haled (process {pid}) serves {listen}"))
        }
        Some((name, pid)) => Finding::problem(
            "socket",
            format!("{name} (process {pid}) listens on {listen}"),
            "stop it, or set another listen in /etc/haled/config.toml",
        ),
    }
}
