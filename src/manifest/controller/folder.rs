//! The directory of manifests: what is added, changed and removed there acts.
//!
//! It is looked at whenever the kernel tells that something happened in it, and from time to
//! time: what changed while haled was away, or on a file system that tells nothing, is found the
//! same way. A file that somebody is still writing is left for later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Entry, Key, Manifests, Outcome, Owner};
use crate::sys::watch::{Watch, is_being_written};

/// Between looks at a directory that is watched, where nothing happens.
const LOOK: Duration = Duration::from_secs(10);
/// Between looks at one that isn't: it isn't there, or can't be watched.
const LOOK_UNWATCHED: Duration = Duration::from_secs(2);
/// What happens in quick succession is looked at once.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest manifest, in bytes; as `apply` has it.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// What tells that a file has changed.
type Stamp = (SystemTime, u64);

impl Manifests {
    /// Watches a directory for ever. A directory that isn't there has no manifests.
    pub(super) async fn watch(self, dir: PathBuf) {
        let mut seen: BTreeMap<PathBuf, Stamp> = BTreeMap::new();
        let mut conflicts: BTreeMap<PathBuf, String> = BTreeMap::new();
        let watch = Watch::new();
        if let Err(error) = &watch {
            tracing::warn!(
                dir = %dir.display(), %error,
                "cannot watch for manifests, only look every {LOOK_UNWATCHED:?}: \
                 is fs.inotify.max_user_instances too low?"
            );
        }
        loop {
            // Another directory may be at its path by now. First this, then the look: so
            // nothing is missed between them.
            let watched = watch.as_ref().ok().filter(|watch| watch.add(&dir).is_ok());
            let of_dir = dir.clone();
            match tokio::task::spawn_blocking(move || manifests(&of_dir)).await {
                Ok(Ok(files)) => self.compare(&files, &mut seen, &mut conflicts).await,
                Ok(Err(error)) => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot look for manifests");
                }
                Err(error) => tracing::error!(%error, "cannot look for manifests"),
            }
            match watched {
                Some(watch) => {
                    let happened = tokio::time::timeout(LOOK, watch.happened()).await;
                    if let Ok(Err(error)) = happened {
                        tracing::warn!(dir = %dir.display(), %error, "cannot watch for manifests");
                        tokio::time::sleep(LOOK_UNWATCHED).await;
                    }
                    tokio::time::sleep(SETTLE).await;
                }
                None => tokio::time::sleep(LOOK_UNWATCHED).await,
            }
        }
    }

    /// `conflicts`: the files that name a pod of somebody else's, with what was told of it.
    async fn compare(
        &self,
        files: &BTreeMap<PathBuf, Stamp>,
        seen: &mut BTreeMap<PathBuf, Stamp>,
        conflicts: &mut BTreeMap<PathBuf, String>,
    ) {
        let mut unfinished = Vec::new();
        for (file, stamp) in files {
            // A conflict ends when the other one goes: that is no change of this file.
            let told = conflicts.remove(file);
            if seen.get(file) == Some(stamp) && told.is_none() {
                continue;
            }
            match self.take(file, told.as_ref()).await {
                Taken::Done => {}
                Taken::Unfinished => unfinished.push(file),
                Taken::Conflict(why) => drop(conflicts.insert(file.clone(), why)),
            }
        }
        conflicts.retain(|file, _| files.contains_key(file));
        let gone: Vec<Key> = self.owned(|file| !files.contains_key(file));
        self.drop_pods(gone);
        seen.clone_from(files);
        seen.retain(|file, _| !unfinished.contains(&file));
    }

    /// Reads one file and does what it says. One that is broken changes nothing, nor does one
    /// with a pod of somebody else's, which is told unless it was (`told_of`).
    async fn take(&self, file: &Path, told_of: Option<&String>) -> Taken {
        let told = file.display();
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let begun = match read.map_err(std::io::Error::other).and_then(|read| read) {
            Ok(None) => return Taken::Unfinished,
            Ok(Some(text)) => match self.begin_apply(&text, Some(file)).await {
                Err(super::Error::Manifest(errors)) => Err(errors.of_file(&told.to_string())),
                Err(error @ super::Error::Belongs { .. }) => {
                    let why = format!("{told}: {error}");
                    if told_of != Some(&why) {
                        tracing::error!("a manifest is left out, it names another's pod: {why}");
                        if let super::Error::Belongs { key, .. } = &error {
                            self.tell(key, "ManifestConflict", why.clone());
                        }
                    }
                    return Taken::Conflict(why);
                }
                begun => begun.map_err(|error| format!("{told}: {error}")),
            },
            Err(error) => Err(format!("{told}: {error}")),
        };
        match begun {
            Ok(begun) => {
                let Outcome { pods, warnings } = begun.outcome();
                for warning in warnings {
                    tracing::warn!("{told}: {warning}");
                }
                let names: BTreeSet<&Key> = pods.iter().map(|(key, _)| key).collect();
                let mut left = self.owned(|owner| owner == file);
                left.retain(|key| !names.contains(key));
                self.drop_pods(left);
            }
            Err(why) => {
                tracing::error!("a manifest is left out, its pods stay as they are: {why}");
                for key in self.owned(|owner| owner == file) {
                    self.tell(&key, "BrokenManifest", why.clone());
                }
            }
        }
        Taken::Done
    }

    /// Their ends begin: another file's pods needn't wait for them.
    fn drop_pods(&self, keys: Vec<Key>) {
        for key in keys {
            let (namespace, name) = &key;
            tracing::info!(namespace, name, "its manifest is gone: deleting the pod");
            if let Err(error) = self.begin_delete(&key, None, None) {
                tracing::error!(namespace, name, %error, "cannot delete the pod");
            }
        }
    }

    /// The pods that are a file's.
    fn owned(&self, is_it: impl Fn(&Path) -> bool) -> Vec<Key> {
        let entries = self.lock();
        let from = |entry: &Entry| matches!(entry.owner(), Owner::File(file) if is_it(file));
        entries.iter().filter(|(_, entry)| from(entry)).map(|(key, _)| key.clone()).collect()
    }
}

/// What came of a file.
enum Taken {
    /// It was read, and is as its pods are or wrong: nothing more to do until it changes.
    Done,
    /// It is still being written.
    Unfinished,
    /// It names a pod of somebody else's: what was told of that.
    Conflict(String),
}

/// The manifests of a directory: .yaml, .yml and .json, nothing hidden.
fn manifests(dir: &Path) -> std::io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let fits = path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if hidden || !fits {
            continue;
        }
        // One that went in this moment is gone.
        if let Ok(metadata) = std::fs::metadata(&path)
            && metadata.is_file()
        {
            files.insert(path, (metadata.modified()?, metadata.len()));
        }
    }
    Ok(files)
}

/// `None`: it is still being written.
fn read(path: &Path) -> std::io::Result<Option<String>> {
    let file = File::open(path)?;
    if is_being_written(&file) {
        return Ok(None);
    }
    let mut text = String::new();
    let length = file.take(MAX_MANIFEST + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_MANIFEST {
        return Err(std::io::Error::other(format!("longer than {MAX_MANIFEST} bytes")));
    }
    Ok(Some(text))
}
