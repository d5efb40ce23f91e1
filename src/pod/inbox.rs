//! What reaches a driver, and what it answers.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Span;

use super::config::SandboxResources;
use super::plugins::Made;
use super::sandbox::Up;
use super::update::{Changed, Limits};
use super::{Error, Result, hooks};
use crate::container::checkpoint::Wanted;
use crate::container::config::ContainerConfig;
use crate::container::state::Init;
use crate::health::{Kind, Outcome};
use crate::id::{ContainerId, SandboxId};
use crate::monitor::wire::Exit;

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What reaches the driver.
pub(super) enum Event {
    /// With the span that what follows belongs to.
    Call(Call, Span),
    Done(Done, Span),
}

/// What others ask of a pod.
pub(super) enum Call {
    /// Answered when the sandbox is up or has failed.
    AwaitReady(Reply<SandboxId>),
    Create(Box<ContainerConfig>, Reply<ContainerId>),
    Start(ContainerId, Reply<()>),
    Stop {
        id: ContainerId,
        grace: Duration,
        reply: Reply<()>,
    },
    Remove(ContainerId, Reply<()>),
    /// End it and let it run again.
    Restart(ContainerId, Reply<()>),
    ReopenLog(ContainerId, Reply<()>),
    Update(ContainerId, Box<Limits>, Reply<()>),
    UpdateSandbox(Box<SandboxResources>, Reply<()>),
    Checkpoint(ContainerId, Box<Wanted>, Reply<()>),
    StopSandbox(Reply<()>),
    RemoveSandbox(Reply<()>),
}

/// What child tasks report.
pub(super) enum Done {
    Up(std::result::Result<Up, Error>),
    TakenDown(std::result::Result<(), Error>),
    Deleted(std::result::Result<(), Error>),
    Created(ContainerId, Box<std::result::Result<Made, Error>>),
    Started(ContainerId, std::result::Result<Init, Error>),
    Removed(ContainerId, std::result::Result<(), Error>),
    Updated(ContainerId, Box<std::result::Result<Changed, Error>>),
    /// Plugins let the sandbox's limits be changed, or not.
    SandboxUpdate(Box<SandboxResources>, Reply<()>, std::result::Result<(), Error>),
    /// Plugins have heard of a container's end, for which these have waited.
    EndTold(Vec<Reply<()>>),
    Checkpointed(ContainerId, std::result::Result<(), Error>),
    Probed(ContainerId, Kind, Option<Outcome>, Duration),
    PostStarted(ContainerId, hooks::Failure),
    PreStopped(ContainerId, hooks::Failure),
    /// The monitor is gone and so is what it left; the exit records it wrote.
    Swept(Vec<(String, Exit)>),
}

/// Answers that wait until what they tell of has been published, so that a caller's next
/// question finds it.
#[derive(Default)]
pub(super) struct Answers(Vec<Box<dyn FnOnce() + Send>>);

impl Answers {
    pub(super) fn add<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T>) {
        // A caller that has gone is no error.
        self.0.push(Box::new(move || drop(reply.send(result))));
    }

    pub(super) fn give(&mut self) {
        for answer in self.0.drain(..) {
            answer();
        }
    }
}
