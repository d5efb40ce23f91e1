//! What a daemon asks of the monitor, one method for each request.

use std::time::Instant;

use super::attach::{self, Attached, Wants};
use super::connection::Asker;
use super::container::{Container, State as Life};
use super::exit_record;
use super::run_dir::check_id;
use super::sandbox::State;
use super::serve::{Server, find};
use super::wire::{Ask, Inventory, Reply, Request, StartSpec, VERSION, speaks};
use crate::sys::process;

/// The most containers that are kept, running or not yet forgotten: more would make an
/// inventory longer than a packet.
pub(super) const MAX_CONTAINERS: usize = 256;

impl Server {
    /// Does what a request asks, and answers it now or when it is done.
    pub(super) fn answer(&mut self, asker: Asker, request: Request) {
        let answer = match request.body {
            Ask::Hello { version } if speaks(version, VERSION) => {
                self.connections.greet(asker.connection);
                Some(Ok(Reply::Inventory(self.inventory())))
            }
            Ask::Hello { version } => Some(Err(format!(
                "this monitor speaks version {VERSION}, which a daemon of version {version} \
                 doesn't"
            ))),
            Ask::Sandbox(spec) => Some(self.sandbox.make(spec).map(Reply::Pause)),
            Ask::Start(spec) | Ask::Restore(spec) => self.start(spec, asker).transpose(),
            Ask::Signal { container, signal } => Some(self.signal(&container, signal)),
            Ask::ReopenLog { container } => Some(self.reopen_log(&container)),
            Ask::Attach { container, stdin, stdout, stderr } => self
                .attach(&container, Wants { stdin, stdout, stderr }, asker)
                .map(|()| None)
                .transpose(),
            Ask::Forget { container } => Some(self.forget(&container)),
            Ask::Shutdown => self.shutdown(asker).transpose(),
        };
        match answer {
            Some(Ok(reply)) => self.connections.reply(asker, reply),
            Some(Err(message)) => self.connections.refuse(asker, message),
            None => {}
        }
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            version: VERSION,
            pause: self.sandbox.pause(),
            containers: self.containers.iter().filter_map(Container::entry).collect(),
        }
    }

    /// `None`: the answer comes when the runtime is done.
    fn start(&mut self, spec: StartSpec, asker: Asker) -> Result<Option<Reply>, String> {
        check_id(&spec.container)?;
        let restore = spec.restore.iter().flat_map(|restore| [&restore.images, &restore.work]);
        for path in [&spec.bundle, &spec.log].into_iter().chain(restore) {
            if path.is_relative() && !path.as_os_str().is_empty() {
                return Err(format!("{} is not an absolute path", path.display()));
            }
        }
        if matches!(self.sandbox.state, State::Ending { .. }) {
            return Err("the sandbox is shutting down".into());
        }
        if let Some(container) = find(&mut self.containers, &spec.container) {
            if container.spec != spec {
                let id = spec.container;
                return Err(format!("container {id} was started already, in another way"));
            }
            if let Some(entry) = container.entry() {
                return Ok(Some(Reply::Started(entry.started)));
            }
            if let Life::Starting { askers, .. } | Life::Undoing { askers, .. } =
                &mut container.state
            {
                askers.push(asker);
            }
            return Ok(None);
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(format!("{MAX_CONTAINERS} containers are kept already: forget some"));
        }
        self.serial += 1;
        let started = Container::start(
            spec,
            asker,
            &self.dir,
            self.serial,
            self.limits.start,
            self.oom_score_adj,
        )?;
        self.containers.push(started);
        Ok(None)
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<Reply, String> {
        if !(1..=libc::SIGRTMAX()).contains(&signal) {
            return Err(format!("{signal} is no signal's number"));
        }
        match &self.known(id)?.state {
            // The init is our child and not reaped, so the number is still its own.
            Life::Running { started } => process::signal_child(started.init.pid, signal)
                .map_err(|error| format!("cannot signal container {id}: {error}"))?,
            Life::Starting { .. } | Life::Undoing { .. } => {
                return Err(format!("container {id} has not started yet"));
            }
            Life::Clearing { .. } | Life::Exited { .. } => {}
        }
        Ok(Reply::Done)
    }

    fn reopen_log(&mut self, id: &str) -> Result<Reply, String> {
        let container = self.known(id)?;
        let Some(streams) = &mut container.streams else {
            return Err(format!("container {id} has exited: its log is closed"));
        };
        let path = container.spec.log.display();
        streams.reopen_log().map_err(|error| format!("cannot reopen the log {path}: {error}"))?;
        Ok(Reply::Done)
    }

    /// Answers by itself: what comes after the answer is the container's.
    fn attach(&mut self, id: &str, wants: Wants, asker: Asker) -> Result<(), String> {
        let container = self.known(id)?;
        let carries = container.carries_output();
        let Some(streams) = container.streams.as_mut().filter(|_| carries) else {
            return Err(format!("container {id} does not run, so there is nothing to attach to"));
        };
        if streams.attached().count() >= attach::MAX {
            return Err(format!("{} clients are attached to container {id} already", attach::MAX));
        }
        self.connections.reply(asker, Reply::Done);
        let key = asker.connection;
        let socket = self.connections.take(key);
        let streams = find(&mut self.containers, id).and_then(|found| found.streams.as_mut());
        if let (Some(socket), Some(streams)) = (socket, streams) {
            streams.attach(Attached::new(key, socket, wants));
        }
        Ok(())
    }

    fn forget(&mut self, id: &str) -> Result<Reply, String> {
        check_id(id)?;
        match find(&mut self.containers, id) {
            Some(container) if !container.is_done() => {
                return Err(format!("container {id} has not exited"));
            }
            _ => {}
        }
        exit_record::remove(&self.dir, id)
            .map_err(|error| format!("cannot remove the exit record of {id}: {error}"))?;
        self.containers.retain(|container| container.spec.container != id);
        Ok(Reply::Done)
    }

    /// `None`: the answer comes when pause has ended.
    fn shutdown(&mut self, asker: Asker) -> Result<Option<Reply>, String> {
        if let Some(busy) = self.containers.iter().find(|container| !container.is_done()) {
            return Err(format!("container {} has not exited", busy.spec.container));
        }
        self.sandbox
            .end(Instant::now())
            .map_err(|error| format!("cannot end the pause process: {error}"))?;
        self.sandbox.askers.push(asker);
        self.ended = matches!(self.sandbox.state, State::Ended);
        Ok(None)
    }

    fn known(&mut self, id: &str) -> Result<&mut Container, String> {
        let there = find(&mut self.containers, id);
        there.ok_or_else(|| format!("this monitor has no container {id}"))
    }
}
