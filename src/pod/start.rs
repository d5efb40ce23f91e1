//! The driver's part for a container: it is started, and then runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Error;
use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::plugins;
use super::record::Phase;
use super::work::{Work, no_container, of_container};
use crate::container::start::start;
use crate::container::state::{Ended, Init, State, nanos};
use crate::health::{Heal, Prober};
use crate::id::ContainerId;
use crate::monitor::client::Error as MonitorError;
use crate::monitor::wire::Restore;

impl Driver {
    pub(super) fn start(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        if !matches!(self.record.phase, Phase::Ready { .. }) {
            return self.answers.add(reply, Err(self.not_ready()));
        }
        let wrong = |why: &str| Err(Arc::new(Error::WrongState(format!("container {id} {why}"))));
        let container = &mut self.containers[at];
        if container.remove.is_some() {
            return self.answers.add(reply, wrong("is being removed"));
        }
        let unstarted = container.record.state == State::Created;
        if unstarted && let Some(other) = self.beside(at) {
            let why = format!("can't start: {} of the same name runs", other.id);
            return self.answers.add(reply, wrong(&why));
        }
        let container = &mut self.containers[at];
        match (&mut container.work, &container.record.state) {
            (Work::Starting { waiters, .. }, _) => waiters.push(reply),
            (Work::None, State::Created) => {
                self.begin_start(at);
                if let Work::Starting { waiters, .. } = &mut self.containers[at].work {
                    waiters.push(reply);
                }
            }
            (_, State::Running(_)) => self.answers.add(reply, wrong("runs already")),
            (_, State::Exited(_)) => {
                self.answers.add(
                    reply,
                    wrong("has exited, and a container starts only once: create another"),
                );
            }
            _ => self.answers.add(reply, wrong("is not ready to be started")),
        }
    }

    pub(super) fn begin_start(&mut self, at: usize) {
        let log = self.log_path(&self.containers[at].config);
        let container = &mut self.containers[at];
        container.work = Work::Starting { waiters: Vec::new(), ended: None };
        container.record.state = State::Starting;
        let recorded = self.services.store.put(container.id.as_str(), &container.record);
        if let Err(error) = recorded {
            // What runs without a record would be lost to the next daemon.
            let id = container.id.clone();
            return self.spawn(async move { Done::Started(id, Err(error.into())) });
        }
        let (id, place) = (container.id.clone(), container.place.clone());
        let (config, runtime) = (container.config.clone(), self.runtime.clone());
        let sandbox = self.config.clone();
        let restore = config.checkpoint.is_some().then(|| {
            let (images, work) = self.services.images.restored(&id);
            Restore { images, work }
        });
        let Some(monitor) = self.monitor.clone() else {
            let gone =
                crate::container::Error::Monitor { id: id.clone(), source: MonitorError::Gone };
            return self.spawn(async move { Done::Started(id, Err(of_container(gone))) });
        };
        let services = self.services.clone();
        self.spawn(async move {
            let userns = sandbox.userns.as_ref();
            let started = async {
                plugins::ask_to_start(&services, &id).await?;
                let started = start(&monitor, &runtime, &place, &config, log, userns, restore);
                let started = started.await;
                started.map_err(of_container)
            };
            let started = started.await;
            if let Ok(init) = &started {
                plugins::tell_of_start(&services, &id, init).await;
            }
            Done::Started(id, started)
        });
    }

    pub(super) fn started(&mut self, id: &ContainerId, result: std::result::Result<Init, Error>) {
        let Some(at) = self.find(id) else { return };
        let work = std::mem::replace(&mut self.containers[at].work, Work::None);
        let Work::Starting { waiters, ended } = work else { return };
        let config = self.containers[at].config.clone();
        match result {
            Ok(init) => {
                self.running(at, init, None);
                self.note_restart(at);
                let message = if config.attempt == 0 {
                    format!("container {} was started", id.short())
                } else {
                    format!("container {} was started as attempt {}", id.short(), config.attempt)
                };
                let by_healing = self.containers[at].record.made_by_healing;
                let reason = if by_healing { "Restarted" } else { "Started" };
                self.event(&config.name, reason, message, false);
                for reply in waiters {
                    self.answers.add(reply, Ok(()));
                }
                if self.containers[at].stopping.is_some() {
                    self.send_stop(at);
                } else {
                    self.begin_post_start(at);
                }
                if let Some(exit) = ended {
                    self.exited(at, exit);
                }
                self.prune_attempts(&config.name);
            }
            Err(error) => {
                let message = error.to_string().replace(id.as_str(), id.short());
                self.event(&config.name, "FailedStart", message, true);
                self.ended(at, Ended::start_failed(SystemTime::now(), error.to_string()));
                self.prune_attempts(&config.name);
                let error = Arc::new(error);
                for reply in waiters {
                    self.answers.add(reply, Err(error.clone()));
                }
            }
        }
    }

    /// A container runs: its probes begin. `spread`: as [`Prober::new`] has it.
    pub(super) fn running(&mut self, at: usize, init: Init, spread: Option<f64>) {
        let probes = self.policy.as_ref().and_then(|policy| {
            let probes = policy.probes.get(&self.containers[at].config.name)?;
            let (now, wall) = (Instant::now().into_std(), nanos(SystemTime::now()));
            let ago = u64::try_from(wall - init.started_at).unwrap_or(0);
            let started = now.checked_sub(Duration::from_nanos(ago)).unwrap_or(now);
            let prober = Prober::new(probes, started, now, spread);
            let prober = prober.only_observed(policy.heal == Heal::Observe);
            let record = &self.containers[at].record;
            Some(prober.remembering(&record.standings, record.killed.is_some()))
        });
        self.containers[at].prober = probes;
        self.containers[at].record.state = State::Running(init);
        self.save_container(at);
    }
}
