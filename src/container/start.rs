//! Starting: one OCI runtime invocation, made by the pod's monitor.

use std::path::PathBuf;

use super::config::ContainerConfig;
use super::state::Init;
use super::{Error, Place};
use crate::meter::{self, System};
use crate::monitor::client::{Error as MonitorError, Monitor};
use crate::monitor::wire::{Restore, StartSpec};
use crate::oci::Runtime;
use crate::oci::checkpoint::{RESTORE_LOG, criu_words};
use crate::sys::cgroup;
use crate::sys::userns::IdMaps;

/// Runs a created container. `log`: its log file; empty for none. `around`: the ids of its
/// pod's user namespace. `restore`: what its processes go on from.
pub async fn start(
    monitor: &Monitor,
    runtime: &Runtime,
    place: &Place,
    config: &ContainerConfig,
    log: PathBuf,
    around: Option<&IdMaps>,
    restore: Option<Restore>,
) -> Result<Init, Error> {
    let criu_log = restore.as_ref().map(|restore| restore.work.join(RESTORE_LOG));
    let spec = StartSpec {
        container: place.id.to_string(),
        runtime: runtime.path.clone(),
        runtime_args: runtime.global_args(),
        bundle: place.bundle.clone(),
        log,
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        stdio_owner: around.and_then(IdMaps::root),
        oom_events: cgroup::oom_events(&place.cgroup),
        // config.json has it: the runtime sets it before the command runs.
        oom_score_adj: None,
        restore,
    };
    match meter::timed(System::Oci, &runtime.name, "run", monitor.start(spec)).await {
        Ok(started) => Ok(Init {
            pid: started.init.pid,
            start_ticks: started.init.start_ticks,
            started_at: started.at,
        }),
        Err(MonitorError::Refused(why)) => {
            let why = criu_log.and_then(|log| criu_words(&log)).unwrap_or(why);
            Err(Error::Start { id: place.id.clone(), why })
        }
        Err(source) => Err(Error::Monitor { id: place.id.clone(), source }),
    }
}
