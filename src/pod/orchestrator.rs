//! Whether an orchestrator is there: judged by the CRI connections that stay and are used.
//!
//! A kubelet keeps its connection and calls every second; crictl connects, asks and leaves.
//! A kubelet that restarts loses its connection, and so does one whose haled restarts: neither
//! is gone at once (docs/decisions/0006).

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
    started: Instant,
    connections: Arc<Mutex<Connections>>,
}

#[derive(Debug)]
struct Connections {
    settings: Settings,
    next: u64,
    open: HashMap<u64, Connection>,
    /// When an orchestrator's connection that is closed by now was used last.
    left: Option<Instant>,
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
    /// `started`: the daemon's own start. An orchestrator is taken to be there until it has had
    /// the time to connect again and be known.
    pub fn new(settings: Settings, started: Instant) -> Self {
        let connections = Connections { settings, next: 0, open: HashMap::new(), left: None };
        Self { started, connections: Arc::new(Mutex::new(connections)) }
    }

    /// Other settings from now on.
    pub fn configure(&self, settings: Settings) {
        self.lock().settings = settings;
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
        let since = |then| now.saturating_duration_since(then);
        let connections = self.lock();
        let Settings { open_for, used_within } = connections.settings;
        since(self.started) < open_for + used_within
            || connections.left.is_some_and(|used| since(used) <= used_within)
            || connections.open.values().any(|connection| {
                since(connection.opened) >= open_for && since(connection.used) <= used_within
            })
    }

    /// How often it is worth looking: often against the time that a silence lasts.
    pub fn look_every(&self) -> Duration {
        self.lock().settings.used_within / 10
    }

    /// How long an orchestrator may leave something undone before it is taken to be gone.
    pub fn silence(&self) -> Duration {
        self.lock().settings.used_within
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
        let mut connections = self.presence.lock();
        let Some(closed) = connections.open.remove(&self.number) else { return };
        // What counts is from its opening to its last use, which needs no clock here.
        if closed.used.duration_since(closed.opened) >= connections.settings.open_for {
            connections.left = connections.left.max(Some(closed.used));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: Settings =
        Settings { open_for: Duration::from_secs(10), used_within: Duration::from_secs(20) };

    /// Of a daemon that has run for so long that its start says nothing, and the moment.
    fn long_running() -> (Presence, Instant) {
        let started = Instant::now();
        (Presence::new(SETTINGS, started), started + 1000 * SECOND)
    }

    #[test]
    fn a_connection_that_stays_and_is_used_is_an_orchestrator() {
        let (presence, start) = long_running();
        let kubelet = presence.open(start);
        assert!(!presence.there(start + 9 * SECOND), "too young");
        assert!(presence.there(start + 10 * SECOND));
        assert!(!presence.there(start + 21 * SECOND), "silent for too long");
        kubelet.used(start + 30 * SECOND);
        assert!(presence.there(start + 50 * SECOND));
        assert!(!presence.there(start + 51 * SECOND));
    }

    #[test]
    fn a_daemon_that_has_just_started_takes_one_to_be_there() {
        let started = Instant::now();
        let presence = Presence::new(SETTINGS, started);
        assert!(presence.there(started));
        assert!(presence.there(started + 29 * SECOND));
        assert!(!presence.there(started + 30 * SECOND));
        // One that connects only when used_within is over is known in time.
        let kubelet = presence.open(started + 20 * SECOND);
        assert!(presence.there(started + 30 * SECOND));
        drop(kubelet);
        assert!(!presence.there(started + 30 * SECOND), "it was never used for long");
    }

    #[test]
    fn one_that_closes_its_connection_is_there_for_a_while() {
        let (presence, start) = long_running();
        let kubelet = presence.open(start);
        let crictl = presence.open(start + 39 * SECOND);
        kubelet.used(start + 40 * SECOND);
        drop(kubelet);
        assert!(presence.there(start + 60 * SECOND));
        crictl.used(start + 41 * SECOND);
        drop(crictl);
        assert!(!presence.there(start + 61 * SECOND), "crictl's use counts for nothing");
        // Who comes back in time is there without a gap.
        let again = presence.open(start + 50 * SECOND);
        assert!((50..70).all(|second| presence.there(start + second * SECOND)));
        again.used(start + 70 * SECOND);
        assert!(presence.there(start + 90 * SECOND));
    }

    #[test]
    fn who_only_asks_is_no_orchestrator_afterwards() {
        let (presence, start) = long_running();
        for second in 0..60 {
            let crictl = presence.open(start + second * SECOND);
            crictl.used(start + (second + 1) * SECOND);
            drop(crictl);
            assert!(!presence.there(start + (second + 1) * SECOND));
        }
    }
}
