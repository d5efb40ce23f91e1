//! What is known of an image beyond its record: from its configuration and its manifest.

use serde_json::{Value, json};

use super::digest::Digest;
use super::images::Images;
use super::manifest::{Descriptor, Document, MAX_CONFIG, MAX_MANIFEST};
use super::pull::blocking;
use super::{Error, Image, Inner};

/// An image's parts as they are in the store.
pub(super) struct Parts {
    pub(super) config: Vec<u8>,
    /// The manifest's digest and bytes, where the image came with one.
    pub(super) manifest: Option<(Digest, Vec<u8>)>,
    /// The layers' blobs, lowest first.
    pub(super) layers: Vec<Descriptor>,
}

impl Images {
    /// When an image was made, as its configuration says it (RFC 3339); empty: it doesn't.
    pub async fn created(&self, image: &Image) -> Result<String, Error> {
        let config = self.configuration(image).await?;
        Ok(config["created"].as_str().unwrap_or_default().to_owned())
    }

    /// All that is known of an image: its configuration, history and layers with their sizes.
    pub async fn inspect(&self, image: &Image) -> Result<Value, Error> {
        let (inner, wanted) = (self.inner(), image.clone());
        let parts = blocking("reading an image", move || parts(&inner, &wanted)).await?;
        let config: Value = serde_json::from_slice(&parts.config)
            .map_err(|error| unreadable(image, &error.to_string()))?;
        let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let layers = parts.layers.iter().zip(diff_ids).zip(&image.chain);
        let layers = layers.map(|((layer, diff_id), chain_id)| {
            json!({
                "digest": layer.digest.to_string(),
                "mediaType": layer.media_type,
                "size": layer.size,
                "diffID": diff_id,
                "chainID": chain_id,
            })
        });
        Ok(json!({
            "id": image.id,
            "tags": image.tags,
            "digests": image.digests,
            "size": image.size_bytes,
            "pinned": image.pinned,
            "created": config["created"],
            "author": config["author"],
            "os": config["os"],
            "architecture": config["architecture"],
            "variant": config["variant"],
            "config": config["config"],
            "manifest": parts.manifest.map(|(digest, _)| digest.to_string()),
            "layers": layers.collect::<Vec<_>>(),
            "history": config["history"],
        }))
    }

    async fn configuration(&self, image: &Image) -> Result<Value, Error> {
        let (inner, wanted) = (self.inner(), image.clone());
        blocking("reading an image", move || {
            let bytes = inner.content.read(&id(&wanted)?, MAX_CONFIG)?;
            serde_json::from_slice(&bytes).map_err(|error| unreadable(&wanted, &error.to_string()))
        })
        .await
    }
}

fn unreadable(image: &Image, why: &str) -> Error {
    let cause = format!("its configuration can't be read: {why}");
    Error::Corrupt { image: image.id.clone(), cause }
}

fn id(image: &Image) -> Result<Digest, Error> {
    Digest::parse(&image.id).map_err(|why| unreadable(image, &why))
}

/// Reads them from the store. Of an image that came without a manifest the blobs are known
/// by what they are unpacked.
pub(super) fn parts(inner: &Inner, image: &Image) -> Result<Parts, Error> {
    let id = id(image)?;
    let config = inner.content.read(&id, MAX_CONFIG)?;
    let blobs = inner.catalog.blobs(&id);
    for blob in &blobs {
        let Some(size) = inner.content.size(blob).filter(|size| *size <= MAX_MANIFEST) else {
            continue;
        };
        let bytes = inner.content.read(blob, size)?;
        if let Ok(Document::Image(manifest)) = Document::parse(&bytes)
            && manifest.config.digest == id
            && manifest.layers.iter().all(|layer| blobs.contains(&layer.digest))
        {
            let manifest_of = Some((blob.clone(), bytes));
            return Ok(Parts { config, manifest: manifest_of, layers: manifest.layers });
        }
    }
    let parsed = super::manifest::Config::parse(&config).map_err(|why| unreadable(image, &why))?;
    let mut known: Vec<(Digest, Descriptor)> = Vec::new();
    for blob in blobs.iter().filter(|blob| **blob != id) {
        let path = inner.content.path(blob);
        let io = Error::disk("read", &path);
        let (diff_id, compressed) = super::layer::diff_id(&path).map_err(&io)?;
        let size = inner.content.size(blob).unwrap_or_default();
        known.push((diff_id, Descriptor::layer(blob.clone(), size, compressed)));
    }
    let layers = parsed.diff_ids().iter().map(|diff_id| {
        let found = known.iter().find(|(known, _)| known == diff_id);
        found.map(|(_, layer)| layer.clone()).ok_or_else(|| Error::Corrupt {
            image: image.id.clone(),
            cause: format!(
                "its layer {diff_id} is no longer in the store: pull or import it again"
            ),
        })
    });
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(Parts { config, manifest: None, layers })
}
