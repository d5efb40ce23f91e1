//! The directory of manifests: what is added, changed and removed there acts.
//!
//! It is looked at every two seconds: simple, right also on file systems without inotify(7),
//! and the pods of what was removed while haled was away are found the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Key, Manifests};

/// Between looks.
const LOOK: Duration = Duration::from_secs(2);
/// The longest manifest, in bytes; as `apply` has it.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// What tells that a file has changed.
type Stamp = (SystemTime, u64);

impl Manifests {
    /// Watches a directory for ever. A directory that isn't there has no manifests.
    pub(super) async fn watch(self, dir: PathBuf) {
        let mut seen: BTreeMap<PathBuf, Stamp> = BTreeMap::new();
        let mut conflicts: BTreeMap<PathBuf, String> = BTreeMap::new();
        loop {
            let of_dir = dir.clone();
            match tokio::task::spawn_blocking(move || manifests(&of_dir)).await {
                Ok(Ok(files)) => self.compare(&files, &mut seen, &mut conflicts).await,
                Ok(Err(error)) => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot look for manifests");
                }
                Err(error) => tracing::error!(%error, "cannot look for manifests"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// `conflicts`: the files that name a pod of somebody else's, with what was told of it.
    async fn compare(
        &self,
        files: &BTreeMap<PathBuf, Stamp>,
        seen: &mut BTreeMap<PathBuf, Stamp>,
        conflicts: &mut BTreeMap<PathBuf, String>,
    ) {
        for (file, stamp) in files {
            // A conflict ends when the other one goes: that is no change of this file.
            let told = conflicts.remove(file);
            if seen.get(file) == Some(stamp) && told.is_none() {
                continue;
            }
            if let Some(why) = self.take(file, told.as_ref()).await {
                conflicts.insert(file.clone(), why);
            }
        }
        conflicts.retain(|file, _| files.contains_key(file));
        let gone: Vec<Key> = self.owned(|file| !files.contains_key(file));
        self.drop_pods(gone).await;
        seen.clone_from(files);
    }

    /// Reads one file and does what it says. One that is broken changes nothing, nor does one
    /// with a pod of somebody else's: that is given back, and told unless it was (`told_of`).
    async fn take(&self, file: &Path, told_of: Option<&String>) -> Option<String> {
        let told = file.display();
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let applied = match read.map_err(std::io::Error::other).and_then(|read| read) {
            Ok(text) => match self.apply_from(&text, Some(file)).await {
                Err(super::Error::Manifest(errors)) => Err(errors.of_file(&told.to_string())),
                Err(error @ super::Error::Belongs { .. }) => {
                    let why = format!("{told}: {error}");
                    if told_of != Some(&why) {
                        tracing::error!("a manifest is left out, it names another's pod: {why}");
                        if let super::Error::Belongs { key, .. } = &error {
                            self.tell(key, "ManifestConflict", why.clone());
                        }
                    }
                    return Some(why);
                }
                applied => applied.map_err(|error| format!("{told}: {error}")),
            },
            Err(error) => Err(format!("{told}: {error}")),
        };
        match applied {
            Ok(applied) => {
                let names: BTreeSet<&Key> = applied.iter().map(|(key, _)| key).collect();
                let mut left = self.owned(|owner| owner == file);
                left.retain(|key| !names.contains(key));
                self.drop_pods(left).await;
            }
            Err(why) => {
                tracing::error!("a manifest is left out, its pods stay as they are: {why}");
                for key in self.owned(|owner| owner == file) {
                    self.tell(&key, "BrokenManifest", why.clone());
                }
            }
        }
        None
    }

    async fn drop_pods(&self, keys: Vec<Key>) {
        for (namespace, name) in keys {
            tracing::info!(namespace, name, "its manifest is gone: deleting the pod");
            if let Err(error) = self.delete(&namespace, &name, None).await {
                tracing::error!(namespace, name, %error, "cannot delete the pod");
            }
        }
    }

    /// The pods that came from a file.
    fn owned(&self, is_it: impl Fn(&Path) -> bool) -> Vec<Key> {
        let entries = self.lock();
        let from = |entry: &super::Entry| entry.record.file.as_deref().is_some_and(&is_it);
        entries.iter().filter(|(_, entry)| from(entry)).map(|(key, _)| key.clone()).collect()
    }
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

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(MAX_MANIFEST + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_MANIFEST {
        return Err(std::io::Error::other(format!("longer than {MAX_MANIFEST} bytes")));
    }
    Ok(text)
}
