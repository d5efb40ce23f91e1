//! Pods come, and those that have changed are replaced.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::deletion::{Heir, outcome};
use super::record::{PodRecord, key, new_uid, same, stored_key};
use super::{Entries, Entry, Error, Key, Manifests, Owner};
use crate::container::state::nanos;
use crate::manifest::{Manifest, PodPlan, parse};

/// What becomes of one pod of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was as the manifest says already.
    Unchanged,
    /// It is new.
    Created,
    /// It was another, which is gone.
    Replaced,
}

/// What became of a manifest.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every pod, in the manifest's order.
    pub pods: Vec<(Key, Applied)>,
    /// What was left out of it, and is no mistake.
    pub warnings: Vec<String>,
}

/// Told when what was replaced is gone.
type Replaced = oneshot::Receiver<Result<(), String>>;

/// What has begun.
pub(super) struct Begun {
    outcome: Outcome,
    replaced: Vec<(Key, Replaced)>,
}

impl Begun {
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl Manifests {
    /// Makes the pods of a manifest be as it says. An error in any document changes nothing.
    /// Goes on if the caller goes away.
    pub async fn apply(&self, text: &str) -> Result<Outcome, Error> {
        let begun = self.begin_apply(text, None).await?;
        for (key, replaced) in begun.replaced {
            outcome(&key, replaced).await?;
        }
        Ok(begun.outcome)
    }

    /// What would become of it; nothing does.
    pub async fn check(&self, text: &str) -> Result<Outcome, Error> {
        let Manifest { pods, warnings } = parse(text)?;
        let abandoned = self.abandoned(&pods, None).await;
        let entries = self.lock();
        refuse_others(&entries, &pods, None, &abandoned)?;
        let would = |plan: &PodPlan| {
            let key = key(plan);
            let applied = match entries.get(&key) {
                None => Applied::Created,
                Some(entry) if stays(entry, plan) => Applied::Unchanged,
                Some(_) => Applied::Replaced,
            };
            (key, applied)
        };
        Ok(Outcome { pods: pods.iter().map(would).collect(), warnings })
    }

    /// What is new comes, what has changed begins to go; nothing is waited for. `file` is the
    /// one of the watched directory that it is from.
    pub(super) async fn begin_apply(
        &self,
        text: &str,
        file: Option<&Path>,
    ) -> Result<Begun, Error> {
        let Manifest { pods, warnings } = parse(text)?;
        let abandoned = self.abandoned(&pods, file).await;
        let mut entries = self.lock();
        // All of them first, so that one that is another's leaves everything as it was.
        refuse_others(&entries, &pods, file, &abandoned)?;
        let mut begun =
            Begun { outcome: Outcome { pods: Vec::new(), warnings }, replaced: Vec::new() };
        for plan in pods {
            let key = key(&plan);
            let file = file.map(Path::to_owned);
            let applied = match entries.get_mut(&key) {
                None => {
                    self.bring(&mut entries, &key, plan, file)?;
                    Applied::Created
                }
                Some(entry) if stays(entry, &plan) => {
                    self.adopt(&key, entry, plan, file)?;
                    Applied::Unchanged
                }
                Some(entry) => {
                    let (namespace, name) = &key;
                    tracing::info!(namespace, name, "its manifest has changed: replacing the pod");
                    let (waiter, replaced) = oneshot::channel();
                    let heir = Heir { plan, file, waiters: vec![waiter] };
                    self.condemn(&key, entry, None)?.set_heir(heir);
                    begun.replaced.push((key.clone(), replaced));
                    Applied::Replaced
                }
            };
            begun.outcome.pods.push((key, applied));
        }
        Ok(begun)
    }

    /// A pod begins.
    pub(super) fn bring(
        &self,
        entries: &mut Entries,
        key: &Key,
        mut plan: PodPlan,
        file: Option<PathBuf>,
    ) -> Result<(), Error> {
        let uid = new_uid();
        let (namespace, name) = key;
        plan.sandbox.log_directory =
            self.inner.settings.logs.join(format!("{namespace}_{name}_{uid}"));
        plan.set_uid(&uid);
        if plan.sandbox.userns.is_some() {
            plan.sandbox.userns = Some(self.free_ids(entries, key)?);
        }
        let record = PodRecord::new(uid, plan, file, nanos(SystemTime::now()));
        self.inner.store.put(&stored_key(key), &record)?;
        let mut entry = Entry::new(record);
        entry.task = Some(self.keep(key.clone()));
        entries.insert(key.clone(), entry);
        Ok(())
    }

    /// The pod stays: it is this file's, and reads as it does there.
    fn adopt(
        &self,
        key: &Key,
        entry: &mut Entry,
        plan: PodPlan,
        file: Option<PathBuf>,
    ) -> Result<(), Error> {
        if entry.record.file == file && entry.record.plan.document == plan.document {
            return Ok(());
        }
        let mut record = entry.record.clone();
        record.file = file;
        record.plan.document = plan.document;
        self.inner.store.put(&stored_key(key), &record)?;
        entry.record = record;
        Ok(())
    }

    /// Of the files that the pods of a file are from now, those that are gone: one that was
    /// renamed takes its pods along.
    async fn abandoned(&self, pods: &[PodPlan], file: Option<&Path>) -> Vec<PathBuf> {
        let mut others: Vec<PathBuf> = Vec::new();
        if file.is_some() {
            let entries = self.lock();
            let owners = pods.iter().filter_map(|plan| entries.get(&key(plan))).map(Entry::owner);
            others.extend(owners.filter_map(|owner| match owner {
                Owner::File(other) if Some(other) != file => Some(other.to_owned()),
                _ => None,
            }));
        }
        let mut gone = Vec::new();
        for other in others {
            if !tokio::fs::try_exists(&other).await.unwrap_or(true) {
                gone.push(other);
            }
        }
        gone
    }
}

/// It runs, or has, as this says.
fn stays(entry: &Entry, plan: &PodPlan) -> bool {
    !entry.record.deleting && same(&entry.record.plan, plan)
}

/// Pods may be taken from nobody but from files that are gone.
fn refuse_others(
    entries: &Entries,
    pods: &[PodPlan],
    file: Option<&Path>,
    abandoned: &[PathBuf],
) -> Result<(), Error> {
    let own = file.map_or(Owner::Apply, Owner::File);
    for key in pods.iter().map(key) {
        let owner = match entries.get(&key).map(Entry::owner) {
            Some(owner) if owner != own => owner,
            _ => continue,
        };
        match owner {
            Owner::Nobody => {}
            Owner::File(other) if abandoned.iter().any(|gone| gone == other) => {}
            Owner::File(other) => return Err(Error::Belongs { key, owner: Some(other.into()) }),
            Owner::Apply => return Err(Error::Belongs { key, owner: None }),
        }
    }
    Ok(())
}
