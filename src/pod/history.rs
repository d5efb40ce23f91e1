//! What became of a container's probes and restarts lately, over all its attempts: what a
//! person looks at to see whether it flaps. In memory only: it begins with the daemon.

use std::collections::VecDeque;
use std::time::Duration;

use crate::health::Kind;

/// Results kept of each probe: ten minutes at the default period.
pub const RUNS_KEPT: usize = 60;
/// Restarts kept.
pub const RESTARTS_KEPT: usize = 20;

/// Of one container name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Oldest first, at most [`RUNS_KEPT`] of each kind.
    pub runs: VecDeque<Run>,
    /// Oldest first, at most [`RESTARTS_KEPT`].
    pub restarts: VecDeque<Restart>,
}

/// A probe was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub kind: Kind,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// What came of it, whatever the thresholds make of that.
    pub success: bool,
}

/// A container that had ended, or was condemned, runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// When the new process began; nanoseconds since the epoch.
    pub at: i64,
    /// How it had ended: `LivenessProbeFailed`, `Error`, …
    pub reason: String,
    /// From the failure that decided to the new process.
    pub took: Duration,
}

impl History {
    /// Adds a result; the oldest of its kind goes.
    pub(super) fn ran(&mut self, run: Run) {
        if self.runs.iter().filter(|other| other.kind == run.kind).count() >= RUNS_KEPT
            && let Some(oldest) = self.runs.iter().position(|other| other.kind == run.kind)
        {
            self.runs.remove(oldest);
        }
        self.runs.push_back(run);
    }

    /// Adds a restart; the oldest goes.
    pub(super) fn restarted(&mut self, restart: Restart) {
        if self.restarts.len() >= RESTARTS_KEPT {
            self.restarts.pop_front();
        }
        self.restarts.push_back(restart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_probe_drives_out_only_its_own_results() {
        let mut history = History::default();
        history.ran(Run { kind: Kind::Readiness, at: 0, success: true });
        for at in 1..=100 {
            history.ran(Run { kind: Kind::Liveness, at, success: at % 2 == 0 });
        }
        assert_eq!(history.runs.len(), RUNS_KEPT + 1);
        assert_eq!(history.runs[0].kind, Kind::Readiness);
        assert_eq!((history.runs[1].at, history.runs.back().unwrap().at), (41, 100));
        for at in 0..50 {
            history.restarted(Restart { at, reason: "Error".into(), took: Duration::ZERO });
        }
        assert_eq!(history.restarts.len(), RESTARTS_KEPT);
        assert_eq!(history.restarts[0].at, 30);
    }
}
