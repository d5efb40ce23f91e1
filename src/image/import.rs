//! Images from archives: OCI layout, docker-archive, a root file system.
//!
//! What an archive is says its content: `oci-layout` beside `index.json`, or
//! `manifest.json`; anything else is a root file system and needs a name. Compression is
//! known by its first bytes. Members of an archive are only read, never unpacked by their
//! names; layers go the way that pulled ones go.

mod docker;
mod oci;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::archive::Source;
use super::catalog::{Lease, Thing};
use super::content::Scratch;
use super::digest::{Digest, Hasher};
use super::layer::decoded;
use super::manifest::{Config, MAX_CONFIG, Platform};
use super::progress::{Progress, Stage};
use super::pull::{Assembly, assemble, blocking};
use super::reference::{Reference, Version};
use super::{Error, Image, Inner};

/// Largest archive taken from a stream or uncompressed, in bytes.
pub const MAX_ARCHIVE: u64 = 256 << 30;
/// Bytes of a stream between the network and the disk.
const SPOOL_BUFFER: usize = 256 << 10;
/// What a root file system's containers get as PATH.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image whose blobs are in the store.
struct Ready {
    assembly: Assembly,
    names: Vec<Reference>,
    _lease: Lease,
}

/// `shown`: what to call the archive in errors.
pub(super) async fn import(
    inner: Arc<Inner>,
    (path, shown): (PathBuf, PathBuf),
    name: Option<Reference>,
    progress: Arc<Progress>,
) -> Result<Vec<Arc<Image>>, Error> {
    let import = Import { inner: Arc::clone(&inner), path, shown, name };
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

/// Writes a stream to a file below the root; it goes when the guard is dropped. `shown`: what
/// to call it in errors.
pub(super) async fn spool(
    inner: &Inner,
    shown: &Path,
    mut reader: impl AsyncRead + Unpin,
) -> Result<Scratch, Error> {
    let scratch = Scratch(inner.content.scratch());
    let disk = Error::disk("write", &scratch.0);
    let stream = |cause: String| Error::Archive { path: shown.to_owned(), cause };
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
    shown: PathBuf,
    name: Option<Reference>,
}

impl Import {
    fn wrong(&self, cause: impl Into<String>) -> Error {
        Error::Archive { path: self.shown.clone(), cause: cause.into() }
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

    /// One layer, and a configuration made for it.
    fn rootfs(&self, plain: &Path) -> Result<Vec<Ready>, Error> {
        let Some(name) = self.name.clone() else {
            return Err(self.wrong(
                "it is neither an OCI archive (oci-layout) nor a docker-archive (manifest.json): \
                 if it is a root file system, give it a name: --name REF",
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

fn merged(leases: Vec<Lease>) -> Lease {
    leases.into_iter().reduce(Lease::with).expect("every image has a configuration")
}
