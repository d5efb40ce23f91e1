//! Logs: of one attempt of a container, or followed through its attempts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::Face;
use super::super::status::invalid;
use crate::container::log;
use crate::container::state::State;
use crate::health::is_kill;
use crate::pod::view::{ContainerView, PodView};
use crate::proto::haled as wire;

/// Lines that wait for a client.
const AHEAD: usize = 64;
/// How often one who follows looks by himself whether the container was started again.
const LOOK: Duration = Duration::from_millis(500);

type Lines = mpsc::Sender<Result<wire::LogLine, Status>>;

impl Face {
    /// The lines that are asked for.
    pub(super) fn read_logs(
        &self,
        request: wire::LogsRequest,
    ) -> Result<ReceiverStream<Result<wire::LogLine, Status>>, Status> {
        let (pod, container) = self.find_container(&request)?;
        if container.log_path.as_os_str().is_empty() {
            return Err(Status::failed_precondition(format!(
                "container \"{}\" of pod \"{}\" was created without a log",
                container.config.name, request.pod
            )));
        }
        let (lines, receiver) = mpsc::channel(AHEAD);
        let face = self.clone();
        tokio::spawn(async move {
            let mut tail = request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
            let (mut pod, mut container) = (pod, container);
            loop {
                let read = face.attempt(&container, tail.take(), &request);
                // A client that is gone is told nothing.
                if pass_on(read, request.since, &lines).await.is_none() || !request.follow {
                    return;
                }
                let next = tokio::select! {
                    next = face.next_attempt(&pod, &container) => next,
                    () = lines.closed() => None,
                };
                let Some(next) = next else { return };
                (pod, container) = next;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn attempt(
        &self,
        container: &ContainerView,
        tail: Option<usize>,
        request: &wire::LogsRequest,
    ) -> ReceiverStream<std::io::Result<log::Line>> {
        let (pods, id) = (self.pods.clone(), container.id.clone());
        // One that hasn't begun yet has everything to say.
        let ended = move || {
            pods.container(id.as_str())
                .map_or(true, |(_, container)| matches!(container.state, State::Exited(_)))
        };
        log::read(container.log_path.clone(), tail, request.follow, ended)
    }

    /// The attempt after one that has ended, once there is one. `None`: none will come.
    async fn next_attempt(
        &self,
        pod: &PodView,
        container: &ContainerView,
    ) -> Option<(Arc<PodView>, Arc<ContainerView>)> {
        let (uid, name) = (&pod.config.uid, &container.config.name);
        let mut happened = self.pods.services().events.listen();
        loop {
            let views = self.pods.views();
            let own = || views.iter().filter(|view| view.config.uid == *uid);
            let later = own().flat_map(|view| {
                let fits = |other: &&Arc<ContainerView>| {
                    other.config.name == *name && other.config.attempt > container.config.attempt
                };
                view.containers.iter().filter(fits).map(move |other| (view, other))
            });
            // None is left out, should they come faster than they are looked at.
            if let Some((view, next)) = later.min_by_key(|(_, other)| other.config.attempt) {
                return (!next.log_path.as_os_str().is_empty())
                    .then(|| (view.clone(), next.clone()));
            }
            let restarts = own().any(|view| {
                let last = view.containers.iter().find(|other| other.id == container.id);
                last.is_some_and(|last| will_restart(view, last))
            });
            let kept = self.manifests.keeps(uid);
            // A manifest's pod whose sandbox is gone gets another.
            let comes_back = kept.is_some() && own().next().is_none();
            if kept == Some(false) || !(restarts || comes_back) {
                return None;
            }
            // An event tells that something has changed, but not everything makes one.
            drop(tokio::time::timeout(LOOK, happened.recv()).await);
        }
    }

    /// The container a log request means, newest attempt or the one before.
    #[allow(clippy::type_complexity)]
    fn find_container(
        &self,
        request: &wire::LogsRequest,
    ) -> Result<(Arc<PodView>, Arc<ContainerView>), Status> {
        let full = format!("{}/{}", request.namespace, request.pod);
        let told = self.pod_of(request);
        let told = told.ok_or_else(|| Status::not_found(format!("there is no pod {full}")))?;
        let name = container_name(&told, &request.container, &full)?;
        let of_pod = |pod: &&Arc<PodView>| {
            pod.config.name == request.pod && pod.config.namespace == request.namespace
        };
        let views = self.pods.views();
        let newest = views.iter().filter(of_pod).max_by_key(|pod| pod.created_at);
        let mut attempts: Vec<_> = newest.iter().flat_map(|pod| &pod.containers).collect();
        attempts.retain(|container| container.config.name == name);
        attempts.sort_by_key(|container| std::cmp::Reverse(container.config.attempt));
        match (newest, attempts.get(usize::from(request.previous))) {
            (Some(pod), Some(container)) => Ok((pod.clone(), (*container).clone())),
            _ if request.previous => Err(Status::not_found(format!(
                "container \"{name}\" of pod {full} has no attempt before this one"
            ))),
            _ => Err(waits_to_start(&told, &full, &name)),
        }
    }

    fn pod_of(&self, request: &wire::LogsRequest) -> Option<wire::Pod> {
        let request = wire::ListPodsRequest {
            namespace: request.namespace.clone(),
            name: request.pod.clone(),
            specs: false,
        };
        // Of several sandboxes the newest comes first.
        self.pods_of(&request).pods.into_iter().next()
    }
}

/// The name of the container that is meant, which the pod must have.
fn container_name(pod: &wire::Pod, asked: &str, full: &str) -> Result<String, Status> {
    let all = pod.init_containers.iter().chain(&pod.containers);
    let names: Vec<&str> = all.map(|container| container.name.as_str()).collect();
    match (asked, names.as_slice()) {
        ("", [only]) => Ok((*only).to_owned()),
        (_, []) => Err(Status::not_found(format!("pod {full} has no container yet"))),
        ("", several) => Err(invalid(format!(
            "pod {full} has several containers, name one with -c: {}",
            several.join(", ")
        ))),
        (name, names) if names.contains(&name) => Ok(name.to_owned()),
        (name, names) => Err(Status::not_found(format!(
            "pod {full} has no container \"{name}\"; it has: {}",
            names.join(", ")
        ))),
    }
}

/// Why a container that the pod has has no log yet.
fn waits_to_start(pod: &wire::Pod, full: &str, name: &str) -> Status {
    let mut all = pod.init_containers.iter().chain(&pod.containers);
    let why = all.find(|container| container.name == name).map(|container| {
        let colon = if container.message.is_empty() { "" } else { ": " };
        format!(": {}{colon}{}", container.reason, container.message)
    });
    Status::failed_precondition(format!(
        "container \"{name}\" of pod {full} is waiting to start{}",
        why.unwrap_or_default()
    ))
}

/// Hands lines on, none before `since`. `None`: it has come to no good end.
async fn pass_on(
    mut read: ReceiverStream<std::io::Result<log::Line>>,
    since: i64,
    lines: &Lines,
) -> Option<()> {
    let mut begun = since == 0;
    while let Some(line) = read.next().await {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let failed = Status::internal(format!("cannot read the log: {error}"));
                lines.send(Err(failed)).await.ok();
                return None;
            }
        };
        // What has no time belongs to what stands before it.
        begun = begun || line.at >= since;
        if begun {
            let line = wire::LogLine { at: line.at, stderr: line.stderr, line: line.text.into() };
            lines.send(Ok(line)).await.ok()?;
        }
    }
    Some(())
}

/// Whether haled starts a container again that has ended, or whose end is not seen yet.
fn will_restart(pod: &PodView, container: &ContainerView) -> bool {
    let State::Exited(ended) = &container.state else { return true };
    let killed = is_kill(&ended.reason);
    let policy = pod.policy.as_deref();
    pod.ready()
        && policy.is_some_and(|policy| policy.restarts(&container.config.name, ended.code, killed))
}
