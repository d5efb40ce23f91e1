//! The driver's part for the sandbox: it is made, stopped and deleted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::record::{Origin, Phase, SandboxRecord};
use super::sandbox::{self, Up};
use super::work::Container;
use super::{Error, plugins};
use crate::id::SandboxId;

/// Between tries to take a sandbox down, growing to the second.
const TAKE_DOWN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What goes on with a sandbox, and who waits for it.
#[derive(Default)]
pub(super) struct Course {
    pub(super) await_ready: Vec<Reply<SandboxId>>,
    pub(super) await_stopped: Vec<Reply<()>>,
    pub(super) await_removed: Vec<Reply<()>>,
    /// Why it could not be made, until what was made of it has been undone.
    pub(super) start_failed: Option<Arc<Error>>,
    /// The task that makes it has not reported yet.
    pub(super) making: bool,
    /// It ended while its network was still being made.
    pub(super) lost_early: Option<&'static str>,
    /// Of the call that has it stopped.
    stop_cause: Option<Span>,
    pub(super) taking_down: bool,
    /// When it is tried again, and how long that waits.
    pub(super) take_down_retry: Option<(Instant, Duration)>,
    pub(super) deletion: Deletion,
}

/// How far a stopped pod is from being forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Deletion {
    #[default]
    Unwanted,
    Wanted,
    Running,
    Done,
}

impl Driver {
    pub(super) fn begin_sandbox(&mut self) {
        self.course.making = true;
        let (services, id) = (self.services.clone(), self.id.clone());
        let (config, notices) = (self.config.clone(), self.notices_sender.clone());
        let handler = self.runtime.name.clone();
        self.spawn(async move {
            let up = match sandbox::start(&services, &id, &config, notices).await {
                Ok(up) => plugins::tell_of_pod(&services, &id, &config, &handler, up).await,
                Err(error) => Err(error),
            };
            Done::Up(up)
        });
    }

    pub(super) fn up(&mut self, result: std::result::Result<Up, Error>) {
        self.course.making = false;
        match result {
            Ok(up) => {
                self.monitor = Some(up.monitor);
                if let Phase::Stopping { network, .. } = &mut self.record.phase {
                    // Asked to stop while it was being made.
                    *network = up.network;
                } else {
                    self.record.phase =
                        Phase::Ready { pause_pid: up.pause.pid, network: up.network };
                    for reply in self.course.await_ready.drain(..) {
                        self.answers.add(reply, Ok(self.id.clone()));
                    }
                }
                self.event("", "SandboxReady", String::new(), false);
                if let Some(why) = self.course.lost_early.take() {
                    self.lost(why);
                }
            }
            Err(error) => {
                self.event("", "FailedSandbox", error.to_string(), true);
                self.course.start_failed = Some(Arc::new(error));
                self.record.phase = Phase::Stopping { network: None, then_remove: true };
            }
        }
        self.save();
    }

    /// Tells those who wait for the sandbox that it won't be.
    pub(super) fn fail_ready(&mut self, error: Option<Arc<Error>>) {
        let error = error.unwrap_or_else(|| self.not_ready());
        for reply in self.course.await_ready.drain(..) {
            self.answers.add(reply, Err(error.clone()));
        }
    }

    /// The sandbox is to be stopped, and then perhaps removed.
    pub(super) fn want_down(&mut self, remove: bool) {
        let network = match std::mem::replace(&mut self.record.phase, Phase::Stopped) {
            Phase::Stopped => return,
            Phase::Stopping { network, then_remove } => {
                self.record.phase = Phase::Stopping { network, then_remove: then_remove || remove };
                // A caller is waiting: try now.
                self.course.take_down_retry = None;
                return self.save();
            }
            Phase::Ready { network, .. } | Phase::Lost { network, .. } => network,
            Phase::Starting => None,
        };
        self.record.phase = Phase::Stopping { network, then_remove: remove };
        self.course.stop_cause = Some(Span::current());
        self.waiting.clear();
        for container in &mut self.containers {
            if let Some(prober) = &mut container.prober {
                prober.stopping();
            }
        }
        self.save();
    }

    pub(super) fn advance_stopping(&mut self, network: Option<&crate::network::Attached>) {
        for at in 0..self.containers.len() {
            self.begin_stop(at, Duration::ZERO);
        }
        let due = self.course.take_down_retry.is_none_or(|(at, _)| at <= Instant::now());
        if self.course.making
            || self.course.taking_down
            || !due
            || !self.containers.iter().all(Container::is_quiet)
        {
            return;
        }
        self.course.taking_down = true;
        // What has the containers ended is no call's; what comes after is the stop's.
        let cause = self.course.stop_cause.clone().unwrap_or_else(Span::none);
        let _stopping = cause.enter();
        let (services, id, config) = (self.services.clone(), self.id.clone(), self.config.clone());
        let (monitor, network) = (self.monitor.clone(), network.cloned());
        let pods = self.pods.clone();
        self.spawn(async move {
            plugins::tell_of_pods_stop(&services, &pods, &id).await;
            let (monitor, network) = (monitor.as_ref(), network.as_ref());
            Done::TakenDown(sandbox::take_down(&services, &id, &config, monitor, network).await)
        });
    }

    pub(super) fn taken_down(&mut self, result: std::result::Result<(), Error>) {
        self.course.taking_down = false;
        self.course.stop_cause = None;
        let error = self.course.start_failed.take();
        if error.is_some() {
            self.pods.release_name(&self.config, &self.id);
        }
        let remove = matches!(self.record.phase, Phase::Stopping { then_remove: true, .. });
        if result.is_ok() && remove && error.is_some() {
            // Told when the pod is gone: whoever hears of the failure finds nothing of it.
            self.course.start_failed = error;
        } else {
            self.fail_ready(error);
        }
        match result {
            Ok(()) => {
                self.record.phase = Phase::Stopped;
                self.monitor = None;
                if remove {
                    self.course.deletion = Deletion::Wanted;
                }
                self.save();
                for reply in self.course.await_stopped.drain(..) {
                    self.answers.add(reply, Ok(()));
                }
            }
            Err(error) => {
                let (first, longest) = TAKE_DOWN_RETRY;
                let wait =
                    self.course.take_down_retry.map_or(first, |(_, wait)| (wait * 2).min(longest));
                self.course.take_down_retry = Some((Instant::now() + wait, wait));
                tracing::error!(sandbox = %self.id, %error, retry_in = ?wait, "cannot take the sandbox down");
                self.stop_failed(&Arc::new(error));
            }
        }
    }

    /// The sandbox can't be stopped now; its stop goes on, but nobody waits for it.
    pub(super) fn stop_failed(&mut self, error: &Arc<Error>) {
        for reply in self.course.await_stopped.drain(..).chain(self.course.await_removed.drain(..))
        {
            self.answers.add(reply, Err(error.clone()));
        }
    }

    pub(super) fn advance_deletion(&mut self) {
        if self.course.deletion == Deletion::Unwanted && !self.course.await_removed.is_empty() {
            self.course.deletion = Deletion::Wanted;
        }
        if self.course.deletion != Deletion::Wanted {
            return;
        }
        for container in &mut self.containers {
            container.remove.get_or_insert_default();
        }
        self.advance_containers();
        if self.containers.is_empty() {
            self.course.deletion = Deletion::Running;
            let dir = self.dir.clone();
            let (services, id) = (self.services.clone(), self.id.clone());
            self.spawn(async move {
                plugins::tell_of_pods_removal(&services, &id).await;
                Done::Deleted(sandbox::delete_directory(dir).await)
            });
        }
    }

    pub(super) fn deleted(&mut self, result: std::result::Result<(), Error>) {
        let failure = self.course.start_failed.take();
        self.fail_ready(failure);
        let result = result.and_then(|()| {
            self.services.store.delete::<SandboxRecord>(self.id.as_str())?;
            Ok(())
        });
        match result {
            Ok(()) => {
                self.course.deletion = Deletion::Done;
                self.pods.forget_pod(&self.config, &self.id);
                if self.record.origin == Origin::Cri {
                    // Those of a manifest's pod outlive its sandboxes.
                    self.services.events.forget(&self.config.namespace, &self.config.name);
                }
                for reply in self.course.await_removed.drain(..) {
                    self.answers.add(reply, Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(sandbox = %self.id, %error, "cannot delete the pod");
                self.deletion_failed(&Arc::new(error));
            }
        }
    }

    /// Something is in the way of forgetting the pod: whoever asked is told, and may ask again.
    pub(super) fn deletion_failed(&mut self, error: &Arc<Error>) {
        if self.course.deletion == Deletion::Unwanted {
            return;
        }
        self.course.deletion = Deletion::Unwanted;
        for container in &mut self.containers {
            container.remove = None;
        }
        for reply in self.course.await_removed.drain(..) {
            self.answers.add(reply, Err(error.clone()));
        }
    }
}
