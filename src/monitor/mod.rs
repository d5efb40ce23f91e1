//! The monitor: one a pod, parent and reaper of the pod's processes, outlives the daemon.
//!
//! `wire` is what daemon and monitor say, `client` the daemon's side, `serve` the monitor's
//! own loop; the others are that loop's nouns. Never here: gRPC, images, networks, policy.
//! If the daemon is away, the monitor keeps everything.
//!
//! The loop has one thread and never waits for anything but its next event: the OCI runtime
//! is a child like any other, and a daemon that reads too slowly is let go. `SIGTERM`,
//! `SIGINT` and `SIGHUP` don't end it, so neither a node's shutdown nor a Ctrl-C at the
//! daemon's terminal takes a pod from its parent. It ends when it is asked to, or when it
//! has nothing to look after and nobody to talk to.

#![deny(clippy::print_stderr)]

mod answer;
mod attach;
mod birth;
#[cfg(feature = "daemon")]
pub mod client;
pub mod complaint;
mod connection;
mod container;
pub mod exec;
mod exit_record;
#[cfg(feature = "daemon")]
mod link;
mod log;
mod reaper;
mod run_dir;
mod runtime;
mod sandbox;
pub mod serve;
mod stdio;
pub mod sysctl;
pub mod wire;
