//! Writable layers: measured in the background, told as they were measured.

use std::time::{Duration, Instant, SystemTime};

use crate::container::state::nanos;
use crate::cri::Face;
use crate::cri::image::filesystem;
use crate::id::ContainerId;
use crate::proto::cri;

/// How long an answer waits for a measuring that it needs: most layers take less, and a huge
/// one is told of the next time.
const WAIT: Duration = Duration::from_millis(200);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// For one container: waits for a value that is no older than 10 s.
    Alone,
    /// With others: the last value does, and is measured anew for the next time.
    InAList,
}

impl Face {
    /// Space used by a container's writable layer; `None`: it is still being measured for the
    /// first time, or can't be.
    pub(super) async fn layer(
        &self,
        container: &ContainerId,
        asked: Asked,
    ) -> Option<cri::FilesystemUsage> {
        let measured = &self.measured;
        if measured.layers.is_due(container.as_str(), Instant::now()) {
            let measuring = tokio::spawn(self.clone().measure(container.clone()));
            let first = measured.layers.last(container.as_str()).is_none();
            if first || asked == Asked::Alone {
                // Late or not, what is known then is told.
                drop(tokio::time::timeout(WAIT, measuring).await);
            }
        }
        let (usage, time) = measured.layers.last(container.as_str())?;
        Some(cri::FilesystemUsage { timestamp: nanos(time), ..filesystem(&usage) })
    }

    async fn measure(self, container: ContainerId) {
        let turn = self.measured.turn.lock().await;
        let began = Instant::now();
        let usage = self.images.writable_usage(&container).await;
        drop(turn);
        let value = match usage {
            Ok(usage) => Some((usage, SystemTime::now())),
            Err(error) => {
                // A container that is removed meanwhile has none.
                tracing::debug!(%container, %error, "its writable layer was not measured");
                None
            }
        };
        self.measured.layers.found(container.as_str(), value, began, Instant::now());
    }
}
