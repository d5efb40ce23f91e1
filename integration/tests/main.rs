//! Integration tests: real kernel, real runc, real CNI plugins, a real registry on loopback.
//!
//! They need root. Each test has a private root directory and unique names, so they run in
//! parallel, and each removes what it made.
#![allow(missing_docs, unreachable_pub)]

mod architecture;
mod cli;
mod daemon;
mod image;
mod lifecycle;
mod monitor;
mod oci;
mod protocol;
mod store;
