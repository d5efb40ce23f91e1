//! Commands in one container, one after another or at once: by the runtime, or by an agent where
//! they come often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::agent::{Agent, Program, Served};
use super::{Deadline, Output, by_runtime, check};
use crate::container::{Error, Place};
use crate::oci::Runtime;

/// An agent without a command for that long ends; one is started when two commands come closer
/// together. A probe that runs more seldom costs what the runtime costs, and leaves nothing.
const IDLE: Duration = Duration::from_mins(2);

/// Executes commands in a container.
#[derive(Debug)]
pub struct Executor {
    /// `None`: by the runtime alone.
    program: Option<Arc<Program>>,
    runtime: Arc<Runtime>,
    place: Place,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// When the last command came.
    last: Option<Instant>,
    agent: Option<Arc<Agent>>,
    /// One could not begin here: none will.
    in_vain: bool,
    /// There must be none now.
    resting: bool,
}

impl Executor {
    /// For a container that may not run yet. `program`: of agents, where there may be any.
    pub fn new(program: Option<Arc<Program>>, runtime: Arc<Runtime>, place: Place) -> Self {
        Self { program, runtime, place, slot: Mutex::default() }
    }

    /// Runs `command` as the container's own user, in its environment. `limit`: `None` is none.
    /// Dropping the future kills the command and its descendants.
    pub async fn run(&self, command: &[String], limit: Option<Duration>) -> Result<Output, Error> {
        check(&self.place, command)?;
        let deadline = Deadline::new(limit);
        if let Some(agent) = self.agent() {
            let why = match agent.run(command, deadline.at()).await {
                Served::Ended(output) => return Ok(output),
                Served::TimedOut => return Err(deadline.passed(&self.place, command)),
                Served::Lost => {
                    self.part_from(&agent);
                    let why = "it killed the process of haled beside it, which would have told how \
                               it ended: it and all that has been executed beside it are gone";
                    return Err(Error::exec(&self.place, command, why.to_owned()));
                }
                // In the runtime's words it is told to whoever asked.
                Served::NotExecuted(why) => why,
                Served::Useless(why) => {
                    self.part_from(&agent);
                    why
                }
            };
            tracing::debug!(container = %self.place.id, why, "the runtime executes, not an agent");
        }
        by_runtime(&self.runtime, &self.place, command, deadline).await
    }

    /// The agent for the next command, where one is worth it.
    fn agent(&self) -> Option<Arc<Agent>> {
        let program = self.program.as_ref()?;
        let mut slot = self.slot();
        let now = Instant::now();
        let last = slot.last.replace(now);
        if slot.resting || slot.in_vain {
            return None;
        }
        if let Some(agent) = slot.agent.take_if(|agent| agent.is_over()) {
            tracing::debug!(container = %self.place.id, served = agent.has_served(), "an agent had ended");
        }
        let often = last.is_some_and(|last| now.duration_since(last) < IDLE);
        if slot.agent.is_none() && often {
            match Agent::start(program, &self.runtime, &self.place, IDLE) {
                Ok(agent) => slot.agent = Some(Arc::new(agent)),
                Err(error) => {
                    tracing::debug!(container = %self.place.id, %error, "no agent can be started");
                    slot.in_vain = !error.is_shortage();
                }
            }
        }
        slot.agent.clone()
    }

    /// Another one may be better; not where this one has never been of use.
    fn part_from(&self, agent: &Arc<Agent>) {
        let mut slot = self.slot();
        slot.in_vain |= !agent.has_served();
        slot.agent.take_if(|current| Arc::ptr_eq(current, agent));
        agent.dismiss();
    }

    /// The container has ended: so may its agent.
    pub fn dismiss(&self) {
        if let Some(agent) = self.slot().agent.take() {
            agent.dismiss();
        }
    }

    /// Ends the agent, which holds what comes from outside the container. There is none until
    /// what this gives is dropped.
    pub async fn rest(self: &Arc<Self>) -> Rest {
        let agent = {
            let mut slot = self.slot();
            slot.resting = true;
            slot.agent.take()
        };
        let rest = Rest(self.clone());
        if let Some(agent) = agent {
            agent.end().await;
        }
        rest
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        // It is whole after every line that changes it.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One is the same only as itself.
impl PartialEq for Executor {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// While it is held, a container has no agent.
#[derive(Debug)]
pub struct Rest(Arc<Executor>);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.slot().resting = false;
    }
}
