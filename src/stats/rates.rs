//! CPU use per second, from two readings.
//!
//! Someone reads every key each [`PERIOD`]; a question between two such readings is answered
//! from the last of them that is at least [`MIN_WINDOW`] old. So a rate is the mean of the
//! last 1 to 11 seconds, whoever asks and how often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two readings that are kept.
pub const PERIOD: Duration = Duration::from_secs(10);
/// A rate over less would be noise.
const MIN_WINDOW: Duration = Duration::from_secs(1);

/// The readings that rates come from, by key.
#[derive(Debug, Default)]
pub struct Rates {
    windows: Mutex<HashMap<String, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    before: Option<Point>,
    last: Point,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Instant,
    nanos: u64,
}

impl Rates {
    /// Takes a reading of nanoseconds and gives nanoseconds a second; `None`: not known yet.
    pub fn rate(&self, key: &str, now: Instant, nanos: u64) -> Option<u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let point = Point { at: now, nanos };
        let Some(window) = windows.get_mut(key) else {
            windows.insert(key.to_owned(), Window { before: None, last: point });
            return None;
        };
        // Backwards: something of what is counted is gone, so it begins anew.
        if nanos < window.last.nanos {
            *window = Window { before: None, last: point };
            return None;
        }
        let age = |point: &Point| now.saturating_duration_since(point.at);
        let old = [Some(window.last), window.before].into_iter().flatten();
        let base = old.into_iter().find(|point| age(point) >= MIN_WINDOW)?;
        if age(&window.last) >= PERIOD {
            *window = Window { before: Some(window.last), last: point };
        }
        let used = u128::from(nanos - base.nanos) * 1_000_000_000;
        u64::try_from(used / age(&base).as_nanos()).ok()
    }

    /// Forgets the keys that are gone.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let rates = Rates::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(rates.rate("a", after(0), 500), None);
        assert_eq!(rates.rate("a", after(900), 600), None, "too short");
        assert_eq!(rates.rate("a", after(2000), 1_000_000_500), Some(500_000_000));
        // The reading at 10 s is kept; just after it, the one before still serves.
        assert_eq!(rates.rate("a", after(10_000), 5_000_000_500), Some(500_000_000));
        assert_eq!(rates.rate("a", after(10_500), 5_250_000_500), Some(500_000_000));
        // And then that one: the idle seconds since then, not the busy ones before.
        assert_eq!(rates.rate("a", after(20_500), 5_250_000_500), Some(23_809_523));
        assert_eq!(rates.rate("a", after(22_500), 5_250_000_500), Some(0));
    }

    #[test]
    fn a_counter_that_goes_back_begins_anew_and_what_is_gone_is_forgotten() {
        let rates = Rates::default();
        let start = Instant::now();
        assert_eq!(rates.rate("a", start, 500), None);
        assert_eq!(rates.rate("a", start + PERIOD, 100), None);
        assert_eq!(rates.rate("a", start + 2 * PERIOD, 1100), Some(100));
        rates.retain(|key| key != "a");
        assert_eq!(rates.rate("a", start + 3 * PERIOD, 2100), None);
    }
}
