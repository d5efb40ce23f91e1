//! Tests of `oci` and of `sys::cgroup` with the real parts: runc and this kernel.

mod agents;
mod cgroups;
mod commands;
mod confinement;
mod exec;
mod files;
pub(crate) mod rig;
