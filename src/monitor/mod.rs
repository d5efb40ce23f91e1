//! The monitor: one a pod, parent and reaper of the pod's processes, outlives the daemon.
//!
//! `wire` is what daemon and monitor say, `client` the daemon's side, `serve` the monitor's
//! own loop. Never here: gRPC, images, networks, policy. If the daemon is away, the monitor
//! keeps everything.

#[cfg(feature = "daemon")]
pub mod client;
pub mod wire;
