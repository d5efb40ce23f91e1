//! The kernel's edge: every `unsafe`, descriptors, mounts, namespaces, cgroups, clocks.
//!
//! No word of the domain comes here: no pod, container, image or probe.

pub mod birthplace;
#[cfg(feature = "daemon")]
pub mod cgroup;
#[cfg(feature = "daemon")]
pub mod clock;
pub mod clone;
pub mod fds;
#[cfg(feature = "daemon")]
pub mod filesystem;
#[cfg(feature = "daemon")]
pub mod idmap;
#[cfg(feature = "daemon")]
pub mod inherit;
pub mod loopback;
#[cfg(feature = "daemon")]
pub mod memfd;
#[cfg(feature = "daemon")]
pub mod memory;
pub mod mount;
#[cfg(feature = "daemon")]
pub mod netns;
pub mod oom;
#[cfg(feature = "daemon")]
pub mod overlay;
pub mod process;
#[cfg(feature = "daemon")]
pub mod readiness;
#[cfg(feature = "daemon")]
pub mod selinux;
pub mod socket;
#[cfg(feature = "daemon")]
pub mod systemd;
#[cfg(feature = "daemon")]
pub mod tree;
pub mod userns;
pub mod wait;
#[cfg(feature = "daemon")]
pub mod watch;
