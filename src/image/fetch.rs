//! Fetching blobs: layers side by side, each from the server that has it, tried again and
//! gone on with where it was cut, verified whole before it counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Error;
use super::catalog::Thing;
use super::content::Ingest;
use super::manifest::{Descriptor, MAX_SIZE, Manifest};
use super::progress::{Progress, Stage};
use super::pull::{Pull, blocking};
use super::server::{Body, Fault, Server};

/// Chunks of a blob between the network and the disk.
const CHUNKS: usize = 16;
/// A try that brings a blob on by so many bytes doesn't count as one that failed.
const PROGRESS: u64 = 1 << 20;

/// What goes with a blob that is being written, and ends after it: the pull's knowledge that
/// there is work, and the right to write this blob.
type Held = (TaskTrackerToken, Arc<OwnedMutexGuard<()>>);

impl Pull {
    /// Fetches a blob unless it is here, or another pull brings it.
    pub(super) async fn fetch(&self, wanted: &Descriptor, limit: u64) -> Result<(), Error> {
        let turn = Arc::new(self.inner.turns.take(Thing::Blob(wanted.digest.clone())).await);
        if let Some(size) = self.inner.content.size(&wanted.digest) {
            return if size == wanted.size {
                Ok(())
            } else {
                Err(self.corrupt(wrong_size(wanted, size)))
            };
        }
        if wanted.size > limit {
            return Err(self.corrupt(format!(
                "{} has {} bytes, {limit} are allowed",
                wanted.digest, wanted.size
            )));
        }
        let mut tour = self.remote.tour(false);
        let mut farthest = self.inner.content.reached(&wanted.digest);
        while let Some(server) = tour.server() {
            match self.take(wanted, server, &turn).await {
                Ok(()) => {
                    tour.succeeded();
                    return Ok(());
                }
                Err(Fault::Local(error)) => return Err(error),
                Err(fault) => {
                    let reached = self.inner.content.reached(&wanted.digest);
                    let progress = reached >= farthest + PROGRESS;
                    farthest = farthest.max(reached);
                    tour.failed(fault, progress).await;
                }
            }
        }
        let verdict = tour.verdict();
        match (&verdict, wanted.elsewhere()) {
            (Error::NotInRegistry { .. }, Some(place)) => Err(self.corrupt(format!(
                "layer {} is not in the registry but elsewhere ({place}), where haled does not \
                 look: a foreign layer has to be pushed with the image",
                wanted.digest
            ))),
            _ => Err(verdict),
        }
    }

    /// Goes on with a blob by one server's answer.
    async fn take(
        &self,
        wanted: &Descriptor,
        server: &Server,
        turn: &Arc<OwnedMutexGuard<()>>,
    ) -> Result<(), Fault> {
        let held = (self.work.token(), Arc::clone(turn));
        let (inner, digest, size) = (Arc::clone(&self.inner), wanted.digest.clone(), wanted.size);
        let opening = blocking("opening a blob", move || {
            let mut ingest = inner.content.resume(&digest)?;
            if ingest.written() > size {
                ingest.restart()?;
            }
            Ok((ingest, held))
        });
        let (ingest, held) = opening.await.map_err(Fault::Local)?;
        let from = ingest.written();
        if from == wanted.size && from > 0 {
            return finish(ingest, held, wanted, true).await;
        }
        let (body, start) = match self.remote.blob(server, &wanted.digest, from).await {
            Err(Fault::NoPart) if from > 0 => self.remote.blob(server, &wanted.digest, 0).await?,
            answer => answer?,
        };
        if start > 0 {
            tracing::debug!(digest = %wanted.digest, start, "going on with a blob");
        }
        let (ingest, held, end) =
            receive(ingest, held, body, start, wanted, &self.progress).await?;
        match end {
            Ok(()) if ingest.written() < wanted.size => {
                Err(Fault::Passing(wrong_size(wanted, ingest.written())))
            }
            Ok(()) => finish(ingest, held, wanted, start > 0).await,
            Err(fault) => {
                if matches!(fault, Fault::Lasting(_)) {
                    ingest.discard();
                }
                Err(fault)
            }
        }
    }

    /// Starts a task for each layer, so many of them at work at once.
    pub(super) fn start_fetching(self: &Arc<Self>, manifest: &Manifest) -> Fetching {
        let places = Arc::new(Semaphore::new(self.inner.settings.parallel_layers.max(1)));
        let mut tasks = JoinSet::new();
        for (place, layer) in manifest.layers.iter().cloned().enumerate() {
            let (pull, places) = (Arc::clone(self), Arc::clone(&places));
            tasks.spawn(self.work.track_future(async move {
                let _place = places.acquire_owned().await;
                pull.progress.stands(place, Stage::Fetching);
                let fetched = pull.fetch(&layer, MAX_SIZE).await;
                if fetched.is_ok() {
                    pull.progress.stands(place, Stage::Fetched);
                }
                (place, fetched)
            }));
        }
        Fetching { tasks, done: BTreeSet::new() }
    }
}

/// Writes what comes of a blob, and gives it with how the coming ended.
async fn receive(
    mut ingest: Ingest,
    held: Held,
    mut body: Body,
    start: u64,
    wanted: &Descriptor,
    progress: &Progress,
) -> Result<(Ingest, Held, Result<(), Fault>), Fault> {
    let (chunks, mut to_write) = mpsc::channel::<bytes::Bytes>(CHUNKS);
    let writer = tokio::task::spawn_blocking(move || -> Result<(Ingest, Held), Error> {
        if ingest.written() > start {
            ingest.restart()?;
        }
        while let Some(chunk) = to_write.blocking_recv() {
            if let Err(error) = ingest.write(&chunk) {
                // A full disk gets its space back.
                ingest.discard();
                return Err(error);
            }
        }
        Ok((ingest, held))
    });
    let mut seen = start;
    let end = loop {
        match body.next().await {
            Ok(Some(chunk)) => {
                seen += chunk.len() as u64;
                if seen > wanted.size {
                    break Err(Fault::Lasting(wrong_size(wanted, seen)));
                }
                progress.reached(&wanted.digest, seen);
                if chunks.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(fault) => break Err(fault),
        }
    };
    drop(chunks);
    let written = writer.await.unwrap_or(Err(Error::Stopped("writing a blob")));
    let (ingest, held) = written.map_err(Fault::Local)?;
    Ok((ingest, held, end))
}

/// Makes a blob that is all here durable, if it is what was asked for.
async fn finish(
    ingest: Ingest,
    held: Held,
    wanted: &Descriptor,
    in_parts: bool,
) -> Result<(), Fault> {
    let digest = wanted.digest.clone();
    blocking("storing a blob", move || {
        let _held = held;
        let ingest = ingest;
        let (_, found) = ingest.so_far();
        if found != digest {
            ingest.discard();
            let cause = format!("{digest} was asked for, but what came is {found}");
            // Of several parts an earlier one may have been the wrong one.
            return Ok(Err(if in_parts { Fault::Passing(cause) } else { Fault::Lasting(cause) }));
        }
        ingest.commit()?;
        Ok(Ok(()))
    })
    .await
    .map_err(Fault::Local)?
}

fn wrong_size(wanted: &Descriptor, found: u64) -> String {
    format!("{} should have {} bytes, but {found} came", wanted.digest, wanted.size)
}

/// The layers' tasks. Dropped, they end.
pub(super) struct Fetching {
    tasks: JoinSet<(usize, Result<(), Error>)>,
    done: BTreeSet<usize>,
}

impl Fetching {
    /// Waits until the layer at this place is here; any layer's failure ends the waiting.
    pub(super) async fn done(&mut self, place: usize) -> Result<(), Error> {
        while !self.done.contains(&place) {
            match self.tasks.join_next().await {
                Some(Ok((place, result))) => {
                    result?;
                    self.done.insert(place);
                }
                Some(Err(_)) | None => return Err(Error::Stopped("fetching a layer")),
            }
        }
        Ok(())
    }
}
