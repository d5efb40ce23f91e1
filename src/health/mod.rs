//! Probes, verdicts, back-off and restart policy, as Kubernetes has them.
//!
//! `prober`, `backoff` and `restart` are pure: they are handed the time and give back what to
//! do. Only the executors (`http`, `tcp`) touch a socket. Nothing here knows a pod's tasks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

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
    /// For every container.
    pub restart: RestartPolicy,
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

impl Policy {
    /// Reads `liveness.haled/<container>` and its like; `None` where there is none of them.
    pub fn from_annotations(
        _annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, BadAnnotation> {
        todo!()
    }
}

/// What one run of a probe gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Passed.
    pub success: bool,
    /// At most 10 KiB: what the command printed, or `HTTP probe failed with statuscode: 500`.
    pub output: String,
}

/// Where network probes connect from and to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The pod's network namespace; `None`: the host's.
    pub netns: Option<PathBuf>,
    /// Where to connect when the probe names no host.
    pub address: IpAddr,
}

/// Runs a network probe once, within its timeout. Panics on `Handler::Exec`, which is run by
/// the container's own exec.
pub async fn run(_probe: &Probe, _target: &Target) -> Outcome {
    todo!()
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
    /// The last run.
    pub last: Option<Outcome>,
    /// When it ended.
    pub last_run_at: Option<SystemTime>,
    /// When `result` last changed.
    pub last_change_at: Option<SystemTime>,
    /// When it runs next.
    pub next_run_at: Option<SystemTime>,
}

/// The probes of one running container: pure, driven by its pod.
///
/// Call `due` at or after `next_wake`, run what it gives, and hand each outcome to `observe`.
/// A probe is never in flight twice.
#[derive(Debug, Clone)]
pub struct Prober {}

impl Prober {
    /// `started`: the container's start. `spread` in 0.0..1.0 puts the first run of each
    /// probe that far into its period (after a daemon's own start); `None`: at once.
    pub fn new(_probes: &Probes, _started: Instant, _now: Instant, _spread: Option<f64>) -> Self {
        todo!()
    }

    /// When `due` next has something, if ever.
    pub fn next_wake(&self) -> Option<Instant> {
        todo!()
    }

    /// The probes to run now; each counts as in flight until `observe`.
    pub fn due(&mut self, _now: Instant) -> Vec<(Kind, Probe)> {
        todo!()
    }

    /// Takes a result; a verdict when the result that counts changed, and for each failing
    /// liveness or startup verdict exactly once.
    pub fn observe(
        &mut self,
        _kind: Kind,
        _outcome: Outcome,
        _now: Instant,
        _wall: SystemTime,
    ) -> Option<Verdict> {
        todo!()
    }

    /// The pod is being stopped: liveness and startup end, readiness goes on.
    pub fn stopping(&mut self) {
        todo!()
    }

    /// As a whole; `None`: the container has no probes.
    pub fn health(&self) -> Option<Health> {
        todo!()
    }

    /// In words, for CRI `message` of a running container: the last failing probe's output and count.
    pub fn message(&self) -> String {
        todo!()
    }

    /// Ready in the CRI's and Kubernetes' sense: started, and readiness (if any) passes.
    pub fn ready(&self) -> bool {
        todo!()
    }

    /// Every probe. `now` and `wall` are the same moment.
    pub fn report(&self, _now: Instant, _wall: SystemTime) -> Vec<Report> {
        todo!()
    }
}

/// The three times of a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffSettings {
    /// Before the second restart: 10 s.
    pub initial: Duration,
    /// The longest: 300 s.
    pub max: Duration,
    /// A run this long starts over: 10 min.
    pub reset: Duration,
}

/// How long a container waits before its next start; stored with its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backoff {
    restarts: u32,
}

impl Backoff {
    /// The container ran for `run` and ended; how long after its end it may start.
    /// First at once, then initial, doubling to max.
    pub fn after_exit(&mut self, _run: Duration, _settings: &BackoffSettings) -> Duration {
        todo!()
    }
}

impl RestartPolicy {
    /// Whether a container that ended so is started again. A probe's kill counts as failure.
    pub fn restarts(self, _exit_code: i32, _killed_by_probe: bool) -> bool {
        todo!()
    }
}
