//! Reaps every child, and remembers those nobody knows yet while a runtime is starting one.

use std::collections::VecDeque;

use crate::sys::process::start_ticks;
use crate::sys::wait::{self, Ended};

use super::complaint::complain;

/// The most unknown children that are remembered. While a container starts, its init is
/// unknown until its runtime has ended; of what else ends then, the oldest is forgotten.
const MAX_STRANGERS: usize = 1024;

/// A child that was reaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    pub(super) pid: i32,
    /// 0 where it could not be read.
    pub(super) start_ticks: u64,
    pub(super) ended: Ended,
    /// Nanoseconds since the epoch.
    pub(super) at: i64,
}

/// The unknown children remembered.
#[derive(Debug, Default)]
pub(super) struct Strangers(VecDeque<Reaped>);

impl Strangers {
    pub(super) fn remember(&mut self, reaped: Reaped) {
        if self.0.len() == MAX_STRANGERS {
            self.0.pop_front();
        }
        self.0.push_back(reaped);
    }

    /// The latest with this number: an earlier one can only have been another process.
    pub(super) fn take(&mut self, pid: i32) -> Option<Reaped> {
        let index = self.0.iter().rposition(|reaped| reaped.pid == pid)?;
        self.0.remove(index)
    }

    /// Nothing is starting any more.
    pub(super) fn forget_all(&mut self) {
        self.0 = VecDeque::new();
    }
}

/// Reaps the next child that has ended; `None`: there is none.
pub(super) fn next() -> Option<Reaped> {
    loop {
        let pid = match wait::peek() {
            Ok(pid) => pid?,
            Err(error) => {
                complain(format_args!("cannot wait for children: {error}"));
                return None;
            }
        };
        // Readable only as long as it has not been reaped.
        let start_ticks = start_ticks(pid).unwrap_or(0);
        let at = now();
        match wait::reap(pid) {
            Ok(Some(ended)) => return Some(Reaped { pid, start_ticks, ended, at }),
            Ok(None) => {}
            Err(error) => {
                complain(format_args!("cannot reap process {pid}: {error}"));
                return None;
            }
        }
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(pid: i32, at: i64) -> Reaped {
        Reaped { pid, start_ticks: 1, ended: Ended { code: 0, signal: 0 }, at }
    }

    #[test]
    fn the_latest_of_a_number_is_meant_and_the_oldest_are_dropped() {
        let mut strangers = Strangers::default();
        strangers.remember(stranger(7, 1));
        strangers.remember(stranger(7, 2));
        assert_eq!(strangers.take(7).unwrap().at, 2);
        assert!(strangers.take(8).is_none());
        for at in 0..MAX_STRANGERS {
            strangers.remember(stranger(9, at as i64));
        }
        assert!(strangers.take(7).is_none());
        assert_eq!(strangers.0.len(), MAX_STRANGERS);
        strangers.forget_all();
        assert!(strangers.take(9).is_none());
    }
}
