//! Rotates the logs of pods that no kubelet looks after: those of manifests always, those of
//! CRI clients while no orchestrator is there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pods;
use super::record::Origin;
use super::view::{ContainerView, PodView};
use crate::container::rotation::{self, Limits};
use crate::container::state::State;

/// Between two looks at the logs. The kubelet's is 10 s (containerLogMonitorInterval).
const LOOK: Duration = Duration::from_secs(5);

/// Looks at all logs for as long as the daemon runs.
pub async fn run(pods: Pods, limits: Limits) {
    loop {
        tokio::time::sleep(LOOK).await;
        let orchestrated = pods.services().presence.there(Instant::now());
        for pod in pods.views() {
            if pod.origin == Origin::Manifest || !orchestrated {
                rotate_pod(&pods, &pod, limits).await;
            }
        }
    }
}

async fn rotate_pod(pods: &Pods, pod: &PodView, limits: Limits) {
    for container in &pod.containers {
        if matches!(container.state, State::Running(_))
            && !container.log_path.as_os_str().is_empty()
            && let Err(error) = rotate(pods, container, limits).await
        {
            let log = container.log_path.display();
            tracing::error!(container = %container.id, %log, error, "cannot rotate the log");
        }
    }
}

async fn rotate(pods: &Pods, container: &Arc<ContainerView>, limits: Limits) -> Result<(), String> {
    let due = files(&container.log_path, move |log| {
        if rotation::is_due(log, limits)? {
            rotation::set_aside(log, jiff::Timestamp::now()).map(Some)
        } else {
            Ok(None)
        }
    });
    let Some(aside) = due.await? else { return Ok(()) };
    if let Err(error) = pods.reopen_log(&container.id).await {
        // One that has just ended writes no more, and its log is where its readers look.
        files(&container.log_path, move |log| rotation::put_back(log, &aside)).await?;
        return match error.as_ref() {
            super::Error::WrongState(_) | super::Error::NotFound { .. } => Ok(()),
            _ => Err(error.to_string()),
        };
    }
    files(&container.log_path, move |log| rotation::tidy(log, limits)).await
}

/// On a thread that may block: compressing takes its time, and file systems can hang.
async fn files<T: Send + 'static>(
    log: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let log = log.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&log)).await;
    done.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
}
