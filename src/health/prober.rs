//! The probes of one running container, as a pure state machine.
//!
//! It is handed the time and what probes gave, and says which to run when. Thresholds,
//! gating by the startup probe, and what ends probing are as the kubelet has them, since that
//! is what users know. No clock, no socket, no lock is here.

use std::time::{Duration, Instant, SystemTime};

use super::{Health, Kind, Outcome, Probe, Probes, Report, Standing, Verdict};

/// The probes of one running container.
///
/// Call `due` at or after `next_wake`, run what it gives, and hand each outcome to `observe`
/// or, where it could not be run, its kind to `dropped`. A probe is never in flight twice.
#[derive(Debug, Clone)]
pub struct Prober {
    workers: Vec<Worker>,
    /// Nothing is stopped by its verdicts, so probing goes on after a failing one.
    only_observed: bool,
    stopping: bool,
}

/// The result that counts, thresholds applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Unknown,
    Success,
    Failure,
}

#[derive(Debug, Clone)]
struct Worker {
    kind: Kind,
    probe: Probe,
    standing: Counts,
    /// Whether any verdict has been reached yet: before it, the standing is only assumed.
    judged: bool,
    /// Equal raw results in a row, and the last of them.
    run: u32,
    last: Option<Outcome>,
    last_run_at: Option<SystemTime>,
    last_change_at: Option<SystemTime>,
    in_flight: bool,
    next: Instant,
}

impl Prober {
    /// `started`: the container's start. `spread` in 0.0..1.0 puts the first run of each
    /// probe that far into its period (after a daemon's own start); `None`: at once.
    pub fn new(probes: &Probes, started: Instant, now: Instant, spread: Option<f64>) -> Self {
        let kinds = [
            (Kind::Startup, &probes.startup),
            (Kind::Liveness, &probes.liveness),
            (Kind::Readiness, &probes.readiness),
        ];
        let workers = kinds.into_iter().filter_map(|(kind, probe)| {
            let probe = probe.clone()?;
            let wait = spread.map_or(Duration::ZERO, |spread| probe.period.mul_f64(spread));
            let next = (started + probe.initial_delay).max(now + wait);
            let standing = match kind {
                Kind::Startup => Counts::Unknown,
                Kind::Liveness => Counts::Success,
                Kind::Readiness => Counts::Failure,
            };
            Some(Worker {
                kind,
                probe,
                standing,
                judged: false,
                run: 0,
                last: None,
                last_run_at: None,
                last_change_at: None,
                in_flight: false,
                next,
            })
        });
        Self { workers: workers.collect(), only_observed: false, stopping: false }
    }

    /// The same where nobody acts on the verdicts: a container that failed can be healthy again.
    pub fn only_observed(self, only_observed: bool) -> Self {
        Self { only_observed, ..self }
    }

    /// The same after the daemon was away, with what it had come to about this same run of the
    /// container. Raw results that had not reached a threshold are forgotten, so that being
    /// away never brings a verdict nearer. `condemned`: a failing liveness or startup probe has
    /// had the container condemned, which is being acted on; else such a verdict is reached
    /// anew, because nobody would act on it any more and the container would go unprobed.
    pub fn remembering(mut self, standings: &[Standing], condemned: bool) -> Self {
        let acted_on = condemned || self.only_observed;
        for standing in standings {
            let lost = !standing.success && standing.kind != Kind::Readiness && !acted_on;
            let of_kind = |worker: &&mut Worker| worker.kind == standing.kind;
            let Some(worker) = self.workers.iter_mut().find(of_kind).filter(|_| !lost) else {
                continue;
            };
            worker.standing = if standing.success { Counts::Success } else { Counts::Failure };
            worker.judged = true;
            worker.run = standing.run;
            worker.last.clone_from(&standing.last);
            worker.last_run_at = standing.last_run_at;
            worker.last_change_at = standing.last_change_at;
        }
        self
    }

    /// What each probe that has reached a verdict has come to.
    pub fn standings(&self) -> Vec<Standing> {
        let judged = self.workers.iter().filter(|worker| worker.judged);
        let standing = |worker: &Worker| Standing {
            kind: worker.kind,
            success: worker.standing == Counts::Success,
            run: worker.run,
            last: worker.last.clone(),
            last_run_at: worker.last_run_at,
            last_change_at: worker.last_change_at,
        };
        judged.map(standing).collect()
    }

    /// Whether what counts has changed since `standings` were taken.
    pub fn has_changed_since(&self, standings: &[Standing]) -> bool {
        let judged = self.workers.iter().filter(|worker| worker.judged);
        let now = judged.map(|worker| (worker.kind, worker.last_change_at));
        !now.eq(standings.iter().map(|standing| (standing.kind, standing.last_change_at)))
    }

    /// When `due` next has something, if ever.
    pub fn next_wake(&self) -> Option<Instant> {
        let runnable = self.workers.iter().filter(|worker| self.runs(worker));
        runnable.map(|worker| worker.next).min()
    }

    /// The probes to run now; each counts as in flight until `observe` or `dropped`.
    pub fn due(&mut self, now: Instant) -> Vec<(Kind, Probe)> {
        let due: Vec<Kind> = self
            .workers
            .iter()
            .filter(|worker| worker.next <= now && self.runs(worker))
            .map(|worker| worker.kind)
            .collect();
        let mut probes = Vec::new();
        for worker in self.workers.iter_mut().filter(|worker| due.contains(&worker.kind)) {
            worker.in_flight = true;
            // From the time it was due, so that periods don't drift; never in the past, so
            // that a daemon that slept doesn't probe in a burst.
            worker.next = (worker.next + worker.probe.period).max(now);
            probes.push((worker.kind, worker.probe.clone()));
        }
        probes
    }

    /// Takes a result; a verdict when the result that counts changed, and for each failing
    /// liveness or startup verdict exactly once.
    pub fn observe(
        &mut self,
        kind: Kind,
        outcome: Outcome,
        now: Instant,
        wall: SystemTime,
    ) -> Option<Verdict> {
        let ignored = self.condemned() || self.stopping && kind != Kind::Readiness;
        let worker = self.workers.iter_mut().find(|worker| worker.kind == kind)?;
        let verdict = worker.take(outcome, now, wall, ignored)?;
        if verdict.success && kind == Kind::Startup {
            // What it held back begins now, and not when it would have been due long ago.
            for held in self.workers.iter_mut().filter(|worker| worker.kind != Kind::Startup) {
                held.next = held.next.max(now);
            }
        }
        Some(verdict)
    }

    /// A run that could not be made through no fault of the container's: it counts for
    /// nothing.
    pub fn dropped(&mut self, kind: Kind, now: Instant) {
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.kind == kind) {
            worker.in_flight = false;
            worker.next = worker.next.max(now);
        }
    }

    /// The pod is being stopped: liveness and startup end, readiness goes on.
    pub fn stopping(&mut self) {
        self.stopping = true;
    }

    /// As a whole; `None`: the container has no probes.
    pub fn health(&self) -> Option<Health> {
        if self.workers.is_empty() {
            return None;
        }
        let standing = |kind| self.worker(kind).map(|worker| worker.standing);
        let judged = |kind| self.worker(kind).is_none_or(|worker| worker.judged);
        Some(if self.failed() {
            Health::Unhealthy
        } else if !self.has_started() || !judged(Kind::Liveness) {
            Health::Starting
        } else if standing(Kind::Readiness) == Some(Counts::Failure) {
            if judged(Kind::Readiness) { Health::NotReady } else { Health::Starting }
        } else {
            Health::Healthy
        })
    }

    /// In words, for CRI `message` of a running container: the last failing probe's output
    /// and count.
    pub fn message(&self) -> String {
        let failing = self.workers.iter().find_map(|worker| {
            let last = worker.last.as_ref().filter(|last| !last.success)?;
            Some(format!(
                "{} probe failed ({}/{}): {}",
                worker.kind.title(),
                worker.run,
                worker.probe.failure_threshold,
                last.output.trim()
            ))
        });
        failing.unwrap_or_default()
    }

    /// Ready in the CRI's and Kubernetes' sense: started, and readiness (if any) passes.
    pub fn ready(&self) -> bool {
        let readiness = self.worker(Kind::Readiness).map(|worker| worker.standing);
        self.has_started() && readiness.is_none_or(|standing| standing == Counts::Success)
    }

    /// Every probe. `now` and `wall` are the same moment.
    pub fn report(&self, now: Instant, wall: SystemTime) -> Vec<Report> {
        let report = |worker: &Worker| Report {
            result: match worker.standing {
                Counts::Unknown => "Unknown",
                Counts::Success => "Success",
                Counts::Failure => "Failure",
            }
            .to_owned(),
            run: worker.run,
            last: worker.last.clone(),
            last_run_at: worker.last_run_at,
            last_change_at: worker.last_change_at,
            next_run_at: self
                .runs(worker)
                .then(|| wall + worker.next.saturating_duration_since(now)),
            ..worker.probe.unknown(worker.kind)
        };
        self.workers.iter().map(report).collect()
    }

    /// Whether a probe is to be run at its time.
    fn runs(&self, worker: &Worker) -> bool {
        if worker.in_flight || self.condemned() {
            return false;
        }
        match worker.kind {
            Kind::Startup => worker.standing != Counts::Success && !self.stopping,
            Kind::Liveness => self.has_started() && !self.stopping,
            Kind::Readiness => self.has_started(),
        }
    }

    /// The verdict on liveness or startup is failure.
    fn failed(&self) -> bool {
        let failed =
            |worker: &Worker| worker.kind != Kind::Readiness && worker.standing == Counts::Failure;
        self.workers.iter().any(failed)
    }

    /// After such a verdict nothing is probed, nor counts: a new container comes.
    fn condemned(&self) -> bool {
        self.failed() && !self.only_observed
    }

    /// There is no startup probe, or it has passed.
    fn has_started(&self) -> bool {
        let startup = self.worker(Kind::Startup);
        startup.is_none_or(|worker| worker.standing == Counts::Success)
    }

    fn worker(&self, kind: Kind) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.kind == kind)
    }
}

impl Worker {
    fn take(
        &mut self,
        outcome: Outcome,
        now: Instant,
        wall: SystemTime,
        ignored: bool,
    ) -> Option<Verdict> {
        self.in_flight = false;
        self.next = self.next.max(now);
        let success = outcome.success;
        let same = self.last.as_ref().is_some_and(|last| last.success == success);
        self.run = if same { self.run.saturating_add(1) } else { 1 };
        self.last_run_at = Some(wall);
        let output = outcome.output.trim().to_owned();
        self.last = Some(outcome);
        let threshold =
            if success { self.probe.success_threshold } else { self.probe.failure_threshold };
        if ignored || self.run < threshold {
            return None;
        }
        let standing = if success { Counts::Success } else { Counts::Failure };
        let changed = self.standing != standing;
        let first = !std::mem::replace(&mut self.judged, true);
        if changed {
            self.standing = standing;
            self.last_change_at = Some(wall);
        } else if first {
            self.last_change_at = Some(wall);
            return None;
        }
        changed.then(|| Verdict { kind: self.kind, success, message: self.words(success, &output) })
    }

    fn words(&self, success: bool, output: &str) -> String {
        let (title, run) = (self.kind.title(), self.run);
        let times = if run == 1 { "once".to_owned() } else { format!("{run} times in a row") };
        if success {
            format!("{title} probe succeeded {times}")
        } else {
            format!("{title} probe failed {times}: {output}")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::Handler;

    const SECOND: Duration = Duration::from_secs(1);

    fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
        Probe {
            handler: Handler::Exec { command: vec!["true".into()] },
            initial_delay: Duration::ZERO,
            period: 10 * SECOND,
            timeout: SECOND,
            success_threshold,
            failure_threshold,
            termination_grace: None,
        }
    }

    fn outcome(success: bool) -> Outcome {
        Outcome { success, warning: false, output: "why".into() }
    }

    /// Runs what is due at `now` with one result for all.
    fn step(prober: &mut Prober, now: Instant, success: bool) -> Vec<Verdict> {
        let due = prober.due(now);
        let observe = |(kind, _)| prober.observe(kind, outcome(success), now, SystemTime::now());
        due.into_iter().filter_map(observe).collect()
    }

    #[test]
    fn liveness_fails_at_its_threshold_once_and_then_nothing_is_probed() {
        let probes = Probes { liveness: Some(probe(1, 3)), ..Probes::default() };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        assert_eq!(step(&mut prober, start, false), []);
        assert_eq!(step(&mut prober, start + 10 * SECOND, false), []);
        let verdicts = step(&mut prober, start + 20 * SECOND, false);
        assert_eq!(verdicts[0].message, "Liveness probe failed 3 times in a row: why");
        assert_eq!(prober.next_wake(), None);
        assert_eq!(prober.health(), Some(Health::Unhealthy));
    }

    #[test]
    fn a_startup_probe_holds_the_others_back_and_ends_with_its_verdict() {
        let probes = Probes {
            startup: Some(probe(1, 5)),
            liveness: Some(probe(1, 1)),
            readiness: Some(probe(1, 1)),
        };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        for tries in 0..4 {
            let now = start + tries * 10 * SECOND;
            assert_eq!(prober.clone().due(now).len(), 1);
            step(&mut prober, now, false);
            assert!(!prober.ready());
        }
        let now = start + 40 * SECOND;
        assert!(step(&mut prober, now, true)[0].success);
        let kinds: Vec<Kind> = prober.due(now).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Liveness, Kind::Readiness]);
    }

    #[test]
    fn what_is_only_observed_can_be_healthy_again() {
        use Health::{Healthy, Starting, Unhealthy};

        let probes =
            Probes { startup: Some(probe(1, 2)), liveness: Some(probe(1, 2)), ..Probes::default() };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None).only_observed(true);
        let mut verdicts = Vec::new();
        let mut healths = Vec::new();
        let results = [false, false, false, true, false, false, false, true];
        for (at, success) in results.into_iter().enumerate() {
            let now = start + at as u32 * 10 * SECOND;
            let step = step(&mut prober, now, success);
            verdicts.extend(step.into_iter().map(|verdict| (verdict.kind, verdict.success)));
            healths.push(prober.health().unwrap());
        }
        let (startup, liveness) = (Kind::Startup, Kind::Liveness);
        assert_eq!(
            verdicts,
            [(startup, false), (startup, true), (liveness, false), (liveness, true)]
        );
        assert_eq!(
            healths,
            [Starting, Unhealthy, Unhealthy, Starting, Starting, Unhealthy, Unhealthy, Healthy]
        );
    }

    #[test]
    fn the_initial_delay_counts_from_the_start_and_the_spread_from_now() {
        let delayed = Probe { initial_delay: 30 * SECOND, ..probe(1, 1) };
        let probes = Probes { liveness: Some(delayed), ..Probes::default() };
        let start = Instant::now();
        let prober = Prober::new(&probes, start, start, None);
        assert_eq!(prober.next_wake(), Some(start + 30 * SECOND));
        let now = start + 100 * SECOND;
        let prober = Prober::new(&probes, start, now, Some(0.5));
        assert_eq!(prober.next_wake(), Some(now + 5 * SECOND));
    }

    #[test]
    fn a_stopping_pod_is_only_asked_for_readiness() {
        let probes = Probes {
            liveness: Some(probe(1, 1)),
            readiness: Some(probe(1, 1)),
            ..Probes::default()
        };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        let in_flight = prober.due(start);
        assert_eq!(in_flight.len(), 2);
        prober.stopping();
        let wall = SystemTime::now();
        assert_eq!(prober.observe(Kind::Liveness, outcome(false), start, wall), None);
        prober.observe(Kind::Readiness, outcome(true), start, wall);
        let kinds: Vec<Kind> =
            prober.due(start + 10 * SECOND).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Readiness]);
    }

    #[test]
    fn a_dropped_run_counts_for_nothing() {
        let probes = Probes { liveness: Some(probe(1, 1)), ..Probes::default() };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        assert_eq!(prober.due(start).len(), 1);
        assert_eq!(prober.due(start + 10 * SECOND), [], "never in flight twice");
        prober.dropped(Kind::Liveness, start + SECOND);
        assert_eq!(prober.health(), Some(Health::Starting));
        assert_eq!(prober.next_wake(), Some(start + 10 * SECOND));
    }

    #[test]
    fn a_day_of_probing() {
        let probes = Probes {
            liveness: Some(probe(1, 3)),
            readiness: Some(probe(2, 2)),
            ..Probes::default()
        };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        let (mut runs, end) = (0, start + 24 * 3600 * SECOND);
        while let Some(now) = prober.next_wake().filter(|wake| *wake < end) {
            let due = prober.due(now);
            runs += due.len();
            for (kind, _) in due {
                // Every fifth readiness run fails, which never makes two in a row.
                let success = kind == Kind::Liveness || runs % 5 != 0;
                prober.observe(kind, outcome(success), now + SECOND, SystemTime::now());
            }
        }
        assert_eq!(runs, 2 * 8640);
        assert_eq!(prober.health(), Some(Health::Healthy));
    }

    /// Everything that counts outlives the daemon; what had only begun doesn't.
    #[test]
    fn a_remembered_standing_goes_on_where_it_was() {
        let probes = Probes {
            startup: Some(probe(1, 30)),
            liveness: Some(probe(1, 3)),
            readiness: Some(probe(2, 2)),
        };
        let start = Instant::now();
        let mut prober = Prober::new(&probes, start, start, None);
        assert_eq!(prober.standings(), []);
        step(&mut prober, start, true);
        for at in 0..2 {
            step(&mut prober, start + at * 10 * SECOND, true);
        }
        assert_eq!(prober.health(), Some(Health::Healthy));
        assert!(prober.has_changed_since(&[]));
        let standings = prober.standings();
        step(&mut prober, start + 20 * SECOND, false);
        assert!(!prober.has_changed_since(&standings), "no threshold was reached");

        let now = start + 1000 * SECOND;
        let fresh = || Prober::new(&probes, start, now, Some(0.0));
        let mut next = fresh().remembering(&standings, false);
        assert_eq!(next.health(), Some(Health::Healthy));
        assert!(next.ready());
        assert_eq!(next.standings(), standings);
        for at in 0..3 {
            let verdicts = step(&mut next, now + at * 10 * SECOND, false);
            let kinds: Vec<Kind> = verdicts.into_iter().map(|verdict| verdict.kind).collect();
            let expected: [&[Kind]; 3] = [&[], &[Kind::Readiness], &[Kind::Liveness]];
            assert_eq!(kinds, expected[at as usize], "run {at}");
        }

        let standings = next.standings();
        let condemned = fresh().remembering(&standings, true);
        assert_eq!((condemned.health(), condemned.next_wake()), (Some(Health::Unhealthy), None));
        let observed = fresh().only_observed(true).remembering(&standings, false);
        assert_eq!((observed.health(), observed.next_wake()), (Some(Health::Unhealthy), Some(now)));
        let unacted = fresh().remembering(&standings, false);
        assert_eq!((unacted.health(), unacted.next_wake()), (Some(Health::Starting), Some(now)));
        assert!(!unacted.ready(), "its readiness fails on");
    }

    proptest! {
        /// Against the plainest model there is: look back over the raw results.
        #[test]
        fn readiness_is_what_the_last_results_say(
            results in prop::collection::vec(any::<bool>(), 0..60),
            success_threshold in 1u32..4,
            failure_threshold in 1u32..4,
        ) {
            let probes = Probes {
                readiness: Some(probe(success_threshold, failure_threshold)),
                ..Probes::default()
            };
            let start = Instant::now();
            let mut prober = Prober::new(&probes, start, start, None);
            let mut ready = false;
            for (at, success) in results.iter().enumerate() {
                let now = prober.next_wake().unwrap();
                let verdicts = step(&mut prober, now, *success);
                let threshold = if *success { success_threshold } else { failure_threshold };
                let run = results[..=at].iter().rev().take_while(|r| *r == success).count();
                let before = ready;
                if run >= threshold as usize {
                    ready = *success;
                }
                prop_assert_eq!(prober.ready(), ready);
                prop_assert_eq!(verdicts.len(), usize::from(before != ready));
            }
        }

        /// Whatever is thrown at it: never in flight twice, never after its verdict, and the
        /// verdict of a liveness probe comes with the first full run of failures.
        #[test]
        fn liveness_is_condemned_by_the_first_full_run_of_failures(
            results in prop::collection::vec(any::<bool>(), 0..60),
            failure_threshold in 1u32..5,
            late in 0u64..30,
        ) {
            let probes = Probes {
                liveness: Some(probe(1, failure_threshold)),
                ..Probes::default()
            };
            let start = Instant::now();
            let mut prober = Prober::new(&probes, start, start, None);
            let mut failures = 0;
            for success in results {
                let Some(now) = prober.next_wake() else { break };
                let now = now + Duration::from_secs(late);
                prop_assert_eq!(prober.due(now).len(), 1);
                prop_assert_eq!(prober.due(now + 100 * SECOND).len(), 0);
                let verdict = prober.observe(Kind::Liveness, outcome(success), now, SystemTime::now());
                failures = if success { 0 } else { failures + 1 };
                prop_assert_eq!(verdict.is_some(), failures == failure_threshold);
                prop_assert_eq!(prober.next_wake().is_none(), failures == failure_threshold);
            }
        }
    }
}
