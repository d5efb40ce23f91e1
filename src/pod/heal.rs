//! The driver's part for healing: running probes, acting on verdicts, restarting.
//!
//! What is decided here comes from `health`, which is pure; this only does it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::driver::{Done, Driver, Work};
use super::record::Phase;
use crate::container::config::ContainerConfig;
use crate::container::exec;
use crate::container::state::{State, nanos};
use crate::container::{Error as ContainerError, Place};
use crate::health::{self, Handler, Heal, Kind, Outcome, Probe, Target, Verdict};
use crate::id::ContainerId;
use crate::oci::Runtime;
use crate::oci::model::Sharing;

/// How often `heal: auto` looks whether its orchestrator is still there.
const PRESENCE_CHECK: Duration = Duration::from_secs(2);
/// A pod that says nothing else has this much time to stop, in Kubernetes.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// The least grace of a probe's kill.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// What is kept of a probe command's output, in bytes.
const PROBE_OUTPUT: usize = 10 * 1024;

/// Where a kubelet notes how often a container has been restarted.
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where a kubelet notes a pod's grace, in seconds.
const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

impl Driver {
    /// Who acts on a verdict at this moment; never `Heal::Auto`.
    fn mode(&self) -> Heal {
        match self.policy.as_ref().map(|policy| policy.heal) {
            None => Heal::Observe,
            Some(Heal::Auto) if self.services.presence.there(std::time::Instant::now()) => {
                Heal::Kill
            }
            Some(Heal::Auto) => Heal::Restart,
            Some(mode) => mode,
        }
    }

    /// Runs the probes that are due, and restarts what has waited long enough.
    pub(super) fn heal(&mut self) {
        if self.policy.is_none() {
            return;
        }
        let now = Instant::now();
        for at in 0..self.containers.len() {
            if let Some(prober) = &mut self.containers[at].prober {
                for (kind, probe) in prober.due(now.into_std()) {
                    self.run_probe(at, kind, probe);
                }
            }
        }
        if self.mode() == Heal::Restart {
            self.schedule_restarts();
            let due = |(name, at): (&String, &Instant)| (*at <= now).then(|| name.clone());
            for name in self.waiting.iter().filter_map(due).collect::<Vec<_>>() {
                self.restart(&name);
            }
        } else {
            // An orchestrator is there: what has not begun yet is its to do.
            self.waiting.clear();
        }
    }

    /// When `heal` next has something to do by itself.
    pub(super) fn next_heal(&self) -> Option<Instant> {
        let policy = self.policy.as_ref()?;
        if !matches!(self.record.phase, Phase::Ready { .. }) {
            return None;
        }
        let probes = self.containers.iter().filter_map(|c| c.prober.as_ref()?.next_wake());
        let presence = (policy.heal == Heal::Auto).then(|| Instant::now() + PRESENCE_CHECK);
        probes.map(Instant::from_std).chain(self.waiting.values().copied()).chain(presence).min()
    }

    fn run_probe(&self, at: usize, kind: Kind, probe: Probe) {
        let container = &self.containers[at];
        let (id, place, runtime) =
            (container.id.clone(), container.place.clone(), self.runtime.clone());
        let target = self.probe_target();
        self.spawn(async move {
            let outcome = match &probe.handler {
                Handler::Exec { command } => {
                    Some(run_command(&runtime, &place, command, probe.timeout).await)
                }
                _ => match health::run(&probe, &target).await {
                    Ok(outcome) => Some(outcome),
                    Err(fault) => {
                        tracing::warn!(container = %id, %fault, "a probe could not be run and is dropped");
                        None
                    }
                },
            };
            Done::Probed(id, kind, outcome)
        });
    }

    fn probe_target(&self) -> Target {
        let netns = match self.config.network {
            Sharing::Pod => Some(self.dir.join("pins/net")),
            Sharing::Node => None,
        };
        let address = match &self.record.phase {
            Phase::Ready { network: Some(network), .. } => network.ips.first().copied(),
            _ => None,
        };
        Target { netns, address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
    }

    /// A probe has run. `None`: it could not be, through no fault of the container's.
    pub(super) fn probed(&mut self, id: &ContainerId, kind: Kind, outcome: Option<Outcome>) {
        let Some(at) = self.find(id) else { return };
        let container = &mut self.containers[at];
        let Some(prober) = &mut container.prober else { return };
        let (now, wall) = (Instant::now().into_std(), SystemTime::now());
        let Some(outcome) = outcome else { return prober.dropped(kind, now) };
        let success = outcome.success;
        let output = outcome.output.trim().to_owned();
        let verdict = prober.observe(kind, outcome, now, wall);
        let reports = prober.report(now, wall);
        let Some(report) = reports.iter().find(|report| report.kind == kind) else { return };
        let (run, threshold) = (report.run, report.failure_threshold);
        let name = container.config.name.clone();
        let kind_name = kind.title();
        if success {
            if run == 1 {
                self.event(&name, "ProbeSucceeded", format!("{kind_name} probe succeeded"), false);
            }
        } else {
            let message = format!("{kind_name} probe failed ({run}/{threshold}): {output}");
            self.event(&name, "Unhealthy", message, true);
        }
        if let Some(verdict) = verdict.filter(|verdict| !verdict.success) {
            self.act(at, &verdict);
        }
    }

    /// A probe's verdict is failure.
    fn act(&mut self, at: usize, verdict: &Verdict) {
        let reason = match verdict.kind {
            Kind::Readiness => return,
            Kind::Liveness => "LivenessProbeFailed",
            Kind::Startup => "StartupProbeFailed",
        };
        if self.mode() == Heal::Observe || self.containers[at].stopping.is_some() {
            return;
        }
        let grace = self.probe_grace(at, verdict.kind);
        let container = &mut self.containers[at];
        container.record.killed = Some((reason.to_owned(), verdict.message.clone()));
        let name = container.config.name.clone();
        self.save_container(at);
        let message = format!("{}; stopping it within {} s", verdict.message, grace.as_secs_f64());
        self.event(&name, "Killing", message, true);
        self.begin_stop(at, grace);
    }

    fn probe_grace(&self, at: usize, kind: Kind) -> Duration {
        let config = &self.containers[at].config;
        let probes = self.policy.as_ref().and_then(|policy| policy.probes.get(&config.name));
        let probe = probes.and_then(|probes| match kind {
            Kind::Startup => probes.startup.as_ref(),
            Kind::Liveness => probes.liveness.as_ref(),
            Kind::Readiness => probes.readiness.as_ref(),
        });
        let of_pod = || {
            let seconds = config.annotations.get(POD_GRACE)?.parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        probe
            .and_then(|probe| probe.termination_grace)
            .or_else(of_pod)
            .unwrap_or(DEFAULT_GRACE)
            .max(LEAST_GRACE)
    }

    /// Gives every container that has ended and is to run again the time of its next start.
    fn schedule_restarts(&mut self) {
        let Some(policy) = self.policy.clone() else { return };
        let names: std::collections::BTreeSet<_> =
            self.containers.iter().map(|c| c.config.name.clone()).collect();
        for name in names {
            let Some(at) = self.newest(&name) else { continue };
            let container = &self.containers[at];
            let State::Exited(ended) = &container.record.state else { continue };
            let by_probe = ended.reason.ends_with("ProbeFailed");
            if self.waiting.contains_key(&name)
                || self.is_done_init(&policy, at)
                || container.record.stopped_by_client
                || container.remove.is_some()
                || !policy.restarts(&name, ended.code, by_probe)
            {
                continue;
            }
            let ran = if ended.started_at == 0 { 0 } else { ended.finished_at - ended.started_at };
            let ran = Duration::from_nanos(u64::try_from(ran).unwrap_or(0));
            let finished_at = ended.finished_at;
            let id = container.id.to_string();
            let restarting = self.record.restarts.entry(name.clone()).or_default();
            // A daemon that was away goes by what was decided before it went.
            let decided =
                restarting.next_start_at.filter(|_| restarting.after.as_ref() == Some(&id));
            let next = decided.unwrap_or_else(|| {
                let delay = restarting.backoff.after_exit(ran, &self.services.backoff);
                finished_at.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX))
            });
            restarting.next_start_at = Some(next);
            restarting.after = Some(id);
            let left = u64::try_from(next - nanos(SystemTime::now())).unwrap_or(0);
            let left = Duration::from_nanos(left);
            self.waiting.insert(name.clone(), Instant::now() + left);
            self.save();
            if left >= Duration::from_secs(1) {
                let message = format!("back-off: it is started again in {} s", left.as_secs());
                self.event(&name, "BackOff", message, true);
            }
        }
    }

    /// An init container, which the CRI doesn't mark as one: it has no probes, ended well, and
    /// those that have probes come after it. It has done its work.
    fn is_done_init(&self, policy: &health::Policy, at: usize) -> bool {
        let container = &self.containers[at];
        let State::Exited(ended) = &container.record.state else { return false };
        let name = &container.config.name;
        let comes_later = |name: &String| {
            let mut of_name = self.containers.iter().filter(|c| c.config.name == *name);
            of_name.all(|c| c.record.created_at >= ended.finished_at)
        };
        ended.code == 0
            && !policy.probes.contains_key(name)
            && policy.probes.keys().any(comes_later)
    }

    /// Makes and starts the next attempt of a container name.
    fn restart(&mut self, name: &str) {
        self.waiting.remove(name);
        let Some(at) = self.newest(name) else { return };
        let last = &self.containers[at];
        if !matches!((&last.record.state, &last.work), (State::Exited(_), Work::None)) {
            return;
        }
        let next = next_attempt(&last.config);
        // The very image it had, whatever its name means by now.
        let image = last.record.image_id.clone();
        if let Err(error) = self.begin_create(next, &image, true) {
            self.restart_failed(name, &error.to_string());
        }
    }

    /// The next attempt could not be made: tried again after a back-off.
    pub(super) fn restart_failed(&mut self, name: &str, why: &str) {
        let restarting = self.record.restarts.entry(name.to_owned()).or_default();
        let delay = restarting.backoff.after_exit(Duration::ZERO, &self.services.backoff);
        let delay = delay.max(self.services.backoff.initial);
        let at = nanos(SystemTime::now() + delay);
        restarting.next_start_at = Some(at);
        self.waiting.insert(name.to_owned(), Instant::now() + delay);
        self.save();
        let message = format!("cannot restart it, next try in {} s: {why}", delay.as_secs());
        self.event(name, "FailedRestart", message, true);
    }
}

/// The same container once more, as the kubelet would have made it.
fn next_attempt(last: &ContainerConfig) -> ContainerConfig {
    let mut next = ContainerConfig { attempt: last.attempt + 1, ..last.clone() };
    if let Some(count) = next.annotations.get_mut(RESTART_COUNT)
        && let Ok(number) = count.parse::<u32>()
    {
        *count = (number + 1).to_string();
    }
    next.log_path = next_log_path(&last.log_path);
    next
}

/// `<n>.log` becomes `<n+1>.log`; any other name stays.
fn next_log_path(path: &std::path::Path) -> PathBuf {
    let number =
        path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<u32>().ok());
    match number {
        Some(number) => path.with_file_name(format!("{}.log", number + 1)),
        None => path.to_owned(),
    }
}

/// An exec probe: exit 0 passes, and nothing else does.
async fn run_command(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    limit: Duration,
) -> Outcome {
    match exec::run(runtime, place, command, Some(limit)).await {
        Ok(output) => {
            let mut text = output.stdout;
            text.extend(output.stderr);
            text.truncate(PROBE_OUTPUT);
            let mut text = String::from_utf8_lossy(&text).into_owned();
            if output.exit_code != 0 && text.trim().is_empty() {
                text = format!("command exited with {}", output.exit_code);
            }
            Outcome { success: output.exit_code == 0, output: text }
        }
        Err(ContainerError::ExecTimeout { limit, .. }) => Outcome {
            success: false,
            output: format!("command timed out after {} s", limit.as_secs_f64()),
        },
        Err(error) => Outcome { success: false, output: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_log_gets_the_next_number() {
        for (last, next) in
            [("app/0.log", "app/1.log"), ("9.log", "10.log"), ("app.log", "app.log"), ("", "")]
        {
            assert_eq!(next_log_path(last.as_ref()), PathBuf::from(next));
        }
    }
}
