//! The status page's listener: who is answered and with what, metrics against what happened,
//! and the page's changes while a pod fails and heals.

mod browser;
mod dashboard;
mod page;
mod traces;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Instant;

use haled::proto::haled as wire;

use crate::daemon::{Daemon, PATIENCE};

const LISTEN: &str = "127.0.0.1:9470";

/// A daemon with the page, and a pod "web" that is healthy while its flag is there and
/// raises it at its start.
struct House {
    daemon: Daemon,
}

impl House {
    async fn open(settings: &str) -> Self {
        let daemon =
            Daemon::start_with(&format!("[status]\nlisten = \"{LISTEN}\"\n{settings}")).await;
        std::fs::create_dir(daemon.path("flags")).unwrap();
        Self { daemon }
    }

    fn flag(&self) -> PathBuf {
        self.daemon.path("flags/ok")
    }

    /// Has its probe fail: not before it has started, which begins with a probe that passes.
    async fn fail(&self) {
        self.daemon.until("the flag", || std::fs::remove_file(self.flag()).is_ok()).await;
    }

    async fn run_web(&self) {
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{\
               name: app, image: busybox, imagePullPolicy: Never, \
               command: [sh, -c, 'trap \"exit 0\" TERM; touch /flags/ok; while :; do sleep 0.1; done'], \
               livenessProbe: {{exec: {{command: [cat, /flags/ok]}}, periodMilliseconds: 200, failureThreshold: 2}}, \
               volumeMounts: [{{name: flags, mountPath: /flags}}]}}], \
             volumes: [{{name: flags, hostPath: {{path: {}}}}}]}}}}",
            self.daemon.path("flags").display()
        );
        let request = wire::ApplyRequest {
            manifest: manifest.into_bytes().into(),
            source: "web.yaml".into(),
            dry_run: false,
        };
        self.daemon.haled().await.apply(request).await.unwrap();
        self.daemon.until("the pod runs", || self.flag().exists()).await;
    }

    fn connect(&self) -> TcpStream {
        let netns = format!("/proc/{}/ns/net", self.daemon.process_id());
        let stream = haled::sys::netns::within(netns.as_ref(), || TcpStream::connect(LISTEN));
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a head, and gives all that comes.
    fn ask(&self, head: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost"))
    }

    /// The metrics, once they have these words.
    async fn metrics_with(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let metrics = self.get("/metrics");
            if metrics.contains(words) {
                return metrics;
            }
            assert!(began.elapsed() < PATIENCE, "no {words} in\n{metrics}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// A page that is open: its event stream after the head.
    fn follow(&self) -> (String, BufReader<TcpStream>) {
        let mut stream = self.connect();
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        (head, reader)
    }
}

/// Reads events until one has these words; gives it.
fn until_event(events: &mut BufReader<TcpStream>, words: &str) -> String {
    let began = Instant::now();
    loop {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).unwrap(), 0, "the stream ended before {words}");
        if line.starts_with("data: ") && line.contains(words) {
            return line;
        }
        assert!(began.elapsed() < PATIENCE, "no event with {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_answers_and_strangers_are_refused() {
    let house = House::open("").await;
    let page = house.get("/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; "), "{page}");
    assert!(page.contains("No pods."), "{page}");
    assert!(house.get("/healthz").ends_with("\r\n\r\nok\n"));
    let metrics = house.get("/metrics");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("haled_build_info{version="), "{metrics}");
    let unknown = house.get("/etc/passwd");
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    let post = house.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    let stranger = house.ask("GET / HTTP/1.1\r\nHost: evil.example");
    assert!(stranger.starts_with("HTTP/1.1 421 "), "{stranger}");
    // A head without an end is cut off, at the latest while it is still being written.
    let mut long = house.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}", "x".repeat(1 << 20));
    let mut answer = Vec::new();
    let read = long.write_all(head.as_bytes()).and_then(|()| long.read_to_end(&mut answer));
    assert!(read.is_err() || answer.starts_with(b"HTTP/1.1 431 "), "{read:?}");
    assert!(house.get("/healthz").starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heal_is_counted_and_every_open_page_is_told() {
    let house = House::open("").await;
    let (head, mut events) = house.follow();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    house.run_web().await;
    until_event(&mut events, "default/web");
    house.metrics_with("prober_probe_total{probe_type=\"Liveness\",result=\"successful\",namespace=\"default\",pod=\"web\",container=\"app\"}").await;

    house.fail().await;
    let healed = until_event(&mut events, "the last was back after");
    assert!(healed.contains("LivenessProbeFailed"), "{healed}");
    assert!(healed.contains("class=\\\"fail\\\""), "{healed}");
    let page = house.get("/");
    assert!(page.contains("LivenessProbeFailed"), "{page}");

    let metrics = house
        .metrics_with(
            "haled_container_restarts_total{reason=\"LivenessProbeFailed\",by=\"haled\"} 1",
        )
        .await;
    for series in [
        "prober_probe_total{probe_type=\"Liveness\",result=\"failed\",namespace=\"default\",pod=\"web\",container=\"app\"} 2",
        "haled_heal_duration_seconds_count{reason=\"LivenessProbeFailed\"} 1",
        "haled_restart_backoff_seconds_count 1",
        "haled_operation_duration_seconds_count{system=\"oci\",operation_type=\"run\"} 2",
        "haled_operation_duration_seconds_count{system=\"mount\",operation_type=\"mount\"}",
        "haled_operation_duration_seconds_count{system=\"cni\",operation_type=\"ADD\"}",
        "haled_operation_errors_total{system=\"oci\",operation_type=\"run\"} 0",
        "grpc_server_handled_total{grpc_service=\"haled.v1.Haled\",grpc_method=\"Apply\",grpc_code=\"OK\"} 1",
        "haled_pods{state=\"Running\"} 1",
        "haled_containers{state=\"Running\"} 1",
        "haled_images 1",
    ] {
        assert!(metrics.contains(series), "no {series} in\n{metrics}");
    }
    dashboard::asks_only_for_what_is_there(&metrics);
    let delete = wire::DeleteRequest {
        namespace: "default".into(),
        name: "web".into(),
        grace_seconds: Some(0),
        no_wait: false,
    };
    house.daemon.haled().await.delete(delete).await.unwrap();
    until_event(&mut events, "\"order\":[]");
    let metrics = house.metrics_with("haled_pods{state=\"Running\"} 0").await;
    assert!(!metrics.contains("pod=\"web\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_bounded_and_make_room_when_they_go() {
    let house = House::open("").await;
    let mut pages: Vec<_> = (0..16).map(|_| house.follow()).collect();
    let (head, _) = house.follow();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    pages.pop();
    let began = Instant::now();
    while !house.follow().0.starts_with("HTTP/1.1 200 ") {
        assert!(began.elapsed() < PATIENCE, "the place of a page that has gone stays taken");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_had_is_named() {
    let mut house = House::open("").await;
    assert!(house.daemon.terminate());
    let config = house.daemon.path("config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace(LISTEN, "192.0.2.1:9470");
    std::fs::write(&config, text).unwrap();
    let at = |name: &str| house.daemon.path(name).display().to_string();
    let command = format!(
        "{} --config {} --root {} --state {} --listen {}",
        env!("CARGO_BIN_EXE_haled"),
        config.display(),
        at("root"),
        at("state"),
        house.daemon.socket().display()
    );
    let output = house.daemon.on_node(&command).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let wanted = "cannot listen on 192.0.2.1:9470 for the status page (status.listen): ";
    assert!(said.contains(wanted), "{said}");
}
