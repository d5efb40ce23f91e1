//! Keeps the pods of manifests running: one task a pod, and what they have in common.
//!
//! A pod's task sees that there is a sandbox and one container of each name; from there the
//! pod's own driver restarts what ends. Restart policy and probes are not looked at here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use super::{Errors, PodPlan, PullPolicy, parse};
use crate::container::config::ContainerConfig;
use crate::container::state::{State, nanos};
use crate::id::SandboxId;
use crate::image::{self, Images};
use crate::pod::record::{Origin, Phase};
use crate::pod::view::PodView;
use crate::pod::{self, Pods};
use crate::store::{self, Store};

/// Between tries to bring a pod up, growing to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How often a pod's task looks whether its sandbox is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The label in which a kubelet notes a pod's uid.
const POD_UID: &str = "io.kubernetes.pod.uid";

/// Namespace and name.
type Key = (String, String);

/// Why a manifest could not be applied, or a pod not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] Errors),
    /// No such pod, or not one of a manifest.
    #[error("pod \"{name}\" in namespace \"{namespace}\" is not one of haled's own")]
    NotFound {
        /// As asked for.
        namespace: String,
        /// As asked for.
        name: String,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pod could not be taken down.
    #[error("pod \"{name}\": {source}")]
    Pod {
        /// Which.
        name: String,
        /// Why.
        source: Arc<pod::Error>,
    },
}

/// A pod of a manifest as stored, under `namespace/name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PodRecord {
    uid: String,
    plan: PodPlan,
    created_at: i64,
    /// Of the sandbox that is next made.
    next_attempt: u32,
    /// Being taken down: nothing is brought up any more.
    deleting: bool,
}

impl store::Record for PodRecord {
    const KIND: &'static str = "manifest-pod";
    const VERSION: u32 = 1;
}

/// What became of one pod of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was as the manifest says already.
    Unchanged,
    /// It is new.
    Created,
    /// It was another, which is gone.
    Replaced,
}

/// A pod of a manifest, as seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Managed {
    /// As the manifest says, with its uid.
    pub plan: PodPlan,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Being taken down.
    pub deleting: bool,
    /// Why it can't be brought up; empty: nothing is in the way.
    pub problem: String,
}

struct Entry {
    record: PodRecord,
    problem: String,
    task: Option<AbortHandle>,
}

/// The pods of manifests. Cheap to clone.
#[derive(Clone)]
pub struct Manifests {
    inner: Arc<Inner>,
}

struct Inner {
    pods: Pods,
    images: Images,
    store: Store,
    log_root: PathBuf,
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// One manifest is applied, or one pod deleted, at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Manifests {
    /// Takes up the recorded pods. Logs go below `log_root`.
    pub fn open(
        pods: Pods,
        images: Images,
        store: Store,
        log_root: PathBuf,
    ) -> Result<Self, Error> {
        let (records, aside) = store.all::<PodRecord>()?;
        for record in aside {
            tracing::error!(
                key = record.key,
                why = record.why,
                "a pod's record can't be read and was set aside"
            );
        }
        let entries = records.into_iter().map(|(_, record)| {
            let key = key(&record.plan);
            (key, Entry { record, problem: String::new(), task: None })
        });
        let entries = Mutex::new(entries.collect());
        let turn = tokio::sync::Mutex::default();
        let manifests =
            Self { inner: Arc::new(Inner { pods, images, store, log_root, entries, turn }) };
        let all: Vec<(Key, bool)> = manifests
            .lock()
            .iter()
            .map(|(key, entry)| (key.clone(), entry.record.deleting))
            .collect();
        for (key, deleting) in all {
            if deleting {
                // A deletion that was cut off.
                let manifests = manifests.clone();
                tokio::spawn(async move {
                    let (namespace, name) = key;
                    if let Err(error) = manifests.delete(&namespace, &name, None).await {
                        tracing::error!(namespace, name, %error, "cannot finish deleting the pod");
                    }
                });
            } else {
                manifests.keep(key);
            }
        }
        Ok(manifests)
    }

    /// Makes the pods of a manifest be as it says. An error in any document changes nothing.
    pub async fn apply(&self, text: &str) -> Result<Vec<(Key, Applied)>, Error> {
        let plans = parse(text)?;
        let _turn = self.inner.turn.lock().await;
        let mut applied = Vec::new();
        for plan in plans {
            let key = key(&plan);
            let there = self.lock().get(&key).map(|entry| entry.record.clone());
            let result = match there {
                Some(record) if !record.deleting && same(&record.plan, &plan) => Applied::Unchanged,
                Some(_) => {
                    self.take_down(&key, None).await?;
                    self.bring(key.clone(), plan)?;
                    Applied::Replaced
                }
                None => {
                    self.bring(key.clone(), plan)?;
                    Applied::Created
                }
            };
            applied.push((key, result));
        }
        Ok(applied)
    }

    /// Stops and removes a pod, its logs and its events. `grace`: in place of its own.
    pub async fn delete(
        &self,
        namespace: &str,
        name: &str,
        grace: Option<Duration>,
    ) -> Result<(), Error> {
        let _turn = self.inner.turn.lock().await;
        let key = (namespace.to_owned(), name.to_owned());
        if !self.lock().contains_key(&key) {
            return Err(Error::NotFound { namespace: key.0, name: key.1 });
        }
        self.take_down(&key, grace).await
    }

    /// Every pod of a manifest.
    pub fn list(&self) -> Vec<Managed> {
        let managed = |entry: &Entry| Managed {
            plan: entry.record.plan.clone(),
            created_at: entry.record.created_at,
            deleting: entry.record.deleting,
            problem: entry.problem.clone(),
        };
        self.lock().values().map(managed).collect()
    }

    fn bring(&self, key: Key, mut plan: PodPlan) -> Result<(), Error> {
        let uid = new_uid();
        let (namespace, name) = &key;
        plan.sandbox.log_directory = self.inner.log_root.join(format!("{namespace}_{name}_{uid}"));
        plan.set_uid(&uid);
        let created_at = nanos(SystemTime::now());
        let record = PodRecord { uid, plan, created_at, next_attempt: 0, deleting: false };
        self.inner.store.put(&stored_key(&key), &record)?;
        self.lock().insert(key.clone(), Entry { record, problem: String::new(), task: None });
        self.keep(key);
        Ok(())
    }

    /// Begins the task that keeps a pod running.
    fn keep(&self, key: Key) {
        let manifests = self.clone();
        let of_task = key.clone();
        let task = tokio::spawn(async move {
            let (first, longest) = RETRY;
            let mut wait = first;
            loop {
                match manifests.bring_up(&of_task).await {
                    Ok(()) => {
                        wait = first;
                        manifests.set_problem(&of_task, String::new());
                        tokio::time::sleep(LOOK).await;
                    }
                    Err(problem) => {
                        tracing::warn!(namespace = of_task.0, name = of_task.1, problem, retry_in = ?wait, "cannot bring the pod up");
                        manifests.set_problem(&of_task, problem);
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(longest);
                    }
                }
            }
        });
        if let Some(entry) = self.lock().get_mut(&key) {
            entry.task = Some(task.abort_handle());
        }
    }

    /// One look: makes what is missing of the pod.
    async fn bring_up(&self, key: &Key) -> Result<(), String> {
        let Some(record) = self.lock().get(key).map(|entry| entry.record.clone()) else {
            return Ok(());
        };
        let id = match self.sandbox_of(&record.uid) {
            Some(pod) if pod.ready() => pod.id.clone(),
            Some(pod) if matches!(pod.phase, Phase::Starting) => return Ok(()),
            Some(pod) => {
                self.inner.pods.remove_sandbox(&pod.id).await.map_err(text)?;
                self.new_sandbox(key, &record).await?
            }
            None => self.new_sandbox(key, &record).await?,
        };
        for (config, pull) in record.plan.containers.iter().zip(&record.plan.pull) {
            self.ensure_container(&id, config, *pull).await?;
        }
        Ok(())
    }

    async fn new_sandbox(&self, key: &Key, record: &PodRecord) -> Result<SandboxId, String> {
        // Images first: a sandbox that waits for them helps nobody.
        for (config, pull) in record.plan.containers.iter().zip(&record.plan.pull) {
            self.ensure_image(&config.image, *pull).await?;
        }
        let mut sandbox = record.plan.sandbox.clone();
        sandbox.attempt = record.next_attempt;
        let mut next = record.clone();
        next.next_attempt += 1;
        self.inner.store.put(&stored_key(key), &next).map_err(text)?;
        if let Some(entry) = self.lock().get_mut(key) {
            entry.record.next_attempt = next.next_attempt;
        }
        let policy = Some(record.plan.health.clone());
        self.inner.pods.run(sandbox, Origin::Manifest, policy).await.map_err(text)
    }

    /// A container that has ended is the driver's to restart, so any attempt is enough.
    async fn ensure_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        pull: PullPolicy,
    ) -> Result<(), String> {
        let pod = self.inner.pods.pod(sandbox.as_str()).map_err(text)?;
        let id = match pod.newest(&config.name) {
            Some(there) if there.state == State::Created => there.id.clone(),
            Some(_) => return Ok(()),
            None => {
                self.ensure_image(&config.image, pull).await?;
                self.inner.pods.create(sandbox, config.clone()).await.map_err(text)?
            }
        };
        self.inner.pods.start(&id).await.map_err(text)
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

    async fn take_down(&self, key: &Key, grace: Option<Duration>) -> Result<(), Error> {
        let record = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(key) else { return Ok(()) };
            if let Some(task) = entry.task.take() {
                task.abort();
            }
            entry.record.deleting = true;
            entry.record.clone()
        };
        self.inner.store.put(&stored_key(key), &record)?;
        // Its task may have been cut off in the middle of making a sandbox, so look again
        // until there is none.
        while let Some(pod) = self.sandbox_of(&record.uid) {
            self.stop_gently(&pod, grace.unwrap_or(record.plan.grace)).await;
            let removed = self.inner.pods.remove_sandbox(&pod.id).await;
            match removed {
                Err(error) if !matches!(&*error, pod::Error::NotFound { .. }) => {
                    return Err(Error::Pod { name: key.1.clone(), source: error });
                }
                _ => {}
            }
        }
        let logs = record.plan.sandbox.log_directory.clone();
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %logs.display(), %error, "cannot delete the pod's logs");
        }
        self.inner.store.delete::<PodRecord>(&stored_key(key))?;
        self.lock().remove(key);
        self.inner.pods.services().events.forget(&key.0, &key.1);
        Ok(())
    }

    /// All containers at once, each with its stop signal and the grace.
    async fn stop_gently(&self, pod: &PodView, grace: Duration) {
        let stops = pod.containers.iter().map(|container| async {
            if let Err(error) = self.inner.pods.stop(&container.id, grace).await {
                tracing::warn!(container = %container.id, %error, "it did not stop");
            }
        });
        join_all(stops).await;
    }

    fn sandbox_of(&self, uid: &str) -> Option<Arc<PodView>> {
        let of_uid = |pod: &Arc<PodView>| pod.origin == Origin::Manifest && pod.config.uid == uid;
        self.inner.pods.views().into_iter().find(of_uid)
    }

    fn set_problem(&self, key: &Key, problem: String) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.problem = problem;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(plan: &PodPlan) -> Key {
    (plan.sandbox.namespace.clone(), plan.sandbox.name.clone())
}

fn stored_key((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

impl PodPlan {
    /// Gives the pod its uid, and tells it where the kubelet would.
    fn set_uid(&mut self, uid: &str) {
        uid.clone_into(&mut self.sandbox.uid);
        let containers = self.containers.iter_mut().map(|container| &mut container.labels);
        for labels in containers.chain([&mut self.sandbox.labels]) {
            labels.insert(POD_UID.to_owned(), uid.to_owned());
        }
    }
}

/// Whether a recorded plan is what this manifest asks for, but for what was added to it.
fn same(recorded: &PodPlan, asked: &PodPlan) -> bool {
    let mut asked = asked.clone();
    asked.sandbox.log_directory.clone_from(&recorded.sandbox.log_directory);
    asked.set_uid(&recorded.sandbox.uid);
    *recorded == asked
}

/// For `map_err`.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
