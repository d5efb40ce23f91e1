//! What each probe sees in a real pod: slow starts, flapping, commands that misbehave, and
//! servers that answer in odd ways.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use haled::proto::{cri, haled as wire};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;

use crate::daemon::{Daemon, PATIENCE};

/// A sandbox whose container `app` has these probes, by kind.
fn probed(daemon: &Daemon, name: &str, probes: &[(&str, &str)]) -> cri::PodSandboxConfig {
    let mut annotations = HashMap::from([("haled/heal".to_owned(), "restart".to_owned())]);
    for (kind, probe) in probes {
        annotations.insert(format!("{kind}.haled/app"), (*probe).to_owned());
    }
    cri::PodSandboxConfig { annotations, ..daemon.sandbox(name) }
}

/// How many containers the pod has had: more than one, and it was restarted.
async fn attempts(daemon: &Daemon, pod: &str) -> usize {
    daemon.containers(pod).await.len()
}

#[tokio::test]
async fn liveness_waits_for_a_slow_start() {
    let daemon = Daemon::start().await;
    // Both look at the same file, so liveness would kill long before the start is over.
    let startup = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 200, "failureThreshold": 100}"#;
    let liveness = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 100, "failureThreshold": 1, "terminationGracePeriodSeconds": 2}"#;
    let probes = [("startup", startup), ("liveness", liveness)];
    let pod = daemon.run(&probed(&daemon, "slow", &probes)).await;
    let script = "trap 'exit 3' TERM; sleep 2; touch /tmp/up; while true; do sleep 0.1; done";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(status.reason, "Starting");
    daemon.reason(&id, "Healthy").await;
    assert_eq!(attempts(&daemon, &pod).await, 1, "{}", daemon.log());
    // From here on liveness counts.
    daemon.exec(&id, &["rm", "/tmp/up"]).await;
    assert_eq!(daemon.exited(&id).await.reason, "LivenessProbeFailed");
}

#[tokio::test]
async fn a_start_that_never_ends_is_killed_for_it() {
    let daemon = Daemon::start().await;
    let startup = r#"{"exec": {"command": ["ls", "/tmp/up"]}, "periodMilliseconds": 200, "failureThreshold": 3, "terminationGracePeriodSeconds": 2}"#;
    let pod = daemon.run(&probed(&daemon, "stuck", &[("startup", startup)])).await;
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    let dead = daemon.exited(&id).await;
    assert_eq!((dead.reason.as_str(), dead.exit_code), ("StartupProbeFailed", 3));
    let begins = "Startup probe failed 3 times in a row: ";
    assert!(dead.message.starts_with(begins), "{}", dead.message);
    assert!(dead.message.contains("No such file"), "{}", dead.message);
    daemon.attempt(&pod, "app", 1).await;
}

#[tokio::test]
async fn readiness_comes_and_goes_without_a_restart() {
    let daemon = Daemon::start().await;
    let readiness = r#"{"exec": {"command": ["ls", "/tmp/ready"]}, "periodMilliseconds": 100, "failureThreshold": 2}"#;
    let pod = daemon.run(&probed(&daemon, "flaps", &[("readiness", readiness)])).await;
    let id = daemon.run_container(&pod, Daemon::container("app", "exec sleep 600")).await;
    for _ in 0..2 {
        daemon.reason(&id, "NotReady").await;
        let message = daemon.status(&id).await.message;
        assert!(message.starts_with("Readiness probe failed"), "{message}");
        daemon.exec(&id, &["touch", "/tmp/ready"]).await;
        daemon.reason(&id, "Healthy").await;
        daemon.exec(&id, &["rm", "/tmp/ready"]).await;
    }
    daemon.reason(&id, "NotReady").await;
    // Long enough for a liveness probe to have killed it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.status(&id).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(attempts(&daemon, &pod).await, 1, "{}", daemon.log());
}

/// A first process that reaps what is left to it.
const REAPS: &str = "while true; do sleep 0.1; done";

/// A container's health in full, as `crictl inspect` shows it.
async fn health(daemon: &Daemon, container: &str) -> Value {
    let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: true };
    let response = daemon.runtime().await.container_status(request).await.unwrap().into_inner();
    serde_json::from_str(&response.info["health"]).unwrap()
}

/// Runs one shell script, once, as readiness probe and gives the container once it counts.
async fn readiness(daemon: &Daemon, script: &str, limit_ms: u32, reason: &str) -> String {
    let probe = json!({
        "exec": { "command": ["sh", "-c", script] },
        "timeoutMilliseconds": limit_ms, "periodSeconds": 600, "failureThreshold": 1,
    });
    let config = probed(daemon, "command", &[("readiness", &probe.to_string())]);
    let pod = daemon.run(&config).await;
    let id = daemon.run_container(&pod, Daemon::container("app", REAPS)).await;
    daemon.reason(&id, reason).await;
    id
}

#[tokio::test]
async fn a_command_that_hangs_fails_and_is_ended() {
    let daemon = Daemon::start().await;
    let id = readiness(&daemon, "trap '' TERM INT HUP; sleep 777", 500, "NotReady").await;
    let message = daemon.status(&id).await.message;
    assert!(message.contains("command timed out after 0.5 s"), "{message}");
    let (_, processes) = daemon.exec(&id, &["ps"]).await;
    assert!(!processes.contains("777"), "{processes}");
}

#[tokio::test]
async fn an_endless_flood_is_ended_at_its_time() {
    let daemon = Daemon::start().await;
    let id = readiness(&daemon, "yes 774 & exec yes 775 >&2", 500, "NotReady").await;
    let message = daemon.status(&id).await.message;
    assert!(message.contains("command timed out after 0.5 s"), "{message}");
    let (_, processes) = daemon.exec(&id, &["ps"]).await;
    // With its arguments: what is dead and waits for the node's init to reap it has none.
    assert!(!processes.contains("yes 77"), "{processes}");
}

#[tokio::test]
async fn what_a_timed_out_command_forked_is_ended_with_it() {
    let daemon = Daemon::start().await;
    // In the background, in a session of its own, and left to the first process.
    let script = "sleep 771 & setsid sleep 772 & (nohup setsid sh -c 'sleep 773; true' &); \
                  touch /tmp/forked; wait";
    let id = readiness(&daemon, script, 1000, "NotReady").await;
    assert_eq!(daemon.exec(&id, &["ls", "/tmp/forked"]).await.0, 0, "it never forked");
    let (_, processes) = daemon.exec(&id, &["ps"]).await;
    assert!(!processes.contains("sleep 77"), "{processes}");
    assert!(!processes.contains("nohup"), "{processes}");
}

#[tokio::test]
async fn ten_kib_of_a_flood_are_kept() {
    let daemon = Daemon::start().await;
    let flood = "yes flood | head -c 30000000; yes flood | head -c 30000000 >&2";
    let id = readiness(&daemon, flood, 30_000, "Healthy").await;
    let output = health(&daemon, &id).await["probes"][0]["lastOutput"].as_str().unwrap().to_owned();
    assert_eq!(output.len(), 10 << 10);
    assert!(output.starts_with("flood\nflood\n"), "{output}");
}

/// Bytes that are no text take more room as text.
#[tokio::test]
async fn ten_kib_of_a_binary_flood_are_kept() {
    let daemon = Daemon::start().await;
    let flood = "head -c 100000 /dev/urandom; exit 1";
    let id = readiness(&daemon, flood, 30_000, "NotReady").await;
    let length = health(&daemon, &id).await["probes"][0]["lastOutput"].as_str().unwrap().len();
    assert!((10_000..=10 << 10).contains(&length), "{length}");
}

/// A web server whose scripts answer with redirects.
const REDIRECTS: &str = r#"
mkdir -p /w/cgi-bin; cd /w/cgi-bin
answers() { printf '#!/bin/sh\nprintf "%s"\n' "$2" > "$1"; }
answers within 'Status: 302 Found\r\nLocation: /cgi-bin/end?at=last\r\n\r\n'
answers without 'Status: 301 Moved\r\nLocation: http://elsewhere.example/login\r\n\r\n'
answers nowhere 'Status: 302 Found\r\nLocation: /no-such-file\r\n\r\n'
answers round 'Status: 307 Again\r\nLocation: /cgi-bin/round\r\n\r\n'
cat > count <<'END'
#!/bin/sh
case $QUERY_STRING in
0) printf 'Content-type: text/plain\r\n\r\nat the end' ;;
*) printf "Status: 302 Found\r\nLocation: /cgi-bin/count?$((QUERY_STRING - 1))\r\n\r\n" ;;
esac
END
printf '#!/bin/sh\nprintf "Content-type: text/plain\\r\\n\\r\\n%%s" "$QUERY_STRING"\n' > end
busybox chmod 755 *
exec httpd -f -p 80 -h /w
"#;

/// A container that runs `script` with this readiness probe of a server.
async fn serve(daemon: &Daemon, name: &str, mut probe: Value, script: &str) -> String {
    probe["periodMilliseconds"] = 200.into();
    probe["timeoutSeconds"] = 5.into();
    let config = probed(daemon, name, &[("readiness", &probe.to_string())]);
    let pod = daemon.run(&config).await;
    daemon.run_container(&pod, Daemon::container("app", script)).await
}

/// The last output of the container's probe once its health is `reason`, which it may also be
/// before the server listens.
async fn output(daemon: &Daemon, id: &str, reason: &str) -> String {
    let began = Instant::now();
    loop {
        let health = health(daemon, id).await;
        let output = health["probes"][0]["lastOutput"].as_str().unwrap_or_default();
        if health["state"] == reason && !output.contains("refused") {
            return output.to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "not {reason}: {health}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn redirects_are_followed_within_the_host() {
    let daemon = Daemon::start().await;
    let expected = [
        ("within", "Healthy", "at=last"),
        ("without", "Healthy", "redirected to another host, http://elsewhere.example/login"),
        ("nowhere", "NotReady", "HTTP probe failed with statuscode: 404"),
        ("round", "NotReady", "stopped after 10 redirects"),
        // The kubelet makes ten requests.
        ("count?9", "Healthy", "at the end"),
        ("count?10", "NotReady", "stopped after 10 redirects"),
    ];
    for (name, reason, wanted) in expected {
        let probe = json!({"httpGet": {"path": format!("/cgi-bin/{name}"), "port": 80}});
        let id = serve(&daemon, &name.replace('?', "-"), probe, REDIRECTS).await;
        let output = output(&daemon, &id, reason).await;
        assert!(output.contains(wanted), "{name}: {output}");
    }
    let request = wire::EventsRequest { name: "without".into(), ..Default::default() };
    let mut events = daemon.haled().await.events(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        all.push(event);
    }
    let warning = all.iter().find(|event| event.reason == "ProbeWarning").unwrap();
    assert!(warning.warning && warning.message.contains("http://elsewhere.example/login"));
    assert!(!all.iter().any(|event| event.reason == "ProbeSucceeded"), "{all:?}");
}

/// A socket of the test's own that listens inside the container's network.
async fn listen(daemon: &Daemon, id: &str, port: u16) -> TcpListener {
    let netns = PathBuf::from(format!("/proc/{}/ns/net", daemon.pid(id).await));
    let make = || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let listener = haled::sys::netns::within(&netns, make).unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// TLS with a certificate that is nobody's: signed by itself, for another name, and over.
fn worthless_certificate() -> TlsAcceptor {
    let mut params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn https_does_not_ask_who_the_server_is() {
    let daemon = Daemon::start().await;
    let probe = json!({"httpGet": {"path": "/", "port": 443, "scheme": "HTTPS"}});
    let id = serve(&daemon, "tls", probe, REAPS).await;
    let listener = listen(&daemon, &id, 443).await;
    let sound = Arc::new(AtomicBool::new(true));
    let answers = sound.clone();
    tokio::spawn(async move {
        let tls = worthless_certificate();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = tls.accept(stream).await.unwrap();
            assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0, "no request");
            let status = if answers.load(Relaxed) { "200 OK" } else { "503 Down" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\nsecret");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    assert_eq!(output(&daemon, &id, "Healthy").await, "secret");
    sound.store(false, Relaxed);
    let output = output(&daemon, &id, "NotReady").await;
    assert_eq!(output, "HTTP probe failed with statuscode: 503");
}

#[tokio::test]
async fn grpc_passes_while_the_service_says_serving() {
    let daemon = Daemon::start().await;
    let probe = json!({"grpc": {"port": 5000, "service": "db"}});
    let id = serve(&daemon, "grpc", probe, REAPS).await;
    let listener = listen(&daemon, &id, 5000).await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("db", tonic_health::ServingStatus::Serving).await;
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    assert_eq!(output(&daemon, &id, "Healthy").await, "service healthy");
    reporter.set_service_status("db", tonic_health::ServingStatus::NotServing).await;
    let output = output(&daemon, &id, "NotReady").await;
    assert_eq!(output, "service unhealthy (responded with \"NOT_SERVING\")");
}

#[tokio::test]
async fn a_prober_that_is_short_of_descriptors_kills_nothing() {
    let daemon = Daemon::start_without_network().await;
    let probe = |handler: Value| {
        let mut probe = json!({"periodMilliseconds": 100, "failureThreshold": 1});
        probe.as_object_mut().unwrap().extend(handler.as_object().unwrap().clone());
        probe.to_string()
    };
    let exec = probe(json!({"exec": {"command": ["true"]}}));
    let tcp = probe(json!({"tcpSocket": {"port": 5000}}));
    let mut config = daemon.host_sandbox("short");
    config.annotations.insert("liveness.haled/exec".into(), exec);
    config.annotations.insert("liveness.haled/tcp".into(), tcp);
    let pod = daemon.run(&config).await;
    let sleeps = |name: &str| Daemon::host_container(name, "exec sleep 600");
    let exec = daemon.run_container(&pod, sleeps("exec")).await;
    let listener = listen(&daemon, &exec, 5000).await;
    let ids = [exec, daemon.run_container(&pod, sleeps("tcp")).await];
    for id in &ids {
        daemon.reason(id, "Healthy").await;
    }
    let limit = |most: &str| {
        let pid = daemon.process_id().to_string();
        let limit = format!("--nofile={most}");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    limit("1:");
    let dropped = |id: &String| {
        let log = daemon.log();
        log.lines().any(|line| line.contains("a probe could not be run") && line.contains(id))
    };
    daemon.until("both probes are dropped", || ids.iter().all(dropped)).await;
    limit("1024:");
    for id in &ids {
        assert_eq!(daemon.status(id).await.state(), cri::ContainerState::ContainerRunning);
        daemon.reason(id, "Healthy").await;
    }
    assert_eq!(daemon.containers(&pod).await.len(), 2, "{}", daemon.log());
    drop(listener);
}

/// A manifest whose probe asks for a port by its name.
fn named_port(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: named
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, exec httpd -f -p 8080 -h /www]
    ports:
    - {{name: metrics, containerPort: 9090}}
    - {{name: web, containerPort: 8080}}
    readinessProbe:
      httpGet: {{path: /index.html, port: {name}}}
      periodSeconds: 1
"
    )
}

#[tokio::test]
async fn a_probe_may_name_its_port() {
    let daemon = Daemon::start().await;
    let error = daemon.apply(&named_port("wed")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    for needle in ["spec.containers[0].readinessProbe.httpGet.port", "\"wed\""] {
        assert!(error.message().contains(needle), "{}", error.message());
    }
    daemon.apply(&named_port("web")).await.unwrap();
    let app = daemon.settled("named", 0).await;
    let health = health(&daemon, &app.id).await;
    assert_eq!(health["probes"][0]["lastOutput"], "it works\n");
    assert_eq!(health["probes"][0]["handler"], "http-get http://:8080/index.html");
}
