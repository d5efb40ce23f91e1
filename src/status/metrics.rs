//! What is measured, as Prometheus takes it (OpenMetrics text).
//!
//! Names are the kubelet's and gRPC's where they mean the same. Labels are bounded: no ids of
//! pods and containers, and names of them only on probes, up to a limit and as long as the pod
//! is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::html::PROBE_KINDS;
use crate::meter::{Measured, System};
use crate::proto::haled as wire;

/// The media type of what [`Metrics::text`] gives.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Containers whose probes have series of their own; those of more are counted together, with
/// empty names.
const PROBED_LIMIT: usize = 500;
/// Times from a millisecond to a minute: calls, runtimes, plugins, mounts.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Of a heal: with a grace and a back-off in between.
const HEAL_SECONDS: [f64; 12] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0];
/// Reasons that containers end for; any other is one.
const REASONS: [&str; 9] = [
    "Completed",
    "Error",
    "FailedPostStartHook",
    "LivenessProbeFailed",
    "MonitorLost",
    "OOMKilled",
    "RestartRequested",
    "StartError",
    "StartupProbeFailed",
];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything measured since the daemon's start.
pub(super) struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    call_seconds: Histograms<MethodLabels>,
    operations: Histograms<OperationLabels>,
    operation_errors: Family<OperationLabels, Counter>,
    probes: Family<ProbeLabels, Counter>,
    probe_seconds: Histograms<ProbedLabels>,
    prober_faults: Counter,
    restarts: Family<RestartLabels, Counter>,
    heal_seconds: Histograms<ReasonLabels>,
    backoff_seconds: Histogram,
    pods: Family<StateLabels, Gauge>,
    containers: Family<StateLabels, Gauge>,
    backing_off: Gauge,
    images: Gauge,
    image_bytes: Gauge,
    resident: Gauge,
    descriptors: Gauge,
    probed: Mutex<BTreeSet<Probed>>,
}

/// A container with probes: namespace, pod, name.
type Probed = (String, String, String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(clippy::struct_field_names)]
struct CallLabels {
    grpc_service: String,
    grpc_method: String,
    grpc_code: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    grpc_service: String,
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    system: Word,
    operation_type: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    probe_type: Word,
    result: Word,
    namespace: String,
    pod: String,
    container: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbedLabels {
    probe_type: Word,
    namespace: String,
    pod: String,
    container: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestartLabels {
    reason: Word,
    by: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: Word,
}

/// A label's value out of a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0)
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let heal_seconds: fn() -> Histogram = || Histogram::new(HEAL_SECONDS);
        let mut metrics = Self {
            registry: Registry::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds),
            operations: Family::new_with_constructor(seconds),
            operation_errors: Family::default(),
            probes: Family::default(),
            probe_seconds: Family::new_with_constructor(seconds),
            prober_faults: Counter::default(),
            restarts: Family::default(),
            heal_seconds: Family::new_with_constructor(heal_seconds),
            backoff_seconds: Histogram::new(HEAL_SECONDS),
            pods: Family::default(),
            containers: Family::default(),
            backing_off: Gauge::default(),
            images: Gauge::default(),
            image_bytes: Gauge::default(),
            resident: Gauge::default(),
            descriptors: Gauge::default(),
            probed: Mutex::default(),
        };
        metrics.register();
        metrics.register_gauges();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("grpc_server_handled", "Calls answered, by code", self.calls.clone());
        registry.register_with_unit(
            "grpc_server_handling",
            "Time to the end of a call's answer",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        registry.register_with_unit(
            "haled_operation_duration",
            "Time that OCI runtimes (exec: with the command's own time), CNI plugins, mounts and monitors' starts took",
            Unit::Seconds,
            self.operations.clone(),
        );
        registry.register(
            "haled_operation_errors",
            "Those of them that failed",
            self.operation_errors.clone(),
        );
        registry.register(
            "prober_probe",
            "Probes run, by result, whatever the thresholds made of it",
            self.probes.clone(),
        );
        registry.register_with_unit(
            "prober_probe_duration",
            "Time that probes took",
            Unit::Seconds,
            self.probe_seconds.clone(),
        );
        registry.register(
            "haled_prober_faults",
            "Probes that could not be run through no fault of the container's, and count for nothing",
            self.prober_faults.clone(),
        );
        registry.register(
            "haled_container_restarts",
            "Containers that run again after a failure, by how they had ended and who started them",
            self.restarts.clone(),
        );
        registry.register_with_unit(
            "haled_heal_duration",
            "From the failure that decided to the new process, stop and back-off included",
            Unit::Seconds,
            self.heal_seconds.clone(),
        );
        registry.register_with_unit(
            "haled_restart_backoff",
            "Waits before restarts",
            Unit::Seconds,
            self.backoff_seconds.clone(),
        );
    }

    fn register_gauges(&mut self) {
        let registry = &mut self.registry;
        registry.register("haled_pods", "Pods by phase", self.pods.clone());
        registry.register("haled_containers", "Containers by state", self.containers.clone());
        registry.register(
            "haled_containers_backing_off",
            "Containers that wait for their next start",
            self.backing_off.clone(),
        );
        registry.register("haled_images", "Images", self.images.clone());
        registry.register_with_unit(
            "haled_image_filesystem_used",
            "Disk that images and writable layers take",
            Unit::Bytes,
            self.image_bytes.clone(),
        );
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory of the daemon",
            Unit::Bytes,
            self.resident.clone(),
        );
        registry.register(
            "process_open_fds",
            "Open file descriptors of the daemon",
            self.descriptors.clone(),
        );
        let build =
            prometheus_client::metrics::info::Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("haled_build", "The daemon that is running", build);
    }

    /// Takes what a room has measured.
    pub(super) fn take(&self, measured: &Measured<'_>) {
        match *measured {
            Measured::Operation { system, name, took, failed } => {
                let system = Word(match system {
                    System::Oci => "oci",
                    System::Cni => "cni",
                    System::Mount => "mount",
                    System::Monitor => "monitor",
                });
                let labels = OperationLabels { system, operation_type: Word(name) };
                self.operations.get_or_create(&labels).observe(took.as_secs_f64());
                let errors = self.operation_errors.get_or_create(&labels);
                errors.inc_by(u64::from(failed));
            }
            Measured::Call { path, code, took } => {
                let (service, method) =
                    path.trim_start_matches('/').split_once('/').unwrap_or(("unknown", "unknown"));
                let (grpc_service, grpc_method) = (service.to_owned(), method.to_owned());
                let of_method = MethodLabels {
                    grpc_service: grpc_service.clone(),
                    grpc_method: grpc_method.clone(),
                };
                self.call_seconds.get_or_create(&of_method).observe(took.as_secs_f64());
                let labels = CallLabels { grpc_service, grpc_method, grpc_code: code_word(code) };
                self.calls.get_or_create(&labels).inc();
            }
            Measured::Probe { namespace, pod, container, kind, success, took } => {
                let (namespace, pod, container) = self.probed(namespace, pod, container);
                let result = Word(match success {
                    Some(true) => "successful",
                    Some(false) => "failed",
                    None => "unknown",
                });
                let probe_type = Word(kind);
                if success.is_none() {
                    self.prober_faults.inc();
                }
                let of_probe = ProbedLabels {
                    probe_type,
                    namespace: namespace.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                };
                self.probe_seconds.get_or_create(&of_probe).observe(took.as_secs_f64());
                let labels = ProbeLabels { probe_type, result, namespace, pod, container };
                self.probes.get_or_create(&labels).inc();
            }
            Measured::Healed { reason, took, by_haled } => {
                let known = REASONS.into_iter().find(|known| *known == reason);
                let reason = Word(known.unwrap_or("Other"));
                let by = Word(if by_haled { "haled" } else { "client" });
                self.restarts.get_or_create(&RestartLabels { reason, by }).inc();
                let seconds = took.as_secs_f64();
                self.heal_seconds.get_or_create(&ReasonLabels { reason }).observe(seconds);
            }
            Measured::BackedOff { wait } => self.backoff_seconds.observe(wait.as_secs_f64()),
        }
    }

    /// The names that a container's probes are counted under.
    fn probed(&self, namespace: &str, pod: &str, container: &str) -> Probed {
        let names = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        if !probed.contains(&names) {
            if probed.len() >= PROBED_LIMIT {
                return Probed::default();
            }
            probed.insert(names.clone());
        }
        names
    }

    /// Everything, with what there is at this moment.
    pub(super) fn text(
        &self,
        pods: &[wire::Pod],
        images: Option<(usize, u64)>,
    ) -> Result<String, fmt::Error> {
        self.forget_all_but(pods);
        self.count(pods);
        if let Some((images, bytes)) = images {
            self.images.set(i64::try_from(images).unwrap_or(i64::MAX));
            self.image_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        self.look_at_process();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Drops the series of containers that are gone.
    fn forget_all_but(&self, pods: &[wire::Pod]) {
        let there: BTreeSet<(&str, &str)> =
            pods.iter().map(|pod| (pod.namespace.as_str(), pod.name.as_str())).collect();
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        probed.retain(|(namespace, pod, container)| {
            let stays = there.contains(&(namespace.as_str(), pod.as_str()));
            if !stays {
                self.forget(namespace, pod, container);
            }
            stays
        });
    }

    fn forget(&self, namespace: &str, pod: &str, container: &str) {
        for kind in PROBE_KINDS {
            let of_probe = ProbedLabels {
                probe_type: Word(kind),
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            };
            self.probe_seconds.remove(&of_probe);
            for result in ["successful", "failed", "unknown"] {
                let ProbedLabels { probe_type, namespace, pod, container } = of_probe.clone();
                let result = Word(result);
                self.probes.remove(&ProbeLabels { probe_type, result, namespace, pod, container });
            }
        }
    }

    fn count(&self, pods: &[wire::Pod]) {
        let mut phases: BTreeMap<&'static str, i64> = BTreeMap::new();
        let mut states: BTreeMap<&'static str, i64> = BTreeMap::new();
        for name in PHASES {
            phases.insert(name, 0);
        }
        for name in STATES {
            states.insert(name, 0);
        }
        let mut backing_off = 0;
        for pod in pods {
            *phases.entry(one_of(&PHASES, &pod.phase)).or_default() += 1;
            for container in pod.init_containers.iter().chain(&pod.containers) {
                *states.entry(one_of(&STATES, &container.state)).or_default() += 1;
                backing_off += i64::from(container.backoff_left_ms.is_some());
            }
        }
        for (phase, count) in phases {
            self.pods.get_or_create(&StateLabels { state: Word(phase) }).set(count);
        }
        for (state, count) in states {
            self.containers.get_or_create(&StateLabels { state: Word(state) }).set(count);
        }
        self.backing_off.set(backing_off);
    }

    fn look_at_process(&self) {
        // What /proc doesn't tell stays as it was told last.
        if let Ok(statm) = std::fs::read_to_string("/proc/self/statm")
            && let Some(Ok(pages)) = statm.split(' ').nth(1).map(str::parse::<i64>)
        {
            let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
            self.resident.set(pages.saturating_mul(page));
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            self.descriptors.set(i64::try_from(descriptors.count()).unwrap_or(i64::MAX));
        }
    }
}

const PHASES: [&str; 7] =
    ["Failed", "NotReady", "Pending", "Running", "Succeeded", "Terminating", "Other"];
const STATES: [&str; 4] = ["Running", "Terminated", "Waiting", "Other"];

fn one_of(known: &[&'static str], word: &str) -> &'static str {
    known.iter().find(|known| **known == word).copied().unwrap_or("Other")
}

/// A code as gRPC's metrics spell it.
fn code_word(code: u32) -> Word {
    Word(match Code::from_i32(i32::try_from(code).unwrap_or(-1)) {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    })
}

/// Metrics that take whatever is measured from now on in this process.
pub(super) fn listen() -> Option<Arc<Metrics>> {
    let metrics = Arc::new(Metrics::new());
    let taker = metrics.clone();
    crate::meter::listen(move |measured| taker.take(measured)).then_some(metrics)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn probe(pod: &str) -> Measured<'_> {
        Measured::Probe {
            namespace: "default",
            pod,
            container: "app",
            kind: "Liveness",
            success: Some(false),
            took: Duration::from_millis(3),
        }
    }

    fn pod(name: &str) -> wire::Pod {
        let (namespace, name) = ("default".to_owned(), name.to_owned());
        wire::Pod { namespace, name, phase: "Running".into(), ..wire::Pod::default() }
    }

    #[test]
    fn a_probe_is_counted_as_the_kubelet_names_it_while_its_pod_is_there() {
        let metrics = Metrics::new();
        metrics.take(&probe("web"));
        let series = "prober_probe_total{probe_type=\"Liveness\",result=\"failed\",namespace=\"default\",pod=\"web\",container=\"app\"} 1";
        let text = metrics.text(&[pod("web")], None).unwrap();
        assert!(text.contains(series), "{text}");
        assert!(text.contains("haled_pods{state=\"Running\"} 1\n"), "{text}");
        let text = metrics.text(&[], None).unwrap();
        assert!(!text.contains("web"), "{text}");
        assert!(text.contains("haled_pods{state=\"Running\"} 0\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn names_are_bounded() {
        let metrics = Metrics::new();
        let names: Vec<String> = (0..2 * PROBED_LIMIT).map(|n| format!("pod-{n}")).collect();
        for name in &names {
            metrics.take(&probe(name));
        }
        let pods: Vec<_> = names.iter().map(|name| pod(name)).collect();
        let text = metrics.text(&pods, None).unwrap();
        let series = text.lines().filter(|line| line.starts_with("prober_probe_total{"));
        assert_eq!(series.count(), PROBED_LIMIT + 1);
        let others = format!("namespace=\"\",pod=\"\",container=\"\"}} {PROBED_LIMIT}\n");
        assert!(text.contains(&others), "{text}");
        metrics.take(&Measured::Healed {
            reason: "made \"up\"",
            took: Duration::from_secs(1),
            by_haled: true,
        });
        let text = metrics.text(&[], None).unwrap();
        assert!(text.contains("haled_container_restarts_total{reason=\"Other\",by=\"haled\"} 1"));
    }

    #[test]
    fn calls_are_counted_by_code_and_what_is_not_served_has_no_name() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(1);
        metrics.take(&Measured::Call { path: "/runtime.v1.RuntimeService/Version", code: 0, took });
        metrics.take(&Measured::Call { path: "", code: 12, took });
        let text = metrics.text(&[], None).unwrap();
        for series in [
            "grpc_server_handled_total{grpc_service=\"runtime.v1.RuntimeService\",grpc_method=\"Version\",grpc_code=\"OK\"} 1",
            "grpc_server_handled_total{grpc_service=\"unknown\",grpc_method=\"unknown\",grpc_code=\"Unimplemented\"} 1",
            "grpc_server_handling_seconds_count{grpc_service=\"runtime.v1.RuntimeService\",grpc_method=\"Version\"} 1",
        ] {
            assert!(text.contains(series), "{series}\n{text}");
        }
    }
}
