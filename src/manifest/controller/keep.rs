//! One pod's task: it looks, asks the plan what is next, and does it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::grace::Grace;
use super::record::{PodRecord, stored_key};
use super::{Key, Manifests, node};
use crate::container::config::ContainerConfig;
use crate::container::state::{State, nanos};
use crate::health::{Kind, is_kill};
use crate::image;
use crate::manifest::plan::{self, Action, Ending, Observed, Sandbox, Seen, Stage, Wish};
use crate::manifest::{Planned, PodPlan, PullPolicy, dns, volumes};
use crate::oci::model::Profile;
use crate::pod;
use crate::pod::events::Event;
use crate::pod::host_resolv_conf;
use crate::pod::record::{Origin, Phase};
use crate::pod::view::{ContainerView, PodView};

/// Between tries to bring a pod up, growing to the second.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How often a pod's task looks by itself; it also looks whenever something happens to the pod.
const LOOK: Duration = Duration::from_secs(1);
/// While a sandbox comes or goes.
const SOON: Duration = Duration::from_millis(50);
/// What an evicted pod gets at most: it goes on using what it mustn't. As in Kubernetes.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// What keeps a pod from being as it should.
pub(super) struct Trouble {
    pub(super) why: String,
    /// The pod's own task has told people of it.
    told: bool,
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, told: false }
    }
}

/// What came of one look.
pub(super) enum Looked {
    /// Something was done: look again.
    Did,
    /// Nothing to do until something happens.
    Waits,
    /// The pod is over, or gone.
    Over,
}

impl Manifests {
    /// Begins the task that keeps a pod as it should be.
    pub(super) fn keep(&self, key: Key) -> JoinHandle<()> {
        tokio::spawn(self.clone().run(key))
    }

    /// Does what is to be done for the pod until it is over, with an eye on what it uses.
    async fn run(self, key: Key) {
        tokio::select! {
            () = self.tend(&key) => {}
            () = self.evict_when_overfull(&key) => {}
        }
    }

    async fn tend(&self, key: &Key) {
        self.tend_until_over(key).await;
        self.note_conditions(key);
    }

    async fn tend_until_over(&self, key: &Key) {
        let (first, longest) = RETRY;
        let mut wait = first;
        let mut happened = self.inner.pods.services().events.listen();
        let mut grace: Option<Grace> = None;
        loop {
            self.note_conditions(key);
            let Some(record) = self.record(key) else { return };
            let (wish, whole) = wish(&record);
            if grace.as_ref().is_none_or(|grace| grace.whole() != whole) {
                grace = Some(Grace::new(whole));
            }
            let Some(grace) = &mut grace else { return };
            match self.look(key, &record, &wish, grace).await {
                Ok(Looked::Over) => return,
                Ok(Looked::Did) => wait = first,
                Ok(Looked::Waits) => {
                    self.set_problem(key, String::new());
                    wait = first;
                    let of_pod = async {
                        loop {
                            match happened.recv().await {
                                Ok(event) if event.is_of(&key.0, &key.1) => return,
                                Ok(_) => {}
                                // Too many to follow: look.
                                Err(_) => return,
                            }
                        }
                    };
                    drop(tokio::time::timeout(LOOK, of_pod).await);
                }
                Err(Trouble { why, told }) => {
                    tracing::warn!(namespace = key.0, name = key.1, why, retry_in = ?wait, "cannot bring the pod up");
                    if !told {
                        self.tell(key, "Failed", why.clone());
                    }
                    self.set_problem(key, why);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(longest);
                }
            }
        }
    }

    /// One look, and the one thing to do.
    pub(super) async fn look(
        &self,
        key: &Key,
        record: &PodRecord,
        wish: &Wish,
        grace: &mut Grace,
    ) -> Result<Looked, Trouble> {
        let all = self.sandboxes_of(&record.uid);
        let newest = all.last();
        match plan::next(&record.plan, &observe(&record.plan, &all), wish) {
            Action::Wait if newest.is_some_and(|pod| !pod.ready()) => {
                tokio::time::sleep(SOON).await;
                return Ok(Looked::Did);
            }
            Action::Wait => return Ok(Looked::Waits),
            Action::RunSandbox => self.new_sandbox(key, record, &all).await?,
            Action::DropSandbox => {
                if let Some(pod) = newest {
                    self.inner.pods.stop_sandbox(&pod.id).await.map_err(text)?;
                }
            }
            Action::Create(name) => {
                if let (Some(pod), Some(planned)) = (newest, record.plan.find(&name)) {
                    self.create(record, pod, planned, next_attempt(&all, &name)).await?;
                }
            }
            Action::Start(name) => {
                if let Some(made) = newest.and_then(|pod| pod.newest(&name)) {
                    self.inner.pods.start(&made.id).await.map_err(told)?;
                }
            }
            Action::Stop(names) => self.stop(newest, &names, grace.left(Instant::now())).await?,
            Action::Finish(ending) => {
                if let Some(pod) = newest.filter(|pod| pod.phase != Phase::Stopped) {
                    self.inner.pods.stop_sandbox(&pod.id).await.map_err(text)?;
                }
                self.change(key, |record| record.ended = Some(ending)).map_err(text)?;
                return Ok(Looked::Over);
            }
            Action::Remove => {
                for pod in &all {
                    self.inner.pods.remove_sandbox(&pod.id).await.map_err(text)?;
                }
                return Ok(Looked::Over);
            }
        }
        Ok(Looked::Did)
    }

    async fn new_sandbox(
        &self,
        key: &Key,
        record: &PodRecord,
        all: &[Arc<PodView>],
    ) -> Result<(), Trouble> {
        // Images first: a sandbox that waits for them helps nobody.
        for planned in record.plan.all() {
            self.ensure_image(&planned.config.image, planned.pull).await?;
        }
        for (reference, pull) in record.plan.image_volumes() {
            self.ensure_image(reference, pull).await?;
        }
        let (dir, plan) = (self.volumes_of(&record.uid), record.plan.clone());
        let facts = node::facts(&record.uid, &[]);
        blocking(move || volumes::make(&dir, &plan, &facts)).await?;
        // The newest of the old ones is kept: it says how the last attempts ended.
        for old in all.iter().rev().skip(1) {
            self.inner.pods.remove_sandbox(&old.id).await.map_err(text)?;
        }
        let mut sandbox = record.plan.sandbox.clone();
        sandbox.attempt = record.next_attempt;
        if let Some(own) = record.plan.added_dns.clone() {
            let merged = blocking(move || {
                let node = host_resolv_conf().map_err(|error| {
                    format!("cannot read the node's resolv.conf for dnsConfig: {error}")
                })?;
                Ok(dns::merge(&node, &own))
            });
            sandbox.dns = Some(merged.await?);
        }
        let now = nanos(SystemTime::now());
        self.change(key, |record| {
            record.next_attempt += 1;
            if record.started_at == 0 {
                record.started_at = now;
            }
        })
        .map_err(text)?;
        let policy = Some(record.plan.health.clone());
        self.inner.pods.run(sandbox, Origin::Manifest, policy).await.map_err(told)?;
        Ok(())
    }

    async fn create(
        &self,
        record: &PodRecord,
        pod: &PodView,
        planned: &Planned,
        attempt: u32,
    ) -> Result<(), Trouble> {
        self.ensure_image(&planned.config.image, planned.pull).await?;
        for (reference, pull) in record.plan.image_volumes() {
            self.ensure_image(reference, pull).await?;
        }
        self.refuse_root(planned)?;
        let mut config = planned.attempt(attempt, &node::facts(&record.uid, pod.ips()));
        let (dir, plan, of) = (self.volumes_of(&record.uid), record.plan.clone(), planned.clone());
        let env = config.env.clone();
        config.mounts = blocking(move || volumes::mounts(&dir, &plan, &of, &env)).await?;
        config.find_images(&self.inner.images).map_err(text)?;
        self.with_profile(&mut config);
        let id = self.inner.pods.create(&pod.id, config).await.map_err(told)?;
        self.inner.pods.start(&id).await.map_err(told)
    }

    /// A seccomp profile of the node stands below a directory that only the daemon knows.
    fn with_profile(&self, config: &mut ContainerConfig) {
        if let Profile::Localhost(path) = &mut config.security.seccomp {
            *path = self.inner.settings.seccomp_dir.join(&path).to_string_lossy().into_owned();
        }
    }

    /// runAsNonRoot, where the image decides who it runs as.
    fn refuse_root(&self, planned: &Planned) -> Result<(), String> {
        if !planned.non_root || planned.config.security.user.uid.is_some() {
            return Ok(());
        }
        let image = self.inner.images.find(&planned.config.image).map_err(text)?;
        let user = image.defaults.user.split(':').next().unwrap_or("");
        let why = match user.parse::<u32>() {
            Ok(0) => "its image runs as root".to_owned(),
            Ok(_) => return Ok(()),
            Err(_) if user.is_empty() => "its image runs as root".to_owned(),
            Err(_) => format!("its image runs as \"{user}\", which may be root: give runAsUser"),
        };
        let name = &planned.config.name;
        Err(format!("CreateContainerConfigError: container \"{name}\" has runAsNonRoot and {why}"))
    }

    async fn ensure_image(&self, name: &str, pull: PullPolicy) -> Result<(), String> {
        match (pull, self.inner.images.find(name)) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Ok(_)) => return Ok(()),
            (PullPolicy::Never, Err(error)) => return Err(format!("ErrImageNeverPull: {error}")),
            (PullPolicy::IfNotPresent, Err(image::Error::NotFound(_))) => {}
            (PullPolicy::IfNotPresent, Err(error)) => {
                return Err(format!("InvalidImageName: {error}"));
            }
            (PullPolicy::Always, _) => {}
        }
        let pulled = self.inner.images.pull(name, None).await;
        pulled.map(drop).map_err(|error| format!("ErrImagePull: {error}"))
    }

    async fn stop(
        &self,
        pod: Option<&Arc<PodView>>,
        names: &[String],
        grace: Duration,
    ) -> Result<(), String> {
        let Some(pod) = pod else { return Ok(()) };
        let newest = names.iter().filter_map(|name| pod.newest(name));
        let stops = newest.map(|container| self.inner.pods.stop(&container.id, grace));
        for stopped in join_all(stops).await {
            stopped.map_err(text)?;
        }
        Ok(())
    }

    /// A pod's sandboxes, the newest last.
    pub(super) fn sandboxes_of(&self, uid: &str) -> Vec<Arc<PodView>> {
        let mut all = self.inner.pods.views();
        all.retain(|pod| is_of(pod, uid));
        all.sort_by_key(|pod| pod.config.attempt);
        all
    }

    pub(super) fn volumes_of(&self, uid: &str) -> PathBuf {
        self.inner.settings.volumes.join(uid)
    }

    /// Something is wrong with a pod, for people.
    pub(super) fn tell(&self, (namespace, name): &Key, reason: &'static str, message: String) {
        self.inner.pods.services().events.record(Event {
            at: SystemTime::now(),
            namespace: namespace.clone(),
            pod: name.clone(),
            container: String::new(),
            reason,
            message,
            warning: true,
            count: 1,
        });
    }

    pub(super) fn change(
        &self,
        key: &Key,
        change: impl FnOnce(&mut PodRecord),
    ) -> Result<(), crate::store::Error> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return Ok(()) };
        change(&mut entry.record);
        self.inner.store.put(&stored_key(key), &entry.record)
    }
}

/// A pod's newest sandbox among all pods'.
pub(super) fn newest<'a>(views: &'a [Arc<PodView>], uid: &str) -> Option<&'a PodView> {
    let own = views.iter().filter(|pod| is_of(pod, uid));
    own.max_by_key(|pod| pod.config.attempt).map(|pod| &**pod)
}

fn is_of(pod: &PodView, uid: &str) -> bool {
    pod.origin == Origin::Manifest && pod.config.uid == uid
}

/// What is wanted of a pod, and the grace of its containers should they be stopped for it.
fn wish(record: &PodRecord) -> (Wish, Duration) {
    match &record.evicted {
        Some(ending) => (Wish::End(ending.clone()), record.plan.grace.min(EVICTION_GRACE)),
        None if is_expired(record) => (Wish::End(Ending::expired()), record.plan.grace),
        None => (Wish::Run, record.plan.grace),
    }
}

/// Its activeDeadlineSeconds are over.
fn is_expired(record: &PodRecord) -> bool {
    let Some(deadline) = record.plan.deadline.filter(|_| record.started_at != 0) else {
        return false;
    };
    let active = nanos(SystemTime::now()).saturating_sub(record.started_at);
    u128::try_from(active).unwrap_or(0) >= deadline.as_nanos()
}

/// A pod in the words of the plan.
fn observe(plan: &PodPlan, all: &[Arc<PodView>]) -> Observed {
    let Some(newest) = all.last() else {
        return Observed { sandbox: Sandbox::None, containers: BTreeMap::new() };
    };
    let sandbox = match newest.phase {
        Phase::Starting | Phase::Stopping { .. } => Sandbox::Changing,
        Phase::Ready { .. } => Sandbox::Ready,
        Phase::Lost { .. } => Sandbox::Lost,
        Phase::Stopped => Sandbox::Stopped,
    };
    let mut containers = BTreeMap::new();
    for (at, pod) in all.iter().enumerate() {
        for planned in plan.all() {
            if let Some(container) = pod.newest(&planned.config.name) {
                let seen = Seen { here: at + 1 == all.len(), stage: stage(plan, container) };
                containers.insert(planned.config.name.clone(), seen);
            }
        }
    }
    Observed { sandbox, containers }
}

fn stage(plan: &PodPlan, container: &ContainerView) -> Stage {
    match &container.state {
        State::Created => Stage::Created,
        State::Starting => Stage::Starting,
        State::Running(_) => Stage::Running { started: started(plan, container) },
        State::Exited(ended) => Stage::Exited { code: ended.code, killed: is_kill(&ended.reason) },
    }
}

/// Its startup probe has passed, or it has none.
pub(in crate::manifest) fn started(plan: &PodPlan, container: &ContainerView) -> bool {
    let probes = plan.health.probes.get(&container.config.name);
    if probes.is_none_or(|probes| probes.startup.is_none()) {
        return true;
    }
    let startup = container.probes.iter().find(|report| report.kind == Kind::Startup);
    startup.is_some_and(|report| report.result == "Success")
}

/// One more than the last, whichever sandbox that was in.
fn next_attempt(all: &[Arc<PodView>], name: &str) -> u32 {
    let containers = all.iter().flat_map(|pod| &pod.containers);
    let of_name = containers.filter(|container| container.config.name == name);
    of_name.map(|container| container.config.attempt + 1).max().unwrap_or(0)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(panic.to_string()))
}

/// For `map_err`.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The same for what a pod's task does, which makes an event of where it fails; not of what it
/// doesn't begin.
fn told(error: Arc<pod::Error>) -> Trouble {
    use pod::Error::{Invalid, NotFound, WrongState};
    let told = !matches!(*error, Invalid(_) | NotFound { .. } | WrongState(_));
    Trouble { why: error.to_string(), told }
}
