//! An agent in a container, which executes commands there, and haled's side of it.
//!
//! It is started through the OCI runtime, so it is confined as the container is, and what it
//! forks too (docs/decisions/0018). All that comes from it may come from anything in the
//! container. A command is executed only once the process that will wait for it is known: until
//! then whatever goes wrong means that it was not executed, and it may be by other means.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{Error, Place};
use super::frame::{self, Frame};
use super::inside::Inside;
use super::scratch::{AGENT, Scratch, Traces};
use super::streams::{Ends, Wanted, pipes};
use super::waiter::Waiter;
use super::{LINGER, Output, attend, exit_code};
use crate::oci::{self, Runtime};
use crate::sys::readiness::Registered;
use crate::sys::{cgroup, inherit, memfd, socket};

/// Of the program, in process lists and in /proc/PID/exe.
const NAME: &str = "haled-agent";
/// Where the agent finds its program and its socket.
const PROGRAM: i32 = 3;
const SOCKET: i32 = 4;
/// How long an agent may take to say that it is about to execute a command; the runtime has to
/// start the first one meanwhile.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How long an agent may take to end once it has been killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The agent's program as containers get it: in memory, and nothing can write to it.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Takes it from a file. Blocks.
    pub fn load(path: &Path) -> io::Result<Self> {
        memfd::sealed(NAME, &std::fs::read(path)?).map(Self)
    }
}

/// What an agent has made of a command.
#[derive(Debug)]
pub(super) enum Served {
    /// It was executed, and has ended.
    Ended(Output),
    /// It was not in time, and is gone with all it had started.
    TimedOut,
    /// It was executed; how it ended can't be known. All it had started is gone.
    Lost,
    /// It was not executed, and the agent goes on.
    NotExecuted(String),
    /// It was not executed, and the agent is of no use.
    Useless(String),
}

/// One in its container. It ends when this is dropped, or when it was given no command for long.
#[derive(Debug)]
pub(super) struct Agent {
    socket: OwnedFd,
    traces: Traces,
    /// It has a cgroup of its own.
    apart: bool,
    /// Who on the host the pipes of commands belong to.
    owner: (u32, u32),
    served: AtomicBool,
    /// Closed once it has ended.
    life: watch::Receiver<()>,
}

impl Agent {
    /// Has the runtime start one, which doesn't wait for it. It ends after `idle` without a
    /// command.
    pub(super) fn start(
        program: &Program,
        runtime: &Runtime,
        place: &Place,
        idle: Duration,
    ) -> Result<Self, Error> {
        let failed = || Error::io("cannot give an agent what it needs in", &place.bundle);
        let inside = Inside::read(place)?;
        let (ours, theirs) = socket::pair().map_err(failed())?;
        socket::set_receive_limit(&theirs, idle).map_err(failed())?;
        let mut scratch = Scratch::named(AGENT, runtime, place)?;
        let itself = [format!("/proc/self/fd/{PROGRAM}")];
        let mut command = scratch.prepare(runtime, place, &itself, None, &inside, 2)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.0.try_clone().map_err(failed())?;
        for (descriptor, number) in [(program, PROGRAM), (theirs, SOCKET)] {
            inherit::give(command.as_std_mut(), descriptor, number).map_err(failed())?;
        }
        let mut child = scratch.spawn(place, command)?;
        let dir = scratch.dir.clone();
        let (traces, apart) = scratch.let_go();
        let (alive, life) = watch::channel(());
        let own = traces.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let words = oci::exec_failure(&dir);
            tracing::debug!(agent = own.name, ?status, words, "an agent has ended");
            drop(tokio::task::spawn_blocking(move || own.close()).await);
            drop(alive);
        });
        let owner = (inside.user, inside.root.map_or(0, |(_, group)| group));
        Ok(Self { socket: ours, traces, apart, owner, served: AtomicBool::new(false), life })
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.life.has_changed().is_err()
    }

    /// Whether it has ever begun a command.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Lets it end as soon as nothing needs it as a parent.
    pub(super) fn dismiss(&self) {
        if let Err(error) = socket::shut_down(&self.socket) {
            tracing::debug!(agent = self.traces.name, %error, "an agent can't be dismissed");
        }
    }

    /// Ends it, and waits for that. What its commands have left running goes on.
    pub(super) async fn end(&self) {
        self.dismiss();
        let mut life = self.life.clone();
        if timeout(LINGER, life.changed()).await.is_ok() {
            return;
        }
        if let Err(error) = self.find(self.traces.pid()).and_then(|found| found.kill()) {
            tracing::warn!(agent = self.traces.name, %error, "an agent can't be killed");
        }
        if timeout(END_LIMIT, life.changed()).await.is_err() {
            tracing::warn!(agent = self.traces.name, "an agent does not end");
        }
    }

    /// Executes a command. Dropping the future kills the command and its descendants.
    pub(super) async fn run(&self, command: &[String], deadline: Option<Instant>) -> Served {
        let Some(order) = frame::order(command) else {
            return Served::NotExecuted("the command is too long".to_owned());
        };
        let (report, ends) = match self.ask(&order) {
            Ok(asked) => asked,
            Err(error) => return Served::Useless(error.to_string()),
        };
        let greeted = timeout(HELLO_LIMIT, self.greet(&report));
        let greeted = match deadline {
            Some(deadline) => match timeout_at(deadline, greeted).await {
                Ok(greeted) => greeted,
                // The waiter will find nobody to tell it to go on.
                Err(_) => return Served::TimedOut,
            },
            None => greeted.await,
        };
        let waiter = match greeted {
            Ok(Ok(waiter)) => waiter,
            Ok(Err(error)) => return Served::Useless(error.to_string()),
            Err(_) => return Served::Useless("it says nothing".to_owned()),
        };
        self.served.store(true, Ordering::Relaxed);
        let running = Running { waiter, traces: self.traces.clone(), report, over: false };
        running.attend(ends, deadline).await
    }

    /// Gives it the command. Gives the end of the waiter's socket, and of the outputs, that stay
    /// here.
    fn ask(&self, order: &[u8]) -> io::Result<(Registered, Ends)> {
        let ([_, stdout, stderr], ends) = pipes(Wanted::OUTPUTS, Some(self.owner))?;
        let (ours, theirs) = socket::pair()?;
        socket::identify_senders(&ours)?;
        let given: Vec<_> = [&stdout, &stderr].into_iter().flatten().chain([&theirs]).collect();
        let given: Vec<_> = given.into_iter().map(|descriptor| descriptor.as_fd()).collect();
        socket::send_packet_with(&self.socket, order, &given)?;
        Ok((Registered::new(ours)?, ends))
    }

    /// Waits for the command's waiter, and tells it to go on if it is what it should be.
    async fn greet(&self, report: &Registered) -> io::Result<Waiter> {
        let (bytes, sender) =
            report.reading(|fd| socket::receive_from_sender(fd, frame::SIZE + 1)).await?;
        if bytes.is_empty() {
            return Err(io::Error::other("it has ended"));
        }
        if Frame::parse(&bytes) != Some(Frame::Hello) {
            return Err(io::Error::other("what it says is none of its words"));
        }
        let waiter = self.find(sender)?;
        socket::send_packet(report, &frame::go())?;
        Ok(waiter)
    }

    /// A process of this agent's cgroup; of the container's where it has none of its own.
    fn find(&self, pid: Option<i32>) -> io::Result<Waiter> {
        let Traces { cgroup, name, .. } = &self.traces;
        let is_inside = |pid: i32| {
            let inside = if self.apart {
                cgroup::processes_sub(cgroup, name)
            } else {
                cgroup::processes_counted(cgroup)
            };
            inside.is_ok_and(|inside| inside.contains(&pid))
        };
        let stranger = || io::Error::other("its process is none of the container's");
        Waiter::find(pid.ok_or_else(stranger)?, is_inside)?.ok_or_else(stranger)
    }
}

/// A command that is being executed. Dropped early, it kills what runs.
struct Running {
    waiter: Waiter,
    traces: Traces,
    report: Registered,
    over: bool,
}

impl Running {
    async fn attend(mut self, ends: Ends, deadline: Option<Instant>) -> Served {
        let attended = attend(ends, self.outcome(), deadline).await;
        match attended {
            Some((Ok(Frame::Ended(status)), mut output)) => {
                self.over = true;
                output.exit_code = exit_code(status);
                Served::Ended(output)
            }
            Some((Ok(Frame::Refused(errno)), _)) => {
                self.over = true;
                Served::NotExecuted(io::Error::from_raw_os_error(errno).to_string())
            }
            Some((Ok(Frame::Hello) | Err(_), mut output)) => {
                self.over = true;
                let traces = self.traces.clone();
                let ended = tokio::task::spawn_blocking(move || {
                    // What it has left, nobody knows from what others have left.
                    traces.end();
                    // With a PID namespace ends everything in it.
                    cgroup::processes_counted(&traces.cgroup).is_ok_and(|left| left.is_empty())
                });
                if !ended.await.unwrap_or(false) {
                    return Served::Lost;
                }
                output.exit_code = exit_code(libc::SIGKILL);
                Served::Ended(output)
            }
            None => {
                self.over = true;
                let ended = tokio::task::spawn_blocking(move || self.end());
                drop(ended.await);
                Served::TimedOut
            }
        }
    }

    /// The one frame that says how the command has ended.
    async fn outcome(&self) -> io::Result<Frame> {
        let receive = |fd: std::os::fd::BorrowedFd<'_>| socket::receive_packet(fd, frame::SIZE);
        let bytes = self.report.reading(receive).await?;
        let frame = bytes.and_then(|bytes| Frame::parse(&bytes));
        frame.ok_or_else(|| io::Error::other("a command's waiter has ended before it"))
    }

    /// Ends the command with all it has started. Blocks.
    fn end(&self) {
        end(&self.waiter, &self.traces);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            let traces = self.traces.clone();
            match self.waiter.try_clone() {
                Ok(waiter) => drop(std::thread::spawn(move || end(&waiter, &traces))),
                Err(_) => drop(std::thread::spawn(move || traces.end())),
            }
        }
    }
}

/// Where it can't be told what is the command's, everything of its agent goes. Blocks.
fn end(waiter: &Waiter, traces: &Traces) {
    match waiter.end() {
        Ok(true) => {}
        Ok(false) => traces.end(),
        Err(error) => {
            tracing::warn!(agent = traces.name, %error, "a command can't be ended by itself");
            traces.end();
        }
    }
}

/// Ends an agent whose daemon is gone, and the commands that run; not what earlier ones have
/// left. Blocks.
pub(super) fn end_leftover(traces: &Traces) {
    let own = traces.pid();
    let program = format!("/memfd:{NAME} (deleted)");
    let is_agents = |pid: i32| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.as_os_str() == &*program)
    };
    let is_inside = |pid: i32| {
        cgroup::processes_counted(&traces.cgroup).is_ok_and(|inside| inside.contains(&pid))
    };
    let mut all = cgroup::processes_counted(&traces.cgroup).unwrap_or_default();
    // The agent last: it is the parent of all that would lose theirs.
    all.sort_by_key(|pid| Some(*pid) == own);
    for pid in all.into_iter().filter(|&pid| is_agents(pid)) {
        let ended = Waiter::find(pid, is_inside).and_then(|found| match found {
            None => Ok(true),
            Some(agent) if Some(pid) == own => agent.kill().map(|()| true),
            Some(waiter) => waiter.end(),
        });
        if !matches!(ended, Ok(true)) {
            tracing::warn!(agent = traces.name, ?ended, "cannot end what an agent executed");
        }
    }
    traces.close();
}
