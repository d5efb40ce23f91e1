//! Where a container stands.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The life of a container.
///
/// ```text
///  create ──▶ Created ──start──▶ Starting ──▶ Running ──▶ Exited ──remove──▶ (gone)
///                │                   │                      ▲  ▲
///                │                   └── could not start ───┘  │
///                └───────── its pod stopped ──────────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The root file system and the bundle are there.
    Created,
    /// The monitor has been asked; no answer yet.
    Starting,
    /// Its init lives.
    Running(Init),
    /// Its init is gone, for good.
    Exited(Ended),
}

/// The first process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// In the host's PID namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start: the pid's identity (proc(5)).
    pub start_ticks: u64,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit code; 128 + signal for one that was killed.
    pub code: i32,
    /// Nanoseconds since the epoch; 0: it never ran.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// `Completed`, `Error`, `OOMKilled`, `LivenessProbeFailed`, …: one word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Exit code of a container whose end nobody saw.
pub const UNKNOWN_EXIT_CODE: i32 = 255;
/// Exit code of a container that the OCI runtime could not start, as other runtimes have it.
pub const START_FAILED_EXIT_CODE: i32 = 128;

impl Ended {
    /// From the monitor's record; `killed` says why haled itself stopped it.
    pub fn from_exit(exit: &crate::monitor::wire::Exit, killed: Option<(String, String)>) -> Self {
        let (reason, message) = match killed {
            Some(why) => why,
            None if exit.oom_killed => ("OOMKilled".to_owned(), String::new()),
            None if exit.code == 0 => ("Completed".to_owned(), String::new()),
            None => ("Error".to_owned(), String::new()),
        };
        Self {
            code: exit.code,
            started_at: exit.started_at,
            finished_at: exit.finished_at,
            reason,
            message,
        }
    }

    /// One whose end nobody saw: its monitor or the machine went away.
    pub fn unseen(started_at: i64, now: SystemTime, reason: &str, message: &str) -> Self {
        Self {
            code: UNKNOWN_EXIT_CODE,
            started_at,
            finished_at: nanos(now),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    /// One that the OCI runtime could not start.
    pub fn start_failed(now: SystemTime, message: String) -> Self {
        Self {
            code: START_FAILED_EXIT_CODE,
            started_at: 0,
            finished_at: nanos(now),
            reason: "StartError".to_owned(),
            message,
        }
    }
}

/// Nanoseconds since the epoch, as the CRI counts time.
pub fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::wire::Exit;

    #[test]
    fn the_reason_is_one_word_and_a_probes_kill_goes_first() {
        let exit = |code, oom_killed| Exit { code, oom_killed, ..Exit::default() };
        assert_eq!(Ended::from_exit(&exit(0, false), None).reason, "Completed");
        assert_eq!(Ended::from_exit(&exit(1, false), None).reason, "Error");
        assert_eq!(Ended::from_exit(&exit(137, true), None).reason, "OOMKilled");
        let killed = Some(("LivenessProbeFailed".to_owned(), "why".to_owned()));
        let ended = Ended::from_exit(&exit(137, true), killed);
        assert_eq!((ended.reason.as_str(), ended.message.as_str()), ("LivenessProbeFailed", "why"));
    }
}
