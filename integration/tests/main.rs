//! Integration tests: real kernel, real runc, real CNI plugins, a real registry on loopback.
//!
//! They need root. Each test has a private root directory and unique names, so they run in
//! parallel, and each removes what it made.
#![allow(missing_docs, unreachable_pub, clippy::large_futures)]

mod agents;
mod architecture;
mod checkpoint;
mod cli;
mod config;
mod daemon;
mod doctor;
mod events;
mod healing;
mod image;
mod lifecycle;
mod logs;
mod manifest;
mod metrics;
mod monitor;
mod network;
mod nri;
mod oci;
mod protocol;
mod resources;
mod security;
mod stats;
mod status;
mod store;
mod stream;
mod survival;
mod systemd;
mod top;
