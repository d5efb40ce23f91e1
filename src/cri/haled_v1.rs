//! haled v1: pods from manifests, every pod's health, events, logs, and images from files.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, once};
use tokio_util::io::StreamReader;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Face;
use super::container::health_word;
use super::status::{invalid, of_image, of_pod};
use crate::container::log;
use crate::container::state::{State, nanos};
use crate::health::{Report, RestartPolicy};
use crate::manifest::controller::{Applied, Error as ManifestError, Managed};
use crate::manifest::phase::phase;
use crate::pod::events::Event;
use crate::pod::record::{Origin, Phase};
use crate::pod::view::{ContainerView, PodView};
use crate::proto::haled as wire;
use crate::proto::haled::haled_server::Haled;

/// The longest manifest taken, in bytes.
const MAX_MANIFEST: usize = 1024 * 1024;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Haled for Face {
    type EventsStream = Streamed<wire::Event>;
    type LogsStream = Streamed<wire::LogLine>;

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
        let applied = self.manifests.apply(text).await.map_err(|error| match error {
            // Each mistake with the file's name before it, as compilers do.
            ManifestError::Manifest(errors) => {
                let lines = errors.0.iter().map(|mistake| format!("{}: {mistake}", request.source));
                invalid(lines.collect::<Vec<_>>().join("\n"))
            }
            error => of_manifest(error),
        })?;
        let pods = applied.into_iter().map(|((namespace, name), applied)| wire::AppliedPod {
            namespace,
            name,
            result: match applied {
                Applied::Unchanged => wire::applied_pod::Result::Unchanged,
                Applied::Created => wire::applied_pod::Result::Created,
                Applied::Replaced => wire::applied_pod::Result::Replaced,
            }
            .into(),
        });
        Ok(Response::new(wire::ApplyResponse { pods: pods.collect() }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let request = request.into_inner();
        let grace = request.grace_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        // Goes on if the client goes away.
        let manifests = self.manifests.clone();
        let deleting = tokio::spawn(async move {
            manifests.delete(&request.namespace, &request.name, grace).await
        });
        deleting
            .await
            .map_err(|panic| Status::internal(panic.to_string()))?
            .map_err(of_manifest)?;
        Ok(Response::new(wire::DeleteResponse {}))
    }

    async fn list_pods(
        &self,
        request: Request<wire::ListPodsRequest>,
    ) -> Result<Response<wire::ListPodsResponse>, Status> {
        let request = request.into_inner();
        let wanted = |pod: &wire::Pod| {
            (request.namespace.is_empty() || pod.namespace == request.namespace)
                && (request.name.is_empty() || pod.name == request.name)
        };
        let views = self.pods.views();
        let managed = self.manifests.list();
        let own = managed.iter().map(|managed| {
            let view = views.iter().find(|view| view.config.uid == managed.plan.sandbox.uid);
            of_managed(managed, view.map(|view| &**view))
        });
        let others =
            views.iter().filter(|view| view.origin == Origin::Cri).map(|view| of_cri(view));
        let mut pods: Vec<wire::Pod> = own.chain(others).filter(wanted).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(Response::new(wire::ListPodsResponse { pods }))
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
        let request = request.into_inner();
        let (pod, container) = self.find_container(&request)?;
        if container.log_path.as_os_str().is_empty() {
            return Err(Status::failed_precondition(format!(
                "container \"{}\" of pod \"{}\" was created without a log",
                container.config.name, request.pod
            )));
        }
        let tail = request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let (pods, id) = (self.pods.clone(), container.id.clone());
        let running = move || {
            pods.container(id.as_str())
                .is_ok_and(|(_, container)| matches!(container.state, State::Running(_)))
        };
        drop(pod);
        let ended = move || !running();
        let lines = log::read(container.log_path.clone(), tail, request.follow, ended);
        let lines = lines.map(|line| match line {
            Ok(line) => {
                Ok(wire::LogLine { at: line.at, stderr: line.stderr, line: line.text.into() })
            }
            Err(error) => Err(Status::internal(format!("cannot read the log: {error}"))),
        });
        Ok(Response::new(Box::pin(lines)))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<wire::ImportImageRequest>>,
    ) -> Result<Response<wire::ImportImageResponse>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.ok_or_else(|| invalid("no archive was sent"))?;
        let name = Some(first.reference).filter(|name| !name.is_empty());
        let rest = stream.map(|message| match message {
            Ok(message) => Ok(message.chunk),
            Err(status) => Err(std::io::Error::other(status)),
        });
        let reader = StreamReader::new(once(Ok(first.chunk)).chain(rest));
        let imported =
            self.images.import_stream(Box::pin(reader), name.as_deref()).await.map_err(of_image)?;
        let images = imported.iter().map(|image| wire::ImportedImage {
            id: image.id.clone(),
            references: image.tags.clone(),
        });
        Ok(Response::new(wire::ImportImageResponse { images: images.collect() }))
    }
}

impl Face {
    /// The container a log request means, newest attempt or the one before.
    #[allow(clippy::type_complexity)]
    fn find_container(
        &self,
        request: &wire::LogsRequest,
    ) -> Result<(Arc<PodView>, Arc<ContainerView>), Status> {
        let missing = |what: String| Status::not_found(what);
        let is_it = |pod: &&Arc<PodView>| {
            pod.config.name == request.pod && pod.config.namespace == request.namespace
        };
        let views = self.pods.views();
        let newest = views.iter().filter(is_it).max_by_key(|pod| pod.created_at);
        let pod = newest.ok_or_else(|| {
            missing(format!(
                "pod \"{}\" in namespace \"{}\" has no containers here",
                request.pod, request.namespace
            ))
        })?;
        let mut names: Vec<&str> = pod.containers.iter().map(|c| c.config.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let name = match (request.container.as_str(), names.as_slice()) {
            ("", [only]) => *only,
            ("", []) => return Err(missing(format!("pod \"{}\" has no containers", request.pod))),
            ("", several) => {
                return Err(invalid(format!(
                    "pod \"{}\" has several containers, name one with -c: {}",
                    request.pod,
                    several.join(", ")
                )));
            }
            (name, _) => name,
        };
        let mut attempts: Vec<_> =
            pod.containers.iter().filter(|container| container.config.name == name).collect();
        attempts.sort_by_key(|container| std::cmp::Reverse(container.config.attempt));
        let wanted = attempts.get(usize::from(request.previous));
        let container = wanted.ok_or_else(|| {
            let which =
                if request.previous { "no earlier attempt of container" } else { "no container" };
            missing(format!(
                "pod \"{}\" has {which} \"{name}\"; it has: {}",
                request.pod,
                names.join(", ")
            ))
        })?;
        Ok((pod.clone(), (*container).clone()))
    }
}

fn of_manifest(error: ManifestError) -> Status {
    match error {
        ManifestError::Manifest(errors) => invalid(errors.to_string()),
        ManifestError::NotFound { .. } => Status::not_found(error.to_string()),
        ManifestError::Pod { source, .. } => of_pod(source),
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

/// A pod of a manifest.
fn of_managed(managed: &Managed, view: Option<&PodView>) -> wire::Pod {
    let plan = &managed.plan;
    let names = plan.containers.iter().map(|container| container.name.as_str());
    let restart = plan.health.restart;
    let phase =
        if managed.deleting { "Terminating" } else { phase(view, names.clone(), restart).as_str() };
    let containers = plan
        .containers
        .iter()
        .map(|config| container_of(view, &config.name, &config.image, restart, &managed.problem));
    wire::Pod {
        namespace: plan.sandbox.namespace.clone(),
        name: plan.sandbox.name.clone(),
        uid: plan.sandbox.uid.clone(),
        sandbox_id: view.map(|view| view.id.to_string()).unwrap_or_default(),
        phase: phase.to_owned(),
        reason: managed.problem.clone(),
        created_at: managed.created_at,
        ips: view.map(ips).unwrap_or_default(),
        containers: containers.collect(),
        origin: "manifest".to_owned(),
        labels: plan.sandbox.labels.clone().into_iter().collect(),
        annotations: plan.sandbox.annotations.clone().into_iter().collect(),
    }
}

/// A pod that came through the CRI: its containers are those it has.
fn of_cri(view: &PodView) -> wire::Pod {
    let mut names: Vec<&str> = Vec::new();
    for container in &view.containers {
        if !names.contains(&container.config.name.as_str()) {
            names.push(&container.config.name);
        }
    }
    let restart = view.policy.as_ref().map_or(RestartPolicy::Never, |policy| policy.restart);
    let containers = names.iter().map(|name| {
        let image = view.newest(name).map(|newest| newest.config.user_image.clone());
        container_of(Some(view), name, &image.unwrap_or_default(), restart, "")
    });
    wire::Pod {
        namespace: view.config.namespace.clone(),
        name: view.config.name.clone(),
        uid: view.config.uid.clone(),
        sandbox_id: view.id.to_string(),
        phase: match &view.phase {
            Phase::Ready { .. } => phase(Some(view), names.iter().copied(), restart).as_str(),
            Phase::Starting => "Pending",
            Phase::Stopping { .. } => "Terminating",
            Phase::Lost { .. } | Phase::Stopped => "NotReady",
        }
        .to_owned(),
        reason: match &view.phase {
            Phase::Lost { why, .. } => why.clone(),
            _ => String::new(),
        },
        created_at: view.created_at,
        ips: ips(view),
        containers: containers.collect(),
        origin: "cri".to_owned(),
        labels: view.config.labels.clone().into_iter().collect(),
        annotations: view.config.annotations.clone().into_iter().collect(),
    }
}

fn ips(view: &PodView) -> Vec<String> {
    view.ips().iter().map(ToString::to_string).collect()
}

/// The newest attempt of a container name, or what keeps it from being there.
fn container_of(
    view: Option<&PodView>,
    name: &str,
    image: &str,
    restart: RestartPolicy,
    problem: &str,
) -> wire::Container {
    let mut container = wire::Container {
        name: name.to_owned(),
        image: image.to_owned(),
        state: "Waiting".to_owned(),
        ..Default::default()
    };
    let Some((view, newest)) = view.and_then(|view| Some((view, view.newest(name)?))) else {
        // `ErrImagePull: why` gives the one word that lists show.
        let (reason, message) = problem.split_once(": ").unwrap_or(("", problem));
        let one_word = !reason.is_empty() && !reason.contains(' ');
        container.reason = if one_word { reason } else { "ContainerCreating" }.to_owned();
        container.message = if one_word { message } else { problem }.to_owned();
        return container;
    };
    container.id = newest.id.to_string();
    container.restart_count = newest.config.attempt;
    container.ready = newest.ready;
    container.probes = newest.probes.iter().map(probe_of).collect();
    match &newest.state {
        State::Created | State::Starting => "ContainerCreating".clone_into(&mut container.reason),
        State::Running(init) => {
            "Running".clone_into(&mut container.state);
            container.started_at = init.started_at;
            if let Some(health) = newest.health {
                container.reason = health_word(health).to_owned();
                container.message.clone_from(&newest.health_message);
            }
        }
        State::Exited(ended) => {
            container.started_at = ended.started_at;
            container.finished_at = ended.finished_at;
            container.exit_code = ended.code;
            container.message.clone_from(&ended.message);
            let by_probe = ended.reason.ends_with("ProbeFailed");
            let waits = view.waiting.iter().find(|(waiting, _)| waiting == name);
            if let Some((_, at)) = waits.filter(|_| restart.restarts(ended.code, by_probe)) {
                "CrashLoopBackOff".clone_into(&mut container.reason);
                let left = (at - nanos(SystemTime::now())).max(0) / 1_000_000;
                container.backoff_left_ms = Some(u64::try_from(left).unwrap_or(0));
            } else {
                "Terminated".clone_into(&mut container.state);
                container.reason.clone_from(&ended.reason);
            }
        }
    }
    container
}

fn probe_of(report: &Report) -> wire::ProbeStatus {
    let time = |time: Option<SystemTime>| time.map(nanos).unwrap_or_default();
    wire::ProbeStatus {
        kind: report.kind.as_str().to_owned(),
        handler: report.handler.clone(),
        result: report.result.clone(),
        run: report.run,
        success_threshold: report.success_threshold,
        failure_threshold: report.failure_threshold,
        last_output: report.last.as_ref().map(|last| last.output.clone()).unwrap_or_default(),
        last_run_at: time(report.last_run_at),
        last_change_at: time(report.last_change_at),
        next_run_at: time(report.next_run_at),
    }
}
