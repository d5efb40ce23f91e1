//! GetContainerEvents.

use std::time::Instant;

use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{Face, container, pod_sandbox};
use crate::pod::changes::{Change, Kind, LISTENER_LAG};
use crate::proto::cri;

impl Face {
    /// Every change from now on. A client that lags too far behind is told so and dropped: one
    /// that went on with a gap would be wrong about what runs.
    pub(super) fn get_container_events(
        &self,
    ) -> Result<impl Stream<Item = Result<cri::ContainerEventResponse, Status>> + use<>, Status>
    {
        let changes = &self.pods.services().changes;
        let (missed, coming) = changes.listen(Instant::now()).ok_or_else(ends)?;
        let coming = BroadcastStream::new(coming).map(|change| match change {
            Ok(change) => Ok(event(&change)),
            Err(BroadcastStreamRecvError::Lagged(lost)) => Err(lagged(lost)),
        });
        let missed = tokio_stream::iter(missed).map(|change| Ok(event(&change)));
        let all = missed.chain(coming).chain(tokio_stream::once(()).map(|()| Err(ends())));
        // An error is a stream's last word.
        let mut failed = false;
        Ok(all.take_while(move |item| {
            let goes_on = !failed;
            failed |= item.is_err();
            goes_on
        }))
    }
}

fn ends() -> Status {
    Status::unavailable("haled stops: list, and follow the events again when it is back")
}

fn lagged(lost: u64) -> Status {
    tracing::warn!(lost, "a client that reads container events too slowly is dropped");
    Status::resource_exhausted(format!(
        "the events were read too slowly: more than {LISTENER_LAG} waited and {lost} are lost; \
         list, and follow the events again"
    ))
}

fn event(change: &Change) -> cri::ContainerEventResponse {
    let pod = &change.pod;
    let statuses = pod.containers.iter().map(|container| container::status(pod, container));
    cri::ContainerEventResponse {
        container_id: change.id.clone(),
        container_event_type: match change.kind {
            Kind::Created => cri::ContainerEventType::ContainerCreatedEvent,
            Kind::Started => cri::ContainerEventType::ContainerStartedEvent,
            Kind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
            Kind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
        }
        .into(),
        created_at: change.at,
        pod_sandbox_status: Some(pod_sandbox::status(pod)),
        containers_statuses: statuses.collect(),
    }
}
