//! The driver's part for hooks: what runs after a container's start and before its stop.

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::driver::Driver;
use super::heal::LEAST_GRACE;
use super::inbox::Done;
use crate::container::exec;
use crate::health::{self, Handler, Hook, Hooks, POST_START_KILL};
use crate::id::ContainerId;

/// A hook that is under way; it ends with its container.
pub(super) type Running = AbortOnDropHandle<()>;

/// `None`: it went well; else why not.
pub(super) type Failure = Option<String>;

impl Driver {
    fn hooks(&self, at: usize) -> Option<&Hooks> {
        let own = self.policy.as_ref()?.containers.get(&self.containers[at].config.name)?;
        Some(&own.hooks)
    }

    /// The container at `at` has just been started.
    pub(super) fn begin_post_start(&mut self, at: usize) {
        let Some(hook) = self.hooks(at).and_then(|hooks| hooks.post_start.clone()) else { return };
        self.containers[at].post_start = Some(self.run_hook(at, hook, Done::PostStarted));
    }

    /// A failed postStart hook is its container's end.
    pub(super) fn post_started(&mut self, id: &ContainerId, failure: Failure) {
        let Some(at) = self.find(id) else { return };
        if self.containers[at].post_start.take().is_none() {
            return;
        }
        let Some(why) = failure else { return };
        let message = format!("PostStartHook failed: {why}");
        self.event(&self.containers[at].config.name, POST_START_KILL, message.clone(), true);
        if self.containers[at].stopping.is_none() {
            self.containers[at].record.killed = Some((POST_START_KILL.to_owned(), message));
            self.save_container(at);
            self.begin_stop(at, self.pod_grace(at).max(LEAST_GRACE));
        }
    }

    /// Begins the preStop hook of a container whose stop begins. `None`: it has none.
    pub(super) fn begin_pre_stop(&self, at: usize) -> Option<Running> {
        let hook = self.hooks(at)?.pre_stop.clone()?;
        Some(self.run_hook(at, hook, Done::PreStopped))
    }

    /// The hook is over, well or not: now the signal, with at least a little time for it.
    pub(super) fn pre_stopped(&mut self, id: &ContainerId, failure: Failure) {
        let Some(at) = self.find(id) else { return };
        let Some(stopping) = &mut self.containers[at].stopping else { return };
        if stopping.hook.take().is_none() {
            return;
        }
        let least = Instant::now() + LEAST_GRACE;
        let end = stopping.grace_end.max(least);
        stopping.kill_at = stopping.kill_at.map(|at| at.min(end));
        if let Some(why) = failure {
            let name = self.containers[at].config.name.clone();
            self.event(&name, "FailedPreStopHook", format!("PreStopHook failed: {why}"), true);
        }
        self.send_stop(at);
    }

    fn run_hook(&self, at: usize, hook: Hook, done: fn(ContainerId, Failure) -> Done) -> Running {
        let container = &self.containers[at];
        let (id, place, runtime) =
            (container.id.clone(), container.place.clone(), self.runtime.clone());
        let target = self.probe_target();
        let work = async move {
            match &hook {
                Hook::Sleep(time) => {
                    tokio::time::sleep(*time).await;
                    None
                }
                Hook::Run(Handler::Exec { command }) => {
                    match exec::run(&runtime, &place, command, None).await {
                        Ok(output) if output.exit_code == 0 => None,
                        Ok(output) => Some(format!(
                            "command {command:?} exited with {}: {}",
                            output.exit_code,
                            beginning(&output.stderr)
                        )),
                        Err(error) => Some(error.to_string()),
                    }
                }
                Hook::Run(handler) => health::call(handler, &target).await.err(),
            }
        };
        AbortOnDropHandle::new(self.spawn_held(async move { done(id, work.await) }))
    }
}

/// As much of an output as an event may carry.
fn beginning(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(1024)]).trim().to_owned()
}
