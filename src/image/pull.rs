//! A pull: manifest, configuration, layers side by side, unpacked bottom up, recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use tokio::sync::OwnedMutexGuard;
use tokio::task::AbortHandle;
use tokio_util::task::task_tracker::TaskTracker;

use super::catalog::{ImageRecord, Lease, Thing};
use super::digest::{Digest, chain_ids};
use super::fetch::Fetching;
use super::manifest::{
    self, Choice, Config, Document, MAX_CONFIG, MAX_MANIFEST, Manifest, Platform, Unfit,
};
use super::progress::{Progress, Stage};
use super::reference::{Reference, Version};
use super::registry::Remote;
use super::server::Patience;
use super::{Auth, Error, Image, Inner, checkpoint, hosts};

/// Indexes within indexes.
const MAX_NESTING: usize = 4;

type Answer = Result<Arc<Image>, Error>;

/// Pulls under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<Vec<Flight>>);

/// A pull under way, by reference and credentials: a caller without the right ones never
/// gets another's answer.
struct Flight {
    name: String,
    auth: Option<Auth>,
    /// Tells when it is over, even where nobody waited for the answer.
    task: AbortHandle,
    answer: Shared<BoxFuture<'static, Answer>>,
    progress: Arc<Progress>,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

impl Flights {
    /// Joins the pull of this image, or starts it as a task of its own.
    pub(super) fn join(
        inner: &Arc<Inner>,
        reference: Reference,
        auth: Option<Auth>,
    ) -> (Arc<Progress>, impl Future<Output = Answer> + use<>) {
        let name = reference.to_string();
        let mut flights = inner.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|flight| !flight.task.is_finished());
        if let Some(flight) = flights.iter().find(|f| f.name == name && f.auth == auth) {
            return (Arc::clone(&flight.progress), flight.answer.clone());
        }
        let progress = Arc::<Progress>::default();
        let work =
            tokio::spawn(pull(Arc::clone(inner), reference, auth.clone(), Arc::clone(&progress)));
        let task = work.abort_handle();
        let answer =
            work.map(|done| done.unwrap_or(Err(Error::Stopped("the pull")))).boxed().shared();
        let told = Arc::clone(&progress);
        flights.push(Flight { name, auth, task, answer: answer.clone(), progress });
        (told, answer)
    }
}

/// One lock for each key, so that two pulls never do the same work at once.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Thing, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(super) async fn take(&self, thing: Thing) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            if let Some(turn) = turns.get(&thing).and_then(Weak::upgrade) {
                turn
            } else {
                let turn = Arc::new(tokio::sync::Mutex::new(()));
                turns.insert(thing, Arc::downgrade(&turn));
                turn
            }
        };
        turn.lock_owned().await
    }
}

/// An image that is being put together, from a registry or an archive.
pub(super) struct Assembly {
    /// For messages.
    pub(super) name: String,
    pub(super) config_digest: Digest,
    pub(super) config: Config,
    /// Manifests too.
    pub(super) blobs: BTreeSet<Digest>,
    /// Blobs of the layers, lowest first.
    pub(super) layers: Vec<Digest>,
    pub(super) size_bytes: u64,
    /// The container that it is a checkpoint of.
    pub(super) checkpoint: Option<String>,
}

async fn pull(
    inner: Arc<Inner>,
    reference: Reference,
    auth: Option<Auth>,
    progress: Arc<Progress>,
) -> Answer {
    let dirs = inner.settings.certs_dirs.clone();
    let (domain, image) = (reference.domain.clone(), reference.clone());
    let remote = blocking("reading hosts.toml", move || {
        let endpoints = hosts::endpoints(&dirs, &domain)?;
        Remote::new(&image, endpoints, auth, Patience::default())
    })
    .await?;
    let work = TaskTracker::new();
    let pull = Arc::new(Pull { inner, remote, reference, progress, work: work.clone() });
    let answer = pull.run().await;
    // After a failure other layers may still be on their way to the disk: they end, and
    // take away what they wrote, before anyone is told.
    work.close();
    work.wait().await;
    answer
}

pub(super) struct Pull {
    pub(super) inner: Arc<Inner>,
    pub(super) remote: Remote,
    reference: Reference,
    pub(super) progress: Arc<Progress>,
    /// All that is at work for this pull.
    pub(super) work: TaskTracker,
}

impl Pull {
    pub(super) fn corrupt(&self, cause: String) -> Error {
        Error::Corrupt { image: self.reference.to_string(), cause }
    }

    fn unfit(&self, why: Unfit) -> Error {
        match why {
            Unfit::Broken(cause) => self.corrupt(cause),
            Unfit::NotAnImage(cause) => {
                Error::NotAnImage { image: self.reference.to_string(), cause }
            }
        }
    }

    async fn run(self: Arc<Self>) -> Answer {
        let (top, manifests, manifest) = self.resolve().await?;
        let mut things: Vec<Thing> =
            manifests.iter().map(|bytes| Thing::Blob(Digest::of(bytes))).collect();
        things.push(Thing::Blob(manifest.config.digest.clone()));
        things.extend(manifest.layers.iter().map(|layer| Thing::Blob(layer.digest.clone())));
        let _lease = self.inner.catalog.lease(things);

        self.progress.begin(manifest.layers.iter().map(|layer| (&layer.digest, layer.size)));
        self.fetch(&manifest.config, MAX_CONFIG).await?;
        let (inner, config_digest) = (Arc::clone(&self.inner), manifest.config.digest.clone());
        let (bytes, stored) = blocking("storing the manifests", move || {
            let stored = manifests
                .iter()
                .map(|bytes| inner.content.put(bytes))
                .collect::<Result<BTreeSet<_>, _>>()?;
            Ok((inner.content.read(&config_digest, MAX_CONFIG)?, stored))
        })
        .await?;
        let config = Config::parse(&bytes).map_err(|why| self.corrupt(why))?;
        let host = Platform::host();
        if let Some(other) = config.foreign(&host) {
            return Err(self.no_platform(&host, &other.to_string()));
        }
        let mut blobs = stored;
        blobs.insert(manifest.config.digest.clone());
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        let assembly = Assembly {
            name: self.reference.to_string(),
            config_digest: manifest.config.digest.clone(),
            config,
            blobs,
            layers: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
            size_bytes: manifest
                .layers
                .iter()
                .fold(manifest.config.size, |sum, layer| sum.saturating_add(layer.size)),
            checkpoint: checkpoint::annotated(&manifest.annotations).map(str::to_owned),
        };
        let names = match &self.reference.version {
            Version::Tag(_) => vec![self.reference.clone(), self.reference.with_digest(&top)],
            Version::Digest(_) => vec![self.reference.clone()],
        };
        let fetching = self.start_fetching(&manifest);
        assemble(&self.inner, assembly, names, &self.progress, Some(fetching)).await
    }

    /// From the reference to the manifest for this machine: the digest that the reference
    /// stands for, every manifest's bytes on the way, and the last one.
    async fn resolve(&self) -> Result<(Digest, Vec<bytes::Bytes>, Manifest), Error> {
        let host = Platform::host();
        let mut version = self.reference.version.clone();
        let mut told_size = None;
        let mut top = None;
        let mut passed = Vec::new();
        for _ in 0..MAX_NESTING {
            let stored = match &version {
                // The registry is asked even if all is here: that is where it says what the
                // tag is now, and whether the caller may have it.
                Version::Tag(tag) if self.inner.catalog.now().has(&self.reference) => {
                    match self.remote.digest_of(tag).await {
                        Some(digest) => self.stored(&Version::Digest(digest)).await,
                        None => None,
                    }
                }
                _ if top.is_some() => self.stored(&version).await,
                _ => None,
            };
            let (bytes, digest) = match stored {
                Some(found) => found,
                None => self.remote.manifest(&version).await?,
            };
            if let Some(told) = told_size.filter(|told| *told != bytes.len() as u64) {
                return Err(self.corrupt(format!(
                    "{digest} should have {told} bytes, but has {}",
                    bytes.len()
                )));
            }
            top.get_or_insert(digest);
            passed.push(bytes.clone());
            match Document::parse(&bytes).map_err(|why| self.unfit(why))? {
                Document::Image(manifest) => {
                    let top = top.expect("set above");
                    return Ok((top, passed, manifest));
                }
                Document::Index(manifests) => match manifest::choose(&host, &manifests) {
                    Choice::This(chosen) => {
                        version = Version::Digest(chosen.digest.clone());
                        told_size = Some(chosen.size);
                    }
                    Choice::None(offered) => return Err(self.no_platform(&host, &offered)),
                },
            }
        }
        Err(self.corrupt(format!("more than {MAX_NESTING} indexes within each other")))
    }

    /// A manifest that an earlier pull brought.
    async fn stored(&self, version: &Version) -> Option<(bytes::Bytes, Digest)> {
        let Version::Digest(digest) = version.clone() else { return None };
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let size = inner.content.size(&digest).filter(|size| *size <= MAX_MANIFEST);
            let bytes = size.and_then(|_| inner.content.read(&digest, MAX_MANIFEST).ok());
            Ok(bytes.map(|bytes| (bytes.into(), digest)))
        };
        blocking("reading a manifest", read).await.ok().flatten()
    }

    fn no_platform(&self, host: &Platform, offered: &str) -> Error {
        Error::NoPlatform {
            image: self.reference.to_string(),
            wanted: host.to_string(),
            offered: offered.to_owned(),
        }
    }
}

/// Unpacks the layers bottom up, each as soon as its blob is here, and records the image. The blobs must be leased by the caller.
pub(super) async fn assemble(
    inner: &Arc<Inner>,
    image: Assembly,
    names: Vec<Reference>,
    progress: &Progress,
    mut fetching: Option<Fetching>,
) -> Answer {
    let diff_ids = image.config.diff_ids().to_vec();
    if diff_ids.len() != image.layers.len() {
        let cause = format!(
            "its configuration has {} layers, its manifest {}",
            diff_ids.len(),
            image.layers.len()
        );
        return Err(Error::Corrupt { image: image.name, cause });
    }
    let chain = chain_ids(&diff_ids);
    let _lease: Lease = inner.catalog.lease(chain.iter().cloned().map(Thing::Layer).collect());
    let mut budget = inner.layers.bounds.budget(image.size_bytes);
    for (place, blob) in image.layers.iter().enumerate() {
        if let Some(fetching) = &mut fetching {
            fetching.done(place).await?;
        }
        progress.blob_stands(blob, Stage::Unpacking);
        let _turn = inner.turns.take(Thing::Layer(chain[place].clone())).await;
        let (inner, name, blob) = (Arc::clone(inner), image.name.clone(), blob.clone());
        let (below, chain_id, diff_id) =
            (chain[..place].to_vec(), chain[place].clone(), diff_ids[place].clone());
        budget = blocking("unpacking a layer", move || {
            if inner.layers.has(&chain_id) {
                return Ok(budget);
            }
            let fault = |cause: String| Error::Layer {
                image: name.clone(),
                layer: blob.to_string(),
                cause,
            };
            inner.layers.unpack(
                &inner.content,
                &inner.content.path(&blob),
                &below,
                &diff_id,
                &chain_id,
                &mut budget,
                fault,
            )?;
            Ok(budget)
        })
        .await?;
        progress.blob_stands(&image.layers[place], Stage::Done);
    }
    let inner = Arc::clone(inner);
    blocking("recording the image", move || {
        let record = ImageRecord {
            blobs: image.blobs,
            chain,
            size_bytes: image.size_bytes,
            pinned: false,
            defaults: image.config.defaults(),
            checkpoint: image.checkpoint,
            removed: false,
        };
        inner.catalog.add(&image.config_digest, record, &names)
    })
    .await
}

/// Runs what blocks off the workers of tokio.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    let work = move || span.in_scope(work);
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Stopped(doing)))
}
