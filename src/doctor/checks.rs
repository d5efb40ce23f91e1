//! What the facts mean for pods: one function for each thing, all of them pure.

use super::facts::{CONTROLLERS, Cgroups, Facts, Handler};
use super::{Finding, limits};

/// close_range(2) that marks descriptors (Linux 5.11) is the newest call that pods can't do without.
const OLDEST_KERNEL: (u32, u32) = (5, 11);
/// From here on overlayfs takes each layer by itself, 500 of them.
const MANY_LAYERS: (u32, u32) = (6, 7);
/// `exec --cgroup`, which time limits of probes rest on.
const OLDEST_RUNC: &[u32] = &[1, 1, 0];
/// Before it a container could reach the host's files by a leaked descriptor (CVE-2024-21626).
const SAFE_RUNC: &[u32] = &[1, 1, 12];
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

/// All of them, in the order in which they are worth reading.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        settings(facts),
        capabilities(facts),
        kernel(facts),
        cgroups(&facts.cgroups),
        cgroup_driver(facts),
        namespaces(facts),
        user_namespaces(facts),
        overlay(facts),
        seccomp(facts),
        apparmor(facts),
        selinux(facts),
    ];
    findings.extend(facts.handlers.iter().map(|(name, handler)| runtime(facts, name, handler)));
    findings.extend([helpers(facts), network(facts), iptables(facts)]);
    findings.extend(limits::sysctls(facts));
    findings.extend([limits::root(facts), limits::state(facts)]);
    findings.extend([clock(facts), criu(facts), socket(facts)]);
    findings
}

/// How a program is installed here.
fn install(facts: &Facts, package: &str) -> String {
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
        let remedy = if facts.root_user {
            "run haled on the machine itself, or in a privileged container"
        } else {
            "sudo haled doctor (some of what follows is only seen by root)"
        };
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
        let found = format!("{found}: older than 5.11");
        return Finding::problem(NAME, found, "boot a newer kernel");
    }
    if version < MANY_LAYERS {
        let found = format!("{found}: images of over about 200 layers can't be mounted");
        return Finding::note(NAME, found, "boot Linux 6.7 or newer, if you have such images");
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

fn runtime(facts: &Facts, name: &str, handler: &Handler) -> Finding {
    let title = format!("runtime {name}");
    let file = handler.path.file_name().unwrap_or_default().to_string_lossy();
    let version = match &handler.version {
        Ok(version) => version,
        Err(why) if name == facts.default_handler => {
            return Finding::problem(&title, why, install(facts, &file));
        }
        Err(why) => {
            let found = format!("{why}; only pods that ask for {name} need it");
            return Finding::note(&title, found, install(facts, &file));
        }
    };
    let found = format!("{version} ({})", handler.path.display());
    if let Some(number) = version.strip_prefix("runc version ") {
        let number = numbers(number);
        if number.as_slice() < OLDEST_RUNC {
            let found = format!("{found}: older than 1.1.0, exec and probes fail");
            return Finding::problem(&title, found, install(facts, "runc"));
        }
        if number.as_slice() < SAFE_RUNC {
            let found = format!("{found}: CVE-2024-21626, unless the distribution has mended it");
            return Finding::note(&title, found, install(facts, "runc"));
        }
    }
    if !handler.recursive_readonly {
        let found = format!("{found}: no recursively read-only mounts");
        return Finding::note(&title, found, "install a newer one, if pods ask for such mounts");
    }
    Finding::ok(&title, found)
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

fn network(facts: &Facts) -> Finding {
    match &facts.network {
        Ok(()) => Finding::ok("network", "configured, all of its CNI plugins are there"),
        Err(why) if why.starts_with("no CNI configuration") => Finding::problem(
            "network",
            why,
            "mkdir -p /etc/haled/config.d && printf '[network]\\ndefault_bridge = true\\n' > /etc/haled/config.d/network.toml",
        ),
        Err(why) => Finding::problem("network", why, install(facts, "containernetworking-plugins")),
    }
}

fn iptables(facts: &Facts) -> Finding {
    const NAME: &str = "iptables";
    match (facts.programs.get(NAME), facts.default_bridge) {
        (Some(path), _) => Finding::ok(NAME, path.display().to_string()),
        (None, true) => {
            let found = "not found: the built-in bridge needs it";
            Finding::problem(NAME, found, install(facts, NAME))
        }
        (None, false) => {
            let found = "not found: CNI plugins that masquerade or map ports may need it";
            Finding::note(NAME, found, install(facts, NAME))
        }
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
