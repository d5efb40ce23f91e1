//! haled: a container runtime for Kubernetes nodes that heals the pods it runs.
//!
//! This page is the architecture. The rooms of the source are named in reading order, each with
//! what it must never hold; a test (`integration/tests/architecture.rs`) checks the arrows
//! between them.
//!
//! # Processes
//!
//! ```text
//!  kubelet / crictl / halectl
//!         │ gRPC on a unix socket (CRI v1, haled v1)
//!  ┌──────▼───────────────────────────────┐
//!  │ haled            the daemon, tokio   │  may stop, crash, be upgraded: pods don't notice
//!  └──┬────────────────────────────┬──────┘
//!     │ seqpacket socket, one a pod│
//!  ┌──▼─────────────┐         ┌────▼───────────┐  one a pod, outlives the daemon: parent and
//!  │ haled-monitor  │         │ haled-monitor  │  reaper of the pod's processes, writes logs
//!  │  ├ haled-pause │         │  ├ haled-pause │  and exit records
//!  │  └ app (runc)  │         │  └ app (runc)  │
//!  └────────────────┘         └────────────────┘
//! ```
//!
//! The daemon holds nothing that it can't rebuild from its [`store`], the monitors and the
//! kernel. haled-pause holds a pod's namespaces and is 1 KB of system calls. haled-agent, 4 KB of
//! the same, executes commands in a container where they come often.
//!
//! # Rooms
//!
//! | room | what it is | what is never there |
//! |---|---|---|
//! | [`cri`] | the gRPC face, a file for each RPC or family; errors become codes in `status` | state |
//! | [`manifest`] | Pod manifests, and the controller that keeps their pods running | gRPC, processes |
//! | [`pod`] | the sandbox and the driver task that owns a pod and its containers | gRPC, manifests |
//! | [`container`] | what is done to one container: create, start, stop, remove, exec, logs | a list of containers, a decision to restart |
//! | [`health`] | probes, back-off, restart policy: pure; and what runs a network probe | a pod's tasks |
//! | [`oci`] | config.json as a pure function; how runc and others are called | a container's state |
//! | [`monitor`] | the process beside every pod, its wire and the daemon's side of it | images, networks, policy |
//! | [`image`] | references, registries, content, layers, root file systems | anything that runs |
//! | [`network`] | CNI configuration, plugins, results | pods |
//! | [`nri`] | plugins of the Node Resource Interface: their wire, their list, their wishes made one | pods' tasks, a deed |
//! | [`stats`] | what cgroups use | containers |
//! | [`stream`] | exec, attach and port-forward over SPDY and WebSocket | pods, gRPC |
//! | [`config`] | the TOML file | a look at the machine |
//! | [`doctor`] | what this machine offers and lacks, each with its remedy | a change to the machine |
//! | [`status`] | for browsers, Prometheus and trace collectors: the page, metrics, traces | a change to anything |
//! | [`cli`] | halectl: everything over the socket | any other room |
//! | [`store`] | versioned records in SQLite | what a record means |
//! | [`meter`] | where every room says what it did and how long that took | names of metrics |
//! | [`tls`] | servers whose certificate needn't be anybody's | who may be taken unseen |
//! | [`sys`] | all `unsafe`, descriptors, mounts, namespaces, cgroups | a word of the domain |
//!
//! `cri → manifest, pod, container, image, network, stats, stream`; `manifest → pod, container, health, image`;
//! `status → cri`; `pod → container, network, monitor, nri`; `container → oci, monitor, image, health`. The rooms
//! at the bottom don't know each other. [`daemon`] puts them together; `doctor → config, daemon, network, oci`.
//!
//! # What holds everywhere
//!
//! - **One task owns a pod.** It takes a closed enum of events; long work runs in child tasks
//!   that report back as events. List and Status read a published snapshot and never wait, and
//!   a caller is answered only after what it is told has been published.
//! - **A cancelled call changes nothing half-way.** Work belongs to the pod's task; the same
//!   call again joins what is in flight.
//! - **The intent is written before the deed**, so that a daemon that comes back can finish or
//!   undo whatever it finds.
//! - **Policy is pure**: it is handed values and a time, and gives back what to do.
//! - **A process is a pid and its start time**, or a pidfd: never a bare pid.

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
pub mod doctor;
#[cfg(feature = "daemon")]
pub mod health;
#[cfg(feature = "daemon")]
pub mod image;
#[cfg(feature = "daemon")]
pub mod manifest;
#[cfg(feature = "daemon")]
pub mod meter;
#[cfg(feature = "daemon")]
pub mod network;
#[cfg(feature = "daemon")]
pub mod nri;
#[cfg(feature = "daemon")]
pub mod oci;
#[cfg(feature = "daemon")]
pub mod pod;
#[cfg(feature = "daemon")]
pub mod stats;
#[cfg(feature = "daemon")]
pub mod status;
#[cfg(feature = "daemon")]
pub mod store;
#[cfg(feature = "daemon")]
pub mod stream;
#[cfg(feature = "daemon")]
pub mod tls;

/// The generated protocol code.
#[cfg(feature = "daemon")]
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod proto {
    /// CRI v1.
    pub mod cri {
        tonic::include_proto!("runtime.v1");
    }
    /// The Node Resource Interface.
    pub mod nri {
        tonic::include_proto!("nri.pkg.api.v1alpha1");
    }
    /// haled v1.
    pub mod haled {
        tonic::include_proto!("haled.v1");
    }
}
