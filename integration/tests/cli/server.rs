//! A stand-in for haled that answers halectl with canned pods, and remembers what it was asked.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use haled::proto::cri;
use haled::proto::haled as v1;
use haled::proto::haled::applied_pod::Result as Applied;
use haled::proto::haled::haled_server::{Haled, HaledServer};
use haled::proto::haled::images_server::{Images, ImagesServer};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};

/// What was asked, in order, one text each.
pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// The stand-in, on a socket of its own; ends with its owner.
pub(super) struct Server {
    dir: tempfile::TempDir,
    asked: Asked,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (socket, told) = (dir.path().join("h.sock"), asked.clone());
        let serve = async move {
            let listener = UnixListener::bind(socket).unwrap();
            ready.send(()).unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(HaledServer::new(Canned { asked: told.clone() }))
                .add_service(Cri { asked: told.clone() })
                .add_service(ImagesServer::new(Canned { asked: told }))
                .serve_with_incoming(UnixListenerStream::new(listener));
            // A watching client never ends by itself: no graceful end, then.
            tokio::select! {
                served = server => served.unwrap(),
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve);
        });
        is_ready.recv().unwrap();
        Self { dir, asked, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("h.sock")
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

struct Canned {
    asked: Asked,
}

impl Canned {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

fn pods() -> Vec<v1::Pod> {
    let container = |name: &str, state: &str, digit: &str| v1::Container {
        name: name.into(),
        id: digit.repeat(64),
        image: "docker.io/library/busybox:latest".into(),
        state: state.into(),
        ready: state == "Running",
        started_at: 1_700_000_000_000_000_000,
        ..Default::default()
    };
    let pod = |namespace: &str, name: &str, containers| v1::Pod {
        namespace: namespace.into(),
        name: name.into(),
        phase: "Running".into(),
        status: "Running".into(),
        created_at: 1_700_000_000_000_000_000,
        origin: "manifest".into(),
        uid: format!("uid-{name}"),
        labels: [("app".to_owned(), name.to_owned())].into(),
        containers,
        ..Default::default()
    };
    vec![
        pod(
            "default",
            "web",
            vec![container("app", "Running", "a"), container("side", "Waiting", "b")],
        ),
        pod("other", "db", vec![container("db", "Running", "c")]),
    ]
}

#[tonic::async_trait]
impl Haled for Canned {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let request = request.into_inner();
        let text = String::from_utf8(request.manifest.to_vec()).unwrap();
        let dry_run = if request.dry_run { " dry" } else { "" };
        self.note(format!("apply {} {text:?}{dry_run}", request.source));
        if text.contains("livenessProve") {
            return Err(Status::invalid_argument(
                "spec.containers[0]: unknown field \"livenessProve\", did you mean \
                 \"livenessProbe\"?\nspec: the second mistake",
            ));
        }
        let pod = |name: &str, namespace: &str, result: Applied| v1::AppliedPod {
            namespace: namespace.into(),
            name: name.into(),
            result: result.into(),
        };
        let pods = vec![
            pod("a", "default", Applied::Created),
            pod("b", "other", Applied::Replaced),
            pod("c", "default", Applied::Unchanged),
        ];
        let left_out = "pod \"a\": something is left out".to_owned();
        let warnings = if text.contains("a warning") { vec![left_out] } else { Vec::new() };
        Ok(Response::new(v1::ApplyResponse { pods, warnings }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let request = request.into_inner();
        let (namespace, name) = (&request.namespace, &request.name);
        let no_wait = if request.no_wait { " no wait" } else { "" };
        self.note(format!("delete {namespace}/{name} {:?}{no_wait}", request.grace_seconds));
        if name == "slow" && !request.no_wait {
            std::future::pending::<()>().await;
        }
        if name == "missing" {
            return Err(Status::not_found(format!("there is no pod {namespace}/{name}")));
        }
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn list_pods(
        &self,
        request: Request<v1::ListPodsRequest>,
    ) -> Result<Response<v1::ListPodsResponse>, Status> {
        let request = request.into_inner();
        let fits = |asked: &str, is: &str| asked.is_empty() || asked == is;
        let mut pods = pods();
        pods.retain(|p| fits(&request.namespace, &p.namespace) && fits(&request.name, &p.name));
        Ok(Response::new(v1::ListPodsResponse { pods }))
    }

    type WatchPodsStream = ReceiverStream<Result<v1::ListPodsResponse, Status>>;

    async fn watch_pods(
        &self,
        request: Request<v1::ListPodsRequest>,
    ) -> Result<Response<Self::WatchPodsStream>, Status> {
        let list = self.list_pods(request).await?.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(Ok(list)).await.unwrap();
        // It stays open, as nothing more happens.
        tokio::spawn(async move { sender.closed().await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type EventsStream = ReceiverStream<Result<v1::Event, Status>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        self.note(format!("events {}/{}", request.namespace, request.name));
        let event = |n: i64, reason: &str| v1::Event {
            at: 1_700_000_000_000_000_000 + n * 1_500_000_000,
            namespace: "default".into(),
            pod: "web".into(),
            container: "app".into(),
            reason: reason.into(),
            message: format!("message {n}"),
            warning: n == 1,
            count: 1,
        };
        let (sender, receiver) = mpsc::channel(4);
        sender.send(Ok(event(0, "Created"))).await.unwrap();
        sender.send(Ok(event(1, "Unhealthy"))).await.unwrap();
        let gone = v1::Event { pod: "gone".into(), ..event(2, "Deleted") };
        sender.send(Ok(gone)).await.unwrap();
        if request.follow {
            // Open until the client goes.
            tokio::spawn(async move { sender.closed().await });
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type LogsStream = ReceiverStream<Result<v1::LogLine, Status>>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        self.note(format!(
            "logs {}/{} \"{}\" tail {:?} previous {} since {}",
            request.namespace,
            request.pod,
            request.container,
            request.tail,
            request.previous,
            request.since
        ));
        let (sender, receiver) = mpsc::channel(4);
        let follow = request.follow;
        tokio::spawn(async move {
            for n in 0u32.. {
                let line = match n {
                    0 => b"first \xff".to_vec(),
                    n => format!("line {n}").into_bytes(),
                };
                let at = 1_700_000_000_000_000_000 + i64::from(n);
                let line = v1::LogLine { at, stderr: n % 2 == 1, line: line.into() };
                if sender.send(Ok(line)).await.is_err() || (!follow && n == 2) {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn restart_container(
        &self,
        request: Request<v1::RestartContainerRequest>,
    ) -> Result<Response<v1::RestartContainerResponse>, Status> {
        let id = request.into_inner().container_id;
        self.asked.lock().unwrap().push(format!("restart {id}"));
        Ok(Response::new(v1::RestartContainerResponse {}))
    }

    async fn usage(
        &self,
        _request: Request<v1::UsageRequest>,
    ) -> Result<Response<v1::UsageResponse>, Status> {
        Ok(Response::new(v1::UsageResponse::default()))
    }

    async fn about(
        &self,
        _: Request<v1::AboutRequest>,
    ) -> Result<Response<v1::AboutResponse>, Status> {
        let runtime = |handler: &str, version: &str, problem: &str| v1::OciRuntime {
            handler: handler.into(),
            path: format!("/usr/bin/{handler}"),
            version: version.into(),
            problem: problem.into(),
            default: problem.is_empty(),
        };
        Ok(Response::new(v1::AboutResponse {
            version: "9.9.9".into(),
            settings: "root = \"/r\"\n".into(),
            runtimes: vec![
                runtime("crun", "", "it is not there"),
                runtime("runc", "runc version 1.1", ""),
            ],
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let path = request.into_inner().path;
        if path != "pod" {
            return Err(Status::not_found(format!("there is no \"{path}\" to explain")));
        }
        let spec = v1::Field { name: "spec".into(), ..Default::default() };
        let field = v1::Field { name: path, fields: vec![spec], ..Default::default() };
        Ok(Response::new(v1::ExplainResponse { field: Some(field) }))
    }
}

/// The few of the CRI's calls that halectl makes.
#[derive(Clone)]
struct Cri {
    asked: Asked,
}

impl NamedService for Cri {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, std::convert::Infallible>> + Send>>;

impl Service<http::Request<Body>> for Cri {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let asked = self.asked.clone();
        let note = move |what: String| asked.lock().unwrap().push(what);
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        match method.as_str() {
            "Version" => unary(request, |_: cri::VersionRequest| {
                Ok(cri::VersionResponse {
                    runtime_name: "haled".into(),
                    runtime_version: "9.9.9".into(),
                    runtime_api_version: "v1".into(),
                    ..Default::default()
                })
            }),
            "ExecSync" => unary(request, move |asked: cri::ExecSyncRequest| {
                let id = &asked.container_id[..1];
                note(format!("exec {id} {:?} {}", asked.cmd, asked.timeout));
                let exit_code = asked.cmd[0].parse().unwrap_or(0);
                let (stdout, stderr) = (b"out\xff\n".to_vec(), b"err\n".to_vec());
                Ok(cri::ExecSyncResponse { stdout, stderr, exit_code })
            }),
            other => panic!("halectl called {other}"),
        }
    }
}

fn image() -> v1::ImageSummary {
    v1::ImageSummary {
        id: format!("sha256:{}", "e".repeat(64)),
        tags: vec!["docker.io/library/busybox:latest".into()],
        size: 2_160_000,
        used_by: vec!["default/web/app".into()],
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Images for Canned {
    type PullStream = ReceiverStream<Result<v1::PullImageProgress, Status>>;
    type ImportStream = ReceiverStream<Result<v1::ImportImageProgress, Status>>;
    type ExportStream = ReceiverStream<Result<v1::ExportImagesChunk, Status>>;

    async fn list(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(v1::ListImagesResponse { images: vec![image()] }))
    }

    async fn pull(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        if let Some(auth) = request.credentials {
            let (user, password) = (auth.username, auth.password);
            self.note(format!("pull as {user:?} {password:?} at {}", auth.server_address));
        }
        let (sender, receiver) = mpsc::channel(4);
        let part = |done| v1::PullPart { size: 4_000_000, done, stage: 1, ..Default::default() };
        let so_far = v1::PullImageProgress { id: String::new(), parts: vec![part(1_000_000)] };
        sender.send(Ok(so_far)).await.unwrap();
        let last = if request.reference == "busybox" {
            Ok(v1::PullImageProgress { id: image().id, parts: vec![part(4_000_000)] })
        } else {
            Err(Status::not_found(format!("no registry has \"{}\"", request.reference)))
        };
        sender.send(last).await.unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportImageRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.expect("a first message");
        if first.reference == "refused" {
            return Err(Status::invalid_argument("\"refused\" is no good name"));
        }
        let mut bytes = first.chunk.to_vec();
        let mut largest = 0;
        loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    assert_eq!(message.reference, "");
                    largest = largest.max(message.chunk.len());
                    bytes.extend_from_slice(&message.chunk);
                }
                Ok(None) => break,
                Err(status) => {
                    self.note("import broke".into());
                    return Err(status);
                }
            }
        }
        let mut sum = 0u64;
        for byte in &bytes {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
        let mut names: Vec<String> = tar::Archive::new(bytes.as_slice())
            .entries()
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path().ok()?.display().to_string()))
            .collect();
        names.sort();
        self.note(format!(
            "import \"{}\" {} {sum:x} {}",
            first.reference,
            bytes.len(),
            names.join(" ")
        ));
        assert!(largest <= 1 << 20, "{largest}");
        let image = v1::ImportedImage {
            id: format!("sha256:{}", "d".repeat(64)),
            references: vec!["docker.io/library/x:latest".into()],
        };
        let (sender, receiver) = mpsc::channel(4);
        let part = |stage| v1::PullPart { size: 7, done: 7, stage, ..Default::default() };
        let so_far = v1::ImportImageProgress { images: vec![], parts: vec![part(4), part(3)] };
        sender.send(Ok(so_far)).await.unwrap();
        let whole = v1::ImportImageProgress { images: vec![image], parts: vec![part(4), part(4)] };
        sender.send(Ok(whole)).await.unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn export(
        &self,
        request: Request<v1::ExportImagesRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let chunk = |text: &'static str, size| v1::ExportImagesChunk { chunk: text.into(), size };
        sender.send(Ok(chunk("", 6))).await.unwrap();
        sender.send(Ok(chunk("arc", 0))).await.unwrap();
        let last = match request.into_inner().images[0].as_str() {
            "busybox" => Ok(chunk("hive", 0)),
            _ => Err(Status::internal("the disk is gone")),
        };
        sender.send(last).await.unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("rmi {} {}", request.image, request.force));
        match request.image.as_str() {
            "busybox" => Ok(Response::new(v1::RemoveImageResponse::default())),
            "used" => Err(Status::failed_precondition("image \"used\" is used by default/web/app")),
            _ => Err(Status::not_found("no such image")),
        }
    }

    async fn prune(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        self.note(format!("prune {}", request.into_inner().all));
        let removed = vec![image()];
        Ok(Response::new(v1::PruneImagesResponse { removed, freed: 2_160_000 }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectImageRequest>,
    ) -> Result<Response<v1::InspectImageResponse>, Status> {
        let json = format!("{{\"id\":\"{}\",\"layers\":[]}}", request.into_inner().image);
        Ok(Response::new(v1::InspectImageResponse { json }))
    }
}

fn unary<Q, A>(
    request: http::Request<Body>,
    answer: impl FnOnce(Q) -> Result<A, Status> + Send + 'static,
) -> Answer
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(move |request: Request<Q>| {
        let answer = answer.take().expect("one call");
        std::future::ready(answer(request.into_inner()).map(Response::new))
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(tonic_prost::ProstCodec::<A, Q>::default());
        Ok(grpc.unary(service, request).await)
    })
}
