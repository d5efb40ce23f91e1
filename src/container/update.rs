//! Changing the limits of a container that is there: all of them, or none.

use std::path::Path;

use oci_spec::runtime::{LinuxResources, Spec};

use super::create::write;
use super::{Error, Place};
use crate::oci::model::Resources;
use crate::oci::{self, Runtime};
use crate::sys::cgroup::{self, oom_score};

/// The limits for the OCI runtime, in the bundle.
const LIMITS_FILE: &str = "update.json";

/// What was before, to be put back if the runtime's part fails.
struct Begun {
    place: Place,
    spec: Spec,
    limits: cgroup::Limits,
    scores: Option<oom_score::Before>,
}

/// Gives a container the limits `new` in place of `old`. `running`: `None` where it has yet to
/// be started, and only its bundle changes.
pub async fn update(
    running: Option<&Runtime>,
    place: &Place,
    old: Resources,
    new: Resources,
) -> Result<(), Error> {
    let Some(runtime) = running else {
        let place = place.clone();
        return blocking(move || {
            let (limits, score) = oci::limits(&new)?;
            respec(&place, &limits, score).map(drop)
        })
        .await;
    };
    let file = place.bundle.join(LIMITS_FILE);
    let begun = {
        let (place, file) = (place.clone(), file.clone());
        blocking(move || begin(&place, &file, &old, &new)).await?
    };
    // The last step, as it is the one that the kernel may refuse.
    match runtime.update(place.id.as_str(), &file).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let why = match error {
                oci::Error::Runtime { message, .. } => message,
                error => error.to_string(),
            };
            blocking(move || begun.refuse(why)).await
        }
    }
}

/// Everything but the OCI runtime's part. What fails leaves nothing changed.
fn begin(place: &Place, file: &Path, old: &Resources, new: &Resources) -> Result<Begun, Error> {
    let refused = |why| Error::Update { id: place.id.clone(), why };
    let (limits, score) = oci::limits(new)?;
    let limit = new.memory_limit_bytes.and_then(|limit| u64::try_from(limit).ok());
    if let Some((limit, used)) = limit.zip(cgroup::memory_in_use(&place.cgroup))
        && limit > 0
        && old.memory_limit_bytes != new.memory_limit_bytes
        && limit < used
    {
        // cgroup v2 would take it, and kill.
        return Err(refused(format!(
            "memory_limit_in_bytes {limit} is below what it uses now, {used}"
        )));
    }
    if limits.hugepage_limits() != oci::limits(old)?.0.hugepage_limits() {
        let why = "on cgroup v1 those of huge pages stay as they began: OCI runtimes set them back";
        return Err(refused(why.to_owned()));
    }
    let text = serde_json::to_vec(&limits).map_err(|error| Error::Invalid(error.to_string()))?;
    std::fs::write(file, text).map_err(Error::io("cannot write", file))?;
    let unified = limits.unified().iter().flat_map(|files| files.keys().map(String::as_str));
    let before = cgroup::Limits::read(&place.cgroup, unified);
    let spec = respec(place, &limits, score)?;
    let mut begun = Begun { place: place.clone(), spec, limits: before, scores: None };
    if old.oom_score_adj != new.oom_score_adj {
        match oom_score::set(&place.cgroup, score) {
            Ok(before) => begun.scores = Some(before),
            Err(error) => return begun.refuse(format!("oom_score_adj {score}: {error}")),
        }
    }
    Ok(begun)
}

impl Begun {
    /// Puts all back, and says why.
    fn refuse<T>(self, why: String) -> Result<T, Error> {
        let id = self.place.id.clone();
        self.undo()?;
        Err(Error::Update { id, why })
    }

    fn undo(self) -> Result<(), Error> {
        if let Some(scores) = self.scores {
            scores.restore();
        }
        let failed = || Error::io("cannot set back", self.place.cgroup.as_ref());
        let mut failures = Vec::new();
        // Runtimes put back at most what they were told before, not what the kernel had.
        failures.extend(self.limits.restore().map_err(failed()).err());
        let path = self.place.config_file();
        failures.extend(write(&path, &self.spec).map_err(Error::io("cannot write", &path)).err());
        // All of it was tried; the first is answered with.
        let mut failures = failures.into_iter();
        let first = failures.next();
        for error in failures {
            tracing::error!(container = %self.place.id, %error, "a limit was not set back");
        }
        first.map_or(Ok(()), Err)
    }
}

/// Puts limits into the bundle's configuration. Gives the one before.
fn respec(place: &Place, limits: &LinuxResources, score: i32) -> Result<Spec, Error> {
    let path = place.config_file();
    let before = place.spec()?;
    let mut spec = before.clone();
    let lacking = || Error::Invalid(format!("{} has no linux", path.display()));
    let linux = spec.linux_mut().as_mut().ok_or_else(lacking)?;
    let mut limits = limits.clone();
    let old = linux.resources().as_ref();
    limits.set_devices(old.and_then(|old| old.devices().clone()));
    limits.set_block_io(old.and_then(|old| old.block_io().clone()));
    linux.set_resources(Some(limits));
    if let Some(process) = spec.process_mut() {
        process.set_oom_score_adj(Some(score));
    }
    write(&path, &spec).map_err(Error::io("cannot write", &path))?;
    Ok(before)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Error::Invalid(format!("changing limits failed: {panic}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_set_back_keeps_nothing_else_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let id = crate::id::ContainerId::from_random([7; 32]);
        let place = Place::new(&id, dir.path(), "/no-such-cgroup");
        std::fs::create_dir_all(&place.bundle).unwrap();
        std::fs::write(place.config_file(), "{}").unwrap();
        // Can be read, and not be written.
        let limits = cgroup::Limits::held("/proc/version", "of another kernel");
        let spec = Spec::default();
        let begun = Begun { place: place.clone(), spec, limits, scores: None };
        let error = begun.undo().unwrap_err().to_string();
        assert!(error.contains("cannot set back /no-such-cgroup"), "{error}");
        assert_eq!(place.spec().unwrap(), Spec::default());
    }
}
