//! What images and root file systems there are, and what of the disk each stands on.
//!
//! One lock guards the catalog. Whoever is about to use a blob or a layer holds it by a
//! `Lease` first, so that a collection never takes away what a pull is building on.

mod published;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::content::Content;
use super::digest::Digest;
use super::layer::Layers;
use super::reference::{Reference, Version};
use super::{Error, Image};
use crate::store::{Changes, Record, Store};

pub(super) use published::Published;
use record::NameRecord;
pub(super) use record::{ImageRecord, RootfsRecord, VolumeRecord};

/// Content that must not be collected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thing {
    Blob(Digest),
    Layer(Digest),
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Digest, ImageRecord>,
    /// Normalized reference → image.
    names: BTreeMap<String, Digest>,
    rootfs: BTreeMap<String, RootfsRecord>,
    leased: HashMap<Thing, usize>,
}

/// The catalog.
#[derive(Debug)]
pub(super) struct Catalog {
    store: Store,
    state: Mutex<State>,
    published: ArcSwap<Published>,
    /// Records were lost or could not be read: what they refer to isn't known.
    incomplete: bool,
}

/// Holds things while it lives.
#[derive(Debug)]
pub(super) struct Lease {
    catalog: Arc<Catalog>,
    things: Vec<Thing>,
}

impl Lease {
    /// Both as one.
    pub(super) fn with(mut self, mut other: Self) -> Self {
        self.things.append(&mut other.things);
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.catalog.lock();
        for thing in self.things.drain(..) {
            if let Some(count) = state.leased.get_mut(&thing) {
                *count -= 1;
                if *count == 0 {
                    state.leased.remove(&thing);
                }
            }
        }
    }
}

impl Catalog {
    /// Reads the records. Unreadable ones are set aside by the store and told of here.
    pub(super) fn open(store: Store) -> Result<Self, Error> {
        let mut incomplete = store.replaced().is_some();
        let images = readable::<ImageRecord>(&store, &mut incomplete)?;
        let names = readable::<NameRecord>(&store, &mut incomplete)?;
        let rootfs = readable::<RootfsRecord>(&store, &mut incomplete)?;
        if incomplete {
            tracing::warn!(
                "records of images are missing: content is not deleted until the next start"
            );
        }
        let mut state = State { rootfs: rootfs.into_iter().collect(), ..State::default() };
        state.images = images
            .into_iter()
            .filter_map(|(key, record)| Some((Digest::from_hex(&key)?, record)))
            .collect();
        for (name, record) in names {
            if state.images.get(&record.image).is_some_and(|image| !image.removed) {
                state.names.insert(name, record.image);
            } else {
                // The image's record was lost: it was set aside.
                store.delete::<NameRecord>(&name)?;
            }
        }
        for id in state.unused("") {
            store.delete::<ImageRecord>(id.hex())?;
            state.images.remove(&id);
        }
        let published = ArcSwap::default();
        let catalog = Self { store, state: Mutex::default(), published, incomplete };
        catalog.publish(&state);
        *catalog.lock() = state;
        Ok(catalog)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        let of = |removed: bool| {
            let images = state.images.iter().filter(move |(_, record)| record.removed == removed);
            images.map(|(id, record)| (id.clone(), record.image(id)))
        };
        let mut images: BTreeMap<Digest, Image> = of(false).collect();
        for (name, id) in &state.names {
            let Some(image) = images.get_mut(id) else { continue };
            if name.contains('@') {
                image.digests.push(name.clone());
            } else {
                image.tags.push(name.clone());
            }
        }
        let images = images.into_iter().map(|(id, image)| (id, Arc::new(image))).collect();
        let removed = of(true).map(|(id, image)| (id, Arc::new(image))).collect();
        let names = state.names.clone();
        self.published.store(Arc::new(Published { images, removed, names }));
    }

    /// The catalog as it is now.
    pub(super) fn now(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Keeps these from being collected until the lease is dropped.
    pub(super) fn lease(self: &Arc<Self>, things: Vec<Thing>) -> Lease {
        let mut state = self.lock();
        for thing in &things {
            *state.leased.entry(thing.clone()).or_default() += 1;
        }
        Lease { catalog: Arc::clone(self), things }
    }

    /// Adds an image and gives it these names, taking them from others. Its content must
    /// be on disk and leased.
    pub(super) fn add(
        &self,
        id: &Digest,
        mut record: ImageRecord,
        names: &[Reference],
    ) -> Result<Arc<Image>, Error> {
        let mut state = self.lock();
        if let Some(known) = state.images.get(id) {
            // The same image by another manifest, compressed otherwise.
            record.blobs.extend(known.blobs.iter().cloned());
            record.pinned |= known.pinned;
            record.checkpoint = record.checkpoint.or_else(|| known.checkpoint.clone());
        }
        let mut changes = Changes::default();
        changes.put(id.hex(), &record)?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        for name in &names {
            changes.put(name, &NameRecord { image: id.clone() })?;
        }
        self.store.apply(&changes)?;
        state.images.insert(id.clone(), record);
        state.names.extend(names.into_iter().map(|name| (name, id.clone())));
        self.publish(&state);
        Ok(Arc::clone(&self.now().images[id]))
    }

    /// Removes a name, or an image with all its names. Unknown: false. An image that a root
    /// file system stands on is no longer listed, but can be found by its id.
    pub(super) fn remove(&self, name: &str) -> Result<bool, Error> {
        let mut state = self.lock();
        let (id, gone, last) = match self.names_of(&state, name) {
            Ok(found) => found,
            Err(Error::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let result = self.forget(&mut state, &id, &gone, last);
        self.publish(&state);
        result.map(|()| true)
    }

    /// Whether `remove` would take the image along with this name.
    pub(super) fn is_last(&self, name: &str) -> Result<bool, Error> {
        Ok(self.names_of(&self.lock(), name)?.2)
    }

    /// The image, those of its names that go with this one, and whether those are all.
    fn names_of(&self, state: &State, name: &str) -> Result<(Digest, Vec<String>, bool), Error> {
        let (id, by_name) = self.now().resolve(name)?;
        let names = state.names.iter().filter(|(_, image)| **image == id);
        let all: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        let Some(name) = by_name else { return Ok((id, all, true)) };
        let gone = names_to_drop(&name, &all);
        let last = gone.len() == all.len();
        Ok((id, gone, last))
    }

    /// With the last name the image goes, or what is left of it for the root file systems that
    /// stand on it.
    fn forget(
        &self,
        state: &mut State,
        id: &Digest,
        names: &[String],
        last: bool,
    ) -> Result<(), Error> {
        let mut changes = Changes::default();
        for name in names {
            changes.delete::<NameRecord>(name);
        }
        let record = state.images.get(id).filter(|_| last);
        let left = record.filter(|_| state.is_used(id)).map(|record| ImageRecord {
            removed: true,
            blobs: BTreeSet::new(),
            ..record.clone()
        });
        match &left {
            Some(left) => changes.put(id.hex(), left)?,
            None if last => changes.delete::<ImageRecord>(id.hex()),
            None => {}
        }
        self.store.apply(&changes)?;
        for name in names {
            state.names.remove(name);
        }
        match left {
            Some(left) => drop(state.images.insert(id.clone(), left)),
            None if last => drop(state.images.remove(id)),
            None => {}
        }
        Ok(())
    }

    /// Writes down that a root file system stands on these layers, which must be there.
    /// False: that was known already.
    pub(super) fn add_rootfs(
        &self,
        container: &str,
        record: RootfsRecord,
        layers: &Layers,
    ) -> Result<bool, String> {
        let mut state = self.lock();
        if let Some(known) = state.rootfs.get(container) {
            if known.chain == record.chain && known.volumes == record.volumes {
                return Ok(false);
            }
            return Err(format!("it is there already, from image {}", known.image));
        }
        for (image, chain) in record.parts() {
            if let Some(missing) = chain.iter().find(|id| !layers.has(id)) {
                return Err(format!(
                    "layer {missing} of image {image} is not on this node: pull the image again"
                ));
            }
        }
        self.store.put(container, &record).map_err(|error| error.to_string())?;
        state.rootfs.insert(container.to_owned(), record);
        Ok(true)
    }

    /// Forgets a root file system.
    pub(super) fn remove_rootfs(&self, container: &str) -> Result<(), Error> {
        let mut state = self.lock();
        // Removed images go with the last root file system that stands on them.
        let unused = state.unused(container);
        let mut changes = Changes::default();
        changes.delete::<RootfsRecord>(container);
        for id in &unused {
            changes.delete::<ImageRecord>(id.hex());
        }
        self.store.apply(&changes)?;
        state.rootfs.remove(container);
        state.images.retain(|id, _| !unused.contains(id));
        self.publish(&state);
        Ok(())
    }

    /// The blobs of an image, its configuration among them.
    pub(super) fn blobs(&self, id: &Digest) -> BTreeSet<Digest> {
        self.lock().images.get(id).map(|image| image.blobs.clone()).unwrap_or_default()
    }

    /// The containers whose root file systems or volumes stand on an image, by its id.
    pub(super) fn users(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (container, record) in &self.lock().rootfs {
            for (image, _) in record.parts() {
                users.entry(image.to_owned()).or_default().insert(container.clone());
            }
        }
        users
    }

    /// The layers that a container's root file system stands on, the lowest first.
    pub(super) fn rootfs_chain(&self, container: &str) -> Option<Vec<Digest>> {
        self.lock().rootfs.get(container).map(|record| record.chain.clone())
    }

    /// The ids of the images that a container has as volumes, in their order.
    pub(super) fn rootfs_volumes(&self, container: &str) -> Vec<String> {
        let state = self.lock();
        let volumes = state.rootfs.get(container).map(|record| &*record.volumes);
        volumes.unwrap_or_default().iter().map(|volume| volume.image.clone()).collect()
    }

    /// The containers with a root file system.
    pub(super) fn rootfs(&self) -> Vec<String> {
        self.lock().rootfs.keys().cloned().collect()
    }

    /// Takes everything from disk that no image, root file system or lease refers to; nothing
    /// while records are missing, since a container may run from what they refer to.
    pub(super) fn collect(&self, content: &Content, layers: &Layers) -> Result<(), Error> {
        if self.incomplete {
            return Ok(());
        }
        let mut candidates: Vec<(Thing, PathBuf)> = Vec::new();
        candidates
            .extend(content.all()?.into_iter().map(|d| (Thing::Blob(d.clone()), content.path(&d))));
        candidates
            .extend(layers.all()?.into_iter().map(|d| (Thing::Layer(d.clone()), layers.path(&d))));
        let mut trash = Vec::new();
        {
            let state = self.lock();
            let used = state.used();
            let leased = |thing: &Thing| state.leased.contains_key(thing);
            candidates.retain(|(thing, _)| !used.contains(thing) && !leased(thing));
            let fetched = |digest: &Digest| leased(&Thing::Blob(digest.clone()));
            let partial = content.stale(std::time::SystemTime::now(), fetched)?;
            let unneeded = candidates.into_iter().map(|(_, path)| path);
            for path in unneeded.chain(partial) {
                // Renamed under the lock, deleted without it.
                let scratch = super::content::Scratch(content.scratch());
                match std::fs::rename(&path, &scratch.0) {
                    Ok(()) => trash.push(scratch),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::disk("remove", &path)(error)),
                }
            }
        }
        drop(trash);
        Ok(())
    }
}

impl State {
    /// Whether a root file system stands on an image.
    fn is_used(&self, image: &Digest) -> bool {
        let image = image.to_string();
        self.rootfs.values().flat_map(RootfsRecord::parts).any(|(used, _)| used == image)
    }

    /// The removed images that no root file system stands on but this container's.
    fn unused(&self, container: &str) -> Vec<Digest> {
        let others = self.rootfs.iter().filter(|(other, _)| *other != container);
        let parts = others.flat_map(|(_, record)| record.parts());
        let used: BTreeSet<&str> = parts.map(|(image, _)| image).collect();
        let removed = self.images.iter().filter(|(_, record)| record.removed);
        let unused = removed.filter(|(id, _)| !used.contains(&*id.to_string()));
        unused.map(|(id, _)| id.clone()).collect()
    }

    fn used(&self) -> BTreeSet<Thing> {
        let images = self.images.values().flat_map(|image| {
            let blobs = image.blobs.iter().cloned().map(Thing::Blob);
            blobs.chain(image.chain.iter().cloned().map(Thing::Layer))
        });
        let parts = self.rootfs.values().flat_map(RootfsRecord::parts);
        let rootfs = parts.flat_map(|(_, chain)| chain.iter().cloned().map(Thing::Layer));
        images.chain(rootfs).collect()
    }
}

/// The names that go with one: a tag takes its repository's digests along when it is the
/// last tag of that repository.
fn names_to_drop(name: &str, all: &[String]) -> Vec<String> {
    let repository = |name: &str| {
        Reference::parse(name).map(|r| (r.name(), matches!(r.version, Version::Tag(_)))).ok()
    };
    let mut gone = vec![name.to_owned()];
    let Some((own, true)) = repository(name) else { return gone };
    let others = || all.iter().filter(|n| *n != name);
    if !others().any(|n| repository(n) == Some((own.clone(), true))) {
        gone.extend(others().filter(|n| repository(n) == Some((own.clone(), false))).cloned());
    }
    gone
}

fn readable<R: Record>(store: &Store, incomplete: &mut bool) -> Result<Vec<(String, R)>, Error> {
    let (records, set_aside) = store.all::<R>()?;
    *incomplete |= !set_aside.is_empty();
    for aside in set_aside {
        tracing::warn!(
            kind = aside.kind,
            key = aside.key,
            why = aside.why,
            "a record was set aside"
        );
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[test]
    fn the_last_tag_takes_its_digests_along() {
        let digest = format!("q.io/a@sha256:{}", "0".repeat(64));
        let all: Vec<String> =
            ["q.io/a:1", "q.io/a:2", "q.io/b:1", &digest].map(str::to_owned).to_vec();
        assert_eq!(names_to_drop("q.io/a:1", &all), ["q.io/a:1"]);
        assert_eq!(names_to_drop("q.io/a:1", &all[2..]), ["q.io/a:1".to_owned(), digest.clone()]);
        assert_eq!(names_to_drop(&digest, &all), [digest]);
    }

    #[test]
    fn nothing_is_collected_while_a_record_is_unreadable() {
        #[derive(Serialize, Deserialize)]
        struct Newer {}
        impl Record for Newer {
            const KIND: &'static str = ImageRecord::KIND;
            const VERSION: u32 = 99;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        store.put(&"aa11".repeat(16), &Newer {}).unwrap();
        let content = Content::open(dir.path()).unwrap();
        let layers = Layers::open(dir.path()).unwrap();
        let blob = content.put(b"of the unreadable image").unwrap();
        let collect = || {
            Catalog::open(store.clone()).unwrap().collect(&content, &layers).unwrap();
        };
        collect();
        assert!(content.size(&blob).is_some());
        // The record was set aside at the first start.
        collect();
        assert!(content.size(&blob).is_none());
    }
}
