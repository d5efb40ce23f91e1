//! Numbers that can be too small: the kernel's settings and the disks' room. Pure.

use super::Finding;
use super::facts::{Disk, Facts};

/// Each controller of manifests, kubelet and many programs has one; a default of 128 is soon used up.
const INOTIFY_INSTANCES: u64 = 512;
const INOTIFY_WATCHES: u64 = 65_536;
/// 32768 was the default of small machines.
const PIDS: u64 = 65_536;
/// Below this a kubelet begins to remove images (imagefs.available).
const LOW_PERCENT: u64 = 15;
/// Below this a kubelet evicts (nodefs.inodesFree).
const LOW_INODES_PERCENT: u64 = 5;
/// With less than this hardly an image can be pulled.
const LEAST_BYTES: u64 = 256 << 20;
/// File systems that can't hold what containers write (overlayfs' upper directory).
const NO_UPPER: [&str; 7] = ["overlay", "nfs", "nfs4", "cifs", "vfat", "9p", "squashfs"];

/// The command that sets a number for good.
pub(super) fn set(name: &str, value: u64) -> String {
    let key = name.replace('/', ".");
    format!("echo {key}={value} >> /etc/sysctl.d/90-haled.conf && sysctl --system")
}

pub(super) fn sysctls(facts: &Facts) -> Vec<Finding> {
    let value = |name: &str| facts.sysctls.get(name).copied();
    let on = |title: &str, name: &str, missing: &str, load: &str| match value(name) {
        Some(0) => Finding::note(title, format!("off: {missing}"), set(name, 1)),
        None => {
            Finding::note(title, format!("not there: {missing}"), load.to_owned() + &set(name, 1))
        }
        Some(_) => Finding::ok(title, "on"),
    };
    let at_least = |title: &str, name: &str, least: u64| match value(name) {
        Some(value) if value >= least => Finding::ok(title, value.to_string()),
        Some(value) => {
            Finding::note(title, format!("{value}: few for many pods"), set(name, least))
        }
        None => Finding::note(title, "can't be read", format!("sysctl {}", name.replace('/', "."))),
    };
    let bridge = "modprobe br_netfilter && echo br_netfilter >> /etc/modules-load.d/haled.conf && ";
    vec![
        on(
            "ip_forward",
            "net/ipv4/ip_forward",
            "pods reach no further than this machine, unless their CNI plugin turns it on",
            "",
        ),
        on(
            "bridge-nf-call-iptables",
            "net/bridge/bridge-nf-call-iptables",
            "Services of Kubernetes (kube-proxy) may not be reached by pods of this node",
            bridge,
        ),
        at_least("inotify instances", "fs/inotify/max_user_instances", INOTIFY_INSTANCES),
        at_least("inotify watches", "fs/inotify/max_user_watches", INOTIFY_WATCHES),
        at_least("pid_max", "kernel/pid_max", PIDS),
    ]
}

/// Where images and writable layers are.
pub(super) fn root(facts: &Facts) -> Finding {
    const NAME: &str = "root directory";
    let disk = match &facts.root {
        Ok(disk) => disk,
        Err(why) => return Finding::problem(NAME, why, "mount it, or set root in the settings"),
    };
    let (path, kind) = (disk.path.display(), &disk.kind);
    let found = format!(
        "{path}: {} of {} are free on {}",
        bytes(disk.bytes_free),
        bytes(disk.bytes),
        if kind.is_empty() { "a file system without a name" } else { kind },
    );
    if NO_UPPER.contains(&kind.as_str()) {
        let found = format!("{found}, which can't hold containers' writable layers");
        let remedy = "set root in the settings to a directory on ext4, xfs or btrfs";
        return Finding::problem(NAME, found, remedy);
    }
    let remedy = format!("halectl image prune; df -h {path}; df -i {path}");
    if disk.bytes_free < LEAST_BYTES {
        return Finding::problem(NAME, format!("{found}: too little for images"), remedy);
    }
    if percent(disk.bytes_free, disk.bytes) < LOW_PERCENT {
        return Finding::note(NAME, format!("{found}: under {LOW_PERCENT} %"), remedy);
    }
    if disk.inodes > 0 && percent(disk.inodes_free, disk.inodes) < LOW_INODES_PERCENT {
        let found = format!("{found}, but under {LOW_INODES_PERCENT} % of its inodes");
        return Finding::note(NAME, found, remedy);
    }
    if kind == "tmpfs" {
        let remedy = "set root in the settings to a directory on a disk";
        return Finding::note(NAME, format!("{found}: a reboot loses images and pods"), remedy);
    }
    Finding::ok(NAME, found)
}

pub(super) fn state(facts: &Facts) -> Finding {
    const NAME: &str = "state directory";
    match &facts.state {
        Ok(Disk { path, kind, .. }) if kind == "tmpfs" => {
            Finding::ok(NAME, format!("{} on tmpfs", path.display()))
        }
        Ok(Disk { path, kind, .. }) => {
            let found = format!("{} on {kind}: it must be gone after a reboot", path.display());
            Finding::note(NAME, found, "set state in the settings to a directory on a tmpfs")
        }
        Err(why) => Finding::problem(NAME, why, "mount it, or set state in the settings"),
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100) / whole.max(1)
}

fn bytes(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib >= 1.0 { format!("{gib:.1} GiB") } else { format!("{} MiB", bytes >> 20) }
}
