//! One container: from the runtime's call to its exit record.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::complaint::complain;
use super::connection::Asker;
use super::exit_record;
use super::reaper::{Reaped, Strangers, now};
use super::run_dir::{RunDir, remove_file};
use super::runtime::{self, Call, Files};
use super::stdio::{Scratch, Streams};
use super::wire::{Entry, Exit, Process, StartSpec, Started};
use crate::sys::{process, socket};

/// ```text
/// ─Start▶ Starting ─run ended well▶ Running ─init reaped▶ Clearing ─delete ended▶ Exited ─Forget▶
///            └──────run failed────▶ Undoing ─delete ended▶ (gone, the askers get the error)
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// The runtime creates it.
    Starting { call: Call, askers: Vec<Asker> },
    /// The runtime failed, and removes what it made.
    Undoing { call: Option<Call>, askers: Vec<Asker>, message: String },
    /// Its init runs.
    Running { started: Started },
    /// Its record is written; the runtime ends and removes what is left.
    Clearing { started: Started, exit: Exit, call: Option<Call> },
    /// All done.
    Exited { started: Started, exit: Exit },
}

/// What became of a call's end.
pub(super) enum Outcome {
    /// It runs.
    Started(Vec<Asker>, Started),
    /// It doesn't, and nothing of it is left.
    Failed(Vec<Asker>, String),
    /// It has ended, and so has what it left behind.
    Exited(Exit),
    /// Nothing to tell yet.
    Pending,
}

/// Where a terminal's master arrives.
#[derive(Debug)]
pub(super) struct Console {
    name: String,
    listener: OwnedFd,
    /// The runtime, from its connecting until it has sent the terminal.
    sender: Option<OwnedFd>,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: StartSpec,
    pub(super) state: State,
    pub(super) streams: Option<Streams>,
    console: Option<Console>,
    /// The oom_score_adj of processes that have none of their own.
    oom_score_adj: i32,
}

impl Container {
    /// Calls the runtime; its end is told by the reaper.
    pub(super) fn start(
        spec: StartSpec,
        asker: Asker,
        dir: &RunDir,
        serial: u64,
        limit: Duration,
        oom_score_adj: i32,
    ) -> Result<Self, String> {
        let id = spec.container.clone();
        let failed = |error: io::Error| format!("cannot start container {id}: {error}");
        let console = spec.tty.then(|| Console::open(dir, serial)).transpose().map_err(failed)?;
        let started = Self::call(&spec, console.as_ref(), dir, limit, oom_score_adj);
        let (streams, call) = started.map_err(|error| {
            if let Some(console) = &console {
                console.remove(dir);
            }
            failed(error)
        })?;
        let state = State::Starting { call, askers: vec![asker] };
        Ok(Self { spec, state, streams: Some(streams), console, oom_score_adj })
    }

    fn call(
        spec: &StartSpec,
        console: Option<&Console>,
        dir: &RunDir,
        limit: Duration,
        oom_score_adj: i32,
    ) -> io::Result<(Streams, Call)> {
        let files = Files {
            pid: dir.pid_file(&spec.container),
            log: dir.runtime_log(&spec.container),
            console: console.map(|console| dir.short_path(&console.name)),
        };
        // What an earlier container of this name left would be taken for this one's.
        remove_file(&files.pid)?;
        remove_file(&files.log)?;
        exit_record::remove(dir, &spec.container)?;
        let (streams, ends) = Streams::open(spec)?;
        Ok((streams, runtime::run(spec, &files, ends, limit, oom_score_adj)?))
    }

    /// For the inventory: once it has started, and with its exit once all is done.
    pub(super) fn entry(&self) -> Option<Entry> {
        let (started, exit) = match &self.state {
            State::Starting { .. } | State::Undoing { .. } => return None,
            State::Running { started } | State::Clearing { started, .. } => (started, None),
            State::Exited { started, exit } => (started, Some(exit.clone())),
        };
        Some(Entry { container: self.spec.container.clone(), started: started.clone(), exit })
    }

    /// The descriptor that a terminal comes by, until it has come.
    pub(super) fn console(&self) -> Option<&OwnedFd> {
        let console = self.console.as_ref()?;
        Some(console.sender.as_ref().unwrap_or(&console.listener))
    }

    /// Whether output is carried now. Not before the runtime has done its work: until then
    /// the streams are the runtime's own, and what it complains of is no output.
    pub(super) fn carries_output(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Clearing { .. })
    }

    /// Whether all is done, so that it can be forgotten.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Exited { .. })
    }

    /// The runtime's call under way.
    pub(super) fn pending_call(&mut self) -> Option<&mut Call> {
        match &mut self.state {
            State::Starting { call, .. } => Some(call),
            State::Undoing { call, .. } | State::Clearing { call, .. } => call.as_mut(),
            State::Running { .. } | State::Exited { .. } => None,
        }
    }

    /// Takes the terminal's master, if it has come.
    pub(super) fn receive_terminal(&mut self, dir: &RunDir) -> io::Result<()> {
        let Some(console) = &mut self.console else { return Ok(()) };
        let received = console.receive();
        if matches!(received, Ok(None)) {
            return Ok(());
        }
        console.remove(dir);
        self.console = None;
        match (received?, &mut self.streams) {
            (Some(master), Some(streams)) => streams.attach_terminal(master),
            _ => Ok(()),
        }
    }

    /// Its runtime's call has ended.
    pub(super) fn call_ended(
        &mut self,
        reaped: Reaped,
        dir: &RunDir,
        strangers: &mut Strangers,
        scratch: &mut Scratch,
    ) -> Outcome {
        let state = std::mem::replace(&mut self.state, nothing());
        match state {
            State::Starting { call, askers } => match self.init(&call, reaped, dir, strangers) {
                Ok((started, gone)) => {
                    self.state = State::Running { started: started.clone() };
                    if let Some(gone) = gone {
                        self.init_ended(gone, dir, scratch);
                    }
                    Outcome::Started(askers, started)
                }
                Err(message) => {
                    let call = self.delete(dir);
                    let failed = call.is_none();
                    self.state = State::Undoing { call, askers, message };
                    if failed { self.undone(dir) } else { Outcome::Pending }
                }
            },
            State::Undoing { .. } => {
                self.state = state;
                self.note_delete(reaped, dir);
                self.undone(dir)
            }
            State::Clearing { .. } => {
                self.state = state;
                self.note_delete(reaped, dir);
                self.cleared(dir, scratch)
            }
            State::Running { .. } | State::Exited { .. } => {
                self.state = state;
                Outcome::Pending
            }
        }
    }

    /// The init that the runtime has left us; with its end, if it has ended already.
    fn init(
        &mut self,
        call: &Call,
        reaped: Reaped,
        dir: &RunDir,
        strangers: &mut Strangers,
    ) -> Result<(Started, Option<Reaped>), String> {
        let id = &self.spec.container;
        if call.overdue {
            return Err(format!("the OCI runtime did not start container {id} in time"));
        }
        if reaped.ended.code != 0 {
            return Err(self.complaint(reaped, dir));
        }
        // Its connecting and its message may both still wait.
        let received = (0..2).try_for_each(|_| self.receive_terminal(dir));
        received.map_err(|error| format!("container {}: {error}", self.spec.container))?;
        let id = &self.spec.container;
        if self.console.is_some() {
            return Err(format!("the OCI runtime sent no terminal for container {id}"));
        }
        let text = std::fs::read_to_string(dir.pid_file(id))
            .map_err(|error| format!("the OCI runtime left no pid file for {id}: {error}"))?;
        let pid: i32 = text
            .trim()
            .parse()
            .map_err(|_| format!("the OCI runtime's pid file for {id} holds {text:?}"))?;
        let at = now();
        let own = std::process::id() as i32;
        if let (Ok(parent), Ok(start_ticks)) = (process::parent(pid), process::start_ticks(pid))
            && parent == own
        {
            return Ok((Started { init: Process { pid, start_ticks }, at }, None));
        }
        let gone = strangers.take(pid).ok_or_else(|| {
            format!("process {pid}, which the OCI runtime says is init of {id}, is no child here")
        })?;
        let init = Process { pid, start_ticks: gone.start_ticks };
        Ok((Started { init, at: gone.at.min(at) }, Some(gone)))
    }

    fn complaint(&mut self, reaped: Reaped, dir: &RunDir) -> String {
        let log = dir.runtime_log(&self.spec.container);
        let said = self.streams.as_mut().map(Streams::complaint).unwrap_or_default();
        runtime::last_error(&log).unwrap_or_else(|| {
            let code = reaped.ended.code;
            let runtime = self.spec.runtime.display();
            let said = if said.is_empty() { "and said nothing".to_owned() } else { said };
            runtime::shortened(format!("the OCI runtime {runtime} ended with code {code}: {said}"))
        })
    }

    /// Its init has ended: its output is taken, its exit recorded, what it left is ended.
    pub(super) fn init_ended(&mut self, reaped: Reaped, dir: &RunDir, scratch: &mut Scratch) {
        let State::Running { started } = &self.state else { return };
        let started = started.clone();
        if let Some(streams) = &mut self.streams {
            streams.drain(scratch);
        }
        let exit = Exit {
            code: reaped.ended.code,
            signal: reaped.ended.signal,
            oom_killed: reaped.ended.code != 0 && self.oom_killed(),
            started_at: started.at,
            finished_at: reaped.at,
        };
        let id = &self.spec.container;
        if let Err(error) = exit_record::write(dir, id, &exit) {
            complain(format_args!("cannot write the exit record of {id}: {error}"));
        }
        let call = self.delete(dir);
        self.state = State::Clearing { started, exit, call };
    }

    /// A clearing that could not even call the runtime is done with.
    pub(super) fn settle(&mut self, dir: &RunDir, scratch: &mut Scratch) -> Outcome {
        match self.state {
            State::Clearing { call: None, .. } => self.cleared(dir, scratch),
            _ => Outcome::Pending,
        }
    }

    fn oom_killed(&self) -> bool {
        if self.spec.oom_events.as_os_str().is_empty() {
            return false;
        }
        exit_record::oom_killed(&self.spec.oom_events).unwrap_or_else(|error| {
            let path = self.spec.oom_events.display();
            complain(format_args!("cannot read {path}, taken as no OOM kill: {error}"));
            false
        })
    }

    fn delete(&self, dir: &RunDir) -> Option<Call> {
        let id = &self.spec.container;
        let log = dir.runtime_log(id);
        if let Err(error) = remove_file(&log) {
            complain(format_args!("cannot remove {}: {error}", log.display()));
        }
        match runtime::delete(&self.spec, &log, self.oom_score_adj) {
            Ok(call) => Some(call),
            Err(error) => {
                complain(format_args!("cannot call the OCI runtime to delete {id}: {error}"));
                None
            }
        }
    }

    fn note_delete(&self, reaped: Reaped, dir: &RunDir) {
        if reaped.ended.code != 0 {
            let id = &self.spec.container;
            let said = runtime::last_error(&dir.runtime_log(id)).unwrap_or_default();
            let code = reaped.ended.code;
            complain(format_args!("deleting {id} ended with code {code}: {said}"));
        }
    }

    fn undone(&mut self, dir: &RunDir) -> Outcome {
        self.sweep(dir);
        match std::mem::replace(&mut self.state, nothing()) {
            State::Undoing { askers, message, .. } => Outcome::Failed(askers, message),
            _ => Outcome::Pending,
        }
    }

    fn cleared(&mut self, dir: &RunDir, scratch: &mut Scratch) -> Outcome {
        // Whoever wrote after init's end has been killed by now.
        if let Some(mut streams) = self.streams.take() {
            streams.drain(scratch);
            streams.end(scratch);
        }
        self.sweep(dir);
        match std::mem::replace(&mut self.state, nothing()) {
            State::Clearing { started, exit, .. } => {
                self.state = State::Exited { started, exit: exit.clone() };
                Outcome::Exited(exit)
            }
            _ => Outcome::Pending,
        }
    }

    /// Removes the files of the runtime's calls.
    fn sweep(&mut self, dir: &RunDir) {
        if let Some(console) = self.console.take() {
            console.remove(dir);
        }
        let id = &self.spec.container;
        for path in [dir.pid_file(id), dir.runtime_log(id)] {
            if let Err(error) = remove_file(&path) {
                complain(format_args!("cannot remove {}: {error}", path.display()));
            }
        }
    }

    /// Ends a runtime's call whose time is over.
    pub(super) fn check(&mut self, now: Instant) -> io::Result<()> {
        self.pending_call().map_or(Ok(()), |call| call.check(now))
    }
}

impl Console {
    fn open(dir: &RunDir, serial: u64) -> io::Result<Self> {
        let name = format!("console.{serial}");
        let listener =
            socket::listen_at(std::os::fd::AsFd::as_fd(dir), &name, socket::Kind::STREAM, 1)?;
        Ok(Self { name, listener, sender: None })
    }

    /// One step: the runtime's connecting, then its message. `None`: there's more to come.
    fn receive(&mut self) -> io::Result<Option<OwnedFd>> {
        let Some(sender) = &self.sender else {
            self.sender = socket::accept(&self.listener)?;
            return Ok(None);
        };
        match socket::receive_fd(sender) {
            Ok(None) => Err(io::Error::other("the OCI runtime sent no terminal")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other,
        }
    }

    fn remove(&self, dir: &RunDir) {
        if let Err(error) = dir.remove(&self.name) {
            complain(format_args!("cannot remove {}: {error}", self.name));
        }
    }
}

/// Stands in while a state is taken apart.
fn nothing() -> State {
    State::Undoing { call: None, askers: Vec::new(), message: String::new() }
}
