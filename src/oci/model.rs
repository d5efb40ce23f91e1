//! What a container should be, in the words of the field and free of any wire format.
//!
//! The CRI face and the manifests both speak in these types; `build` turns them into a
//! runtime configuration. Values here have been parsed, not yet resolved: a user may
//! still be a name, a path may not exist.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::sys::userns::IdMaps;

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// The name; never empty, never with `=` or NUL.
    pub name: String,
    /// The value.
    pub value: String,
}

/// How mounts travel between the container and the host (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    /// `rprivate`.
    #[default]
    Private,
    /// `rslave`.
    HostToContainer,
    /// `rshared`.
    Bidirectional,
}

/// A host path, or an image's content, bound into the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Absolute path on the host. Empty, until it is mounted, for an image's content.
    pub host_path: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// Read-only for the mounts below it too (needs `readonly`).
    pub recursive_readonly: bool,
    /// Relabel for SELinux; without effect where it is inactive.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Whose the files are in the container, where not as on disk: those of its pod.
    #[serde(default)]
    pub id_maps: Option<IdMaps>,
    /// An image's content in place of `host_path`.
    #[serde(default)]
    pub image: Option<ImageVolume>,
}

/// An image mounted as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageVolume {
    /// As the client asked for it.
    pub name: String,
    /// `sha256:…` of the image that was found by it.
    pub id: String,
    /// What of it is mounted, relative to its root; empty: all.
    pub sub_path: PathBuf,
}

/// A host device given to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the host: a device node, or a directory of them.
    pub host_path: PathBuf,
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

/// Who the process runs as, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserRequest {
    /// Numeric user; goes before `name`.
    pub uid: Option<u32>,
    /// Numeric group; only with `uid` or `name`.
    pub gid: Option<u32>,
    /// User name, looked up in the image's /etc/passwd.
    pub name: Option<String>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// Only `supplemental_groups`: what /etc/group says of the user doesn't count.
    pub strict_groups: bool,
}

/// Capabilities to add to and drop from the default set. Names as given: `NET_ADMIN`,
/// `CAP_NET_ADMIN` or `ALL`, in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilityRequest {
    /// Added.
    pub add: Vec<String>,
    /// Dropped; dropping goes before adding, but for `ALL`.
    pub drop: Vec<String>,
    /// Added to the ambient set as well.
    pub ambient: Vec<String>,
}

/// A security profile: seccomp's or AppArmor's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Profile {
    /// None.
    #[default]
    Unconfined,
    /// haled's own.
    RuntimeDefault,
    /// seccomp: an absolute path of a JSON file; AppArmor: a loaded profile's name.
    Localhost(String),
}

/// Parts of an SELinux label. Empty: as without them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level: `s0:c1,c2`.
    pub level: String,
}

/// What confines the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// Every capability and device, nothing masked.
    pub privileged: bool,
    /// Capabilities.
    pub capabilities: CapabilityRequest,
    /// Who it runs as.
    pub user: UserRequest,
    /// The root file system can't be written.
    pub readonly_rootfs: bool,
    /// execve gains no privileges (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// Paths hidden from the container; `None`: haled's default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that can't be written; `None`: haled's default list.
    pub readonly_paths: Option<Vec<String>>,
    /// System call filter.
    pub seccomp: Profile,
    /// AppArmor profile; `None`: haled's default where AppArmor is active.
    pub apparmor: Option<Profile>,
    /// SELinux label; without effect where it is inactive.
    #[serde(default)]
    pub selinux: SelinuxOptions,
}

/// Limits. Zero or `None`: unlimited, the kernel's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight, cgroup v1 scale: 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Microseconds.
    pub cpu_period_us: Option<u64>,
    /// CPU list: `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Bytes of memory.
    pub memory_limit_bytes: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap_bytes: Option<i64>,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
    /// -1000 to 1000 (proc(5)).
    pub oom_score_adj: i32,
    /// Bytes by page size: `2MB`.
    pub hugepage_limits: BTreeMap<String, u64>,
    /// cgroup v2 files, verbatim.
    pub unified: BTreeMap<String, String>,
    /// The class of the kernel's resctrl (cache and memory bandwidth) it is in, for good.
    #[serde(default)]
    pub rdt_class: Option<String>,
    /// The class of block I/O it is in, for good.
    #[serde(default)]
    pub blockio_class: Option<String>,
}

impl Resources {
    /// These limits with those of `change` that are set in place of their own. Pages and files
    /// that `change` doesn't name stay, and so does how much swap there is beside the memory.
    #[must_use]
    pub fn updated(&self, change: &Self) -> Self {
        let text = |new: &String, old: &String| if new.is_empty() { old } else { new }.clone();
        let mut updated = Self {
            cpu_shares: change.cpu_shares.or(self.cpu_shares),
            cpu_quota_us: change.cpu_quota_us.or(self.cpu_quota_us),
            cpu_period_us: change.cpu_period_us.or(self.cpu_period_us),
            cpuset_cpus: text(&change.cpuset_cpus, &self.cpuset_cpus),
            cpuset_mems: text(&change.cpuset_mems, &self.cpuset_mems),
            memory_limit_bytes: change.memory_limit_bytes.or(self.memory_limit_bytes),
            memory_swap_bytes: change.memory_swap_bytes.or_else(|| self.swap_with(change)),
            pids_limit: change.pids_limit.or(self.pids_limit),
            oom_score_adj: match change.oom_score_adj {
                0 => self.oom_score_adj,
                score => score,
            },
            hugepage_limits: self.hugepage_limits.clone(),
            unified: self.unified.clone(),
            rdt_class: self.rdt_class.clone(),
            blockio_class: self.blockio_class.clone(),
        };
        updated.hugepage_limits.extend(change.hugepage_limits.clone());
        updated.unified.extend(change.unified.clone());
        updated
    }

    /// Memory and swap together once `change` has changed the memory alone.
    fn swap_with(&self, change: &Self) -> Option<i64> {
        let bytes = |limit: Option<i64>| limit.filter(|&limit| limit > 0);
        let (Some(old), Some(both)) =
            (bytes(self.memory_limit_bytes), bytes(self.memory_swap_bytes))
        else {
            return self.memory_swap_bytes;
        };
        match change.memory_limit_bytes {
            None | Some(0) => Some(both),
            // Beside memory without a limit swap can't have one.
            Some(limit) if limit < 0 => None,
            Some(limit) => Some(limit.saturating_add(both.saturating_sub(old))),
        }
    }
}

/// Which PID namespace a container has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidMode {
    /// The sandbox's: haled-pause is PID 1.
    Pod,
    /// One of its own.
    #[default]
    Container,
    /// The host's.
    Node,
    /// That of another container of the pod.
    Target(ContainerId),
}

/// A namespace that is the sandbox's or the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sharing {
    /// The sandbox's.
    #[default]
    Pod,
    /// The host's.
    Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_update_does_not_set_stays() {
        let pages = |all: &[(&str, u64)]| all.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let old = Resources {
            cpu_shares: Some(512),
            cpuset_cpus: "0".into(),
            memory_limit_bytes: Some(64),
            oom_score_adj: 900,
            hugepage_limits: pages(&[("2MB", 1), ("1GB", 2)]),
            ..Resources::default()
        };
        assert_eq!(old.updated(&Resources::default()), old);
        let change = Resources {
            cpu_quota_us: Some(-1),
            memory_limit_bytes: Some(128),
            hugepage_limits: pages(&[("2MB", 3)]),
            ..Resources::default()
        };
        let expected = Resources {
            cpu_quota_us: Some(-1),
            memory_limit_bytes: Some(128),
            hugepage_limits: pages(&[("2MB", 3), ("1GB", 2)]),
            ..old.clone()
        };
        assert_eq!(old.updated(&change), expected);
    }

    #[test]
    fn swap_stays_what_it_is_beside_other_memory() {
        let with = |memory_limit_bytes, memory_swap_bytes| Resources {
            memory_limit_bytes,
            memory_swap_bytes,
            ..Resources::default()
        };
        for (old, change, swap) in [
            ((Some(64), Some(96)), (Some(128), None), Some(160)),
            ((Some(64), Some(64)), (Some(32), None), Some(32)),
            ((Some(64), Some(96)), (Some(128), Some(128)), Some(128)),
            ((Some(64), Some(96)), (None, None), Some(96)),
            ((Some(64), Some(96)), (Some(-1), None), None),
            ((Some(64), Some(-1)), (Some(128), None), Some(-1)),
            ((Some(64), None), (Some(128), None), None),
            ((Some(1), Some(i64::MAX)), (Some(i64::MAX), None), Some(i64::MAX)),
        ] {
            let updated = with(old.0, old.1).updated(&with(change.0, change.1));
            assert_eq!(updated.memory_swap_bytes, swap, "{old:?} {change:?}");
        }
    }
}
