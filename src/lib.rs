//! haled: a container runtime for Kubernetes nodes that heals the pods it runs.
// The front page is written last.

pub mod id;
pub mod monitor;
pub mod sys;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod container;
#[cfg(feature = "daemon")]
pub mod cri;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod health;
#[cfg(feature = "daemon")]
pub mod image;
#[cfg(feature = "daemon")]
pub mod manifest;
#[cfg(feature = "daemon")]
pub mod network;
#[cfg(feature = "daemon")]
pub mod oci;
#[cfg(feature = "daemon")]
pub mod pod;
#[cfg(feature = "daemon")]
pub mod stats;
#[cfg(feature = "daemon")]
pub mod store;

/// The generated protocol code.
#[cfg(feature = "daemon")]
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod proto {
    /// CRI v1.
    pub mod cri {
        tonic::include_proto!("runtime.v1");
    }
    /// haled v1.
    pub mod haled {
        tonic::include_proto!("haled.v1");
    }
}
