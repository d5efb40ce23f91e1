//! Changes of sandboxes and containers, for clients that follow them (the CRI's
//! GetContainerEvents).
//!
//! They are read off the published views, so nothing that List and Status show can change
//! without one, and a client that has been told finds what it was told when it asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::record::Phase;
use super::view::PodView;
use crate::container::state::State;
use crate::id::ContainerId;

/// Changes that a client may lag behind before it is dropped.
pub const LISTENER_LAG: usize = 1024;
/// Changes kept that nobody has been told of; the oldest go.
const KEPT: usize = 1024;
/// How long after the daemon's start a new listener is told of what it missed. A kubelet that
/// lost the stream lists once, perhaps while no daemon is there to answer, and then only every
/// five minutes.
const CATCH_UP: Duration = Duration::from_mins(5);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is there.
    Created,
    /// It runs; a sandbox: it is ready.
    Started,
    /// It ended, or could not start.
    Stopped,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// What became of it.
    pub kind: Kind,
    /// The container's id, or the sandbox's.
    pub id: String,
    /// The pod right after the change.
    pub pod: Arc<PodView>,
}

/// Who tells changes, and to whom. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes {
    started: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// `None`: the daemon ends.
    told: Option<broadcast::Sender<Change>>,
    /// What happened before anyone listened.
    missed: VecDeque<Change>,
    listened: bool,
}

impl Changes {
    /// `started`: the daemon's own start.
    pub fn new(started: Instant) -> Self {
        let told = Some(broadcast::Sender::new(LISTENER_LAG));
        let inner = Inner { told, missed: VecDeque::new(), listened: false };
        Self { started, inner: Arc::new(Mutex::new(inner)) }
    }

    pub(super) fn tell(&self, change: Change, now: Instant) {
        let mut inner = self.lock();
        if !inner.listened {
            if self.is_late(now) {
                // Nobody will be told of it.
                inner.missed = VecDeque::new();
                return;
            }
            if inner.missed.len() == KEPT {
                inner.missed.pop_front();
            }
            inner.missed.push_back(change);
        } else if let Some(told) = &inner.told {
            // Nobody listening is no error.
            drop(told.send(change));
        }
    }

    /// What happened since the daemon's start before anyone listened (nothing once that is
    /// some minutes ago), and whatever happens from now on. `None`: the daemon ends.
    pub fn listen(&self, now: Instant) -> Option<(Vec<Change>, broadcast::Receiver<Change>)> {
        let mut inner = self.lock();
        let coming = inner.told.as_ref()?.subscribe();
        inner.listened = true;
        if self.is_late(now) {
            inner.missed = VecDeque::new();
        }
        Some((inner.missed.iter().cloned().collect(), coming))
    }

    /// Ends every listener: the daemon ends.
    pub fn close(&self) {
        self.lock().told = None;
    }

    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) > CATCH_UP
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far something has come, in the order in which it can only go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Absent,
    Created,
    Started,
    Stopped,
    Deleted,
}

/// What has been told of one pod so far.
#[derive(Debug)]
pub(super) struct Told {
    sandbox: Stage,
    containers: Vec<(ContainerId, Stage)>,
}

impl Told {
    /// As if everything that `view` shows had been told, the sandbox being in `phase`.
    pub(super) fn until(view: &PodView, phase: &Phase) -> Self {
        let containers = view.containers.iter().map(|c| (c.id.clone(), stage(&c.state)));
        Self { sandbox: stage_of(phase, Stage::Started), containers: containers.collect() }
    }

    /// A container that had been told of as created, and went while nobody was there to tell.
    pub(super) fn lost(&mut self, container: ContainerId) {
        self.containers.push((container, Stage::Created));
    }

    /// What has changed since, oldest first: what came to be, containers before their sandbox's
    /// end. `gone`: the sandbox is, too.
    pub(super) fn changes(&mut self, view: &PodView, gone: bool) -> Vec<(Kind, String)> {
        let mut changes = Vec::new();
        let sandbox = stage_of(&view.phase, self.sandbox);
        let id = view.id.as_str();
        let begun = sandbox.min(Stage::Started);
        go_on(&mut self.sandbox, begun, id, false, &mut changes);
        self.containers.retain_mut(|(id, stage)| {
            let there = view.container(id).is_some();
            if !there {
                go_on(stage, Stage::Deleted, id.as_str(), false, &mut changes);
            }
            there
        });
        for container in &view.containers {
            let at = self.containers.iter().position(|(id, _)| *id == container.id);
            let at = at.unwrap_or_else(|| {
                self.containers.push((container.id.clone(), Stage::Absent));
                self.containers.len() - 1
            });
            let never_ran = matches!(&container.state, State::Exited(end) if end.started_at == 0);
            let (to, told) = (stage(&container.state), &mut self.containers[at].1);
            go_on(told, to, container.id.as_str(), never_ran, &mut changes);
        }
        let end = if gone { Stage::Deleted } else { sandbox };
        if self.sandbox != Stage::Absent {
            go_on(&mut self.sandbox, end, id, false, &mut changes);
        }
        changes
    }
}

/// Adds every step from `stage` to `to`: several may lie between two views.
fn go_on(
    stage: &mut Stage,
    to: Stage,
    id: &str,
    never_ran: bool,
    changes: &mut Vec<(Kind, String)>,
) {
    let steps = [
        (Stage::Created, Kind::Created),
        (Stage::Started, Kind::Started),
        (Stage::Stopped, Kind::Stopped),
        (Stage::Deleted, Kind::Deleted),
    ];
    // What was created and never started is deleted without a stop.
    let unstarted = to == Stage::Deleted && *stage == Stage::Created;
    for (step, kind) in steps {
        let skipped = match kind {
            Kind::Started => never_ran || unstarted,
            Kind::Stopped => unstarted,
            Kind::Created | Kind::Deleted => false,
        };
        if step > *stage && step <= to && !skipped {
            changes.push((kind, id.to_owned()));
        }
    }
    *stage = to.max(*stage);
}

fn stage(state: &State) -> Stage {
    match state {
        State::Created | State::Starting => Stage::Created,
        State::Running(_) => Stage::Started,
        State::Exited(_) => Stage::Stopped,
    }
}

/// A sandbox counts from when it is ready: one that can't be made was never there. Its end is
/// that of its processes, so it comes after its containers'.
fn stage_of(phase: &Phase, before: Stage) -> Stage {
    match phase {
        Phase::Starting => Stage::Absent,
        Phase::Ready { .. } => Stage::Started,
        Phase::Stopping { .. } => before,
        Phase::Lost { .. } => Stage::Stopped,
        Phase::Stopped if before == Stage::Absent => Stage::Absent,
        Phase::Stopped => Stage::Stopped,
    }
}

#[cfg(test)]
mod tests;
