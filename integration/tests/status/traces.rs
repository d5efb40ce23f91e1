//! Traces, as a collector gets them: a small one listens on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use haled::proto::cri;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use tonic::{Request, Response, Status};

use crate::daemon::{Daemon, PATIENCE};

/// Where the collector listens on the node.
const COLLECTOR: &str = "127.0.0.1:4317";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|r| r.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on the daemon's node.
    fn listen(&self, daemon: &Daemon) {
        let netns = format!("/proc/{}/ns/net", daemon.process_id());
        let bind = || std::net::TcpListener::bind(COLLECTOR);
        let listener = haled::sys::netns::within(netns.as_ref(), bind).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    /// The spans of a trace by their names, once there are all of `wanted`.
    async fn trace(&self, id: [u8; 16], wanted: &[&str]) -> BTreeMap<String, Span> {
        let began = Instant::now();
        loop {
            let spans: BTreeMap<String, Span> = {
                let all = self.0.lock().unwrap();
                let of_trace = all.iter().filter(|span| span.trace_id == id);
                of_trace.map(|span| (span.name.clone(), span.clone())).collect()
            };
            if wanted.iter().all(|name| spans.contains_key(*name)) {
                return spans;
            }
            let names: Vec<_> = spans.keys().collect();
            assert!(began.elapsed() < PATIENCE, "only {names:?} of {wanted:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// A call with a client's own trace.
fn traced<T>(message: T, trace: u8, sampled: bool) -> Request<T> {
    let mut request = Request::new(message);
    let flags = if sampled { "01" } else { "00" };
    let parent = format!("00-{}-{}-{flags}", format!("{trace:02x}").repeat(16), "07".repeat(8));
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_trace_goes_down_to_runc_plugins_and_mounts() {
    let settings = format!("[tracing]\notlp_endpoint = \"http://{COLLECTOR}\"\n");
    let daemon = Daemon::start_with(&settings).await;
    let collector = Collector::default();
    collector.listen(&daemon);
    let mut runtime = daemon.runtime().await;

    let config = daemon.sandbox("traced");
    let request =
        cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let ran = runtime.run_pod_sandbox(traced(request, 1, true)).await.unwrap();
    let pod = ran.into_inner().pod_sandbox_id;
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(Daemon::container("app", "exec sleep 600")),
        sandbox_config: None,
    };
    let created = runtime.create_container(traced(request, 2, true)).await.unwrap();
    let id = created.into_inner().container_id;
    let request = cri::StartContainerRequest { container_id: id.clone() };
    runtime.start_container(traced(request, 3, true)).await.unwrap();
    let request =
        cri::ExecSyncRequest { container_id: id.clone(), cmd: vec!["true".into()], timeout: 10 };
    runtime.exec_sync(traced(request, 4, true)).await.unwrap();
    let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod };
    runtime.stop_pod_sandbox(traced(request, 5, true)).await.unwrap();
    let request = cri::StartContainerRequest { container_id: "ff".repeat(32) };
    runtime.start_container(traced(request, 6, true)).await.unwrap_err();
    runtime.version(traced(cri::VersionRequest::default(), 7, false)).await.unwrap();

    let service = |method: &str| format!("runtime.v1.RuntimeService/{method}");
    let traces: [(u8, &str, &[&str]); 5] = [
        (1, "RunPodSandbox", &["haled-monitor spawn", "tmpfs mount", "bridge ADD"]),
        (2, "CreateContainer", &["overlay mount"]),
        (3, "StartContainer", &["runc run"]),
        (4, "ExecSync", &["runc exec"]),
        (5, "StopPodSandbox", &["bridge DEL"]),
    ];
    for (trace, method, below) in traces {
        let call = service(method);
        let mut wanted = below.to_vec();
        wanted.push(&call);
        let spans = collector.trace([trace; 16], &wanted).await;
        let root = &spans[&call];
        assert_eq!(root.parent_span_id, [7; 8], "{method} is below the client's own span");
        assert_eq!(
            root.status.as_ref().map_or(0, |s| s.code),
            i32::from(status::StatusCode::Unset)
        );
        for name in below {
            let span = &spans[*name];
            assert_eq!(span.parent_span_id, root.span_id, "{name} is below {method}");
            assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{name}");
            assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{name}");
        }
    }
    let failed = collector.trace([6; 16], &[&service("StartContainer")]).await;
    let status = failed[&service("StartContainer")].status.as_ref().unwrap();
    assert_eq!(status.code(), status::StatusCode::Error);
    // What its client doesn't sample isn't traced, and the log has no word of any of this.
    let all = collector.0.lock().unwrap().clone();
    assert!(!all.iter().any(|span| span.trace_id == [7; 16]));
    assert!(!daemon.log().contains("otel."), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_sent_at_the_end_and_a_missing_collector_holds_nothing_up() {
    let settings = format!("[tracing]\notlp_endpoint = \"http://{COLLECTOR}\"\n");
    let mut daemon = Daemon::start_with(&settings).await;
    let mut runtime = daemon.runtime().await;
    runtime.version(traced(cri::VersionRequest::default(), 1, true)).await.unwrap();
    let began = Instant::now();
    assert!(daemon.terminate());
    assert!(began.elapsed() < PATIENCE / 2);

    daemon.launch().await;
    let collector = Collector::default();
    collector.listen(&daemon);
    let mut runtime = daemon.runtime().await;
    runtime.version(traced(cri::VersionRequest::default(), 2, true)).await.unwrap();
    assert!(daemon.terminate());
    collector.trace([2; 16], &["runtime.v1.RuntimeService/Version"]).await;
}
