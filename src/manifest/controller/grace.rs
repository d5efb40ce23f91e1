//! How long a pod's stop may take. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What a sidecar gets at least, however little of the pod's grace is left; as in Kubernetes.
const LEAST: Duration = Duration::from_secs(2);

/// A pod's grace, for all of its containers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grace {
    whole: Duration,
    /// `None`: no container has been stopped yet.
    until: Option<Instant>,
}

impl Grace {
    /// One that begins when the first container is stopped.
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, until: None }
    }

    /// One that has begun, with so much of it left.
    pub(super) fn begun(whole: Duration, left: Duration, now: Instant) -> Self {
        Self { whole, until: Some(now + left.min(whole)) }
    }

    pub(super) fn whole(&self) -> Duration {
        self.whole
    }

    /// What is left for the next container; begins it.
    pub(super) fn left(&mut self, now: Instant) -> Duration {
        let until = *self.until.get_or_insert(now + self.whole);
        let left = until.saturating_duration_since(now);
        if self.whole.is_zero() { Duration::ZERO } else { left.max(LEAST) }
    }

    /// From now on this at most. One that is longer than what is left changes nothing.
    pub(super) fn shorten(&mut self, whole: Duration, now: Instant) {
        let until = now + whole;
        // Without any there is no least either.
        if whole.is_zero() || self.until.is_none_or(|there| until < there) {
            self.whole = self.whole.min(whole);
            self.until = self.until.map(|there| there.min(until));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_sidecar_has_a_little_time_unless_there_is_none_at_all() {
        let now = Instant::now();
        let mut grace = Grace::new(10 * SECOND);
        assert_eq!(grace.left(now), 10 * SECOND);
        assert_eq!(grace.left(now + 4 * SECOND), 6 * SECOND);
        assert_eq!(grace.left(now + 30 * SECOND), LEAST);
        grace.shorten(Duration::ZERO, now + 30 * SECOND);
        assert_eq!(grace.left(now + 30 * SECOND), Duration::ZERO);
    }

    #[test]
    fn one_that_goes_on_after_a_restart_ends_when_it_would_have() {
        let now = Instant::now();
        let mut grace = Grace::begun(30 * SECOND, 7 * SECOND, now);
        assert_eq!(grace.left(now + 3 * SECOND), 4 * SECOND);
        assert_eq!(Grace::begun(Duration::ZERO, SECOND, now).left(now), Duration::ZERO);
    }

    proptest! {
        /// Whatever is asked, and whenever: never later than before, nor than what is asked.
        #[test]
        fn it_only_ever_gets_shorter(
            first in 0_u64..100,
            steps in proptest::collection::vec((0_u64..50, 0_u64..100), 0..10),
        ) {
            let mut now = Instant::now();
            let mut grace = Grace::new(secs(first));
            let mut end = now + grace.left(now).max(secs(first));
            for (later, asked) in steps {
                now += secs(later);
                grace.shorten(secs(asked), now);
                end = end.min(now + secs(asked));
                let left = grace.left(now);
                prop_assert!(left <= end.saturating_duration_since(now).max(LEAST));
                prop_assert!(asked > 0 || left.is_zero());
            }
        }
    }
}
