//! The driver: one task that owns one pod and its containers.
//!
//! It takes events one after another and never waits for anything else: long work runs in
//! child tasks that report back as [`Done`]. After each event [`Driver::advance`] looks at
//! the whole pod and begins whatever is due, so what happens next depends on where the pod
//! stands, not on the order in which things came.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::cgroup::Cgroups;
use super::changes::{Change, Told};
use super::config::{SandboxConfig, SandboxResources};
use super::history::History;
use super::plugins::{self, Made};
use super::record::{Origin, Phase, SandboxRecord};
use super::registry::Pods;
use super::sandbox::{self, Up};
use super::update::{Changed, Limits};
use super::view::{ContainerView, PodView};
use super::{Error, Result, Services, events, hooks};
use crate::container::checkpoint::Wanted;
use crate::container::config::ContainerConfig;
use crate::container::exec::Executor;
use crate::container::record::ContainerRecord;
use crate::container::state::{Ended, Init, State, nanos};
use crate::container::{self, Place};
use crate::health::{Kind, Outcome, Policy, Prober};
use crate::id::{ContainerId, SandboxId};
use crate::monitor::client::{Monitor, Notice};
use crate::monitor::wire::{Event as MonitorEvent, Exit};
use crate::oci::Runtime;

/// Events that may wait for the driver; senders wait when it is full.
const INBOX: usize = 256;
/// Between tries to take a sandbox down, growing to the second.
const TAKE_DOWN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// After SIGKILL, until the callers are told that the container won't die.
pub(super) const GIVE_UP: Duration = Duration::from_secs(30);

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

    fn give(&mut self) {
        for answer in self.0.drain(..) {
            answer();
        }
    }
}

/// What is being done to a container by a child task.
pub(super) enum Work {
    None,
    Creating {
        waiters: Vec<Reply<ContainerId>>,
        then_start: bool,
    },
    Starting {
        waiters: Vec<Reply<()>>,
        ended: Option<Exit>,
    },
    Removing,
    Updating(Reply<()>),
    /// It stands still.
    Checkpointing(Reply<()>),
}

/// A stop that has begun.
pub(super) struct Stopping {
    /// The preStop hook, until it is over; then the stop signal is sent.
    pub(super) hook: Option<hooks::Running>,
    pub(super) grace_end: Instant,
    pub(super) kill_at: Option<Instant>,
    pub(super) give_up_at: Option<Instant>,
    pub(super) waiters: Vec<Reply<()>>,
}

/// A container and all that goes on with it.
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) place: Place,
    pub(super) executor: Arc<Executor>,
    pub(super) config: Arc<ContainerConfig>,
    pub(super) record: ContainerRecord,
    pub(super) work: Work,
    pub(super) stopping: Option<Stopping>,
    /// Asked to be removed: done as soon as nothing is in the way.
    pub(super) remove: Option<Vec<Reply<()>>>,
    pub(super) prober: Option<Prober>,
    /// When its standings were last written.
    pub(super) remembered_at: Option<Instant>,
    /// The postStart hook, while it runs.
    pub(super) post_start: Option<hooks::Running>,
}

impl Container {
    pub(super) fn new(
        id: ContainerId,
        place: Place,
        record: ContainerRecord,
        work: Work,
        services: &Services,
        runtime: &Runtime,
    ) -> Self {
        let executor = Executor::new(services.agent.clone(), runtime.clone(), place.clone());
        Self {
            id,
            place,
            executor: Arc::new(executor),
            config: Arc::new(record.config.clone()),
            record,
            work,
            stopping: None,
            remove: None,
            prober: None,
            remembered_at: None,
            post_start: None,
        }
    }

    /// Its processes are frozen, so that no probe could succeed.
    pub(super) fn stands_still(&self) -> bool {
        matches!(self.work, Work::Checkpointing(_))
    }

    /// Nothing runs and nothing is being done.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.work, Work::None)
            && !matches!(self.record.state, State::Running(_) | State::Starting)
    }
}

pub(super) struct Driver {
    pub(super) services: Arc<Services>,
    pub(super) pods: Pods,
    pub(super) id: SandboxId,
    pub(super) dir: PathBuf,
    pub(super) config: Arc<SandboxConfig>,
    pub(super) record: SandboxRecord,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) runtime: Runtime,
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
    notices_sender: mpsc::Sender<Notice>,
    inbox: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    view: Arc<ArcSwap<PodView>>,
    pub(super) told: Option<Told>,
    pub(super) answers: Answers,
    await_ready: Vec<Reply<SandboxId>>,
    await_stopped: Vec<Reply<()>>,
    await_removed: Vec<Reply<()>>,
    start_failed: Option<Arc<Error>>,
    /// The task that makes the sandbox has not reported yet.
    making: bool,
    /// It ended while its network was still being made.
    lost_early: Option<&'static str>,
    /// Of the call that has the sandbox stopped.
    stop_cause: Span,
    taking_down: bool,
    take_down_retry: Option<(Instant, Duration)>,
    deletion: Deletion,
}

/// How far a stopped pod is from being forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    Unwanted,
    Wanted,
    Running,
    Done,
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
        let cgroups = Cgroups::of(&services, &parts.id, &config);
        let containers = parts.containers.into_iter().map(|(id, record)| {
            let place = Place::new(&id, &dir, &cgroups.within);
            Container::new(id, place, record, Work::None, &services, &parts.runtime)
        });
        let containers = containers.collect();
        let mut driver = Self {
            containers,
            services,
            pods,
            dir,
            config,
            policy: parts.record.policy.clone().map(Arc::new),
            runtime: parts.runtime,
            monitor: parts.monitor,
            waiting: HashMap::new(),
            histories: BTreeMap::new(),
            failed: HashMap::new(),
            notices_sender: parts.notices.0,
            notices: parts.notices.1,
            inbox,
            sender: sender.clone(),
            view: Arc::new(ArcSwap::from_pointee(PodView {
                id: parts.id.clone(),
                config: Arc::new(parts.record.config.clone()),
                origin: parts.record.origin,
                policy: None,
                created_at: 0,
                phase: Phase::Starting,
                dir: PathBuf::new(),
                runtime: Runtime {
                    name: String::new(),
                    path: PathBuf::new(),
                    root: PathBuf::new(),
                    keeper: PathBuf::new(),
                    settings: crate::oci::RuntimeSettings::default(),
                },
                containers: Vec::new(),
                waiting: Vec::new(),
                histories: BTreeMap::new(),
            })),
            told: None,
            id: parts.id,
            record: parts.record,
            answers: Answers::default(),
            await_ready: Vec::new(),
            await_stopped: Vec::new(),
            await_removed: Vec::new(),
            start_failed: None,
            making: false,
            lost_early: None,
            stop_cause: Span::none(),
            taking_down: false,
            take_down_retry: None,
            deletion: Deletion::Unwanted,
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
            if self.deletion == Deletion::Done {
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

    fn begin_sandbox(&mut self) {
        self.making = true;
        let (services, id) = (self.services.clone(), self.id.clone());
        let (config, notices) = (self.config.clone(), self.notices_sender.clone());
        let handler = self.runtime.name.clone();
        self.spawn(async move {
            let up = match sandbox::start(&services, &id, &config, notices).await {
                Ok(up) => plugins::tell_of_pod(&services, &id, &config, &handler, up).await,
                Err(error) => Err(error),
            };
            Done::Up(up)
        });
    }

    fn called(&mut self, call: Call) {
        match call {
            Call::AwaitReady(reply) => match &self.record.phase {
                Phase::Starting => self.await_ready.push(reply),
                Phase::Ready { .. } => self.answers.add(reply, Ok(self.id.clone())),
                // What failed is still being undone; then its error is the answer.
                Phase::Stopping { .. } if self.start_failed.is_some() => {
                    self.await_ready.push(reply);
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
                self.await_stopped.push(reply);
                self.want_down(false);
            }
            Call::RemoveSandbox(reply) => {
                self.await_removed.push(reply);
                self.want_down(true);
            }
        }
    }

    /// The sandbox is to be stopped, and then perhaps removed.
    fn want_down(&mut self, remove: bool) {
        let network = match std::mem::replace(&mut self.record.phase, Phase::Stopped) {
            Phase::Stopped => return,
            Phase::Stopping { network, then_remove } => {
                self.record.phase = Phase::Stopping { network, then_remove: then_remove || remove };
                // A caller is waiting: try now.
                self.take_down_retry = None;
                return self.save();
            }
            Phase::Ready { network, .. } | Phase::Lost { network, .. } => network,
            Phase::Starting => None,
        };
        self.record.phase = Phase::Stopping { network, then_remove: remove };
        self.stop_cause = Span::current();
        self.waiting.clear();
        for container in &mut self.containers {
            if let Some(prober) = &mut container.prober {
                prober.stopping();
            }
        }
        self.save();
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

    fn up(&mut self, result: std::result::Result<Up, Error>) {
        self.making = false;
        match result {
            Ok(up) => {
                self.monitor = Some(up.monitor);
                if let Phase::Stopping { network, .. } = &mut self.record.phase {
                    // Asked to stop while it was being made.
                    *network = up.network;
                } else {
                    self.record.phase =
                        Phase::Ready { pause_pid: up.pause.pid, network: up.network };
                    for reply in self.await_ready.drain(..) {
                        self.answers.add(reply, Ok(self.id.clone()));
                    }
                }
                self.event("", "SandboxReady", String::new(), false);
                if let Some(why) = self.lost_early.take() {
                    self.lost(why);
                }
            }
            Err(error) => {
                self.event("", "FailedSandbox", error.to_string(), true);
                self.start_failed = Some(Arc::new(error));
                self.record.phase = Phase::Stopping { network: None, then_remove: true };
            }
        }
        self.save();
    }

    /// The sandbox can't be stopped now; its stop goes on, but nobody waits for it.
    pub(super) fn stop_failed(&mut self, error: &Arc<Error>) {
        for reply in self.await_stopped.drain(..).chain(self.await_removed.drain(..)) {
            self.answers.add(reply, Err(error.clone()));
        }
    }

    fn taken_down(&mut self, result: std::result::Result<(), Error>) {
        self.taking_down = false;
        self.stop_cause = Span::none();
        let error = self.start_failed.take();
        if error.is_some() {
            self.pods.release_name(&self.config, &self.id);
        }
        let remove = matches!(self.record.phase, Phase::Stopping { then_remove: true, .. });
        if result.is_ok() && remove && error.is_some() {
            // Told when the pod is gone: whoever hears of the failure finds nothing of it.
            self.start_failed = error;
        } else {
            self.fail_ready(error);
        }
        match result {
            Ok(()) => {
                self.record.phase = Phase::Stopped;
                self.monitor = None;
                if remove {
                    self.deletion = Deletion::Wanted;
                }
                self.save();
                for reply in self.await_stopped.drain(..) {
                    self.answers.add(reply, Ok(()));
                }
            }
            Err(error) => {
                let (first, longest) = TAKE_DOWN_RETRY;
                let wait = self.take_down_retry.map_or(first, |(_, wait)| (wait * 2).min(longest));
                self.take_down_retry = Some((Instant::now() + wait, wait));
                tracing::error!(sandbox = %self.id, %error, retry_in = ?wait, "cannot take the sandbox down");
                self.stop_failed(&Arc::new(error));
            }
        }
    }

    /// Tells those who wait for the sandbox that it won't be.
    fn fail_ready(&mut self, error: Option<Arc<Error>>) {
        let error = error.unwrap_or_else(|| self.not_ready());
        for reply in self.await_ready.drain(..) {
            self.answers.add(reply, Err(error.clone()));
        }
    }

    /// Something is in the way of forgetting the pod: whoever asked is told, and may ask again.
    pub(super) fn deletion_failed(&mut self, error: &Arc<Error>) {
        if self.deletion == Deletion::Unwanted {
            return;
        }
        self.deletion = Deletion::Unwanted;
        for container in &mut self.containers {
            container.remove = None;
        }
        for reply in self.await_removed.drain(..) {
            self.answers.add(reply, Err(error.clone()));
        }
    }

    fn deleted(&mut self, result: std::result::Result<(), Error>) {
        let failure = self.start_failed.take();
        self.fail_ready(failure);
        let result = result.and_then(|()| {
            self.services.store.delete::<SandboxRecord>(self.id.as_str())?;
            Ok(())
        });
        match result {
            Ok(()) => {
                self.deletion = Deletion::Done;
                self.pods.forget_pod(&self.config, &self.id);
                if self.record.origin == Origin::Cri {
                    // Those of a manifest's pod outlive its sandboxes.
                    self.services.events.forget(&self.config.namespace, &self.config.name);
                }
                for reply in self.await_removed.drain(..) {
                    self.answers.add(reply, Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(sandbox = %self.id, %error, "cannot delete the pod");
                self.deletion_failed(&Arc::new(error));
            }
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Event(MonitorEvent::Exited { container, exit }) => {
                if let Some(at) = self.containers.iter().position(|c| c.id.as_str() == container) {
                    self.exited(at, exit);
                }
            }
            Notice::Event(MonitorEvent::PauseExited) => self.lost("its pause process ended"),
            Notice::Gone if self.making => self.lost("its monitor ended"),
            Notice::Gone => {
                if self.monitor.take().is_some() && !self.taking_down {
                    self.lost("its monitor ended");
                    self.sweep();
                }
            }
        }
    }

    /// The sandbox can't hold containers any more.
    pub(super) fn lost(&mut self, why: &'static str) {
        if self.making {
            self.lost_early = Some(why);
        }
        if let Phase::Ready { network, .. } = &self.record.phase {
            self.record.phase = Phase::Lost { network: network.clone(), why: why.to_owned() };
            self.waiting.clear();
            self.save();
            self.event("", "SandboxLost", format!("the sandbox is lost: {why}"), true);
        }
    }

    /// Ends what a monitor that is gone has left running, and reads what it wrote.
    pub(super) fn sweep(&self) {
        let dir = self.dir.clone();
        let may_run =
            |c: &&Container| matches!(c.record.state, State::Starting | State::Running(_));
        let running = self.containers.iter().filter(may_run);
        let cgroups: Vec<String> = running.map(|c| c.place.cgroup.clone()).collect();
        self.spawn(async move {
            let swept = tokio::task::spawn_blocking(move || {
                for cgroup in cgroups {
                    if let Err(error) = crate::sys::cgroup::kill(&cgroup) {
                        tracing::error!(cgroup, %error, "cannot end what a lost monitor left");
                    }
                }
                Monitor::exits_on_disk(&dir)
            });
            Done::Swept(swept.await.unwrap_or_default())
        });
    }

    fn swept(&mut self, exits: Vec<(String, Exit)>) {
        for (id, exit) in exits {
            if let Some(at) = self.containers.iter().position(|c| c.id.as_str() == id) {
                self.exited(at, exit);
            }
        }
        let message = "the pod's monitor ended, so how the container ended isn't known";
        for at in 0..self.containers.len() {
            if let State::Running(init) = self.containers[at].record.state {
                let ended =
                    Ended::unseen(init.started_at, SystemTime::now(), "MonitorLost", message);
                self.ended(at, ended);
            }
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

    fn advance_stopping(&mut self, network: Option<&crate::network::Attached>) {
        for at in 0..self.containers.len() {
            self.begin_stop(at, Duration::ZERO);
        }
        let due = self.take_down_retry.is_none_or(|(at, _)| at <= Instant::now());
        if self.making
            || self.taking_down
            || !due
            || !self.containers.iter().all(Container::is_quiet)
        {
            return;
        }
        self.taking_down = true;
        // What has the containers ended is no call's; what comes after is the stop's.
        let cause = self.stop_cause.clone();
        let _stopping = cause.enter();
        let (services, id, config) = (self.services.clone(), self.id.clone(), self.config.clone());
        let (monitor, network) = (self.monitor.clone(), network.cloned());
        let pods = self.pods.clone();
        self.spawn(async move {
            plugins::tell_of_pods_stop(&services, &pods, &id).await;
            let (monitor, network) = (monitor.as_ref(), network.as_ref());
            Done::TakenDown(sandbox::take_down(&services, &id, &config, monitor, network).await)
        });
    }

    fn advance_deletion(&mut self) {
        if self.deletion == Deletion::Unwanted && !self.await_removed.is_empty() {
            self.deletion = Deletion::Wanted;
        }
        if self.deletion != Deletion::Wanted {
            return;
        }
        for container in &mut self.containers {
            container.remove.get_or_insert_default();
        }
        self.advance_containers();
        if self.containers.is_empty() {
            self.deletion = Deletion::Running;
            let dir = self.dir.clone();
            let (services, id) = (self.services.clone(), self.id.clone());
            self.spawn(async move {
                plugins::tell_of_pods_removal(&services, &id).await;
                Done::Deleted(sandbox::delete_directory(dir).await)
            });
        }
    }

    /// When `advance` next has something to do by itself.
    fn next_wake(&self) -> Option<Instant> {
        // What is still being started can't be killed before it has been.
        let running = |c: &&Container| matches!(c.record.state, State::Running(_));
        let stops = self.containers.iter().filter(running).filter_map(|c| c.stopping.as_ref());
        let stops = stops.flat_map(|s| [s.kill_at, s.give_up_at]).flatten();
        let waits = matches!(self.record.phase, Phase::Stopping { .. })
            && !self.taking_down
            && self.containers.iter().all(Container::is_quiet);
        let retry = self.take_down_retry.map(|(at, _)| at).filter(|_| waits);
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

    pub(super) fn publish(&mut self) {
        let (now, wall) = (Instant::now().into_std(), SystemTime::now());
        // What is still being created can't be used, so it isn't shown.
        let visible = self.containers.iter().filter(|c| !matches!(c.work, Work::Creating { .. }));
        let ends_all = self.ends_all();
        let containers = visible.map(|container| {
            let prober = container.prober.as_ref();
            Arc::new(ContainerView {
                id: container.id.clone(),
                sandbox: self.id.clone(),
                config: container.config.clone(),
                image_id: container.record.image_id.clone(),
                image_name: container.record.image_name.clone(),
                image_ref: container.record.image_ref.clone(),
                created_at: container.record.created_at,
                user: container.record.user.clone(),
                stop_signal: container.record.stop_signal.clone(),
                state: container.record.state.clone(),
                health: prober.and_then(Prober::health),
                health_message: prober.map(Prober::message).unwrap_or_default(),
                ready: matches!(container.record.state, State::Running(_))
                    && container.post_start.is_none()
                    && prober.is_none_or(Prober::ready),
                probes: prober.map(|p| p.report(now, wall)).unwrap_or_default(),
                past: container.record.run_again && !ends_all,
                place: container.place.clone(),
                executor: container.executor.clone(),
                log_path: self.log_path(&container.config),
            })
        });
        let waiting = self.record.restarts.iter().filter_map(|(name, restarting)| {
            let at = restarting.next_start_at.filter(|_| self.waiting.contains_key(name))?;
            Some((name.clone(), at))
        });
        let view = Arc::new(PodView {
            id: self.id.clone(),
            config: self.config.clone(),
            origin: self.record.origin,
            policy: self.policy.clone(),
            created_at: self.record.created_at,
            phase: self.record.phase.clone(),
            dir: self.dir.clone(),
            runtime: self.runtime.clone(),
            containers: containers.collect(),
            waiting: waiting.collect(),
            histories: self.histories.clone(),
        });
        self.view.store(view.clone());
        self.tell(view);
    }

    /// Tells the clients that follow this pod what the view shows for the first time.
    fn tell(&mut self, view: Arc<PodView>) {
        let told = self.told.get_or_insert_with(|| Told::until(&view, &view.phase));
        for (kind, id) in told.changes(&view, self.deletion == Deletion::Done) {
            let at = nanos(SystemTime::now());
            self.services.changes.tell(Change { at, kind, id, pod: view.clone() });
        }
    }

    /// Where a container's log goes; empty: nowhere.
    pub(super) fn log_path(&self, config: &ContainerConfig) -> PathBuf {
        if config.log_path.as_os_str().is_empty()
            || self.config.log_directory.as_os_str().is_empty()
        {
            return PathBuf::new();
        }
        self.config.log_directory.join(&config.log_path)
    }
}

/// A container's error as the pod's.
pub(super) fn of_container(error: container::Error) -> Error {
    Error::Container(error)
}
