//! CheckpointContainer: a running container written to an archive.
//!
//! The layout is that of checkpointctl (its lib/metadata.go), which containerd and CRI-O write
//! and read: CRIU's images in `checkpoint/`, what the container changed in its root file system
//! in `rootfs-diff.tar` and `deleted.files`, and what is known of it in `config.dump`,
//! `spec.dump`, `status.dump` and `status`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::record::ContainerRecord;
use super::state::{State, nanos};
use super::{Error, Place};
use crate::image::Images;
use crate::oci::Runtime;
use crate::oci::checkpoint::{DUMP_LOG, criu};

/// How long a checkpoint may take where the client says nothing: ten minutes.
pub const DEFAULT_LIMIT: Duration = Duration::from_mins(10);
/// CRIU's statistics of a dump, in the directory for its work.
const STATS: &str = "stats-dump";
/// By it checkpointctl knows the container's name.
const NAME_ANNOTATION: &str = "io.kubernetes.cri.container-name";

/// Members of the archive, as checkpointctl names them.
pub(super) const IMAGES_DIR: &str = "checkpoint";
pub(super) const CONFIG: &str = "config.dump";
pub(super) const SPEC: &str = "spec.dump";
pub(super) const STATUS: &str = "status.dump";
pub(super) const CHANGES: &str = "rootfs-diff.tar";
pub(super) const DELETED: &str = "deleted.files";

/// What a client wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The archive to write.
    pub location: PathBuf,
    /// How long it may take.
    pub limit: Duration,
    /// The container's status as the CRI shows it.
    pub status: Value,
}

/// Writes a running container to an archive; it goes on running. On failure nothing is left at
/// the location that wasn't there.
pub async fn checkpoint(
    images: &Images,
    runtime: &Runtime,
    place: &Place,
    record: ContainerRecord,
    wanted: Wanted,
) -> Result<(), Error> {
    let failed = |why: String| Error::Checkpoint { id: place.id.clone(), why };
    if criu().is_none() {
        let why = "there is no criu in haled's PATH: install CRIU (https://criu.org)";
        return Err(failed(why.to_owned()));
    }
    let end = Instant::now() + wanted.limit;
    let late = || Error::CheckpointTimeout { id: place.id.clone(), limit: wanted.limit };
    let turn = Arc::new(AtomicU8::new(WRITING));
    let partial = {
        let location = wanted.location.clone();
        within(end, tokio::task::spawn_blocking(move || Partial::begin(&location)), late).await??
    };
    let scratch = images.scratch().await?;
    let (criu_images, work) = (scratch.path().join(IMAGES_DIR), scratch.path().join("work"));
    for dir in [&criu_images, &work] {
        std::fs::create_dir(dir).map_err(Error::io("cannot make", dir))?;
    }

    // Files and memory must be of one moment, so it stands still until both are saved.
    let id = place.id.as_str();
    runtime.pause(id).await.map_err(|error| failed(error.to_string()))?;
    let saved = async {
        let left = end.saturating_duration_since(Instant::now());
        match runtime.checkpoint(id, &criu_images, &work, left).await {
            Err(crate::oci::Error::TimedOut { .. }) => return Err(late()),
            Err(crate::oci::Error::Runtime { message, .. }) => return Err(failed(message)),
            other => other?,
        }
        let changes = images.changes(&place.id, scratch.path().join(CHANGES));
        tokio::time::timeout_at(end, changes).await.map_err(|_| late())?.map_err(Error::from)
    };
    let saved = saved.await;
    let resumed = runtime.resume(id).await;
    let deleted = saved?;
    resumed.map_err(|error| failed(error.to_string()))?;

    let texts = texts(place, runtime, &record, &wanted.status, &deleted)?;
    let mine = turn.clone();
    let mut writing = tokio::task::spawn_blocking(move || {
        partial.write(scratch.path(), &texts).and_then(|partial| {
            let unclaimed =
                mine.compare_exchange(WRITING, COMMITTED, Ordering::AcqRel, Ordering::Acquire);
            // Whoever waited has been told that it took too long.
            if unclaimed.is_ok() { partial.commit() } else { Ok(()) }
        })
    });
    let in_time = tokio::time::timeout_at(end, &mut writing).await;
    let ended = if let Ok(ended) = in_time {
        ended
    } else {
        let given_up =
            turn.compare_exchange(WRITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        if given_up.is_ok() {
            return Err(late());
        }
        // Its name is being given: that is not undone.
        writing.await
    };
    ended.unwrap_or_else(|panic| Err(failed(panic.to_string())))
}

/// Whose turn it is once the limit is near.
const WRITING: u8 = 0;
const COMMITTED: u8 = 1;
const GIVEN_UP: u8 = 2;

async fn within<T>(
    end: Instant,
    work: tokio::task::JoinHandle<T>,
    late: impl FnOnce() -> Error,
) -> Result<T, Error> {
    match tokio::time::timeout_at(end, work).await {
        Ok(done) => done.map_err(|panic| Error::Invalid(panic.to_string())),
        Err(_) => Err(late()),
    }
}

/// The archive under a name of its own until it is whole; dropped before, it is deleted.
struct Partial {
    file: File,
    path: PathBuf,
    location: PathBuf,
    committed: bool,
}

impl Partial {
    fn begin(location: &Path) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Invalid(format!("location {}: {why}", location.display()));
        let (Some(dir), Some(name)) = (location.parent(), location.file_name()) else {
            return Err(wrong("is no path of a file"));
        };
        if !location.is_absolute() {
            return Err(wrong("is not an absolute path"));
        }
        match std::fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(wrong("what should hold it is no directory")),
            Err(error) => return Err(wrong(&format!("its directory can't be used: {error}"))),
        }
        if std::fs::symlink_metadata(location).is_ok_and(|meta| !meta.is_file()) {
            return Err(wrong("something is there that is no file"));
        }
        let now = nanos(SystemTime::now());
        let path = dir.join(format!(".{}.{now}.partial", name.to_string_lossy()));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("cannot make", &path))?;
        Ok(Self { file, path, location: location.to_owned(), committed: false })
    }

    /// Writes all of it, durably.
    fn write(self, scratch: &Path, texts: &[(&str, Vec<u8>)]) -> Result<Self, Error> {
        let failed = || Error::io("cannot write", &self.path);
        let mut archive = tar::Builder::new(io::BufWriter::new(&self.file));
        archive.follow_symlinks(false);
        let add = |archive: &mut tar::Builder<_>, from: &Path, name: &str| {
            File::open(from).and_then(|mut file| archive.append_file(name, &mut file))
        };
        let mut write = || -> io::Result<()> {
            for (name, text) in texts {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o600);
                header.set_size(text.len() as u64);
                header.set_mtime(jiff::Timestamp::now().as_second().unsigned_abs());
                archive.append_data(&mut header, name, text.as_slice())?;
            }
            for name in [DUMP_LOG, STATS] {
                let file = scratch.join("work").join(name);
                if file.exists() {
                    add(&mut archive, &file, name)?;
                }
            }
            archive.append_dir_all(IMAGES_DIR, scratch.join(IMAGES_DIR))?;
            add(&mut archive, &scratch.join(CHANGES), CHANGES)?;
            archive.finish()?;
            archive.get_mut().flush()
        };
        write().and_then(|()| self.file.sync_all()).map_err(failed())?;
        drop(archive);
        Ok(self)
    }

    fn commit(mut self) -> Result<(), Error> {
        std::fs::rename(&self.path, &self.location)
            .map_err(Error::io("cannot rename the archive to", &self.location))?;
        self.committed = true;
        let dir = self.location.parent().unwrap_or(&self.location);
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("cannot sync", dir))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial checkpoint");
        }
    }
}

/// The members that say what the container is.
fn texts(
    place: &Place,
    runtime: &Runtime,
    record: &ContainerRecord,
    status: &Value,
    deleted: &[PathBuf],
) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let path = place.config_file();
    let spec = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
    let unreadable = |error: serde_json::Error| Error::io("cannot read", &path)(error.into());
    let mut spec: Value = serde_json::from_slice(&spec).map_err(unreadable)?;
    spec["annotations"][NAME_ANNOTATION] = record.config.name.clone().into();
    let time =
        |at: i64| jiff::Timestamp::from_nanosecond(at.into()).unwrap_or_default().to_string();
    let config = json!({
        "id": place.id,
        "name": record.config.name,
        "rootfsImage": record.image_id,
        "rootfsImageRef": record.image_ref,
        "rootfsImageName": record.image_name,
        "runtime": runtime.name,
        "createdTime": time(record.created_at),
        "checkpointedTime": time(nanos(SystemTime::now())),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    });
    let (pid, started_at) = match &record.state {
        State::Running(init) => (init.pid, init.started_at),
        _ => (0, 0),
    };
    let state = json!({
        "Version": "v1",
        "CreatedAt": record.created_at,
        "StartedAt": started_at,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": pid,
    });
    let text = |value: &Value| value.to_string().into_bytes();
    let mut texts = vec![
        (CONFIG, text(&config)),
        (SPEC, text(&spec)),
        (STATUS, text(status)),
        ("status", text(&state)),
    ];
    if !deleted.is_empty() {
        let names: Vec<String> =
            deleted.iter().map(|path| format!("/{}", path.to_string_lossy())).collect();
        texts.push((DELETED, json!(names).to_string().into_bytes()));
    }
    Ok(texts)
}
