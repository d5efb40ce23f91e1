//! Whether an orchestrator is there: judged by the CRI connections that stay and are used.
//!
//! A kubelet keeps its connection and calls every second; crictl connects, asks and leaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When a connection counts as an orchestrator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Open for at least this long: 10 s.
    pub open_for: Duration,
    /// Used within this time: 20 s.
    pub used_within: Duration,
}

/// The CRI connections of this moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Presence {
    settings: Settings,
    connections: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    opened: Instant,
    used: Instant,
}

/// One connection; its drop is its end.
#[derive(Debug)]
pub struct Open {
    presence: Presence,
    number: u64,
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, connections: Arc::default() }
    }

    /// A connection was opened.
    pub fn open(&self, now: Instant) -> Open {
        let mut connections = self.lock();
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, Connection { opened: now, used: now });
        Open { presence: self.clone(), number }
    }

    /// Whether an orchestrator is there.
    pub fn there(&self, now: Instant) -> bool {
        self.lock().open.values().any(|connection| {
            now.saturating_duration_since(connection.opened) >= self.settings.open_for
                && now.saturating_duration_since(connection.used) <= self.settings.used_within
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// A call came through it.
    pub fn used(&self, now: Instant) {
        if let Some(connection) = self.presence.lock().open.get_mut(&self.number) {
            connection.used = now;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.presence.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_stays_and_is_used_is_an_orchestrator() {
        let second = Duration::from_secs(1);
        let presence = Presence::new(Settings { open_for: 10 * second, used_within: 20 * second });
        let start = Instant::now();
        let kubelet = presence.open(start);
        assert!(!presence.there(start + 9 * second), "too young");
        assert!(presence.there(start + 10 * second));
        assert!(!presence.there(start + 21 * second), "silent for too long");
        kubelet.used(start + 30 * second);
        assert!(presence.there(start + 50 * second));
        drop(kubelet);
        assert!(!presence.there(start + 50 * second));
    }
}
