//! The content store: verified blobs at `blobs/sha256/<hex>`, and the place where what is
//! not verified yet is kept (`ingest`), which is emptied at start-up.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use super::digest::{Digest, Hasher};

/// The directories of the store.
#[derive(Debug)]
pub(super) struct Content {
    blobs: PathBuf,
    ingest: PathBuf,
    /// Makes names in `ingest` unique within this process; it is emptied at start-up.
    counter: AtomicU64,
}

impl Content {
    /// Makes the directories, and drops what was never finished.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let (blobs, ingest) = (root.join("blobs/sha256"), root.join("ingest"));
        drop_old(root, &ingest)?;
        for dir in [&blobs, &ingest] {
            std::fs::create_dir_all(dir).map_err(Error::disk("make the directory", dir))?;
        }
        Ok(Self { blobs, ingest, counter: AtomicU64::new(0) })
    }

    /// Where a blob is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Its size in bytes; none: it isn't here. What is here was verified.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.path(digest)).ok().map(|meta| meta.len())
    }

    /// Every blob.
    pub(super) fn all(&self) -> Result<Vec<Digest>, Error> {
        let entries = std::fs::read_dir(&self.blobs).map_err(Error::disk("list", &self.blobs))?;
        Ok(entries.filter_map(|e| Digest::from_hex(e.ok()?.file_name().to_str()?)).collect())
    }

    /// A small blob's bytes.
    pub(super) fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let path = self.path(digest);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(Error::disk("read", &path))?;
        Ok(bytes)
    }

    /// A new name below `ingest`.
    pub(super) fn scratch(&self) -> PathBuf {
        self.ingest.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Starts a blob.
    pub(super) fn begin(&self) -> Result<Ingest, Error> {
        let path = self.scratch();
        let file = File::create_new(&path).map_err(Error::disk("make", &path))?;
        Ok(Ingest {
            file,
            path,
            blobs: self.blobs.clone(),
            hasher: Hasher::default(),
            written: 0,
            committed: false,
        })
    }

    /// Stores bytes that are in memory.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.size(&digest).is_none() {
            let mut ingest = self.begin()?;
            ingest.write(bytes)?;
            ingest.commit()?;
        }
        Ok(digest)
    }
}

/// Renames `ingest` and deletes it in the background: a large tree doesn't hold up the
/// start, and one that can't be deleted (an immutable file, a mount) doesn't prevent it.
fn drop_old(root: &Path, ingest: &Path) -> Result<(), Error> {
    let left = root.join("ingest.old");
    std::fs::create_dir_all(&left).map_err(Error::disk("make the directory", &left))?;
    let mut free = (0u64..).map(|n| left.join(n.to_string()));
    let aside = free.find(|aside| aside.symlink_metadata().is_err()).expect("no end of names");
    match std::fs::rename(ingest, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::disk("rename", ingest)(error));
        }
        _ => {}
    }
    let remove = move || {
        for entry in std::fs::read_dir(&left).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Err(error) = crate::sys::tree::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier run left: remove it by hand");
            }
        }
    };
    std::thread::Builder::new()
        .name("ingest".to_owned())
        .spawn(remove)
        .map_err(Error::disk("start a thread that empties", ingest))?;
    Ok(())
}

/// A blob being written. Dropped without `commit` it is gone.
#[derive(Debug)]
pub(super) struct Ingest {
    file: File,
    path: PathBuf,
    blobs: PathBuf,
    hasher: Hasher,
    written: u64,
    committed: bool,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Ingest {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::disk("write", &self.path))
    }

    /// Copies a stream of at most `limit` bytes.
    pub(super) fn copy(&mut self, reader: &mut dyn Read, limit: u64) -> Result<(), io::Error> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if self.written + n as u64 > limit => {
                    return Err(io::Error::other(format!("it is larger than {limit} bytes")));
                }
                Ok(n) => self.write(&buffer[..n]).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes so far, and their digest.
    pub(super) fn so_far(&self) -> (u64, Digest) {
        (self.written, self.hasher.clone().finish())
    }

    /// Makes it durable under its digest.
    pub(super) fn commit(mut self) -> Result<(Digest, u64), Error> {
        let (size, digest) = self.so_far();
        let target = self.blobs.join(digest.hex());
        self.file.sync_all().map_err(Error::disk("sync", &self.path))?;
        std::fs::rename(&self.path, &target).map_err(Error::disk("rename to", &target))?;
        self.committed = true;
        sync_dir(&self.blobs)?;
        Ok((digest, size))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.committed {
            // What stays behind is dropped at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Makes a rename in this directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::disk("sync", dir))
}

/// A scratch file or directory, removed when dropped, and at the next start where that failed.
#[derive(Debug)]
pub struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = crate::sys::tree::remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove; it is removed at the next start");
        }
    }
}
