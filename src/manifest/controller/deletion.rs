//! A pod's end: its containers are stopped, and all that there was of it is removed.
//!
//! It is begun once, by whoever asks first, and goes on by itself until it is done, also where
//! something is in its way. Who asks again joins it, and may shorten its grace. Nobody who
//! doesn't want to needs to wait.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::grace::Grace;
use super::keep::{Looked, RETRY};
use super::record::{PodRecord, stored_key};
use super::{Entry, Error, Key, Manifests, Owner};
use crate::container::state::nanos;
use crate::manifest::plan::Wish;
use crate::manifest::{PodPlan, volumes};
use crate::pod::config::SandboxConfig;
use crate::store;

/// While something about the pod changes by itself.
const SOON: Duration = Duration::from_millis(50);

/// Told when it is over, or why it isn't.
type Waiter = oneshot::Sender<Result<(), String>>;

/// A pod's end that has begun.
pub(super) struct Deletion {
    /// Sent anew also where it is the same: somebody wants it tried now.
    grace: watch::Sender<Grace>,
    waiters: Vec<Waiter>,
    heir: Option<Heir>,
}

/// What takes a pod's place when it is gone.
pub(super) struct Heir {
    pub(super) plan: PodPlan,
    pub(super) file: Option<PathBuf>,
    pub(super) waiters: Vec<Waiter>,
}

impl Deletion {
    pub(super) fn heir(&self) -> Option<&Heir> {
        self.heir.as_ref()
    }

    /// Who waits for one that was to come before waits for this one.
    pub(super) fn set_heir(&mut self, mut heir: Heir) {
        if let Some(before) = self.heir.take() {
            heir.waiters.extend(before.waiters);
        }
        self.heir = Some(heir);
    }

    fn disinherit(&mut self) {
        let waiters = self.heir.take().map(|heir| heir.waiters).unwrap_or_default();
        let why = "it was deleted while it was being replaced: apply it again";
        answer(waiters, &Err(why.to_owned()));
    }
}

impl Manifests {
    /// Stops and removes a pod, its logs, volumes and events; not one of a file, which would
    /// stand for a pod that isn't there. What was to take its place doesn't come. `grace`: in
    /// place of its own; of an end that has begun it may only make less.
    ///
    /// The end has begun when this is done; what it gives is told when it is over.
    pub async fn delete(
        &self,
        namespace: &str,
        name: &str,
        grace: Option<Duration>,
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + use<>, Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let owner = match self.lock().get(&key).map(Entry::owner) {
            Some(Owner::File(file)) if self.inner.settings.dir.is_some() => Some(file.to_owned()),
            _ => None,
        };
        if let Some(file) = owner
            && tokio::fs::try_exists(&file).await.unwrap_or(true)
        {
            return Err(Error::Belongs { key, owner: Some(file) });
        }
        let (waiter, over) = oneshot::channel();
        self.begin_delete(&key, grace, Some(waiter))?;
        Ok(async move { outcome(&key, over).await })
    }

    /// The same, whoever's it is; with nobody who waits if need be.
    pub(super) fn begin_delete(
        &self,
        key: &Key,
        grace: Option<Duration>,
        waiter: Option<Waiter>,
    ) -> Result<(), Error> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return Err(self.missing(key)) };
        let deletion = self.condemn(key, entry, grace)?;
        deletion.disinherit();
        deletion.waiters.extend(waiter);
        Ok(())
    }

    fn missing(&self, key: &Key) -> Error {
        let views = self.inner.pods.views();
        let is_it = |config: &SandboxConfig| (&config.namespace, &config.name) == (&key.0, &key.1);
        if views.iter().any(|view| is_it(&view.config)) {
            Error::NotOwn(key.clone())
        } else {
            Error::NotFound(key.clone())
        }
    }

    /// Begins a pod's end, or shortens one that has begun. The intent is written first.
    pub(super) fn condemn<'e>(
        &self,
        key: &Key,
        entry: &'e mut Entry,
        grace: Option<Duration>,
    ) -> Result<&'e mut Deletion, store::Error> {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let mut record = entry.record.clone();
        record.condemn(grace, nanos(wall));
        self.inner.store.put(&stored_key(key), &record)?;
        entry.record = record;
        if let Some(deletion) = &entry.deletion {
            deletion.grace.send_modify(|there| {
                if let Some(grace) = grace {
                    there.shorten(grace, now);
                }
            });
        }
        let record = &entry.record;
        let task = &mut entry.task;
        Ok(entry.deletion.get_or_insert_with(|| {
            let whole = record.delete_grace_seconds.map_or(record.plan.grace, Duration::from_secs);
            let left = u64::try_from(record.delete_at.saturating_sub(nanos(wall))).unwrap_or(0);
            let begun = Grace::begun(whole, Duration::from_nanos(left), now);
            let (sender, grace) = watch::channel(begun);
            tokio::spawn(self.clone().take_down(key.clone(), task.take(), grace));
            Deletion { grace: sender, waiters: Vec::new(), heir: None }
        }))
    }

    /// Until the pod is gone. `keeper`: the task that has kept it so far.
    async fn take_down(
        self,
        key: Key,
        keeper: Option<JoinHandle<()>>,
        mut grace: watch::Receiver<Grace>,
    ) {
        if let Some(keeper) = keeper {
            keeper.abort();
            // Not two at once.
            drop(keeper.await);
        }
        let (mut wait, longest) = RETRY;
        while let Some(record) = self.record(&key) {
            let gone = self.remove_all_of(&key, &record, &mut grace).await;
            let Err(why) = gone.and_then(|()| self.forget(&key).map_err(|error| error.to_string()))
            else {
                return;
            };
            tracing::error!(namespace = key.0, name = key.1, why, retry_in = ?wait, "cannot take the pod down");
            if let Some(deletion) = self.lock().get_mut(&key).and_then(|e| e.deletion.as_mut()) {
                answer(std::mem::take(&mut deletion.waiters), &Err(why));
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Somebody asks again.
                Ok(()) = grace.changed() => {}
            }
            wait = (wait * 2).min(longest);
        }
    }

    /// Its sandboxes, volumes and logs.
    async fn remove_all_of(
        &self,
        key: &Key,
        record: &PodRecord,
        hurried: &mut watch::Receiver<Grace>,
    ) -> Result<(), String> {
        let mut grace = *hurried.borrow_and_update();
        // Its task may have been cut off in the middle of making a sandbox, so look until
        // there is none.
        while !self.sandboxes_of(&record.uid).is_empty() {
            tokio::select! {
                looked = self.look(key, record, &Wish::Delete, &mut grace) => {
                    if let Looked::Waits = looked.map_err(|trouble| trouble.why)? {
                        tokio::time::sleep(SOON).await;
                    }
                }
                // What was being waited for goes on, and is asked for again with less time.
                Ok(()) = hurried.changed() => grace = *hurried.borrow_and_update(),
            }
        }
        let dir = self.volumes_of(&record.uid);
        super::keep::blocking(move || volumes::remove(&dir)).await?;
        let logs = &record.plan.sandbox.log_directory;
        if let Err(error) = tokio::fs::remove_dir_all(logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %logs.display(), %error, "cannot delete the pod's logs");
        }
        Ok(())
    }

    /// Nothing is left of it: whoever waits is told, and its heir comes.
    fn forget(&self, key: &Key) -> Result<(), store::Error> {
        let mut entries = self.lock();
        self.inner.store.delete::<PodRecord>(&stored_key(key))?;
        let Some(Entry { deletion: Some(deletion), .. }) = entries.remove(key) else {
            return Ok(());
        };
        self.inner.pods.services().events.forget(&key.0, &key.1);
        if let Some(Heir { plan, file, waiters }) = deletion.heir {
            let brought = self.bring(&mut entries, key, plan, file);
            if let Err(error) = &brought {
                tracing::error!(namespace = key.0, name = key.1, %error, "cannot replace the pod");
            }
            answer(waiters, &brought.map_err(|error| error.to_string()));
        }
        answer(deletion.waiters, &Ok(()));
        Ok(())
    }
}

fn answer(waiters: Vec<Waiter>, result: &Result<(), String>) {
    for waiter in waiters {
        // Who has gone away doesn't want to know.
        drop(waiter.send(result.clone()));
    }
}

/// What became of a pod's end.
pub(super) async fn outcome(
    key: &Key,
    over: oneshot::Receiver<Result<(), String>>,
) -> Result<(), Error> {
    let told = over.await.unwrap_or_else(|_| Err("haled is ending".to_owned()));
    told.map_err(|why| Error::Pod { name: key.1.clone(), why })
}
