//! The monitor's loop: one thread, one poll, every event handled to its end at once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::complaint::complain;
use super::connection::{Asker, Connections};
use super::container::{Container, Outcome, State as Life};
use super::log::Side;
use super::reaper::{self, Reaped, Strangers};
use super::run_dir::{PID_FILE, RunDir, SOCKET};
use super::sandbox;
use super::sandbox::{Sandbox, State};
use super::stdio::Scratch;
use super::wire::{Event, Reply};
use crate::sys::{fds, oom, socket};

/// How long a monitor waits for others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often a monitor looks whether it is still of use, and how long one that was never
    /// asked for a sandbox waits for that.
    pub idle: Duration,
    /// What the OCI runtime has for starting a container; hooks and a slow disk are part of it.
    pub start: Duration,
}

impl Default for Limits {
    /// A minute, and two.
    fn default() -> Self {
        Self { idle: Duration::from_mins(1), start: Duration::from_mins(2) }
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long no connection is accepted after one that could not be.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The oom_score_adj a monitor asks for: its loss is the whole pod's.
const OOM_SCORE_ADJ: i32 = -999;

/// Why a monitor could not begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory can't be used.
    #[error("the run directory {path}: {source}")]
    Dir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is one already.
    #[error("another monitor serves {0}")]
    Taken(PathBuf),
    /// The kernel refused something a monitor can't do without.
    #[error("{what}: {source}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Makes this process the monitor of the pod whose run directory this is, and returns when
/// its work is over. `ready` is called once the socket listens.
///
/// To be called first thing in a program: it closes every descriptor but the standard ones,
/// leaves the session, and blocks signals.
pub fn serve(
    dir: &Path,
    limits: Limits,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), Error> {
    let kernel = |what| move |source: io::Error| Error::Kernel { what, source };
    fds::close_from(3).map_err(kernel("close_range"))?;
    let mut server = Server::open(dir, limits)?;
    if let Err(error) = rustix::process::setsid()
        && error != rustix::io::Errno::PERM
    {
        // PERM: it leads a group already, as when a shell started it.
        return Err(kernel("setsid")(error.into()));
    }
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .map_err(|error| kernel("cannot become a child subreaper")(error.into()))?;
    if let Err(error) = oom::set_own_clamped(OOM_SCORE_ADJ) {
        complain(format_args!("cannot lower oom_score_adj: {error}"));
    }
    std::env::set_current_dir("/").map_err(kernel("cannot change to /"))?;
    ready().map_err(kernel("cannot tell that the monitor is ready"))?;
    server.run()
}

/// What became ready.
enum Ready {
    Signals,
    Listener,
    Connection(u64),
    Console(String),
    Output(String, Side),
    Attached(String, u64),
    Input(String),
}

/// The monitor's state.
pub(super) struct Server {
    pub(super) dir: RunDir,
    /// Held for its lock.
    pub(super) _lock: File,
    pub(super) listener: OwnedFd,
    pub(super) signals: SignalFd,
    pub(super) connections: Connections,
    pub(super) sandbox: Sandbox,
    pub(super) containers: Vec<Container>,
    pub(super) strangers: Strangers,
    pub(super) scratch: Scratch,
    /// What this process had before it asked for less: its children's.
    pub(super) oom_score_adj: i32,
    /// Numbers the console sockets.
    pub(super) serial: u64,
    /// When to look whether there's still work.
    pub(super) idle_check: Instant,
    pub(super) limits: Limits,
    /// When to accept again after a failed accept. Until then the listener stays ready, and
    /// the loop would run hot.
    pub(super) accept_again: Option<Instant>,
    pub(super) ended: bool,
}

impl Server {
    fn open(path: &Path, limits: Limits) -> Result<Self, Error> {
        let wrong = |source| Error::Dir { path: path.to_owned(), source };
        let kernel = |what| move |source: io::Error| Error::Kernel { what, source };
        let dir = RunDir::open(path).map_err(wrong)?;
        let lock = dir.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Taken(path.to_owned()),
            _ => wrong(error),
        })?;
        let signals = signals().map_err(|error| kernel("signalfd")(error.into()))?;
        let listener = socket::listen_at(dir.as_fd(), SOCKET, socket::Kind::SEQPACKET, BACKLOG)
            .map_err(wrong)?;
        Ok(Self {
            dir,
            _lock: lock,
            listener,
            signals,
            connections: Connections::default(),
            sandbox: Sandbox::default(),
            containers: Vec::new(),
            strangers: Strangers::default(),
            scratch: Scratch::new(),
            oom_score_adj: oom::own().unwrap_or(0),
            serial: 0,
            idle_check: Instant::now() + limits.idle,
            limits,
            accept_again: None,
            ended: false,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        while !self.ended {
            let ready = self.wait().map_err(|source| Error::Kernel { what: "poll", source })?;
            for event in ready {
                self.handle(event);
            }
            self.check_deadlines(Instant::now());
        }
        self.sandbox.unpin();
        for name in [SOCKET, PID_FILE] {
            if let Err(error) = self.dir.remove(name) {
                complain(format_args!("cannot remove {name}: {error}"));
            }
        }
        let shutdown = std::mem::take(&mut self.sandbox.askers);
        for asker in shutdown {
            self.connections.reply(asker, Reply::Done);
        }
        Ok(())
    }

    /// Waits for something to do, or the next deadline.
    fn wait(&mut self) -> io::Result<Vec<Ready>> {
        let timeout = self.timeout();
        let mut ready = vec![Ready::Signals];
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        if self.accept_again.is_none() {
            ready.push(Ready::Listener);
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for (key, socket) in self.connections.iter() {
            ready.push(Ready::Connection(key));
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        for container in &self.containers {
            let id = || container.spec.container.clone();
            if let Some(console) = container.console() {
                ready.push(Ready::Console(id()));
                fds.push(PollFd::new(console, PollFlags::IN));
            }
            let streams = container.streams.iter().filter(|_| container.carries_output());
            for (side, fd) in streams.flat_map(super::stdio::Streams::open_sides) {
                ready.push(Ready::Output(id(), side));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
            let streams = container.streams.iter().filter(|_| container.carries_output());
            for streams in streams {
                if let Some(fd) = streams.full_input() {
                    // Until there is room, nothing of those attached is heard.
                    ready.push(Ready::Input(id()));
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
                    continue;
                }
                for attached in streams.attached() {
                    ready.push(Ready::Attached(id(), attached.key));
                    fds.push(PollFd::from_borrowed_fd(attached.fd(), PollFlags::IN));
                }
            }
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut happened = fds.iter().map(|fd| !fd.revents().is_empty());
        ready.retain(|_| happened.next().unwrap_or(false));
        Ok(ready)
    }

    fn timeout(&mut self) -> Timespec {
        let calls = self.containers.iter_mut().filter_map(Container::pending_call);
        let calls = calls.filter(|call| !call.overdue).map(|call| call.deadline);
        let next = calls
            .chain(self.sandbox.deadline())
            .chain(self.accept_again)
            .chain([self.idle_check])
            .min();
        let next = next.unwrap_or(self.idle_check);
        // Rounded up, so that the deadline has passed when the wait is over.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
    }

    fn handle(&mut self, event: Ready) {
        match event {
            Ready::Signals => {
                self.read_signals();
                self.reap();
            }
            Ready::Listener => {
                if !self.connections.accept(&self.listener) {
                    self.accept_again = Some(Instant::now() + ACCEPT_AGAIN);
                }
            }
            Ready::Connection(key) => {
                if let Some(request) = self.connections.next_request(key) {
                    self.answer(Asker { connection: key, request: request.id }, request);
                }
            }
            Ready::Console(id) => {
                if let Some(container) = find(&mut self.containers, &id)
                    && let Err(error) = container.receive_terminal(&self.dir)
                {
                    complain(format_args!("container {id}'s terminal: {error}"));
                }
            }
            Ready::Output(id, side) => {
                let container = find(&mut self.containers, &id);
                if let Some(streams) = container.and_then(|found| found.streams.as_mut()) {
                    streams.pump(side, &mut self.scratch);
                }
            }
            Ready::Attached(id, key) => {
                let container = find(&mut self.containers, &id);
                if let Some(streams) = container.and_then(|found| found.streams.as_mut())
                    && streams.full_input().is_none()
                {
                    streams.hear(key);
                }
            }
            Ready::Input(id) => {
                let container = find(&mut self.containers, &id);
                if let Some(streams) = container.and_then(|found| found.streams.as_mut()) {
                    streams.feed();
                }
            }
        }
    }

    /// Takes the waiting signals off. All but SIGCHLD mean nothing to a monitor.
    fn read_signals(&mut self) {
        loop {
            match self.signals.read_signal() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    complain(format_args!("cannot read signals: {error}"));
                    return;
                }
            }
        }
    }

    fn reap(&mut self) {
        // Ends of runtimes are handled last: the init that one has left may be among the
        // others.
        let mut calls = Vec::new();
        while let Some(reaped) = reaper::next() {
            let is_call = |container: &mut Container| {
                container.pending_call().is_some_and(|call| call.pid == reaped.pid)
            };
            if let Some(index) = self.containers.iter_mut().position(is_call) {
                calls.push((self.containers[index].spec.container.clone(), reaped));
            } else {
                self.other_ended(reaped);
            }
        }
        for (id, reaped) in calls {
            let Some(container) = find(&mut self.containers, &id) else { continue };
            let outcome =
                container.call_ended(reaped, &self.dir, &mut self.strangers, &mut self.scratch);
            self.conclude(&id, outcome);
            self.settle(&id);
        }
        if !self.containers.iter().any(|open| matches!(open.state, Life::Starting { .. })) {
            self.strangers.forget_all();
        }
    }

    fn other_ended(&mut self, reaped: Reaped) {
        if self.sandbox.pause().is_some_and(|pause| pause.pid == reaped.pid) {
            self.pause_ended(reaped);
            return;
        }
        let is_init = |container: &&mut Container| matches!(&container.state, Life::Running { started } if started.init.pid == reaped.pid);
        if let Some(container) = self.containers.iter_mut().find(is_init) {
            container.init_ended(reaped, &self.dir, &mut self.scratch);
            let id = container.spec.container.clone();
            self.settle(&id);
        } else {
            self.strangers.remember(reaped);
        }
    }

    fn pause_ended(&mut self, reaped: Reaped) {
        let asked = matches!(self.sandbox.state, State::Ending { .. });
        self.sandbox.state = State::Ended;
        if asked {
            self.ended = true;
        } else {
            let code = reaped.ended.code;
            complain(format_args!("the pause process ended unasked, with code {code}"));
            self.connections.tell(&Event::PauseExited);
        }
    }

    fn settle(&mut self, id: &str) {
        let container = find(&mut self.containers, id);
        if let Some(outcome) = container.map(|found| found.settle(&self.dir, &mut self.scratch)) {
            self.conclude(id, outcome);
        }
    }

    fn conclude(&mut self, id: &str, outcome: Outcome) {
        match outcome {
            Outcome::Pending => {}
            Outcome::Started(askers, started) => {
                for asker in askers {
                    self.connections.reply(asker, Reply::Started(started.clone()));
                }
            }
            Outcome::Failed(askers, message) => {
                self.containers.retain(|container| container.spec.container != id);
                for asker in askers {
                    self.connections.refuse(asker, message.clone());
                }
            }
            Outcome::Exited(exit) => {
                self.connections.tell(&Event::Exited { container: id.to_owned(), exit });
            }
        }
    }

    fn check_deadlines(&mut self, now: Instant) {
        for container in &mut self.containers {
            if let Err(error) = container.check(now) {
                let id = &container.spec.container;
                complain(format_args!("cannot kill the OCI runtime of {id}: {error}"));
            }
        }
        if let Err(error) = self.sandbox.check(now) {
            complain(format_args!("cannot kill the pause process: {error}"));
        }
        self.accept_again = self.accept_again.filter(|at| now < *at);
        if now >= self.idle_check {
            self.idle_check = now + self.limits.idle;
            // What a burst of output has touched is given back.
            self.scratch = Scratch::new();
            self.check_use(now);
        }
    }

    /// A monitor that nobody can reach, or that nobody ever asked for anything, ends when
    /// it has no container that runs. One whose containers run goes on: they are not to
    /// lose their logs to a removed directory.
    fn check_use(&mut self, now: Instant) {
        let busy = self.containers.iter().any(|container| !container.is_done());
        if busy || !self.connections.is_empty() {
            return;
        }
        let unused = matches!(self.sandbox.state, sandbox::State::None);
        if (unused && self.containers.is_empty()) || self.dir.is_gone() {
            complain(format_args!("nothing to look after, and nobody to ask for it: ending"));
            if let Err(error) = self.sandbox.end(now) {
                complain(format_args!("cannot end the pause process: {error}"));
            }
            self.ended = matches!(self.sandbox.state, State::Ended);
        }
    }
}

/// A descriptor that the signals are read from: SIGCHLD, and those that would end a monitor
/// together with a daemon, a terminal or a node that goes down in order.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGPIPE,
    ] {
        set.add(signal);
    }
    set.thread_set_mask()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

pub(super) fn find<'c>(containers: &'c mut [Container], id: &str) -> Option<&'c mut Container> {
    containers.iter_mut().find(|container| container.spec.container == id)
}
