//! Values that take long to find out, as they were found the last time.
//!
//! Who asks gets the last value at once, and is told when it is time to find another. A value
//! is found again after [`REFRESH`], or after [`REST`] times as long as finding it took, so
//! that a huge layer costs a fixed share of a disk and no more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The age at which a value is found anew, when someone asks for it.
const REFRESH: Duration = Duration::from_secs(10);
/// The least share of time between two findings: 1 in 20 is spent finding.
const REST: u32 = 20;

/// The last value of each key.
#[derive(Debug)]
pub struct Lately<T> {
    entries: Mutex<HashMap<String, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    last: Option<(T, SystemTime)>,
    /// `None`: someone is finding it out.
    due: Option<Instant>,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<T: Clone> Lately<T> {
    /// The last value with the time it was found at.
    pub fn last(&self, key: &str) -> Option<(T, SystemTime)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key)?.last.clone()
    }

    /// Whether it is time to find it out. Who gets `true` does, and calls [`Lately::found`].
    pub fn is_due(&self, key: &str, now: Instant) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Entry { last: None, due: Some(now) };
        let entry = entries.entry(key.to_owned()).or_insert_with(fresh);
        entry.due.take_if(|due| *due <= now).is_some()
    }

    /// What was found between `began` and `now`; `None`: it could not be, the last one stays.
    pub fn found(&self, key: &str, value: Option<(T, SystemTime)>, began: Instant, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgotten meanwhile: it stays so.
        if let Some(entry) = entries.get_mut(key) {
            entry.last = value.or(entry.last.take());
            entry.due = Some(now + (now.saturating_duration_since(began) * REST).max(REFRESH));
        }
    }

    /// Forgets the keys that are gone.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_finds_it_out_and_the_rest_gets_the_last() {
        let lately = Lately::default();
        let (start, time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        assert!(lately.is_due("a", start));
        assert!(!lately.is_due("a", start), "it is being found out");
        assert_eq!(lately.last("a"), None);
        lately.found("a", Some((7, time)), start, start);
        assert_eq!(lately.last("a"), Some((7, time)));
        assert!(!lately.is_due("a", start + REFRESH / 2));
        assert!(lately.is_due("a", start + REFRESH));
        // It took 3 s and failed: the last value stays, and a minute passes.
        let end = start + REFRESH + Duration::from_secs(3);
        lately.found("a", None, start + REFRESH, end);
        assert_eq!(lately.last("a"), Some((7, time)));
        assert!(!lately.is_due("a", end + Duration::from_secs(59)));
        assert!(lately.is_due("a", end + Duration::from_mins(1)));
    }

    #[test]
    fn what_is_forgotten_while_it_is_found_out_stays_forgotten() {
        let lately = Lately::default();
        let now = Instant::now();
        assert!(lately.is_due("a", now));
        lately.retain(|_| false);
        lately.found("a", Some((1, SystemTime::UNIX_EPOCH)), now, now);
        assert_eq!(lately.last("a"), None);
    }
}
