//! The content store: verified blobs at `blobs/sha256/<hex>`, and the places where what is
//! not verified yet is kept: `ingest`, which is emptied at start-up, and `partial`, where what
//! came of a blob waits for the rest of it.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::Error;
use super::digest::{Digest, Hasher};

/// How long the part of a blob that nobody fetches waits for the rest.
const PARTIAL_AGE: Duration = Duration::from_hours(24);
/// Most bytes of such parts; the youngest are kept.
const PARTIAL_BYTES: u64 = 4 << 30;

/// The directories of the store.
#[derive(Debug)]
pub(super) struct Content {
    blobs: PathBuf,
    ingest: PathBuf,
    partial: PathBuf,
    /// Makes names in `ingest` unique within this process; it is emptied at start-up.
    counter: AtomicU64,
}

impl Content {
    /// Makes the directories, and drops what was never finished.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let (blobs, ingest) = (root.join("blobs/sha256"), root.join("ingest"));
        let partial = root.join("partial");
        drop_old(root, &ingest)?;
        for dir in [&blobs, &ingest, &partial] {
            std::fs::create_dir_all(dir).map_err(Error::disk("make the directory", dir))?;
        }
        Ok(Self { blobs, ingest, partial, counter: AtomicU64::new(0) })
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
            gone: false,
            stays: false,
        })
    }

    /// Goes on with a blob of which a part may be here. Only one may do so at a time.
    pub(super) fn resume(&self, digest: &Digest) -> Result<Ingest, Error> {
        let path = self.partial.join(digest.hex());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::disk("open", &path))?;
        let (mut hasher, mut written, mut buffer) = (Hasher::default(), 0, vec![0; 128 << 10]);
        loop {
            match file.read(&mut buffer).map_err(Error::disk("read", &path))? {
                0 => break,
                length => {
                    hasher.update(&buffer[..length]);
                    written += length as u64;
                }
            }
        }
        let blobs = self.blobs.clone();
        Ok(Ingest { file, path, blobs, hasher, written, gone: false, stays: true })
    }

    /// Bytes that are here of a blob that isn't whole.
    pub(super) fn reached(&self, digest: &Digest) -> u64 {
        std::fs::metadata(self.partial.join(digest.hex())).map_or(0, |meta| meta.len())
    }

    /// The parts of blobs that needn't be kept: the old ones, and the oldest of too many.
    /// `fetched`: somebody is at work on it.
    pub(super) fn stale(
        &self,
        now: SystemTime,
        fetched: impl Fn(&Digest) -> bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let entries =
            std::fs::read_dir(&self.partial).map_err(Error::disk("list", &self.partial))?;
        let mut parts: Vec<(Duration, u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            let Ok(meta) = entry.metadata() else { continue };
            if !digest.is_some_and(|digest| fetched(&digest)) {
                let age = meta.modified().ok().and_then(|at| now.duration_since(at).ok());
                parts.push((age.unwrap_or_default(), meta.len(), entry.path()));
            }
        }
        parts.sort_unstable();
        let mut sum = 0u64;
        parts.retain(|(age, size, _)| {
            sum = sum.saturating_add(*size);
            *age > PARTIAL_AGE || sum > PARTIAL_BYTES
        });
        Ok(parts.into_iter().map(|(_, _, path)| path).collect())
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

/// A blob being written. Dropped without `commit` it is gone, or, if it can be gone on with,
/// stays as far as it came.
#[derive(Debug)]
pub(super) struct Ingest {
    file: File,
    path: PathBuf,
    blobs: PathBuf,
    hasher: Hasher,
    written: u64,
    /// Its path is no longer this blob's to remove.
    gone: bool,
    /// It can be gone on with.
    stays: bool,
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

    /// Back to no bytes.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        (self.hasher, self.written) = (Hasher::default(), 0);
        let empty = self.file.set_len(0).and_then(|()| self.file.rewind());
        empty.map_err(Error::disk("empty", &self.path))
    }

    /// Nothing of it is of use.
    pub(super) fn discard(mut self) {
        self.stays = false;
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
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
        self.gone = true;
        sync_dir(&self.blobs)?;
        Ok((digest, size))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.gone && (!self.stays || self.written == 0) {
            // What stays behind is dropped at the next start, or when it is stale.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_gone_on_with_and_verified_whole() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let digest = Digest::of(b"whole");
        content.resume(&digest).unwrap().write(b"who").unwrap();
        assert_eq!(content.reached(&digest), 3);
        // As after a restart.
        let content = Content::open(dir.path()).unwrap();
        let mut ingest = content.resume(&digest).unwrap();
        assert_eq!(ingest.so_far(), (3, Digest::of(b"who")));
        ingest.write(b"le").unwrap();
        assert_eq!(ingest.commit().unwrap(), (digest.clone(), 5));
        assert_eq!((content.reached(&digest), content.size(&digest)), (0, Some(5)));

        let mut ingest = content.resume(&digest).unwrap();
        ingest.write(b"other").unwrap();
        ingest.restart().unwrap();
        ingest.write(b"w").unwrap();
        assert_eq!(ingest.so_far(), (1, Digest::of(b"w")));
        ingest.discard();
        // Nothing came, and nothing is left.
        drop(content.resume(&digest).unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }

    #[test]
    fn parts_are_kept_for_a_day_and_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let part = |name: &str, size: u64, hours: u64| {
            let digest = Digest::of(name.as_bytes());
            let path = dir.path().join("partial").join(digest.hex());
            let file = File::create_new(&path).unwrap();
            file.set_len(size).unwrap();
            file.set_modified(now - Duration::from_hours(hours)).unwrap();
            (digest, path)
        };
        let (_, old) = part("old", 1, 25);
        let (in_use, _) = part("old and fetched", 1, 25);
        part("young", PARTIAL_BYTES - 1, 1);
        let (_, one_too_many) = part("less young", 2, 2);
        let stale = content.stale(now, |digest| *digest == in_use).unwrap();
        assert_eq!(stale, [one_too_many, old]);
    }
}
