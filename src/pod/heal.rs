//! The driver's part for health: running probes and acting on verdicts.
//!
//! What is decided here comes from `health`, which is pure; this only does it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::driver::Driver;
use super::history::{Restart, Run};
use super::inbox::Done;
use super::record::Phase;
use crate::container::Error as ContainerError;
use crate::container::exec::Executor;
use crate::container::state::{State, nanos};
use crate::health::{self, Handler, Heal, Kind, Outcome, Probe, Target, Verdict};
use crate::id::ContainerId;
use crate::meter::{self, Measured};
use crate::oci::model::Sharing;

/// A pod that says nothing else has this much time to stop, in Kubernetes.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// The least grace of haled's own stops, also after a preStop hook: the kubelet's.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Between two writes of what the probes of one container have come to.
const REMEMBER_PAUSE: Duration = Duration::from_secs(1);

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
            if self.containers[at].stands_still() {
                continue;
            }
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
            self.start_what_was_left();
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
        let moving = self.containers.iter().filter(|c| !c.stands_still());
        let probes = moving.filter_map(|c| c.prober.as_ref()?.next_wake());
        // `auto` looks whether its orchestrator is still there.
        let presence = (policy.heal == Heal::Auto)
            .then(|| Instant::now() + self.services.presence.look_every());
        // Under an orchestrator's eyes nothing is begun, and looking for it is enough.
        let left = (policy.heal == Heal::Restart).then(|| self.left_unstarted(Instant::now()));
        let left = left.into_iter().flatten().map(|(_, due)| due);
        let waits = self.waiting.values().copied().chain(left);
        probes.map(Instant::from_std).chain(waits).chain(presence).min()
    }

    fn run_probe(&self, at: usize, kind: Kind, probe: Probe) {
        let container = &self.containers[at];
        let (id, executor) = (container.id.clone(), container.executor.clone());
        let target = self.probe_target();
        let began = Instant::now();
        self.spawn(async move {
            let outcome = match &probe.handler {
                Handler::Exec { command } => {
                    run_command(&id, &executor, command, probe.timeout).await
                }
                _ => match health::run(&probe, &target).await {
                    Ok(outcome) => Some(outcome),
                    Err(fault) => {
                        tracing::warn!(container = %id, %fault, "a probe could not be run and is dropped");
                        None
                    }
                },
            };
            Done::Probed(id, kind, outcome, began.elapsed())
        });
    }

    pub(super) fn probe_target(&self) -> Target {
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
    pub(super) fn probed(
        &mut self,
        id: &ContainerId,
        kind: Kind,
        outcome: Option<Outcome>,
        took: Duration,
    ) {
        let Some(at) = self.find(id) else { return };
        self.note_run(at, kind, outcome.as_ref().map(|outcome| outcome.success), took);
        let container = &mut self.containers[at];
        // What it came to while the container stood still is no fault of the container's.
        let outcome = outcome.filter(|_| !container.stands_still());
        let Some(prober) = &mut container.prober else { return };
        let (now, wall) = (Instant::now().into_std(), SystemTime::now());
        let Some(outcome) = outcome else { return prober.dropped(kind, now) };
        let (success, warning) = (outcome.success, outcome.warning);
        let output = outcome.output.trim().to_owned();
        let verdict = prober.observe(kind, outcome, now, wall);
        let reports = prober.report(now, wall);
        let Some(report) = reports.iter().find(|report| report.kind == kind) else { return };
        let (run, threshold) = (report.run, report.failure_threshold);
        let name = container.config.name.clone();
        let kind_name = kind.title();
        if warning {
            self.event(&name, "ProbeWarning", format!("{kind_name} probe warning: {output}"), true);
        } else if success {
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
        self.remember(at);
    }

    /// Tells whoever counts, and remembers it for people.
    fn note_run(&mut self, at: usize, kind: Kind, success: Option<bool>, took: Duration) {
        let container = self.containers[at].config.name.as_str();
        meter::record(&Measured::Probe {
            namespace: &self.config.namespace,
            pod: &self.config.name,
            container,
            kind: kind.title(),
            success,
            took,
        });
        // What comes in after the container has ended says nothing any more.
        if let Some(success) = success.filter(|_| self.containers[at].prober.is_some()) {
            let history = self.histories.entry(container.to_owned()).or_default();
            let at = nanos(SystemTime::now());
            Arc::make_mut(history).ran(Run { kind, at, success });
        }
    }

    /// A container that has failed, if it had, runs again: how long that took is told.
    pub(super) fn note_restart(&mut self, at: usize) {
        let config = &self.containers[at].config;
        let Some(failed) = self.failed.remove(&config.name) else { return };
        let ended = self.containers.iter().filter(|c| c.config.name == config.name);
        let ended = ended.filter_map(|c| match &c.record.state {
            State::Exited(ended) => Some((c.config.attempt, &ended.reason)),
            _ => None,
        });
        let Some((_, reason)) = ended.max_by_key(|(attempt, _)| *attempt) else { return };
        let (reason, took) = (reason.clone(), failed.elapsed());
        let by_haled = self.containers[at].record.made_by_healing;
        meter::record(&Measured::Healed { reason: &reason, took, by_haled });
        let history = self.histories.entry(config.name.clone()).or_default();
        let at = nanos(SystemTime::now());
        Arc::make_mut(history).restarted(Restart { at, reason, took });
    }

    /// Writes what the probes of a container have come to, if that has changed, for the next
    /// daemon. First verdicts at once; of one that flaps at most once a second, the last of it
    /// at the first run of a probe after that.
    fn remember(&mut self, at: usize) {
        let now = Instant::now();
        let container = &mut self.containers[at];
        let Some(prober) = &container.prober else { return };
        let early = |last: Instant| now.duration_since(last) < REMEMBER_PAUSE;
        if !prober.has_changed_since(&container.record.standings) {
            return;
        }
        let standings = prober.standings();
        let flaps = standings.len() == container.record.standings.len();
        if flaps && container.remembered_at.is_some_and(early) {
            return;
        }
        container.record.standings = standings;
        container.remembered_at = Some(now);
        self.save_container(at);
    }

    /// A probe's verdict is failure.
    fn act(&mut self, at: usize, verdict: &Verdict) {
        let reason = match verdict.kind {
            Kind::Readiness => return,
            Kind::Liveness => health::LIVENESS_KILL,
            Kind::Startup => health::STARTUP_KILL,
        };
        if self.mode() == Heal::Observe || self.containers[at].stopping.is_some() {
            return;
        }
        let grace = self.probe_grace(at, verdict.kind);
        let container = &mut self.containers[at];
        container.record.killed = Some((reason.to_owned(), verdict.message.clone()));
        // Together, whatever was written when: one without the other is half a verdict.
        container.record.standings =
            container.prober.as_ref().map(crate::health::Prober::standings).unwrap_or_default();
        let name = container.config.name.clone();
        self.failed.insert(name.clone(), Instant::now());
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
        let own = probe.and_then(|probe| probe.termination_grace);
        own.unwrap_or_else(|| self.pod_grace(at)).max(LEAST_GRACE)
    }

    /// How long the pod gives its containers to stop.
    pub(super) fn pod_grace(&self, at: usize) -> Duration {
        let seconds = self.containers[at].config.annotations.get(POD_GRACE);
        let seconds = seconds.and_then(|seconds| seconds.parse().ok());
        seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
    }
}

/// An exec probe: exit 0 passes, and nothing else does. `None`: it could not be run, as often as
/// it was tried, for haled is short of something.
async fn run_command(
    id: &ContainerId,
    executor: &Executor,
    command: &[String],
    limit: Duration,
) -> Option<Outcome> {
    let mut tries = 1;
    let ran = loop {
        match executor.run(command, Some(limit)).await {
            Err(fault) if fault.is_shortage() && tries == health::TRIES => {
                tracing::warn!(container = %id, %fault, "a probe could not be run and is dropped");
                return None;
            }
            Err(fault) if fault.is_shortage() => tokio::time::sleep(health::PAUSE).await,
            ran => break ran,
        }
        tries += 1;
    };
    Some(match ran {
        Ok(output) => {
            let mut text = output.stdout;
            text.extend(output.stderr);
            let mut text = Outcome::text(&text);
            if output.exit_code != 0 && text.trim().is_empty() {
                text = format!("command exited with {}", output.exit_code);
            }
            Outcome { success: output.exit_code == 0, warning: false, output: text }
        }
        Err(ContainerError::ExecTimeout { limit, .. }) => {
            Outcome::failed(format!("command timed out after {} s", limit.as_secs_f64()))
        }
        Err(error) => Outcome::failed(error.to_string()),
    })
}
