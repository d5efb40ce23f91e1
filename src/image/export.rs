//! Images as one archive: an OCI layout that `docker load` reads too, by the manifest.json of
//! docker-archive beside it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::catalog::Thing;
use super::digest::Digest;
use super::images::Images;
use super::inspect::{Parts, parts};
use super::manifest::Descriptor;
use super::pull::blocking;
use super::{Error, Image, Inner};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// What a tar adds to each of its members, at most.
const PER_MEMBER: u64 = 1024;

/// Images that are ready to be written.
pub struct Export {
    inner: Arc<Inner>,
    images: Vec<(Arc<Image>, Parts)>,
    _lease: super::catalog::Lease,
}

impl Images {
    /// Looks the images up, and keeps what they are made of until the export is dropped.
    pub async fn export(&self, names: &[String]) -> Result<Export, Error> {
        let images: Vec<_> = names.iter().map(|name| self.find(name)).collect::<Result<_, _>>()?;
        let inner = self.inner();
        blocking("reading images", move || {
            let ids = images.iter().filter_map(|image| Digest::parse(&image.id).ok());
            let blobs = ids.flat_map(|id| inner.catalog.blobs(&id));
            let lease = inner.catalog.lease(blobs.map(Thing::Blob).collect());
            let read = |image: Arc<Image>| parts(&inner, &image).map(|parts| (image, parts));
            let images = images.into_iter().map(read).collect::<Result<_, _>>()?;
            Ok(Export { inner: Arc::clone(&inner), images, _lease: lease })
        })
        .await
    }
}

impl Export {
    /// About as many bytes as `write` writes.
    pub fn size_bytes(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let layers = self.images.iter().flat_map(|(_, parts)| &parts.layers);
        let layers = layers.filter(|layer| seen.insert(&layer.digest));
        layers.fold(4 * PER_MEMBER, |sum, layer| sum.saturating_add(layer.size + PER_MEMBER))
    }

    /// Writes the archive. The same images make the same bytes.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = Archive { tar: tar::Builder::new(out), there: BTreeSet::new() };
        archive.member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (mut index, mut saved) = (Vec::new(), Vec::new());
        for (image, parts) in &self.images {
            let config = archive.bytes(&parts.config)?;
            for layer in &parts.layers {
                archive.blob(&self.inner, layer)?;
            }
            let (media_type, manifest) = match &parts.manifest {
                Some((_, bytes)) => (media_type(bytes), bytes.clone()),
                None => (MANIFEST_TYPE.to_owned(), made(&config, parts).to_string().into_bytes()),
            };
            let digest = archive.bytes(&manifest)?;
            let entry = |annotations: Value| {
                json!({
                    "mediaType": media_type, "digest": digest.to_string(),
                    "size": manifest.len(), "annotations": annotations,
                })
            };
            index.extend(image.tags.iter().map(|tag| {
                let short = tag.rsplit_once(':').map_or("", |(_, tag)| tag);
                entry(json!({
                    "io.containerd.image.name": tag,
                    "org.opencontainers.image.ref.name": short,
                }))
            }));
            if image.tags.is_empty() {
                index.push(entry(json!({})));
            }
            saved.push(json!({
                "Config": place(&config),
                "RepoTags": image.tags,
                "Layers": parts.layers.iter().map(|l| place(&l.digest)).collect::<Vec<_>>(),
            }));
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        });
        archive.member("index.json", index.to_string().as_bytes())?;
        archive.member("manifest.json", Value::Array(saved).to_string().as_bytes())?;
        archive.tar.into_inner()?.flush()
    }
}

fn media_type(manifest: &[u8]) -> String {
    let document: Value = serde_json::from_slice(manifest).unwrap_or_default();
    document["mediaType"].as_str().unwrap_or(MANIFEST_TYPE).to_owned()
}

/// A manifest for an image that came without one.
fn made(config: &Digest, parts: &Parts) -> Value {
    let layer = |layer: &Descriptor| {
        json!({
            "mediaType": layer.media_type,
            "digest": layer.digest.to_string(),
            "size": layer.size,
        })
    };
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": CONFIG_TYPE, "digest": config.to_string(), "size": parts.config.len(),
        },
        "layers": parts.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

fn place(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// Images share layers.
    there: BTreeSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn header(size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.tar.append_data(&mut Self::header(bytes.len() as u64), name, bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if self.there.insert(digest.clone()) {
            self.member(&place(&digest), bytes)?;
        }
        Ok(digest)
    }

    fn blob(&mut self, inner: &Inner, layer: &Descriptor) -> io::Result<()> {
        if !self.there.insert(layer.digest.clone()) {
            return Ok(());
        }
        let file = File::open(inner.content.path(&layer.digest))?;
        let size = file.metadata()?.len();
        self.tar.append_data(&mut Self::header(size), place(&layer.digest), file)
    }
}
