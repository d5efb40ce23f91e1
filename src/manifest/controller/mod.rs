//! Keeps the pods of manifests as they should be: what is known of them, and one task a pod.
//!
//! `keep` is the task, `evict` watches what a pod uses, `folder` the directory of manifests, `record` what is remembered, `users` the ids
//! of user namespaces,
//! `node` what a pod may ask of its node. What is to be done is [`super::plan`]'s to say.

mod evict;
mod folder;
mod keep;
pub mod node;
mod record;
mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::AbortHandle;

use super::plan::{Ending, Wish};
use super::status::{Condition, conditions, phase};
use super::{Errors, PodPlan, parse, volumes};
use crate::container::state::nanos;
use crate::image::Images;
use crate::pod::Pods;
use crate::pod::view::PodView;
use crate::store::{self, Store};
pub(in crate::manifest) use keep::started;
use keep::{Grace, Looked, newest};
use record::{PodRecord, key, new_uid, same, stored_key};

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
    /// It is another's to change: nothing was.
    #[error("pod \"{}\" in namespace \"{}\" {}", .key.1, .key.0, belongs(.owner.as_deref()))]
    Belongs {
        /// Which.
        key: (String, String),
        /// The file that it is from; `None`: it was applied.
        owner: Option<PathBuf>,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pod could not be taken down.
    #[error("pod \"{name}\": {why}")]
    Pod {
        /// Which.
        name: String,
        /// What is in the way.
        why: String,
    },
}

fn belongs(owner: Option<&Path>) -> String {
    match owner {
        Some(file) => {
            let file = file.display();
            format!("belongs to the manifest {file}: change it there, or remove it from there")
        }
        None => {
            "was made by `halectl apply`: `halectl delete` it first, or name this one otherwise"
                .to_owned()
        }
    }
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Logs go below it.
    pub logs: PathBuf,
    /// Volumes go below it.
    pub volumes: PathBuf,
    /// Localhost seccomp profiles are below it.
    pub seccomp_dir: PathBuf,
    /// Manifests in files, watched; `None`: there are none.
    pub dir: Option<PathBuf>,
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
    /// Nanoseconds since the epoch; 0: not yet.
    pub started_at: i64,
    /// When the grace of its deletion is over, in nanoseconds since the epoch; 0: it isn't
    /// being taken down.
    pub delete_at: i64,
    /// The whole of that grace, in seconds.
    pub delete_grace_seconds: Option<u64>,
    /// Why it can't be brought up; empty: nothing is in the way.
    pub problem: String,
    /// How it ended.
    pub ended: Option<Ending>,
    /// `Pending`, `Running`, `Terminating`, …
    pub phase: &'static str,
    /// Its conditions now.
    pub conditions: Vec<Condition>,
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

impl Entry {
    fn new(record: PodRecord) -> Self {
        Self { record, problem: String::new(), task: None }
    }
}

struct Inner {
    pods: Pods,
    images: Images,
    store: Store,
    settings: Settings,
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// One manifest is applied, or one pod deleted, at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Manifests {
    /// Takes up the recorded pods, and begins to watch the directory of manifests.
    pub fn open(
        pods: Pods,
        images: Images,
        store: Store,
        settings: Settings,
    ) -> Result<Self, Error> {
        let (records, aside) = store.all::<PodRecord>()?;
        for record in &aside {
            tracing::error!(
                key = record.key,
                why = record.why,
                "a pod's record can't be read and was set aside"
            );
        }
        let entries = records.into_iter().map(|(_, record)| {
            let key = key(&record.plan);
            (key, Entry::new(record))
        });
        let entries = Mutex::new(entries.collect());
        let turn = tokio::sync::Mutex::default();
        let watched = settings.dir.clone();
        let manifests =
            Self { inner: Arc::new(Inner { pods, images, store, settings, entries, turn }) };
        if aside.is_empty() {
            manifests.clear_stray_volumes();
        }
        let all: Vec<(Key, PodRecord)> = manifests
            .lock()
            .iter()
            .map(|(key, entry)| (key.clone(), entry.record.clone()))
            .collect();
        for (key, record) in all {
            if record.deleting {
                // A deletion that was cut off.
                let manifests = manifests.clone();
                tokio::spawn(async move {
                    let (namespace, name) = key;
                    if let Err(error) = manifests.remove(&namespace, &name, None).await {
                        tracing::error!(namespace, name, %error, "cannot finish deleting the pod");
                    }
                });
            } else if record.ended.is_none() {
                manifests.keep(key);
            }
        }
        if let Some(dir) = watched {
            tokio::spawn(manifests.clone().watch(dir));
        }
        Ok(manifests)
    }

    /// Makes the pods of a manifest be as it says. An error in any document changes nothing.
    pub async fn apply(&self, text: &str) -> Result<Vec<(Key, Applied)>, Error> {
        self.apply_from(text, None).await
    }

    /// The same; `file` is the one of the watched directory that it is from.
    async fn apply_from(
        &self,
        text: &str,
        file: Option<&Path>,
    ) -> Result<Vec<(Key, Applied)>, Error> {
        let plans = parse(text)?;
        let _turn = self.inner.turn.lock().await;
        // All of them first, so that one that is another's leaves everything as it was.
        for key in plans.iter().map(key) {
            let there = self.record(&key).filter(|record| record.file.as_deref() != file);
            let Some(PodRecord { file: owner, .. }) = there else { continue };
            // A file that was renamed takes its pods along.
            let renamed = match (file, &owner) {
                (Some(_), Some(old)) => !tokio::fs::try_exists(old).await.unwrap_or(true),
                _ => false,
            };
            if !renamed {
                return Err(Error::Belongs { key, owner });
            }
        }
        let mut applied = Vec::new();
        for plan in plans {
            let key = key(&plan);
            let there = self.record(&key);
            let result = match there {
                Some(record) if !record.deleting && same(&record.plan, &plan) => {
                    if record.file.as_deref() != file {
                        let file = file.map(Path::to_owned);
                        self.change(&key, |record| record.file = file)?;
                    }
                    Applied::Unchanged
                }
                Some(_) => {
                    self.take_down(&key, None).await?;
                    self.bring(key.clone(), plan, file)?;
                    Applied::Replaced
                }
                None => {
                    self.bring(key.clone(), plan, file)?;
                    Applied::Created
                }
            };
            applied.push((key, result));
        }
        Ok(applied)
    }

    /// Stops and removes a pod, its logs, volumes and events; not one of a file, which would
    /// stand for a pod that isn't there. `grace`: in place of its own.
    pub async fn delete(
        &self,
        namespace: &str,
        name: &str,
        grace: Option<Duration>,
    ) -> Result<(), Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let watched = self.inner.settings.dir.is_some();
        let owner = self.record(&key).and_then(|record| record.file).filter(|_| watched);
        if let Some(file) = owner
            && tokio::fs::try_exists(&file).await.unwrap_or(true)
        {
            return Err(Error::Belongs { key, owner: Some(file) });
        }
        self.remove(namespace, name, grace).await
    }

    /// The same, whoever's it is.
    async fn remove(
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

    /// Every pod of a manifest, as it is by these views of all pods.
    pub fn list(&self, views: &[Arc<PodView>]) -> Vec<Managed> {
        let managed = |entry: &mut Entry| {
            let newest = newest(views, &entry.record.uid);
            Managed {
                conditions: self.conditions(entry, newest),
                phase: phase(entry.record.course(), newest),
                plan: entry.record.plan.clone(),
                created_at: entry.record.created_at,
                started_at: entry.record.started_at,
                delete_at: entry.record.delete_at,
                delete_grace_seconds: entry.record.delete_grace_seconds,
                problem: entry.problem.clone(),
                ended: entry.record.ended.clone(),
            }
        };
        self.lock().values_mut().map(managed).collect()
    }

    /// Whether the pod with this uid is kept running. `None`: it is no manifest's.
    pub fn keeps(&self, uid: &str) -> Option<bool> {
        let entries = self.lock();
        let record = &entries.values().find(|entry| entry.record.uid == uid)?.record;
        Some(!record.deleting && record.ended.is_none())
    }

    /// A pod's conditions as they are now. Whoever sees a change first notes its time, so
    /// that what was told once stays true when the daemon is another.
    fn conditions(&self, entry: &mut Entry, newest: Option<&PodView>) -> Vec<Condition> {
        let mut conditions = conditions(entry.record.course(), newest);
        if entry.record.note(&mut conditions, nanos(SystemTime::now())) {
            let key = key(&entry.record.plan);
            if let Err(error) = self.inner.store.put(&stored_key(&key), &entry.record) {
                tracing::error!(namespace = key.0, name = key.1, %error, "cannot note the pod's conditions");
            }
        }
        conditions
    }

    fn note_conditions(&self, key: &Key) {
        let views = self.inner.pods.views();
        if let Some(entry) = self.lock().get_mut(key) {
            let newest = newest(&views, &entry.record.uid);
            self.conditions(entry, newest);
        }
    }

    fn bring(&self, key: Key, mut plan: PodPlan, file: Option<&Path>) -> Result<(), Error> {
        let uid = new_uid();
        let (namespace, name) = &key;
        plan.sandbox.log_directory =
            self.inner.settings.logs.join(format!("{namespace}_{name}_{uid}"));
        plan.set_uid(&uid);
        if plan.sandbox.userns.is_some() {
            plan.sandbox.userns = Some(self.free_ids(&key)?);
        }
        let now = nanos(SystemTime::now());
        let record = PodRecord::new(uid, plan, file.map(Path::to_owned), now);
        self.inner.store.put(&stored_key(&key), &record)?;
        self.lock().insert(key.clone(), Entry::new(record));
        self.keep(key);
        Ok(())
    }

    async fn take_down(&self, key: &Key, grace: Option<Duration>) -> Result<(), Error> {
        let record = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(key) else { return Ok(()) };
            if let Some(task) = entry.task.take() {
                task.abort();
            }
            entry.record.condemn(grace, nanos(SystemTime::now()));
            entry.record.clone()
        };
        self.inner.store.put(&stored_key(key), &record)?;
        let failed = |why: String| Error::Pod { name: key.1.clone(), why };
        let mut grace = Grace::new(grace.unwrap_or(record.plan.grace));
        // Its task may have been cut off in the middle of making a sandbox, so look until
        // there is none.
        while !self.sandboxes_of(&record.uid).is_empty() {
            if let Looked::Waits =
                self.look(key, &record, &Wish::Delete, &mut grace).await.map_err(failed)?
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let dir = self.volumes_of(&record.uid);
        let removed = tokio::task::spawn_blocking(move || volumes::remove(&dir)).await;
        removed.unwrap_or_else(|panic| Err(panic.to_string())).map_err(failed)?;
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

    /// Volumes of pods that nobody remembers.
    fn clear_stray_volumes(&self) {
        let known: Vec<String> =
            self.lock().values().map(|entry| entry.record.uid.clone()).collect();
        let root = &self.inner.settings.volumes;
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            if !known.iter().any(|uid| entry.file_name() == uid.as_str())
                && let Err(why) = volumes::remove(&entry.path())
            {
                tracing::error!(why, "cannot remove the volumes of a pod without a record");
            }
        }
    }

    fn record(&self, key: &Key) -> Option<PodRecord> {
        self.lock().get(key).map(|entry| entry.record.clone())
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
