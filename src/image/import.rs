//! Images from archives: OCI layout, docker-archive, a root file system.
//!
//! What an archive is says its content: `oci-layout` beside `index.json`, or
//! `manifest.json`; anything else is a root file system and needs a name. Compression is
//! known by its first bytes. Members of an archive are only read, never unpacked by their
//! names; layers go the way that pulled ones go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::archive::Source;
use super::catalog::{Lease, Thing};
use super::content::Scratch;
use super::digest::{Digest, Hasher};
use super::layer::decoded;
use super::manifest::{
    self, Choice, Config, Descriptor, Document, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, Manifest,
    Platform,
};
use super::progress::{Progress, Stage};
use super::pull::{Assembly, assemble, blocking};
use super::reference::{Reference, Version};
use super::{Error, Image, Inner, checkpoint};

/// Largest archive taken from a stream or uncompressed, in bytes.
pub const MAX_ARCHIVE: u64 = 256 << 30;
/// Bytes of a stream between the network and the disk.
const SPOOL_BUFFER: usize = 256 << 10;
/// Indexes within indexes.
const MAX_NESTING: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What a root file system's containers get as PATH.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image whose blobs are in the store.
struct Ready {
    assembly: Assembly,
    names: Vec<Reference>,
    _lease: Lease,
}

pub(super) async fn import(
    inner: Arc<Inner>,
    path: PathBuf,
    name: Option<Reference>,
    progress: Arc<Progress>,
) -> Result<Vec<Arc<Image>>, Error> {
    let import = Import { inner: Arc::clone(&inner), path, name };
    let ready = blocking("reading the archive", move || import.read()).await?;
    let size = |layer| inner.content.size(layer).unwrap_or_default();
    let layers = ready.iter().flat_map(|image| &image.assembly.layers);
    progress.begin(layers.clone().map(|layer| (layer, size(layer))));
    layers.for_each(|layer| progress.blob_stands(layer, Stage::Fetched));
    let mut images = Vec::new();
    for image in ready {
        images.push(assemble(&inner, image.assembly, image.names, &progress, None).await?);
    }
    Ok(images)
}

/// The name an import is to have. It can't be a digest: that is the content's to say.
pub(super) fn name(text: &str) -> Result<Reference, Error> {
    let name = Reference::parse(text)?;
    match name.version {
        Version::Tag(_) => Ok(name),
        Version::Digest(_) => Err(Error::BadReference {
            reference: text.to_owned(),
            why: "an archive's content has its own digest: give a tag".to_owned(),
        }),
    }
}

/// Writes a stream to a file below the root; it goes when the guard is dropped.
pub(super) async fn spool(
    inner: &Inner,
    mut reader: impl AsyncRead + Unpin,
) -> Result<Scratch, Error> {
    let scratch = Scratch(inner.content.scratch());
    let disk = Error::disk("write", &scratch.0);
    let stream = |cause: String| Error::Archive { path: "the stream".into(), cause };
    let mut file = tokio::fs::File::create_new(&scratch.0).await.map_err(&disk)?;
    let (mut buffer, mut size) = (vec![0; SPOOL_BUFFER], 0u64);
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => return Err(stream(format!("it was cut off: {error}"))),
        };
        size += length as u64;
        if size > MAX_ARCHIVE {
            return Err(stream(format!("it is larger than {MAX_ARCHIVE} bytes")));
        }
        file.write_all(&buffer[..length]).await.map_err(&disk)?;
    }
    file.flush().await.map_err(&disk)?;
    Ok(scratch)
}

struct Import {
    inner: Arc<Inner>,
    path: PathBuf,
    name: Option<Reference>,
}

/// An entry of docker-archive's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Import {
    fn wrong(&self, cause: impl Into<String>) -> Error {
        Error::Archive { path: self.path.clone(), cause: cause.into() }
    }

    fn io(&self) -> impl Fn(io::Error) -> Error {
        |error| self.wrong(error.to_string())
    }

    fn read(&self) -> Result<Vec<Ready>, Error> {
        let meta = std::fs::metadata(&self.path).map_err(self.io())?;
        if meta.is_dir() {
            let source = Source::Directory(self.path.clone());
            if !source.has("index.json") {
                return Err(self.wrong("it is no OCI layout: it has no index.json"));
            }
            return self.oci(&source);
        }
        if !meta.is_file() {
            return Err(self.wrong("it is neither a file nor a directory"));
        }
        let (plain, _scratch) = self.plain(meta.len())?;
        let source = Source::archive(&plain).map_err(|why| self.wrong(why))?;
        if source.has("index.json") && source.has("oci-layout") {
            self.oci(&source)
        } else if source.has("manifest.json") {
            self.docker(&source)
        } else {
            self.rootfs(&plain)
        }
    }

    /// The uncompressed archive: the file itself, or a copy that goes with its guard.
    fn plain(&self, size: u64) -> Result<(PathBuf, Option<Scratch>), Error> {
        let mut start = [0; 4];
        let mut file = File::open(&self.path).map_err(self.io())?;
        let length = file.read(&mut start).map_err(self.io())?;
        let compressed = start[..length].starts_with(&[0x1f, 0x8b])
            || start[..length].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        if !compressed {
            return Ok((self.path.clone(), None));
        }
        file.rewind().map_err(self.io())?;
        let limit = self.inner.layers.bounds.for_size(size).min(MAX_ARCHIVE);
        let scratch = Scratch(self.inner.content.scratch());
        let mut out = File::create_new(&scratch.0).map_err(Error::disk("make", &scratch.0))?;
        let mut stream = decoded(file).map_err(self.io())?.take(limit + 1);
        let written = io::copy(&mut stream, &mut out).map_err(self.io())?;
        if written > limit {
            return Err(self.wrong(format!(
                "it expands to more than {limit} bytes, too much for its compressed size"
            )));
        }
        Ok((scratch.0.clone(), Some(scratch)))
    }

    /// A part's bytes, of at most `limit`.
    fn small(&self, source: &Source, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let (mut reader, size) = source.open(name).map_err(|why| self.wrong(why))?;
        if size > limit {
            return Err(self.wrong(format!("{name} has {size} bytes, {limit} are allowed")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(self.io())?;
        Ok(bytes)
    }

    /// Copies a part into the store. Its digest, where it is known, is verified.
    fn store(
        &self,
        source: &Source,
        name: &str,
        wanted: Option<&Digest>,
    ) -> Result<(Digest, u64, Lease), Error> {
        let (mut reader, size) = source.open(name).map_err(|why| self.wrong(why))?;
        let mut ingest = self.inner.content.begin()?;
        ingest.copy(&mut reader, size).map_err(self.io())?;
        let (_, found) = ingest.so_far();
        if let Some(wanted) = wanted.filter(|wanted| **wanted != found) {
            return Err(self.wrong(format!(
                "{name} should be {wanted}, but is {found}: save the image again"
            )));
        }
        let lease = self.inner.catalog.lease(vec![Thing::Blob(found.clone())]);
        ingest.commit()?;
        Ok((found, size, lease))
    }

    fn oci(&self, source: &Source) -> Result<Vec<Ready>, Error> {
        let index = self.small(source, "index.json", MAX_MANIFEST)?;
        let Document::Index(manifests) =
            Document::parse(&index).map_err(|why| self.wrong(why.to_string()))?
        else {
            return Err(self.wrong("its index.json is no index"));
        };
        let images = grouped(manifests);
        if images.is_empty() {
            return Err(self.wrong("it holds no image"));
        }
        if images.len() > 1 && self.name.is_some() {
            return Err(self.wrong(format!(
                "it holds {} images, which one name can't stand for: leave the name out",
                images.len()
            )));
        }
        images.iter().map(|(names, group)| self.oci_image(source, names, group)).collect()
    }

    /// Of several images for one platform and under one name none is the right one.
    fn check_unambiguous(&self, group: &[Descriptor]) -> Result<(), Error> {
        let Choice::This(chosen) = manifest::choose(&Platform::host(), group) else {
            return Ok(());
        };
        let rivals: BTreeSet<String> = group
            .iter()
            .filter(|entry| entry.platform == chosen.platform)
            .map(|entry| entry.digest.to_string())
            .collect();
        if rivals.len() == 1 {
            return Ok(());
        }
        Err(self.wrong(format!(
            "nothing tells its {} images apart ({}): save them with a name each",
            rivals.len(),
            Vec::from_iter(rivals).join(", ")
        )))
    }

    fn oci_image(
        &self,
        source: &Source,
        names: &[String],
        group: &[Descriptor],
    ) -> Result<Ready, Error> {
        self.check_unambiguous(group)?;
        let given: Vec<Reference> = match &self.name {
            Some(name) => vec![name.clone()],
            None => names.iter().map(|name| Reference::parse(name)).collect::<Result<_, _>>()?,
        };
        let shown =
            given.first().map_or_else(|| self.path.display().to_string(), ToString::to_string);
        let mut blobs = BTreeSet::new();
        let mut leases = Vec::new();
        let (top, manifest) = self.oci_manifest(source, group, &shown, &mut blobs, &mut leases)?;
        let mut names = Vec::new();
        for name in given {
            match &name.version {
                Version::Digest(digest) if *digest != top => {
                    return Err(self.wrong(format!("what it calls {name} is {top}")));
                }
                Version::Digest(_) => {}
                Version::Tag(_) => names.push(name.with_digest(&top)),
            }
            names.push(name);
        }
        let mut size_bytes = manifest.config.size;
        let (config_digest, _, lease) = self.store_descriptor(source, &manifest.config)?;
        leases.push(lease);
        blobs.insert(config_digest.clone());
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let (digest, size, lease) = self.store_descriptor(source, layer)?;
            size_bytes += size;
            leases.push(lease);
            blobs.insert(digest.clone());
            layers.push(digest);
        }
        let config = self.config(&config_digest, &shown)?;
        let checkpoint = checkpoint::annotated(&manifest.annotations).map(str::to_owned);
        let assembly =
            Assembly { name: shown, config_digest, config, blobs, layers, size_bytes, checkpoint };
        Ok(Ready { assembly, names, _lease: merged(leases) })
    }

    /// Down to the manifest for this machine. Gives the digest of the first document.
    fn oci_manifest(
        &self,
        source: &Source,
        group: &[Descriptor],
        shown: &str,
        blobs: &mut BTreeSet<Digest>,
        leases: &mut Vec<Lease>,
    ) -> Result<(Digest, Manifest), Error> {
        let host = Platform::host();
        let mut group = group.to_vec();
        let mut top = None;
        for _ in 0..MAX_NESTING {
            let chosen = match manifest::choose(&host, &group) {
                Choice::This(chosen) => chosen.clone(),
                Choice::None(offered) => {
                    return Err(Error::NoPlatform {
                        image: shown.to_owned(),
                        wanted: host.to_string(),
                        offered,
                    });
                }
            };
            let bytes = self.small(source, &blob_name(&chosen.digest), MAX_MANIFEST)?;
            let (digest, _, lease) = self.store_descriptor(source, &chosen)?;
            leases.push(lease);
            blobs.insert(digest.clone());
            top.get_or_insert(digest);
            match Document::parse(&bytes).map_err(|why| self.wrong(why.to_string()))? {
                Document::Image(manifest) => return Ok((top.expect("set above"), manifest)),
                Document::Index(inside) => group = inside,
            }
        }
        Err(self.wrong(format!("more than {MAX_NESTING} indexes within each other")))
    }

    fn store_descriptor(
        &self,
        source: &Source,
        wanted: &Descriptor,
    ) -> Result<(Digest, u64, Lease), Error> {
        let name = blob_name(&wanted.digest);
        let (digest, size, lease) = self.store(source, &name, Some(&wanted.digest))?;
        if size != wanted.size {
            return Err(
                self.wrong(format!("{name} should have {} bytes, but has {size}", wanted.size))
            );
        }
        Ok((digest, size, lease))
    }

    fn config(&self, digest: &Digest, shown: &str) -> Result<Config, Error> {
        let bytes = self.inner.content.read(digest, MAX_CONFIG)?;
        let config = Config::parse(&bytes).map_err(|why| self.wrong(why))?;
        let host = Platform::host();
        match config.foreign(&host) {
            None => Ok(config),
            Some(other) => Err(Error::NoPlatform {
                image: shown.to_owned(),
                wanted: host.to_string(),
                offered: other.to_string(),
            }),
        }
    }

    fn docker(&self, source: &Source) -> Result<Vec<Ready>, Error> {
        let bytes = self.small(source, "manifest.json", MAX_MANIFEST)?;
        let saved: Vec<Saved> = serde_json::from_slice(&bytes)
            .map_err(|error| self.wrong(format!("its manifest.json can't be read: {error}")))?;
        match saved.len() {
            0 => Err(self.wrong("it holds no image")),
            count if count > 1 && self.name.is_some() => Err(self.wrong(format!(
                "it holds {count} images, which one name can't stand for: leave the name out"
            ))),
            _ => saved.iter().map(|image| self.docker_image(source, image)).collect(),
        }
    }

    fn docker_image(&self, source: &Source, saved: &Saved) -> Result<Ready, Error> {
        let names = match &self.name {
            Some(name) => vec![name.clone()],
            None => saved
                .repo_tags
                .iter()
                .flatten()
                // The manifest that a digest would be of isn't in such an archive.
                .map(|tag| name(tag))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let shown =
            names.first().map_or_else(|| self.path.display().to_string(), ToString::to_string);
        let parts = saved.layers.as_deref().unwrap_or_default();
        if parts.len() > MAX_LAYERS {
            return Err(
                self.wrong(format!("it has {} layers, {MAX_LAYERS} are allowed", parts.len()))
            );
        }
        // Bounded before it is stored.
        self.small(source, &saved.config, MAX_CONFIG)?;
        let (config_digest, mut size_bytes, lease) = self.store(source, &saved.config, None)?;
        let (mut blobs, mut leases, mut layers) =
            (BTreeSet::from([config_digest.clone()]), vec![lease], Vec::new());
        for part in parts {
            let (digest, size, lease) = self.store(source, part, None)?;
            size_bytes += size;
            leases.push(lease);
            blobs.insert(digest.clone());
            layers.push(digest);
        }
        let config = self.config(&config_digest, &shown)?;
        let checkpoint = None;
        let assembly =
            Assembly { name: shown, config_digest, config, blobs, layers, size_bytes, checkpoint };
        Ok(Ready { assembly, names, _lease: merged(leases) })
    }

    /// One layer, and a configuration made for it.
    fn rootfs(&self, plain: &Path) -> Result<Vec<Ready>, Error> {
        let Some(name) = self.name.clone() else {
            return Err(self.wrong(
                "it is neither an OCI archive (oci-layout) nor a docker-archive (manifest.json): \
                 if it is a root file system, give it a name",
            ));
        };
        let mut hasher = Hasher::default();
        let mut file = File::open(plain).map_err(self.io())?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer).map_err(self.io())? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            }
        }
        let diff_id = hasher.finish();
        let whole = Source::Directory(self.path.parent().unwrap_or(Path::new("/")).to_owned());
        let file_name = self
            .path
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or_else(|| self.wrong("its name is not UTF-8"))?;
        let (layer, size, layer_lease) = self.store(&whole, file_name, None)?;
        let host = Platform::host();
        let config = serde_json::json!({
            "architecture": host.architecture,
            "os": host.os,
            "config": {"Env": [DEFAULT_PATH], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        });
        let bytes = config.to_string().into_bytes();
        let config_digest = Digest::of(&bytes);
        let lease = self.inner.catalog.lease(vec![Thing::Blob(config_digest.clone())]);
        self.inner.content.put(&bytes)?;
        let assembly = Assembly {
            name: name.to_string(),
            config: Config::parse(&bytes).map_err(|why| self.wrong(why))?,
            blobs: BTreeSet::from([config_digest.clone(), layer.clone()]),
            config_digest,
            layers: vec![layer],
            size_bytes: size + bytes.len() as u64,
            checkpoint: None,
        };
        Ok(vec![Ready { assembly, names: vec![name], _lease: merged(vec![lease, layer_lease]) }])
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The image's name by containerd's annotation or OCI's. A bare word in the latter is a tag
/// of no known repository, so it is no name.
fn oci_name(descriptor: &Descriptor) -> Option<String> {
    let annotation =
        |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty()).cloned();
    annotation("io.containerd.image.name")
        .or_else(|| annotation(REF_NAME).filter(|name| name.contains(['/', ':'])))
}

/// An index's images: entries of one name are one image for several platforms, and the same
/// entries under several names are one image too.
fn grouped(manifests: Vec<Descriptor>) -> Vec<(Vec<String>, Vec<Descriptor>)> {
    let mut by_name: BTreeMap<(Option<String>, Option<String>), Vec<Descriptor>> = BTreeMap::new();
    for descriptor in manifests {
        let name = oci_name(&descriptor);
        let bare = descriptor.annotations.get(REF_NAME).filter(|_| name.is_none()).cloned();
        by_name.entry((name, bare)).or_default().push(descriptor);
    }
    let mut images: Vec<(Vec<String>, Vec<Descriptor>)> = Vec::new();
    for ((name, _), group) in by_name {
        let digests = |group: &[Descriptor]| -> BTreeSet<String> {
            group.iter().map(|entry| entry.digest.to_string()).collect()
        };
        match images.iter_mut().find(|(_, known)| digests(known) == digests(&group)) {
            Some((names, _)) => names.extend(name),
            None => images.push((Vec::from_iter(name), group)),
        }
    }
    images
}

fn merged(leases: Vec<Lease>) -> Lease {
    leases.into_iter().reduce(Lease::with).expect("every image has a configuration")
}
