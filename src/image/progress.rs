//! How far a pull or an import is, for whoever watches it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::digest::Digest;

/// Where a part of an image stands: downwards, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// For its turn.
    Waiting,
    /// It comes.
    Fetching,
    /// It is here.
    Fetched,
    /// It becomes a layer.
    Unpacking,
    /// Nothing is left to do.
    Done,
}

/// A layer of an image that is being pulled or imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `sha256:…` of its blob.
    pub digest: String,
    /// Of its blob.
    pub size_bytes: u64,
    /// What is here of it.
    pub done_bytes: u64,
    /// Where it stands.
    pub stage: Stage,
}

/// The parts of one pull or import, the lowest layer first; none before it is known what they are.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Vec<Part>>);

impl Progress {
    /// As they are now.
    pub fn parts(&self) -> Vec<Part> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layers' blobs with their sizes.
    pub(super) fn begin<'a>(&self, layers: impl Iterator<Item = (&'a Digest, u64)>) {
        let part = |(digest, size_bytes): (&Digest, u64)| Part {
            digest: digest.to_string(),
            size_bytes,
            done_bytes: 0,
            stage: Stage::Waiting,
        };
        *self.lock() = layers.map(part).collect();
    }

    /// The part at this place has come so far.
    pub(super) fn stands(&self, place: usize, stage: Stage) {
        if let Some(part) = self.lock().get_mut(place) {
            part.stage = stage;
            if !matches!(stage, Stage::Waiting | Stage::Fetching) {
                part.done_bytes = part.size_bytes;
            }
        }
    }

    /// Every part that is of this blob has come so far, if it hadn't before.
    pub(super) fn blob_stands(&self, blob: &Digest, stage: Stage) {
        let blob = blob.to_string();
        for part in self.lock().iter_mut().filter(|part| part.digest == blob) {
            if part.stage != Stage::Done {
                (part.stage, part.done_bytes) = (stage, part.size_bytes);
            }
        }
    }

    /// So many bytes of a blob are here.
    pub(super) fn reached(&self, digest: &Digest, bytes: u64) {
        let digest = digest.to_string();
        for part in self.lock().iter_mut().filter(|part| part.digest == digest) {
            part.done_bytes = bytes.min(part.size_bytes);
        }
    }
}
