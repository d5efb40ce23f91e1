//! The driver's part for what goes unasked: a pause process, a monitor.

use std::time::SystemTime;

use super::driver::Driver;
use super::inbox::Done;
use super::record::Phase;
use super::work::Container;
use crate::container::state::{Ended, State};
use crate::monitor::client::{Monitor, Notice};
use crate::monitor::wire::{Event as MonitorEvent, Exit};

impl Driver {
    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Event(MonitorEvent::Exited { container, exit }) => {
                if let Some(at) = self.containers.iter().position(|c| c.id.as_str() == container) {
                    self.exited(at, exit);
                }
            }
            Notice::Event(MonitorEvent::PauseExited) => self.lost("its pause process ended"),
            Notice::Gone if self.course.making => self.lost("its monitor ended"),
            Notice::Gone => {
                if self.monitor.take().is_some() && !self.course.taking_down {
                    self.lost("its monitor ended");
                    self.sweep();
                }
            }
        }
    }

    /// The sandbox can't hold containers any more.
    pub(super) fn lost(&mut self, why: &'static str) {
        if self.course.making {
            self.course.lost_early = Some(why);
        }
        if let Phase::Ready { network, .. } = &self.record.phase {
            self.record.phase = Phase::Lost { network: network.clone(), why: why.to_owned() };
            self.waiting.clear();
            self.save();
            self.event("", "SandboxLost", format!("the sandbox is lost: {why}"), true);
        }
    }

    /// Ends what a monitor that is gone has left running, and reads what it wrote.
    pub(super) fn sweep(&self) {
        let dir = self.dir.clone();
        let may_run =
            |c: &&Container| matches!(c.record.state, State::Starting | State::Running(_));
        let running = self.containers.iter().filter(may_run);
        let cgroups: Vec<String> = running.map(|c| c.place.cgroup.clone()).collect();
        self.spawn(async move {
            let swept = tokio::task::spawn_blocking(move || {
                for cgroup in cgroups {
                    if let Err(error) = crate::sys::cgroup::kill(&cgroup) {
                        tracing::error!(cgroup, %error, "cannot end what a lost monitor left");
                    }
                }
                Monitor::exits_on_disk(&dir)
            });
            Done::Swept(swept.await.unwrap_or_default())
        });
    }

    pub(super) fn swept(&mut self, exits: Vec<(String, Exit)>) {
        for (id, exit) in exits {
            if let Some(at) = self.containers.iter().position(|c| c.id.as_str() == id) {
                self.exited(at, exit);
            }
        }
        let message = "the pod's monitor ended, so how the container ended isn't known";
        for at in 0..self.containers.len() {
            if let State::Running(init) = self.containers[at].record.state {
                let ended =
                    Ended::unseen(init.started_at, SystemTime::now(), "MonitorLost", message);
                self.ended(at, ended);
            }
        }
    }
}
