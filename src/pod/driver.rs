//! The driver: one task that owns one pod and its containers.
//!
//! It takes events one after another and never waits for anything else: long work runs in
//! child tasks that report back as [`Done`]. After each event [`Driver::advance`] looks at
//! the whole pod and begins whatever is due, so what happens next depends on where the pod
//! stands, not on the order in which things came.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::cgroup::Cgroups;
use super::changes::Told;
use super::config::SandboxConfig;
use super::course::{Course, Deletion};
use super::history::History;
use super::inbox::{Answers, Call, Done, Event};
use super::record::{Phase, SandboxRecord};
use super::registry::Pods;
use super::view::PodView;
use super::work::{Container, Stopping, Work};
use super::{Error, Services, events};
use crate::container::Place;
use crate::container::exec::Executor;
use crate::container::record::ContainerRecord;
use crate::container::state::State;
use crate::health::Policy;
use crate::id::{ContainerId, SandboxId};
use crate::monitor::client::{Monitor, Notice};
use crate::oci::Runtime;

/// Events that may wait for the driver; senders wait when it is full.
const INBOX: usize = 256;

pub(super) struct Driver {
    pub(super) services: Arc<Services>,
    pub(super) pods: Pods,
    pub(super) id: SandboxId,
    pub(super) dir: PathBuf,
    pub(super) config: Arc<SandboxConfig>,
    pub(super) record: SandboxRecord,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) monitor: Option<Monitor>,
    /// Oldest first.
    pub(super) containers: Vec<Container>,
    /// Container names that wait for their next start.
    pub(super) waiting: HashMap<String, Instant>,
    /// Of each container name.
    pub(super) histories: BTreeMap<String, Arc<History>>,
    /// Container names that have failed and don't run again yet: since when.
    pub(super) failed: HashMap<String, Instant>,
    notices: mpsc::Receiver<Notice>,
    pub(super) notices_sender: mpsc::Sender<Notice>,
    inbox: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    pub(super) view: Arc<ArcSwap<PodView>>,
    pub(super) told: Option<Told>,
    pub(super) answers: Answers,
    pub(super) course: Course,
}

/// How the rest of the room reaches a driver.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) id: SandboxId,
    pub(super) sender: mpsc::Sender<Event>,
    pub(super) view: Arc<ArcSwap<PodView>>,
}

/// A driver that recovery or the registry has put together but not yet set going.
pub(super) struct Parts {
    pub(super) id: SandboxId,
    pub(super) record: SandboxRecord,
    pub(super) runtime: Runtime,
    pub(super) containers: Vec<(ContainerId, ContainerRecord)>,
    pub(super) monitor: Option<Monitor>,
    pub(super) notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
}

impl Driver {
    /// Puts a driver together; [`Driver::run`] sets it going.
    pub(super) fn new(services: Arc<Services>, pods: Pods, parts: Parts) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let dir = services.pods_dir.join(&parts.id);
        let config = Arc::new(parts.record.config.clone());
        let runtime = Arc::new(parts.runtime);
        let cgroups = Cgroups::of(&services, &parts.id, &config);
        let containers = parts.containers.into_iter().map(|(id, record)| {
            let place = Place::new(&id, &dir, &cgroups.within);
            let executor = Executor::new(services.agent.clone(), runtime.clone(), place.clone());
            Container::new(id, place, record, Work::None, executor)
        });
        let first = PodView::first(&parts.id, &parts.record, &dir, &runtime);
        let containers = containers.collect();
        let mut driver = Self {
            containers,
            services,
            pods,
            dir,
            config,
            policy: parts.record.policy.clone().map(Arc::new),
            runtime,
            monitor: parts.monitor,
            waiting: HashMap::new(),
            histories: BTreeMap::new(),
            failed: HashMap::new(),
            notices_sender: parts.notices.0,
            notices: parts.notices.1,
            inbox,
            sender: sender.clone(),
            view: Arc::new(ArcSwap::from_pointee(first)),
            told: None,
            id: parts.id,
            record: parts.record,
            answers: Answers::default(),
            course: Course::default(),
        };
        driver.publish();
        let handle = Handle { id: driver.id.clone(), sender, view: driver.view.clone() };
        (driver, handle)
    }

    /// Runs until the pod is removed. `begin`: the span that making the sandbox belongs to.
    pub(super) async fn run(mut self, begin: Span) {
        if self.record.phase == Phase::Starting {
            begin.in_scope(|| self.begin_sandbox());
        }
        drop(begin);
        let mut cause = Span::none();
        loop {
            // Not held while nothing happens: a span ends with the last who holds it.
            std::mem::replace(&mut cause, Span::none()).in_scope(|| self.advance());
            self.publish();
            self.answers.give();
            if self.course.deletion == Deletion::Done {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                Some(event) = self.inbox.recv() => match event {
                    Event::Call(call, span) => {
                        cause = span;
                        cause.in_scope(|| self.called(call));
                    }
                    Event::Done(done, span) => {
                        cause = span;
                        cause.in_scope(|| self.done(done));
                    }
                },
                Some(notice) = self.notices.recv() => self.noticed(notice),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Runs `work` in a child task and takes what it gives as an event.
    pub(super) fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        drop(self.spawn_held(work));
    }

    /// The same, and what holds it: a task that may be ended early.
    pub(super) fn spawn_held(
        &self,
        work: impl Future<Output = Done> + Send + 'static,
    ) -> JoinHandle<()> {
        let sender = self.sender.clone();
        let work = async move {
            let done = work.await;
            // A driver that is gone has no use for it any more.
            drop(sender.send(Event::Done(done, Span::current())).await);
        };
        tokio::spawn(work.in_current_span())
    }

    fn called(&mut self, call: Call) {
        match call {
            Call::AwaitReady(reply) => match &self.record.phase {
                Phase::Starting => self.course.await_ready.push(reply),
                Phase::Ready { .. } => self.answers.add(reply, Ok(self.id.clone())),
                // What failed is still being undone; then its error is the answer.
                Phase::Stopping { .. } if self.course.start_failed.is_some() => {
                    self.course.await_ready.push(reply);
                }
                _ => self.answers.add(reply, Err(self.not_ready())),
            },
            Call::Create(config, reply) => self.create(*config, reply),
            Call::Start(id, reply) => self.start(&id, reply),
            Call::Stop { id, grace, reply } => self.stop(&id, grace, reply),
            Call::Remove(id, reply) => self.remove(&id, reply),
            Call::Restart(id, reply) => self.restart_asked(&id, reply),
            Call::ReopenLog(id, reply) => self.reopen_log(&id, reply),
            Call::Update(id, change, reply) => self.update(&id, *change, reply),
            Call::Checkpoint(id, wanted, reply) => self.checkpoint(&id, *wanted, reply),
            Call::UpdateSandbox(change, reply) => self.update_sandbox(*change, reply),
            Call::StopSandbox(reply) if self.record.phase == Phase::Stopped => {
                self.answers.add(reply, Ok(()));
            }
            Call::StopSandbox(reply) => {
                self.course.await_stopped.push(reply);
                self.want_down(false);
            }
            Call::RemoveSandbox(reply) => {
                self.course.await_removed.push(reply);
                self.want_down(true);
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Up(result) => self.up(result),
            Done::TakenDown(result) => self.taken_down(result),
            Done::Deleted(result) => self.deleted(result),
            Done::Created(id, result) => self.created(&id, *result),
            Done::Started(id, result) => self.started(&id, result),
            Done::Removed(id, result) => self.removed(&id, result),
            Done::Updated(id, result) => self.updated(&id, *result),
            Done::SandboxUpdate(change, reply, allowed) => {
                self.sandbox_updated(*change, reply, allowed);
            }
            Done::EndTold(waiters) => {
                for reply in waiters {
                    self.answers.add(reply, Ok(()));
                }
            }
            Done::Checkpointed(id, result) => self.checkpointed(&id, result),
            Done::Probed(id, kind, outcome, took) => self.probed(&id, kind, outcome, took),
            Done::PostStarted(id, failure) => self.post_started(&id, failure),
            Done::PreStopped(id, failure) => self.pre_stopped(&id, failure),
            Done::Swept(exits) => self.swept(exits),
        }
    }

    /// Begins whatever is due, wherever the pod stands.
    fn advance(&mut self) {
        self.advance_containers();
        match &self.record.phase {
            Phase::Stopping { network, .. } => {
                let network = network.clone();
                self.advance_stopping(network.as_ref());
            }
            Phase::Stopped => self.advance_deletion(),
            Phase::Ready { .. } => self.heal(),
            _ => {}
        }
    }

    /// When `advance` next has something to do by itself.
    fn next_wake(&self) -> Option<Instant> {
        // What is still being started can't be killed before it has been.
        let running = |c: &&Container| matches!(c.record.state, State::Running(_));
        let stops = self.containers.iter().filter(running).filter_map(|c| c.stopping.as_ref());
        let stops = stops.flat_map(Stopping::wakes);
        let waits = matches!(self.record.phase, Phase::Stopping { .. })
            && !self.course.taking_down
            && self.containers.iter().all(Container::is_quiet);
        let retry = self.course.take_down_retry.map(|(at, _)| at).filter(|_| waits);
        stops.chain(retry).chain(self.next_heal()).min()
    }

    /// Writes the pod's record. A failure is reported and tried again with the next change:
    /// the pod itself goes on.
    pub(super) fn save(&self) {
        if let Err(error) = self.services.store.put(self.id.as_str(), &self.record) {
            tracing::error!(sandbox = %self.id, %error, "cannot write the pod's record");
        }
    }

    /// Something happened, for people.
    pub(super) fn event(
        &self,
        container: &str,
        reason: &'static str,
        message: String,
        warning: bool,
    ) {
        self.services.events.record(events::Event {
            at: SystemTime::now(),
            namespace: self.config.namespace.clone(),
            pod: self.config.name.clone(),
            container: container.to_owned(),
            reason,
            message,
            warning,
            count: 1,
        });
    }

    /// Why nothing can be created here.
    pub(super) fn not_ready(&self) -> Arc<Error> {
        let why = match &self.record.phase {
            Phase::Starting => "is still being made".to_owned(),
            Phase::Ready { .. } => "is ready".to_owned(),
            Phase::Lost { why, .. } => format!("is lost, {why}: stop and remove it"),
            Phase::Stopping { .. } => "is being stopped".to_owned(),
            Phase::Stopped => "is stopped: remove it, and run one with a higher attempt".to_owned(),
        };
        Arc::new(Error::WrongState(format!("pod sandbox {} {why}", self.id)))
    }
}
