//! What a configuration depends on of the machine it is for, read in one place so that
//! building it stays pure.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::capability;
use crate::sys::cgroup;

/// Bytes read of any one of the kernel's files.
const MAX_KERNEL_FILE: u64 = 16 << 20;
/// CPUs whose thermal_throttle is hidden: one mount each.
const MAX_CPUS: usize = 1024;

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// cgroup v2 alone.
    pub cgroup_v2: bool,
    /// Swap can be limited.
    pub swap_limit: bool,
    /// The sizes of huge pages that can be limited: `2MB`.
    pub huge_pages: Vec<String>,
    /// This process's bounding set: nothing more can be given to a container.
    pub capabilities: HashSet<caps::Capability>,
    /// This process's own oom_score_adj.
    pub oom_score_adj: i32,
    /// It may go below that (CAP_SYS_RESOURCE).
    pub lower_oom_score_adj: bool,
    /// The loaded AppArmor profiles; `None`: AppArmor isn't active.
    pub apparmor: Option<BTreeSet<String>>,
    /// /sys/devices/system/cpu/cpuN/thermal_throttle, those that are there.
    pub thermal_throttle: Vec<String>,
    /// The classes of resctrl; `None`: it isn't mounted, or this machine has none.
    pub rdt_classes: Option<BTreeSet<String>>,
    /// /proc/self/mountinfo.
    pub mountinfo: String,
}

impl Host {
    /// This machine's, now. Blocks for some reads below /proc and /sys.
    pub fn read() -> Result<Self, Error> {
        let own = read("/proc/self/oom_score_adj")?;
        let cgroup_v2 = cgroup::version() == cgroup::Version::V2;
        Ok(Self {
            cgroup_v2,
            // v2 has no such file in its root; the runtime there overlooks a missing one.
            swap_limit: cgroup_v2
                || cgroup::directory("memory", "/x")
                    .and_then(|below| Some(below.parent()?.join("memory.memsw.limit_in_bytes")))
                    .is_some_and(|file| file.exists()),
            huge_pages: if cgroup::has_controller("hugetlb") {
                cgroup::huge_pages::sizes()
            } else {
                Vec::new()
            },
            capabilities: capability::bounding()?,
            oom_score_adj: own.trim().parse().unwrap_or(0),
            lower_oom_score_adj: capability::is_effective(caps::Capability::CAP_SYS_RESOURCE),
            apparmor: apparmor()?,
            thermal_throttle: thermal_throttle(),
            rdt_classes: rdt_classes(),
            mountinfo: read("/proc/self/mountinfo")?,
        })
    }
}

fn read(path: &str) -> Result<String, Error> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_KERNEL_FILE).read_to_string(&mut text))
        .map_err(|error| Error::host(format!("read {path}"), error))?;
    Ok(text)
}

fn apparmor() -> Result<Option<BTreeSet<String>>, Error> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return Ok(None);
    }
    // One a line: `name (enforce)`.
    let profiles = read("/sys/kernel/security/apparmor/profiles")?;
    let name = |line: &str| line.rsplit_once(" (").map_or(line, |(name, _)| name).to_owned();
    Ok(Some(profiles.lines().map(name).collect()))
}

/// A class is a directory there, beside those of the kernel's own.
fn rdt_classes() -> Option<BTreeSet<String>> {
    let root = Path::new("/sys/fs/resctrl");
    // Not mounted, the directory is empty.
    if !root.join("schemata").exists() {
        return None;
    }
    let entries = fs::read_dir(root).ok()?.flatten();
    let classes = entries.filter(|entry| entry.path().join("schemata").exists());
    Some(classes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn thermal_throttle() -> Vec<String> {
    let paths = (0..MAX_CPUS).map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}"));
    paths
        .take_while(|cpu| Path::new(cpu).exists())
        .map(|cpu| format!("{cpu}/thermal_throttle"))
        .filter(|path| Path::new(path).exists())
        .collect()
}

/// Where an executable is: a path as it stands, a name by PATH and then by the directories
/// that a daemon's PATH may lack. `None`: nowhere.
pub fn resolve_path(name: &str) -> Option<PathBuf> {
    const FALLBACK: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    if name.is_empty() {
        return None;
    }
    if name.contains('/') {
        return is_executable(Path::new(name)).then(|| name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(FALLBACK.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_found_by_name_and_by_path() {
        assert!(resolve_path("sh").unwrap().ends_with("sh"));
        assert_eq!(resolve_path("/bin/sh"), Some("/bin/sh".into()));
        for nowhere in ["", "no-such-program", "/etc", "/etc/passwd", "/no/such"] {
            assert_eq!(resolve_path(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read().unwrap();
        assert!(!host.mountinfo.is_empty());
        assert!(!host.capabilities.is_empty());
    }
}
