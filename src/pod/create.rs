//! The driver's part for a container: it is created.

use std::sync::Arc;
use std::time::SystemTime;

use super::Error;
use super::cgroup::Cgroups;
use super::driver::Driver;
use super::inbox::{Done, Reply};
use super::plugins::{self, Made};
use super::record::Phase;
use super::work::{Container, Work, of_container};
use crate::container::config::ContainerConfig;
use crate::container::create::Surroundings;
use crate::container::exec::Executor;
use crate::container::record::ContainerRecord;
use crate::container::state::{State, nanos};
use crate::container::{Place, remove, stop};
use crate::id::ContainerId;
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
        let created_at = record.created_at;
        let work = Work::Creating { waiters: Vec::new(), then_start: by_healing };
        let (agent, runtime) = (self.services.agent.clone(), self.runtime.clone());
        let executor = Executor::new(agent, runtime, place.clone());
        let container = Container::new(id.clone(), place.clone(), record, work, executor);
        let config = container.config.clone();
        self.containers.push(container);
        let (services, pods, sandbox) = (self.services.clone(), self.pods.clone(), self.id.clone());
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

    pub(super) fn pid_namespace_of(
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
                let message = error.to_string().replace(id.as_str(), id.short());
                self.event(&name, "FailedCreate", message, true);
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
}
