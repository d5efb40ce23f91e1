//! Ten thousand probers on a clock of their own: what the node's densest day would show.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant, SystemTime};

use super::prober::Prober;
use super::{Handler, Health, Kind, Outcome, Probe, Probes};

const PROBERS: usize = 10_000;
/// As long as the slowest probers need for many rounds.
const HOURS: u64 = 2;
/// The probes' failureThreshold.
const FAILURES: u32 = 3;
/// What a node's pods ask for, in seconds: from the busiest to the default and slower.
const PERIODS: [u64; 4] = [10, 30, 60, 120];

/// One container: what its server does, and what was seen of it.
struct Subject {
    prober: Prober,
    period: Duration,
    /// Since which moment it fails, if ever.
    breaks_at: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    runs: u32,
    /// The moment at which each verdict of failure was reached.
    verdicts: Vec<Instant>,
}

impl Subject {
    /// `spread`: as the daemon has it after its own start.
    fn new(number: usize, start: Instant, spread: f64) -> Self {
        let period = Duration::from_secs(PERIODS[number % PERIODS.len()]);
        let probe = Probe {
            handler: Handler::TcpSocket { port: 80, host: None },
            initial_delay: Duration::ZERO,
            period,
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: FAILURES,
            termination_grace: None,
        };
        let probes = Probes { liveness: Some(probe), ..Probes::default() };
        // Every tenth breaks, somewhere in the middle.
        let breaks = (number % 10 == 3)
            .then(|| start + Duration::from_mins(30) + Duration::from_millis(number as u64 * 17));
        Self {
            prober: Prober::new(&probes, start, start, Some(spread)),
            period,
            breaks_at: breaks,
            first: None,
            last: None,
            runs: 0,
            verdicts: Vec::new(),
        }
    }

    /// Runs what is due at `now`; it takes up to 900 ms until the result is there.
    fn run(&mut self, now: Instant, wall: SystemTime) {
        for (kind, _) in self.prober.due(now) {
            assert_eq!(kind, Kind::Liveness);
            if let Some(last) = self.last {
                assert_eq!(now - last, self.period, "the cadence drifts");
            }
            self.first.get_or_insert(now);
            self.last = Some(now);
            self.runs += 1;
            assert_eq!(self.prober.next_wake(), None, "in flight twice");
            let took = Duration::from_millis(u64::from(self.runs) * 37 % 900);
            let success = self.breaks_at.is_none_or(|at| now < at);
            let output = if success { "" } else { "refused" };
            let outcome = Outcome { success, warning: false, output: output.to_owned() };
            if let Some(verdict) = self.prober.observe(kind, outcome, now + took, wall + took) {
                assert!(!verdict.success, "liveness is taken to succeed from the start");
                self.verdicts.push(now);
            }
        }
    }
}

#[test]
fn ten_thousand_probers_keep_their_cadence_for_hours() {
    let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
    let end = start + Duration::from_secs(HOURS * 3600);
    // The golden ratio's multiples are as even as random numbers would be, and the same each time.
    let spread = |number: usize| (number as f64 * 0.618_033_988_749_895).fract();
    let mut subjects: Vec<Subject> =
        (0..PROBERS).map(|number| Subject::new(number, start, spread(number))).collect();
    let wake = |at: usize, subject: &Subject| Some(Reverse((subject.prober.next_wake()?, at)));
    let mut wakes: BinaryHeap<_> =
        subjects.iter().enumerate().filter_map(|(at, subject)| wake(at, subject)).collect();
    let mut a_second = vec![0_u32; usize::try_from(HOURS * 3600).unwrap()];
    while let Some(Reverse((now, at))) = wakes.pop() {
        if now >= end {
            continue;
        }
        subjects[at].run(now, wall + (now - start));
        a_second[usize::try_from((now - start).as_secs()).unwrap()] += 1;
        wakes.extend(wake(at, &subjects[at]));
    }

    for (number, subject) in subjects.iter().enumerate() {
        let first = subject.first.unwrap();
        assert!(first - start < subject.period, "prober {number} begins too late");
        let Some(breaks) = subject.breaks_at else {
            let whole = (end - first).as_nanos().div_ceil(subject.period.as_nanos());
            assert_eq!(u128::from(subject.runs), whole, "prober {number}");
            assert_eq!(subject.prober.health(), Some(Health::Healthy));
            assert!(subject.verdicts.is_empty());
            continue;
        };
        // Its first failing run comes within a period, and its verdict two periods later.
        let [verdict] = subject.verdicts[..] else { panic!("prober {number} has not one verdict") };
        let failing = verdict.checked_sub(subject.period * (FAILURES - 1)).unwrap();
        assert!((breaks..breaks + subject.period).contains(&failing), "prober {number}");
        assert_eq!(subject.last, Some(verdict), "prober {number} is probed after its verdict");
        assert_eq!(subject.prober.health(), Some(Health::Unhealthy));
    }
    // After the start no second has more than its share by much, nor has the last hour: the
    // spread neither starts with a burst nor closes up.
    let mean = |seconds: &[u32]| f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64;
    for seconds in [&a_second[..120], &a_second[a_second.len() - 3600..]] {
        let most = f64::from(*seconds.iter().max().unwrap());
        assert!(most < 1.25 * mean(seconds), "{most} in a second, {} on average", mean(seconds));
    }
}
