//! The kernel's edge: every `unsafe`, descriptors, mounts, namespaces, cgroups, clocks.
//!
//! No word of the domain comes here: no pod, container, image or probe.

#[cfg(feature = "daemon")]
pub mod cgroup;
pub mod mount;
#[cfg(feature = "daemon")]
pub mod netns;
pub mod process;
