//! Images, their names and root file systems as they are stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::digest::Digest;
use super::super::{Defaults, Image};
use crate::store::Record;

/// An image as it is stored. Its key is its id without the algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::image) struct ImageRecord {
    /// Configuration, manifest, index and layers.
    pub(in crate::image) blobs: BTreeSet<Digest>,
    /// Lowest first.
    pub(in crate::image) chain: Vec<Digest>,
    pub(in crate::image) size_bytes: u64,
    pub(in crate::image) pinned: bool,
    pub(in crate::image) defaults: Defaults,
    /// The container that it is a checkpoint of, by its manifest.
    #[serde(default)]
    pub(in crate::image) checkpoint: Option<String>,
    /// It has no names, isn't listed and has no blobs; a container stands on it, and may be
    /// made again from it.
    #[serde(default)]
    pub(in crate::image) removed: bool,
}

impl ImageRecord {
    pub(super) fn image(&self, id: &Digest) -> Image {
        Image {
            id: id.to_string(),
            tags: Vec::new(),
            digests: Vec::new(),
            size_bytes: self.size_bytes,
            pinned: self.pinned,
            chain: self.chain.iter().map(ToString::to_string).collect(),
            defaults: self.defaults.clone(),
            checkpoint: self.checkpoint.clone(),
        }
    }
}

impl Record for ImageRecord {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;
}

/// A tag or digest reference, which is the key, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRecord {
    pub(super) image: Digest,
}

impl Record for NameRecord {
    const KIND: &'static str = "image-name";
    const VERSION: u32 = 1;
}

/// A container's root file system; the key is the container's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::image) struct RootfsRecord {
    /// The image's id.
    pub(in crate::image) image: String,
    pub(in crate::image) chain: Vec<Digest>,
    /// The images mounted beside it, as volumes.
    #[serde(default)]
    pub(in crate::image) volumes: Vec<VolumeRecord>,
}

/// An image that a container has as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::image) struct VolumeRecord {
    /// The image's id.
    pub(in crate::image) image: String,
    pub(in crate::image) chain: Vec<Digest>,
}

impl RootfsRecord {
    /// Each image that it stands on, with its layers.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &[Digest])> {
        let volumes = self.volumes.iter().map(|volume| (&*volume.image, &*volume.chain));
        std::iter::once((&*self.image, &*self.chain)).chain(volumes)
    }
}

impl Record for RootfsRecord {
    const KIND: &'static str = "rootfs";
    const VERSION: u32 = 1;
}
