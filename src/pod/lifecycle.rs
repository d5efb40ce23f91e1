//! The driver's part for containers: create, start, stop, remove, and what their ends mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::cgroup::Cgroups;
use super::driver::{Container, Done, Driver, GIVE_UP, Reply, Stopping, Work, of_container};
use super::heal::LEAST_GRACE;
use super::plugins::{self, Made};
use super::record::{Origin, Phase};
use super::{Error, Result, hooks};
use crate::container::config::ContainerConfig;
use crate::container::create::Surroundings;
use crate::container::record::ContainerRecord;
use crate::container::start::start;
use crate::container::state::{Ended, Init, State, nanos};
use crate::container::{Place, remove, rotation, stop};
use crate::health::{Heal, Prober};
use crate::id::ContainerId;
use crate::monitor::client::Error as MonitorError;
use crate::monitor::wire::{Exit, Restore};
use crate::oci::model::PidMode;

impl Driver {
    /// CreateContainer by a client: the same again joins the one in flight or finds the one
    /// that is there.
    pub(super) fn create(&mut self, config: ContainerConfig, reply: Reply<ContainerId>) {
        if !matches!(self.record.phase, Phase::Ready { .. }) {
            return self.answers.add(reply, Err(self.not_ready()));
        }
        if self.ends_all() {
            let why = format!("the containers of pod {} are being ended to start again", self.id);
            return self.answers.add(reply, Err(Arc::new(Error::WrongState(why))));
        }
        let config = self.begun_anew(config);
        let twin = |c: &&mut Container| {
            c.config.name == config.name && c.config.attempt == config.attempt && c.remove.is_none()
        };
        if let Some(twin) = self.containers.iter_mut().find(twin) {
            if let Work::Creating { waiters, then_start } = &mut twin.work
                && twin.record.asked() == config
            {
                waiters.push(reply);
                // Made by healing until now; whoever creates it starts it, too.
                *then_start = false;
                twin.record.made_by_healing = false;
            } else if twin.record.state == State::Created && twin.record.asked() == config {
                self.answers.add(reply, Ok(twin.id.clone()));
            } else {
                let why = format!(
                    "container \"{}\" with attempt {} is in pod {} already, as {}: remove it, or raise the attempt",
                    config.name, config.attempt, self.id, twin.id
                );
                self.answers.add(reply, Err(Arc::new(Error::Exists(why))));
            }
            return;
        }
        if let Some(why) = self.healed_already(&config) {
            return self.answers.add(reply, Err(Arc::new(Error::Exists(why))));
        }
        // Whoever creates a container of this name has taken its restarting over.
        self.waiting.remove(&config.name);
        let image = config.image.clone();
        match self.begin_create(config, &image, false) {
            Ok(at) => {
                if let Work::Creating { waiters, .. } = &mut self.containers[at].work {
                    waiters.push(reply);
                }
            }
            Err(error) => self.answers.add(reply, Err(Arc::new(error))),
        }
    }

    /// Records a container and begins to make it. Gives its place in `containers`.
    /// `image`: a name or an id.
    pub(super) fn begin_create(
        &mut self,
        config: ContainerConfig,
        image: &str,
        by_healing: bool,
    ) -> std::result::Result<usize, Error> {
        let image = self.services.images.find(image).map_err(|error| of_container(error.into()))?;
        let target_pid_namespace = match &config.pid_mode {
            PidMode::Target(target) => Some(self.pid_namespace_of(target)?),
            _ => None,
        };
        let id = self.pods.new_container(&self.id);
        let record = ContainerRecord {
            sandbox: self.id.clone(),
            image_id: image.id.clone(),
            image_name: image.tags.first().or(image.digests.first()).unwrap_or(&image.id).clone(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            stop_signal: stop::choose(config.stop_signal.as_deref(), &image.defaults.stop_signal),
            user: None,
            created_at: nanos(SystemTime::now()),
            state: State::Created,
            made_by_healing: by_healing,
            stopped_by_client: false,
            killed: None,
            standings: Vec::new(),
            run_again: false,
            asked_resources: None,
            config,
        };
        if let Err(error) = self.services.store.put(id.as_str(), &record) {
            self.pods.forget_container(&id);
            return Err(error.into());
        }
        let cgroups = Cgroups::of(&self.services, &self.id, &self.config);
        let place = Place::new(&id, &self.dir, &cgroups.within);
        let around = Surroundings {
            dir: self.dir.clone(),
            hostname: self.config.hostname.clone(),
            network: self.config.network,
            ipc: self.config.ipc,
            host_pid: self.config.pid == PidMode::Node,
            target_pid_namespace,
            userns: self.config.userns.clone(),
            settings: self.runtime.settings.clone(),
            annotations: self.config.annotations.clone(),
            selinux_level: self.config.selinux_level(&self.id),
        };
        let work = Work::Creating { waiters: Vec::new(), then_start: by_healing };
        let (services, runtime) = (&self.services, &self.runtime);
        let container = Container::new(id.clone(), place.clone(), record, work, services, runtime);
        let config = container.config.clone();
        self.containers.push(container);
        let (services, pods, sandbox) = (self.services.clone(), self.pods.clone(), self.id.clone());
        let created_at = self.containers[self.containers.len() - 1].record.created_at;
        self.spawn(async move {
            let order =
                plugins::Order { sandbox, image, place: place.clone(), config, around, created_at };
            let made = Box::pin(plugins::make(&services, &pods, order)).await;
            if made.is_err()
                && let Err(error) = remove::files(&services.images, &place).await
            {
                tracing::error!(container = %id, %error, "cannot remove what a failed create left");
            }
            Done::Created(id, Box::new(made))
        });
        Ok(self.containers.len() - 1)
    }

    fn pid_namespace_of(
        &self,
        target: &ContainerId,
    ) -> std::result::Result<std::path::PathBuf, Error> {
        let target_state =
            self.containers.iter().find(|c| c.id == *target).map(|c| &c.record.state);
        match target_state {
            Some(State::Running(init)) => Ok(format!("/proc/{}/ns/pid", init.pid).into()),
            Some(_) => Err(Error::WrongState(format!(
                "container {target}, whose PID namespace is to be shared, does not run"
            ))),
            None => Err(Error::NotFound { what: "container", id: target.to_string() }),
        }
    }

    pub(super) fn created(&mut self, id: &ContainerId, result: std::result::Result<Made, Error>) {
        let Some(at) = self.find(id) else { return };
        let work = std::mem::replace(&mut self.containers[at].work, Work::None);
        let Work::Creating { waiters, then_start } = work else { return };
        let name = self.containers[at].config.name.clone();
        match result {
            Ok(made) => {
                let container = &mut self.containers[at];
                container.record.user = Some(made.user);
                if let Some(resources) = made.resources {
                    let asked =
                        std::mem::replace(&mut container.record.config.resources, resources);
                    container.record.asked_resources = Some(asked);
                    container.config = Arc::new(container.record.config.clone());
                }
                self.save_container(at);
                for reply in waiters {
                    self.answers.add(reply, Ok(id.clone()));
                }
                self.event(
                    &name,
                    "Created",
                    format!("container {} was created", id.short()),
                    false,
                );
                if then_start && matches!(self.record.phase, Phase::Ready { .. }) {
                    self.begin_start(at);
                }
            }
            Err(error) => {
                self.event(&name, "FailedCreate", error.to_string(), true);
                self.drop_record(at);
                if then_start && matches!(self.record.phase, Phase::Ready { .. }) {
                    self.restart_failed(&name, &error.to_string());
                }
                let error = Arc::new(error);
                for reply in waiters {
                    self.answers.add(reply, Err(error.clone()));
                }
            }
        }
    }

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
                self.event(&config.name, "FailedStart", error.to_string(), true);
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
            self.begin_pre_stop(at, grace)
        } else {
            None
        };
        self.begin_end(at, grace, hook);
    }

    /// The same without the hook.
    pub(super) fn end_fast(&mut self, at: usize, grace: Duration) {
        self.begin_end(at, grace, None);
    }

    fn begin_end(&mut self, at: usize, grace: Duration, hook: Option<hooks::Running>) {
        let container = &mut self.containers[at];
        if !matches!(container.record.state, State::Running(_) | State::Starting) {
            return;
        }
        let grace_end = Instant::now() + grace;
        if let Some(stopping) = &mut container.stopping {
            if stopping.kill_at.is_some_and(|at| at > grace_end) {
                stopping.kill_at = Some(grace_end);
            }
            if stopping.kill_at.is_none() && stopping.give_up_at.is_none() {
                // It was given up, and someone asks again.
                stopping.kill_at = Some(grace_end);
            }
            return;
        }
        let waits = hook.is_some();
        // A hook may take the whole grace, and then the signal has its least.
        let kill_at = if waits { grace_end + LEAST_GRACE } else { grace_end };
        container.stopping = Some(Stopping {
            hook,
            grace_end,
            kill_at: Some(kill_at),
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
    fn signal(&self, at: usize, signal: i32) {
        let container = &self.containers[at];
        let State::Running(init) = container.record.state else { return };
        let (monitor, id) = (self.monitor.clone(), container.id.clone());
        tokio::spawn(async move {
            if let Err(error) = stop::signal(monitor.as_ref(), &id, init, signal).await {
                tracing::warn!(container = %id, signal, %error, "cannot signal the container");
            }
        });
    }

    pub(super) fn remove(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Ok(())) };
        let container = &mut self.containers[at];
        container.record.stopped_by_client = true;
        let name = container.config.name.clone();
        let has_run = container.record.state != State::Created;
        container.remove.get_or_insert_default().push(reply);
        if self.newest(&name) == Some(at) {
            self.waiting.remove(&name);
            if has_run {
                self.rest(&name);
            }
        }
        self.save_container(at);
    }

    /// SIGKILL where the grace is over; removal where nothing is in its way.
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
            let id = self.containers[at].id.clone();
            let Some(stopping) = self.containers[at].stopping.as_mut() else { continue };
            if running && stopping.kill_at.is_some_and(|at| at <= now) {
                stopping.kill_at = None;
                stopping.give_up_at = Some(now + GIVE_UP);
                self.signal(at, Signal::SIGKILL as i32);
            } else if stopping.give_up_at.is_some_and(|at| at <= now) {
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
    }

    fn begin_remove(&mut self, at: usize) {
        let container = &mut self.containers[at];
        container.work = Work::Removing;
        let (id, place) = (container.id.clone(), container.place.clone());
        let log = self.log_path(&self.containers[at].config);
        // Clients keep logs as they like; those of haled's own old attempts are haled's.
        let shared = self
            .containers
            .iter()
            .any(|other| other.id != id && self.log_path(&other.config) == log);
        let own =
            self.record.origin == Origin::Manifest || self.containers[at].record.made_by_healing;
        let log = Some(log).filter(|_| own && !shared);
        let (services, monitor) = (self.services.clone(), self.monitor.clone());
        let runtime = self.runtime.clone();
        self.spawn(async move {
            let removed = async {
                let forgotten = match &monitor {
                    Some(monitor) => monitor.forget(id.as_str()).await,
                    None => Err(MonitorError::Gone),
                };
                // The monitor's own `delete` may have failed, or never been called.
                if matches!(forgotten, Err(MonitorError::Gone)) || runtime.knows(id.as_str()) {
                    runtime.delete(id.as_str()).await?;
                }
                remove::files(&services.images, &place).await
            };
            let removed = removed.await;
            if removed.is_ok() {
                plugins::tell_of_removal(&services, &id).await;
            }
            if let Some(log) = log.filter(|_| removed.is_ok()) {
                delete_log(log).await;
            }
            Done::Removed(id, removed.map_err(of_container))
        });
    }

    pub(super) fn removed(&mut self, id: &ContainerId, result: std::result::Result<(), Error>) {
        let Some(at) = self.find(id) else { return };
        self.containers[at].work = Work::None;
        let waiters = self.containers[at].remove.take().unwrap_or_default();
        let result: Result<()> = match result {
            Ok(()) => {
                self.drop_record(at);
                Ok(())
            }
            Err(error) => {
                tracing::error!(container = %id, %error, "cannot remove the container");
                let error = Arc::new(error);
                self.deletion_failed(&error);
                Err(error)
            }
        };
        for reply in waiters {
            self.answers.add(reply, result.clone());
        }
    }

    pub(super) fn reopen_log(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        if !matches!(self.containers[at].record.state, State::Running(_)) {
            let why = format!("container {id} does not run, so its log is closed");
            return self.answers.add(reply, Err(Arc::new(Error::WrongState(why))));
        }
        let (monitor, id) = (self.monitor.clone(), id.clone());
        tokio::spawn(async move {
            let reopened = match monitor {
                Some(monitor) => monitor.reopen_log(id.as_str()).await,
                None => Err(MonitorError::Gone),
            };
            let failed = |source| {
                Arc::new(of_container(crate::container::Error::Monitor { id: id.clone(), source }))
            };
            drop(reply.send(reopened.map_err(failed)));
        });
    }

    pub(super) fn find(&self, id: &ContainerId) -> Option<usize> {
        self.containers.iter().position(|container| container.id == *id)
    }

    /// The newest attempt of a name.
    pub(super) fn newest(&self, name: &str) -> Option<usize> {
        let named = self.containers.iter().enumerate().filter(|(_, c)| c.config.name == name);
        named.max_by_key(|(_, c)| c.config.attempt).map(|(at, _)| at)
    }

    fn drop_record(&mut self, at: usize) {
        let container = self.containers.remove(at);
        if let Err(error) = self.services.store.delete::<ContainerRecord>(container.id.as_str()) {
            tracing::error!(container = %container.id, %error, "cannot delete the container's record");
        }
        self.pods.forget_container(&container.id);
    }

    pub(super) fn save_container(&self, at: usize) {
        let container = &self.containers[at];
        if let Err(error) = self.services.store.put(container.id.as_str(), &container.record) {
            tracing::error!(container = %container.id, %error, "cannot write the container's record");
        }
    }
}

/// What can't be deleted is left behind: the container itself is gone.
async fn delete_log(log: PathBuf) {
    let of_task = log.clone();
    let deleted = tokio::task::spawn_blocking(move || rotation::delete(&of_task)).await;
    if let Ok(Err(error)) = deleted {
        tracing::warn!(log = %log.display(), %error, "cannot delete the container's log");
    }
}

pub(super) fn no_container(id: &ContainerId) -> Arc<Error> {
    Arc::new(Error::NotFound { what: "container", id: id.to_string() })
}
