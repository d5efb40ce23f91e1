//! The driver's part for a container: it is stopped, or ends by itself.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::driver::Driver;
use super::heal::LEAST_GRACE;
use super::inbox::{Done, Reply};
use super::work::{Stopping, Work};
use super::{Error, hooks, plugins};
use crate::container::state::{Ended, State};
use crate::container::stop;
use crate::id::ContainerId;
use crate::monitor::wire::Exit;
use crate::sys::process;

/// After SIGKILL, until people are told that the container is still there.
const SLOW: Duration = Duration::from_secs(10);
/// After SIGKILL, until the callers are told that the container won't die.
const GIVE_UP: Duration = Duration::from_secs(30);

impl Driver {
    /// StopContainer by a client: it isn't restarted afterwards.
    pub(super) fn stop(&mut self, id: &ContainerId, grace: Duration, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Ok(())) };
        let container = &mut self.containers[at];
        container.record.stopped_by_client = true;
        let name = container.config.name.clone();
        if self.newest(&name) == Some(at) {
            self.waiting.remove(&name);
        }
        self.save_container(at);
        match self.containers[at].record.state {
            State::Running(_) | State::Starting => {
                self.begin_stop(at, grace);
                if let Some(stopping) = &mut self.containers[at].stopping {
                    stopping.waiters.push(reply);
                }
            }
            State::Created | State::Exited(_) => self.answers.add(reply, Ok(())),
        }
    }

    /// The preStop hook and the stop signal now, SIGKILL after `grace`; a stop that goes on
    /// already is only hurried. Without a grace there is only SIGKILL.
    pub(super) fn begin_stop(&mut self, at: usize, grace: Duration) {
        let runs = matches!(self.containers[at].record.state, State::Running(_));
        let hook = if runs && !grace.is_zero() && self.containers[at].stopping.is_none() {
            self.begin_pre_stop(at)
        } else {
            None
        };
        self.begin_end(at, grace, hook);
    }

    /// The same without the hook.
    pub(super) fn end_fast(&mut self, at: usize, grace: Duration) {
        self.begin_end(at, grace, None);
    }

    pub(super) fn begin_end(&mut self, at: usize, grace: Duration, hook: Option<hooks::Running>) {
        let container = &mut self.containers[at];
        if !matches!(container.record.state, State::Running(_) | State::Starting) {
            return;
        }
        let now = Instant::now();
        if let Some(stopping) = &mut container.stopping {
            return stopping.hurry(now, grace);
        }
        let waits = hook.is_some();
        container.stopping = Some(Stopping {
            kill_at: Some(kill_at(now, grace, waits)),
            hook,
            grace_end: now + grace,
            tell_at: None,
            give_up_at: None,
            waiters: Vec::new(),
        });
        if !waits && !grace.is_zero() {
            self.send_stop(at);
        }
    }

    pub(super) fn send_stop(&self, at: usize) {
        let signal = stop::signal_number(&self.containers[at].record.stop_signal);
        self.signal(at, signal.unwrap_or(Signal::SIGTERM as i32));
    }

    /// Sends a signal to a container's init, through its monitor or, where that is gone, to
    /// the process with the recorded identity.
    pub(super) fn signal(&self, at: usize, signal: i32) {
        let container = &self.containers[at];
        let State::Running(init) = container.record.state else { return };
        let (monitor, id) = (self.monitor.clone(), container.id.clone());
        tokio::spawn(async move {
            if let Err(error) = stop::signal(monitor.as_ref(), &id, init, signal).await {
                tracing::warn!(container = %id, signal, %error, "cannot signal the container");
            }
        });
    }

    /// What a stop's time asks for; removal where nothing is in its way.
    pub(super) fn advance_containers(&mut self) {
        let now = Instant::now();
        for at in 0..self.containers.len() {
            let running = matches!(self.containers[at].record.state, State::Running(_));
            if self.containers[at].remove.is_some() {
                self.begin_stop(at, Duration::ZERO);
                if matches!(self.containers[at].work, Work::None) && !running {
                    self.begin_remove(at);
                }
            }
            if running {
                self.advance_stop(at, now);
            }
        }
    }

    /// The end of the hook's time, SIGKILL where the grace is over, and word of one that
    /// doesn't die of it.
    fn advance_stop(&mut self, at: usize, now: Instant) {
        let id = self.containers[at].id.clone();
        let Some(stopping) = self.containers[at].stopping.as_mut() else { return };
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(stopping.kill_at) {
            stopping.kill_at = None;
            stopping.hook = None;
            stopping.tell_at = Some(now + SLOW);
            stopping.give_up_at = Some(now + GIVE_UP);
            self.signal(at, Signal::SIGKILL as i32);
        } else if is_due(stopping.hook_end()) {
            self.pre_stopped(&id, Some("not done within the grace".to_owned()));
        } else if is_due(stopping.tell_at) {
            stopping.tell_at = None;
            self.tell_of_life(at);
        } else if is_due(stopping.give_up_at) {
            stopping.give_up_at = None;
            let waiters: Vec<_> = stopping.waiters.drain(..).collect();
            let removers = self.containers[at].remove.as_mut().map(std::mem::take);
            let error = Arc::new(Error::WontDie(id));
            for reply in waiters.into_iter().chain(removers.into_iter().flatten()) {
                self.answers.add(reply, Err(error.clone()));
            }
            self.stop_failed(&error);
        }
    }

    /// SIGKILL hasn't ended it yet: an event by the kubelet's word, and a line in the log.
    fn tell_of_life(&self, at: usize) {
        let container = &self.containers[at];
        let State::Running(init) = container.record.state else { return };
        let pid = init.pid;
        let why = match process::state(pid) {
            Ok('D') => {
                let within = process::waits_in(pid).map(|place| format!(" ({place})"));
                let within = within.unwrap_or_default();
                format!(
                    "process {pid} waits in the kernel{within}, where no signal reaches it: for a \
                     disk or a network file system that doesn't answer, or it is frozen?"
                )
            }
            Ok(state) => format!("process {pid} is in state {state}"),
            Err(error) => format!("process {pid} can't be looked at: {error}"),
        };
        let message = format!("it is alive {} s after SIGKILL: {why}", SLOW.as_secs());
        tracing::warn!(container = %container.id, "{message}");
        self.event(&container.config.name, "FailedKillPod", message, true);
    }

    /// The monitor says that a container's init has ended.
    pub(super) fn exited(&mut self, at: usize, exit: Exit) {
        let container = &mut self.containers[at];
        match (&mut container.work, &container.record.state) {
            // The end came before the answer to the start.
            (Work::Starting { ended, .. }, _) => *ended = Some(exit),
            (_, State::Exited(_)) => {}
            _ => {
                let killed = container.record.killed.take();
                self.ended(at, Ended::from_exit(&exit, killed));
            }
        }
    }

    /// A container has ended, whoever says so.
    pub(super) fn ended(&mut self, at: usize, ended: Ended) {
        let container = &mut self.containers[at];
        container.executor.dismiss();
        container.prober = None;
        container.post_start = None;
        container.record.killed = None;
        container.record.standings.clear();
        let stopping = container.stopping.take();
        let name = container.config.name.clone();
        let message = format!("container ended with {}: {}", ended.code, ended.reason);
        let id = container.id.clone();
        container.record.state = State::Exited(ended.clone());
        if container.record.stopped_by_client {
            self.failed.remove(&name);
        } else {
            self.failed.entry(name.clone()).or_insert_with(Instant::now);
        }
        self.save_container(at);
        self.event(&name, "Exited", message, false);
        let waiters: Vec<_> = stopping.into_iter().flat_map(|stopping| stopping.waiters).collect();
        if self.services.nri.is_some() {
            let (services, pods) = (self.services.clone(), self.pods.clone());
            return self.spawn(async move {
                plugins::tell_of_end(&services, &pods, &id, ended).await;
                Done::EndTold(waiters)
            });
        }
        for reply in waiters {
            self.answers.add(reply, Ok(()));
        }
    }
}

impl Stopping {
    /// It is to be over sooner; what would be later changes nothing.
    fn hurry(&mut self, now: Instant, grace: Duration) {
        self.grace_end = self.grace_end.min(now + grace);
        let kill_at = kill_at(now, grace, self.hook.is_some());
        match self.kill_at {
            Some(at) => self.kill_at = Some(at.min(kill_at)),
            // It was given up, and someone asks again.
            None if self.give_up_at.is_none() => self.kill_at = Some(kill_at),
            None => {}
        }
    }
}

/// A hook may take the whole grace, and then the signal has its least. Without a grace there
/// is nothing to wait for.
fn kill_at(now: Instant, grace: Duration, hook: bool) -> Instant {
    if hook && !grace.is_zero() { now + grace + LEAST_GRACE } else { now + grace }
}
