//! Rotates the logs of pods that no kubelet looks after: those of manifests always, those of
//! CRI clients while no orchestrator is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::inbox::Reply;
use super::record::Origin;
use super::view::{ContainerView, PodView};
use super::work::{no_container, of_container};
use super::{Error, Pods};
use crate::container::rotation::{self, Limits};
use crate::container::state::State;
use crate::id::ContainerId;
use crate::monitor::client::Error as MonitorError;

/// Between two looks at the logs. The kubelet's is 10 s (containerLogMonitorInterval).
const LOOK: Duration = Duration::from_secs(5);

/// Looks at all logs for as long as the daemon runs.
pub async fn run(pods: Pods, limits: Limits) {
    loop {
        tokio::time::sleep(LOOK).await;
        let orchestrated = pods.services().presence.there(Instant::now());
        let mut written = pods.views();
        written.retain(|pod| pod.origin == Origin::Manifest || !orchestrated);
        let due = blocking(move || Ok(due(&written, limits))).await.unwrap_or_else(|error| {
            tracing::error!(error, "cannot look at the logs");
            Vec::new()
        });
        for container in due {
            if let Err(error) = rotate(&pods, &container, limits).await {
                let log = container.log_path.display();
                tracing::error!(container = %container.id, %log, error, "cannot rotate the log");
            }
        }
    }
}

/// The containers whose log is too long.
fn due(pods: &[Arc<PodView>], limits: Limits) -> Vec<Arc<ContainerView>> {
    let is_due = |container: &&Arc<ContainerView>| {
        let log = &container.log_path;
        matches!(container.state, State::Running(_))
            && !log.as_os_str().is_empty()
            && rotation::is_due(log, limits).unwrap_or_else(|error| {
                tracing::error!(log = %log.display(), %error, "cannot look at the log");
                false
            })
    };
    pods.iter().flat_map(|pod| &pod.containers).filter(is_due).cloned().collect()
}

async fn rotate(pods: &Pods, container: &ContainerView, limits: Limits) -> Result<(), String> {
    let log = container.log_path.clone();
    let aside = blocking(move || rotation::set_aside(&log, jiff::Timestamp::now())).await?;
    let log = container.log_path.clone();
    let Err(error) = pods.reopen_log(&container.id).await else {
        return blocking(move || rotation::tidy(&log, limits)).await;
    };
    // One that has just ended writes no more, and its log is where its readers look.
    blocking(move || rotation::put_back(&log, &aside)).await?;
    match error.as_ref() {
        super::Error::WrongState(_) | super::Error::NotFound { .. } => Ok(()),
        _ => Err(error.to_string()),
    }
}

/// On a thread that may block: compressing takes its time, and file systems can hang.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
}

impl Driver {
    /// ReopenContainerLog: whoever rotates a log has moved its file away.
    pub(super) fn reopen_log(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(at) = self.find(id) else { return self.answers.add(reply, Err(no_container(id))) };
        if !matches!(self.containers[at].record.state, State::Running(_)) {
            let why = format!("container {id} does not run, so its log is closed");
            return self.answers.add(reply, Err(Arc::new(Error::WrongState(why))));
        }
        let (monitor, id) = (self.monitor.clone(), id.clone());
        tokio::spawn(async move {
            let reopened = match monitor {
                Some(monitor) => monitor.reopen_log(id.as_str()).await,
                None => Err(MonitorError::Gone),
            };
            let failed = |source| {
                Arc::new(of_container(crate::container::Error::Monitor { id: id.clone(), source }))
            };
            drop(reply.send(reopened.map_err(failed)));
        });
    }
}
