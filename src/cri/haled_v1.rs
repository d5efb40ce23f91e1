//! haled v1: pods from manifests, every pod's health, events, logs, and images.

mod images;
mod logs;
mod pods;
mod spec;
mod status_word;

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_stream::Stream;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Code, Request, Response, Status};

use super::Face;
use super::status::{invalid, of_pod};
use crate::container::state::nanos;
use crate::health::fields::{Field, find};
use crate::manifest::EXPLAINED;
use crate::manifest::controller::{Applied, Error as ManifestError};
use crate::pod::events::Event;
use crate::proto::cri;
use crate::proto::haled as wire;
use crate::proto::haled::haled_server::Haled;

/// The longest manifest taken, in bytes.
const MAX_MANIFEST: usize = 1024 * 1024;
/// How often a watch looks by itself.
const WATCH_LOOK: Duration = Duration::from_millis(500);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Haled for Face {
    type EventsStream = Streamed<wire::Event>;
    type LogsStream = Streamed<wire::LogLine>;
    type WatchPodsStream = Streamed<wire::ListPodsResponse>;

    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let request = request.into_inner();
        if request.manifest.len() > MAX_MANIFEST {
            return Err(invalid(format!("{}: longer than {MAX_MANIFEST} bytes", request.source)));
        }
        let text = std::str::from_utf8(&request.manifest)
            .map_err(|error| invalid(format!("{}: not UTF-8: {error}", request.source)))?;
        let applied = if request.dry_run {
            self.manifests.check(text).await
        } else {
            self.manifests.apply(text).await
        };
        let applied = applied.map_err(|error| match error {
            // Each mistake with the file's name before it, as compilers do.
            ManifestError::Manifest(errors) => invalid(errors.of_file(&request.source)),
            error => of_manifest(error),
        })?;
        let pods = applied.pods.into_iter().map(|((namespace, name), applied)| wire::AppliedPod {
            namespace,
            name,
            result: match applied {
                Applied::Unchanged => wire::applied_pod::Result::Unchanged,
                Applied::Created => wire::applied_pod::Result::Created,
                Applied::Replaced => wire::applied_pod::Result::Replaced,
            }
            .into(),
        });
        let warnings = applied.warnings;
        Ok(Response::new(wire::ApplyResponse { pods: pods.collect(), warnings }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let request = request.into_inner();
        let grace = request.grace_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let deleting = self.manifests.delete(&request.namespace, &request.name, grace);
        // It goes on if the client goes away.
        let gone = deleting.await.map_err(of_manifest)?;
        if !request.no_wait {
            gone.await.map_err(of_manifest)?;
        }
        Ok(Response::new(wire::DeleteResponse {}))
    }

    async fn list_pods(
        &self,
        request: Request<wire::ListPodsRequest>,
    ) -> Result<Response<wire::ListPodsResponse>, Status> {
        Ok(Response::new(self.pods_of(&request.into_inner())))
    }

    async fn watch_pods(
        &self,
        request: Request<wire::ListPodsRequest>,
    ) -> Result<Response<Self::WatchPodsStream>, Status> {
        let request = request.into_inner();
        Ok(Response::new(Box::pin(self.clone().watch(request).map(Ok))))
    }

    async fn restart_container(
        &self,
        request: Request<wire::RestartContainerRequest>,
    ) -> Result<Response<wire::RestartContainerResponse>, Status> {
        let id = request.into_inner().container_id;
        let (_, container) = self.pods.container(&id).map_err(of_pod)?;
        self.pods.restart(&container.id).await.map_err(of_pod)?;
        Ok(Response::new(wire::RestartContainerResponse {}))
    }

    async fn usage(
        &self,
        _request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let all = self.list_container_stats(cri::ListContainerStatsRequest::default()).await?;
        let containers = all.stats.into_iter().map(|stats| wire::ContainerUsage {
            container_id: stats.attributes.map(|attributes| attributes.id).unwrap_or_default(),
            cpu_nanocores: stats.cpu.and_then(|cpu| cpu.usage_nano_cores).map(|n| n.value),
            memory_bytes: stats.memory.and_then(|m| m.working_set_bytes).map(|n| n.value),
        });
        Ok(Response::new(wire::UsageResponse { containers: containers.collect() }))
    }

    async fn events(
        &self,
        request: Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let events = &self.pods.services().events;
        // Listening before listing, so that nothing falls between; what is in both is kept
        // by the time of the last one listed.
        let listener = events.listen();
        let kept = events.list(&request.namespace, &request.name);
        let last = kept.last().map(|event| event.at);
        let kept = tokio_stream::iter(kept.into_iter().map(|event| Ok(event_of(event))));
        if !request.follow {
            return Ok(Response::new(Box::pin(kept)));
        }
        let coming = BroadcastStream::new(listener).filter_map(move |event| {
            let event = match event {
                Ok(event) if last.is_some_and(|last| event.at <= last) => None,
                Ok(event) if event.is_of(&request.namespace, &request.name) => {
                    Some(Ok(event_of(event)))
                }
                Ok(_) => None,
                Err(lagged) => {
                    Some(Err(Status::new(Code::ResourceExhausted, format!("too slow: {lagged}"))))
                }
            };
            std::future::ready(event)
        });
        Ok(Response::new(Box::pin(kept.chain(coming))))
    }

    async fn logs(
        &self,
        request: Request<wire::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(Box::pin(self.read_logs(request.into_inner())?)))
    }

    async fn about(
        &self,
        _: Request<wire::AboutRequest>,
    ) -> Result<Response<wire::AboutResponse>, Status> {
        let services = self.pods.services();
        let mut runtimes = Vec::new();
        for (handler, runtime) in &services.runtimes {
            let (version, problem) = match runtime.version().await {
                Ok(version) => (version, String::new()),
                Err(error) => (String::new(), error.to_string()),
            };
            runtimes.push(wire::OciRuntime {
                handler: handler.clone(),
                path: runtime.path.display().to_string(),
                version,
                problem,
                default: *handler == services.default_handler,
            });
        }
        Ok(Response::new(wire::AboutResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: self.about.config.load().to_string(),
            runtimes,
        }))
    }

    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::ExplainResponse>, Status> {
        let path = request.into_inner().path;
        let field = if path.is_empty() {
            let fields = EXPLAINED.iter().map(explained).collect();
            wire::Field { fields, ..wire::Field::default() }
        } else {
            explained(find(EXPLAINED, &path).map_err(Status::not_found)?)
        };
        Ok(Response::new(wire::ExplainResponse { field: Some(field) }))
    }
}

impl Face {
    /// Every pod, as haled v1 tells of it.
    pub fn list(&self) -> Vec<wire::Pod> {
        self.pods_of(&wire::ListPodsRequest::default()).pods
    }

    /// The pods that are asked for, and again whenever anything in the list has changed.
    pub fn watch(
        self,
        request: wire::ListPodsRequest,
    ) -> impl Stream<Item = wire::ListPodsResponse> + Send {
        let happened = self.pods.services().events.listen();
        let first = (self, request, happened, None);
        futures_util::stream::unfold(first, |(face, request, mut happened, last)| async move {
            loop {
                let list = face.pods_of(&request);
                if last.as_ref() != Some(&list) {
                    return Some((list.clone(), (face, request, happened, Some(list))));
                }
                // An event tells that something has changed, but not everything makes one.
                drop(tokio::time::timeout(WATCH_LOOK, happened.recv()).await);
            }
        })
    }
}

fn explained(field: &Field) -> wire::Field {
    wire::Field {
        name: field.name.to_owned(),
        kind: field.kind().to_owned(),
        allowed: field.allowed(),
        default: field.default(),
        about: field.about.to_owned(),
        fields: field.below().iter().map(explained).collect(),
    }
}

fn of_manifest(error: ManifestError) -> Status {
    match error {
        ManifestError::Manifest(errors) => invalid(errors.to_string()),
        ManifestError::NotFound(_) => Status::not_found(error.to_string()),
        ManifestError::Belongs { .. } | ManifestError::NotOwn(_) => {
            Status::failed_precondition(error.to_string())
        }
        ManifestError::Pod { .. } => Status::internal(error.to_string()),
        ManifestError::Store(error) => Status::internal(error.to_string()),
    }
}

fn event_of(event: Event) -> wire::Event {
    wire::Event {
        at: nanos(event.at),
        namespace: event.namespace,
        pod: event.pod,
        container: event.container,
        reason: event.reason.to_owned(),
        message: event.message,
        warning: event.warning,
        count: event.count,
    }
}
