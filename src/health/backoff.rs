//! How long an ended container waits, and whether it is started again at all. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RestartPolicy;

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
    /// Restarts in a row.
    restarts: u32,
}

impl Backoff {
    /// The container ran for `run` and ended; how long after its end it may start.
    /// First at once, then `initial`, doubling to `max`.
    pub fn after_exit(&mut self, run: Duration, settings: &BackoffSettings) -> Duration {
        if run >= settings.reset {
            self.restarts = 0;
        }
        let before = self.restarts;
        self.restarts = before.saturating_add(1);
        match before {
            0 => Duration::ZERO,
            doubled => {
                let factor = 2u32.saturating_pow(doubled - 1);
                settings.initial.saturating_mul(factor).min(settings.max)
            }
        }
    }
}

impl RestartPolicy {
    /// Whether a container that ended so is started again. A probe's kill counts as failure.
    pub fn restarts(self, exit_code: i32, killed_by_probe: bool) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0 || killed_by_probe,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: BackoffSettings = BackoffSettings {
        initial: Duration::from_secs(10),
        max: Duration::from_mins(5),
        reset: Duration::from_mins(10),
    };

    #[test]
    fn first_at_once_then_doubling_to_five_minutes() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> =
            (0..9).map(|_| backoff.after_exit(SECOND, &SETTINGS).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(backoff.after_exit(600 * SECOND, &SETTINGS), Duration::ZERO);
        assert_eq!(backoff.after_exit(SECOND, &SETTINGS), 10 * SECOND);
    }

    #[test]
    fn a_probes_kill_is_a_failure_whatever_the_exit_code() {
        assert!(RestartPolicy::OnFailure.restarts(0, true));
        assert!(RestartPolicy::OnFailure.restarts(1, false));
        assert!(!RestartPolicy::OnFailure.restarts(0, false));
        assert!(RestartPolicy::Always.restarts(0, false));
        assert!(!RestartPolicy::Never.restarts(1, true));
    }

    proptest! {
        #[test]
        fn the_wait_grows_until_a_long_run(runs in prop::collection::vec(0u64..700, 1..200)) {
            let mut backoff = Backoff::default();
            let mut last = Duration::ZERO;
            for run in runs {
                let wait = backoff.after_exit(Duration::from_secs(run), &SETTINGS);
                prop_assert!(wait <= SETTINGS.max);
                let grown = if run >= 600 { wait.is_zero() } else { wait >= last };
                prop_assert!(grown);
                last = wait;
            }
        }
    }
}
