//! Probes, verdicts, back-off and restart policy, as Kubernetes has them.
//!
//! `prober`, `policy` and `backoff` are pure: they are handed the time and give back what to do;
//! `schema` and `annotations` parse what users write. Only the executors (`run`, `http`,
//! `grpc`) touch a socket. Nothing here knows a pod's tasks.

mod annotations;
mod backoff;
pub mod fields;
mod grpc;
mod http;
mod policy;
mod prober;
mod run;
pub mod schema;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use backoff::{Backoff, BackoffSettings};
pub use policy::{LIVENESS_KILL, POST_START_KILL, RESTART_ASKED, STARTUP_KILL, Sequel, is_kill};
pub use prober::Prober;
pub use run::{PAUSE, ProberFault, TRIES, call, run};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Gates the others until it has passed.
    Startup,
    /// Kills on failure.
    Liveness,
    /// Only reports.
    Readiness,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// Runs a command in the container; exit 0 passes.
    Exec {
        /// Command and arguments; never empty.
        command: Vec<String>,
    },
    /// GET; 200 to 399 passes.
    HttpGet {
        /// With its query.
        path: String,
        /// 1 to 65535.
        port: u16,
        /// `None`: the pod's address.
        host: Option<String>,
        /// HTTPS, certificates unverified.
        tls: bool,
        /// In order; names as given.
        headers: Vec<(String, String)>,
    },
    /// Connecting passes.
    TcpSocket {
        /// 1 to 65535.
        port: u16,
        /// `None`: the pod's address.
        host: Option<String>,
    },
    /// The gRPC health protocol, plaintext; `SERVING` passes.
    Grpc {
        /// 1 to 65535.
        port: u16,
        /// Which service is asked for; empty: the server as a whole.
        service: String,
    },
}

/// A probe, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What it does.
    pub handler: Handler,
    /// From the container's start.
    pub initial_delay: Duration,
    /// At least 100 ms.
    pub period: Duration,
    /// At least 1 ms.
    pub timeout: Duration,
    /// At least 1.
    pub success_threshold: u32,
    /// At least 1.
    pub failure_threshold: u32,
    /// In place of the pod's, when this probe kills.
    pub termination_grace: Option<Duration>,
}

impl Probe {
    /// As it is seen before it has run.
    fn unknown(&self, kind: Kind) -> Report {
        Report {
            kind,
            handler: self.handler.to_string(),
            result: "Unknown".to_owned(),
            run: 0,
            success_threshold: self.success_threshold,
            failure_threshold: self.failure_threshold,
            initial_delay: self.initial_delay,
            timeout: self.timeout,
            period: self.period,
            last: None,
            last_run_at: None,
            last_change_at: None,
            next_run_at: None,
        }
    }
}

/// A container's probes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probes {
    /// Startup.
    pub startup: Option<Probe>,
    /// Liveness.
    pub liveness: Option<Probe>,
    /// Readiness.
    pub readiness: Option<Probe>,
}

impl Probes {
    /// Each probe as it is seen while its container doesn't run: nothing is known.
    pub fn unknown(&self) -> Vec<Report> {
        let kinds = [
            (Kind::Startup, &self.startup),
            (Kind::Liveness, &self.liveness),
            (Kind::Readiness, &self.readiness),
        ];
        kinds.into_iter().filter_map(|(kind, probe)| Some(probe.as_ref()?.unknown(kind))).collect()
    }
}

/// When an ended container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    /// Never.
    Never,
}

/// What one container has of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerPolicy {
    /// In place of the pod's.
    pub restart: Option<RestartPolicy>,
    /// Asked first, in order, and not after a probe's kill.
    pub rules: Vec<RestartRule>,
    /// What runs after its start and before its stop.
    pub hooks: Hooks,
}

/// A restartPolicyRule: what to do after some exit codes (Kubernetes' KEP-5307 and KEP-5532).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRule {
    /// Whether `codes` are those that match (In), or all others do (NotIn).
    pub within: bool,
    /// 0 to 255, at most 255 of them.
    pub codes: Vec<i32>,
    /// What to do.
    pub action: RuleAction,
}

/// What a restartPolicyRule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// The container is started again.
    Restart,
    /// Every container of the pod is started again, the init containers first.
    RestartAllContainers,
}

/// What runs after a container's start and before its stop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// Its failure kills the container.
    pub post_start: Option<Hook>,
    /// Within the grace; its failure is only told.
    pub pre_stop: Option<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// `Exec` or `HttpGet`; never `TcpSocket`.
    Run(Handler),
    /// Waits so long.
    Sleep(Duration),
}

/// Who acts on a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Heal {
    /// `Kill` while an orchestrator is there, `Restart` when it is gone.
    #[default]
    Auto,
    /// haled stops and restarts.
    Restart,
    /// haled stops; the orchestrator restarts.
    Kill,
    /// haled only reports.
    Observe,
}

/// All a pod says of its health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// By container name. Empty: the pod is left alone.
    pub probes: BTreeMap<String, Probes>,
    /// For every container that has none of its own.
    pub restart: RestartPolicy,
    /// What containers have of their own, by name.
    #[serde(default)]
    pub containers: BTreeMap<String, ContainerPolicy>,
    /// Who acts.
    pub heal: Heal,
}

/// A bad annotation: `annotation "liveness.haled/app": periodSeconds: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation \"{key}\": {why}")]
pub struct BadAnnotation {
    /// The key.
    pub key: String,
    /// Where in it, what was found, what is allowed.
    pub why: String,
}

/// What one run of a probe gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Passed.
    pub success: bool,
    /// Passed, and there is something about it that its owner should know.
    #[serde(default)]
    pub warning: bool,
    /// At most 10 KiB: what the command printed, or `HTTP probe failed with statuscode: 500`.
    pub output: String,
}

impl Outcome {
    /// What is kept of an output, in bytes, as the kubelet keeps.
    pub const MAX_OUTPUT: usize = 10 * 1024;

    /// It passed.
    pub fn passed(output: String) -> Self {
        Self { success: true, warning: false, output }
    }

    /// It failed.
    pub fn failed(output: String) -> Self {
        Self { success: false, warning: false, output }
    }

    /// The beginning of what was read, as text. What is no UTF-8 takes more room as text than
    /// it did, so the text is bounded and not only what was read.
    pub fn text(read: &[u8]) -> String {
        let read = &read[..read.len().min(Self::MAX_OUTPUT)];
        let mut text = String::from_utf8_lossy(read).into_owned();
        text.truncate(text.floor_char_boundary(Self::MAX_OUTPUT));
        text
    }
}

/// Where network probes connect from and to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The pod's network namespace; `None`: the host's.
    pub netns: Option<PathBuf>,
    /// Where to connect when the probe names no host.
    pub address: IpAddr,
}

impl Kind {
    /// `liveness`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// `Liveness`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

impl std::fmt::Display for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = |host: &Option<String>| host.clone().unwrap_or_default();
        match self {
            Self::Exec { command } => write!(f, "exec [{}]", command.join(" ")),
            Self::HttpGet { path, port, host: name, tls, .. } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "http-get {scheme}://{}:{port}{path}", host(name))
            }
            Self::TcpSocket { port, host: name } => write!(f, "tcp-socket {}:{port}", host(name)),
            Self::Grpc { port, service } if service.is_empty() => write!(f, "grpc <pod>:{port}"),
            Self::Grpc { port, service } => write!(f, "grpc <pod>:{port} {service}"),
        }
    }
}

/// A threshold was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which probe.
    pub kind: Kind,
    /// Its new result.
    pub success: bool,
    /// `Liveness probe failed 3 times in a row: …`.
    pub message: String,
}

/// What one probe of a container had come to, for the next daemon: as it was when its result
/// last changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which.
    pub kind: Kind,
    /// The result that counts, thresholds applied.
    pub success: bool,
    /// Equal raw results in a row.
    pub run: u32,
    /// The last run.
    pub last: Option<Outcome>,
    /// When it ended.
    pub last_run_at: Option<SystemTime>,
    /// When `success` last changed or was first known.
    pub last_change_at: Option<SystemTime>,
}

/// A container's health, as `reason` of a running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// The startup probe has not passed yet, or nothing has been probed yet.
    Starting,
    /// All pass.
    Healthy,
    /// Liveness or startup failed.
    Unhealthy,
    /// Readiness fails.
    NotReady,
}

/// One probe as seen from outside, for `info["health"]` and halectl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub kind: Kind,
    /// `exec [ls /tmp/healthy]`, `http-get http://:80/`, `tcp-socket :6379`.
    pub handler: String,
    /// `Unknown`, `Success` or `Failure`: the result that counts, thresholds applied.
    pub result: String,
    /// Equal raw results in a row.
    pub run: u32,
    /// Of the probe.
    pub success_threshold: u32,
    /// Of the probe.
    pub failure_threshold: u32,
    /// Of the probe.
    pub initial_delay: Duration,
    /// Of the probe.
    pub timeout: Duration,
    /// Of the probe.
    pub period: Duration,
    /// The last run.
    pub last: Option<Outcome>,
    /// When it ended.
    pub last_run_at: Option<SystemTime>,
    /// When `result` last changed.
    pub last_change_at: Option<SystemTime>,
    /// When it runs next.
    pub next_run_at: Option<SystemTime>,
}
