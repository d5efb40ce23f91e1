//! Keeps the pods of manifests as they should be: what is known of them, and one task a pod.
//!
//! `keep` is the task, `apply` has pods come and be replaced, `deletion` has them go, within a
//! `grace`; `evict` watches what a pod uses, `folder` the directory of manifests, `record` what is
//! remembered, `users` the ids of user namespaces, `node` what a pod may ask of its node. What is
//! to be done is [`super::plan`]'s to say.
//!
//! What is asked of a pod is noted at once, under the lock of all pods, and done by the pod's
//! own task: nobody waits for another pod.

mod apply;
mod deletion;
mod evict;
mod folder;
mod grace;
mod keep;
pub mod node;
mod record;
mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::JoinHandle;

use super::plan::Ending;
use super::status::{Condition, conditions, phase};
use super::{Errors, PodPlan, volumes};
use crate::container::state::nanos;
use crate::image::Images;
use crate::pod::Pods;
use crate::pod::view::PodView;
use crate::store::{self, Store};
pub use apply::{Applied, Outcome};
use deletion::Deletion;
use keep::newest;
pub(in crate::manifest) use keep::started;
use record::{PodRecord, key, stored_key};

/// Namespace and name.
type Key = (String, String);

/// Why a manifest could not be applied, or a pod not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] Errors),
    /// No such pod.
    #[error("there is no pod {}/{}", .0.0, .0.1)]
    NotFound((String, String)),
    /// A pod that came through the CRI.
    #[error(
        "pod \"{}\" in namespace \"{}\" is not one of haled's own: who gave it to haled through the \
         CRI, a kubelet or crictl, must delete it", .0.1, .0.0
    )]
    NotOwn((String, String)),
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

/// A pod that is known.
struct Entry {
    record: PodRecord,
    problem: String,
    /// What keeps it as it should be, until it is deleted.
    task: Option<JoinHandle<()>>,
    /// Its end, if that has begun.
    deletion: Option<Deletion>,
}

/// Whose a pod is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    /// It is going, and nothing takes its place.
    Nobody,
    /// It was applied.
    Apply,
    /// It is from a file of the watched directory.
    File(&'a Path),
}

/// The pods of manifests. Cheap to clone.
#[derive(Clone)]
pub struct Manifests {
    inner: Arc<Inner>,
}

impl Entry {
    fn new(record: PodRecord) -> Self {
        Self { record, problem: String::new(), task: None, deletion: None }
    }

    fn owner(&self) -> Owner<'_> {
        let file = match &self.deletion {
            None => &self.record.file,
            Some(deletion) => match deletion.heir() {
                None => return Owner::Nobody,
                Some(heir) => &heir.file,
            },
        };
        file.as_deref().map_or(Owner::Apply, Owner::File)
    }
}

type Entries = BTreeMap<Key, Entry>;

struct Inner {
    pods: Pods,
    images: Images,
    store: Store,
    settings: Settings,
    entries: Mutex<Entries>,
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
        let watched = settings.dir.clone();
        let manifests = Self { inner: Arc::new(Inner { pods, images, store, settings, entries }) };
        if aside.is_empty() {
            manifests.clear_stray_volumes();
        }
        for (key, entry) in manifests.lock().iter_mut() {
            if entry.record.deleting {
                // A deletion that was cut off.
                manifests.condemn(key, entry, None)?;
            } else if entry.record.ended.is_none() {
                entry.task = Some(manifests.keep(key.clone()));
            }
        }
        if let Some(dir) = watched {
            tokio::spawn(manifests.clone().watch(dir));
        }
        Ok(manifests)
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

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
