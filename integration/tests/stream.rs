//! Exec, Attach and PortForward through the streaming server, with a real daemon.

use haled::proto::cri;
use haled::stream::spdy::frame::Frame;
use tonic::Code;

use crate::daemon::Daemon;

mod client;
mod tls;
mod websocket;

const V4: &str = "v4.channel.k8s.io";
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

async fn pod_with(daemon: &Daemon, script: &str) -> (String, String) {
    let pod = daemon.run(&daemon.sandbox("stream")).await;
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    (pod, id)
}

fn request(id: &str, script: &str) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    }
}

async fn exec_url(daemon: &Daemon, request: cri::ExecRequest) -> String {
    let response = daemon.runtime().await.exec(request).await;
    response.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log())).into_inner().url
}

#[tokio::test]
async fn exec_carries_every_stream_half_closes_and_tells_the_exit_code() {
    let daemon = Daemon::start().await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    let script = "echo out; echo err >&2; cat; echo over; exit 7";
    let url = exec_url(&daemon, request(&id, script)).await;
    let (mut to, mut from) = client::connect(&daemon, &url, V4).await;
    let error = to.open(&[("streamtype", "error")]).await;
    let stdin = to.open(&[("streamtype", "stdin")]).await;
    let stdout = to.open(&[("streamtype", "stdout")]).await;
    let stderr = to.open(&[("streamtype", "stderr")]).await;
    to.data(stdin, "one ").await;
    to.data(stdin, "two\n").await;
    to.end(stdin).await;
    let [error, stdout, stderr] = from.collect([error, stdout, stderr]).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\none two\nover\n", "err\n"));
    let status: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "7");

    // What a command leaves running doesn't hold the session open; what can't be run is told.
    for (script, found) in [("sleep 600 & exit 0", SUCCESS), ("exec /no/such/program", "127")] {
        let mut request = request(&id, script);
        (request.stdin, request.stderr) = (false, false);
        let url = exec_url(&daemon, request).await;
        let (mut to, mut from) = client::connect(&daemon, &url, V4).await;
        let error = to.open(&[("streamtype", "error")]).await;
        to.open(&[("streamtype", "stdout")]).await;
        let [error] = from.collect([error]).await;
        assert!(error.contains(found), "{script}: {error}");
    }
    let mut request = request(&id, "");
    request.cmd = vec!["/no/such/program".into()];
    (request.stdin, request.stderr) = (false, false);
    let url = exec_url(&daemon, request).await;
    let (mut to, mut from) = client::connect(&daemon, &url, V4).await;
    let error = to.open(&[("streamtype", "error")]).await;
    to.open(&[("streamtype", "stdout")]).await;
    let [error] = from.collect([error]).await;
    assert!(error.contains("InternalError") && error.contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn a_terminal_has_a_size_and_hangs_up_when_its_client_vanishes() {
    let daemon = Daemon::start().await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    let script = "trap 'echo hung up > /tmp/hup; exit 1' HUP; read line; stty size; \
                  echo got $line; while :; do sleep 0.05; done";
    let mut request = request(&id, script);
    (request.tty, request.stderr) = (true, false);
    let url = exec_url(&daemon, request).await;
    let (mut to, mut from) = client::connect(&daemon, &url, V4).await;
    to.open(&[("streamtype", "error")]).await;
    let stdin = to.open(&[("streamtype", "stdin")]).await;
    let stdout = to.open(&[("streamtype", "stdout")]).await;
    let resize = to.open(&[("streamtype", "resize")]).await;
    to.data(resize, "{\"Width\":101,\"Height\":41}\n").await;
    // The size is set by another task than the input is carried by.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    to.data(stdin, "hello\r").await;
    let seen = from.until(stdout, "got hello").await;
    assert!(seen.contains("41 101"), "{seen:?}");
    drop((to, from));
    let began = std::time::Instant::now();
    while daemon.exec(&id, &["cat", "/tmp/hup"]).await != (0, "hung up\n".into()) {
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn eight_execs_carry_tens_of_megabytes_each_way_at_once() {
    const PIECES: usize = 1600;
    const PIECE: usize = 32 * 1024;
    let daemon = Daemon::start().await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    // Pieces are parts of it that begin here and there: a piece lost or swapped shows.
    let noise: Vec<u8> = (0..PIECE + 1024).map(|at| ((at * at * 31) >> 7) as u8).collect();
    let one = async |number: usize| {
        let url = exec_url(&daemon, request(&id, "cat")).await;
        let (mut to, mut from) = client::connect(&daemon, &url, V4).await;
        let error = to.open(&[("streamtype", "error")]).await;
        let stdin = to.open(&[("streamtype", "stdin")]).await;
        let stdout = to.open(&[("streamtype", "stdout")]).await;
        to.open(&[("streamtype", "stderr")]).await;
        let piece = |at: usize| &noise[(at * 13 + number * 101) % 1024..][..PIECE];
        let sending = async {
            for at in 0..PIECES {
                to.data(stdin, piece(at).to_vec()).await;
            }
            to.end(stdin).await;
        };
        let receiving = async {
            let (mut got, mut last) = (0, Vec::new());
            while let Some(frame) = from.next().await {
                match frame {
                    Frame::Data { id, mut data, .. } if id == stdout => {
                        while !data.is_empty() {
                            let expected = &piece(got / PIECE)[got % PIECE..];
                            let part = data.split_to(data.len().min(expected.len()));
                            assert!(part == expected[..part.len()], "at {got}");
                            got += part.len();
                        }
                    }
                    Frame::Data { id, data, .. } if id == error => last.extend_from_slice(&data),
                    _ => {}
                }
            }
            assert_eq!(got, PIECES * PIECE);
            assert_eq!(String::from_utf8(last).unwrap(), SUCCESS);
        };
        tokio::join!(sending, receiving);
    };
    tokio::join!(one(0), one(1), one(2), one(3), one(4), one(5), one(6), one(7));
}

#[tokio::test]
async fn a_url_is_good_once_and_what_cant_be_is_refused() {
    let daemon = Daemon::start().await;
    let (pod, id) = pod_with(&daemon, "exec sleep 600").await;
    let spdy = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
    let with = |version| [spdy[0], spdy[1], ("X-Stream-Protocol-Version", version)];
    for (headers, code, words) in [
        (&with("v9.channel.k8s.io")[..], "403", "x-accepted-stream-protocol-versions: v4"),
        (&spdy[..], "400", "HTTP"),
        (&with(V4)[2..], "400", "HTTP"),
        (&with(V4)[..], "101", "x-stream-protocol-version: v4.channel.k8s.io"),
    ] {
        let url = exec_url(&daemon, request(&id, "true")).await;
        let mut stream = client::dial(&daemon, &url).await;
        let (head, _) = client::ask(&mut stream, &url, headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
        assert!(head.contains(words), "{head}");
        let mut stream = client::dial(&daemon, &url).await;
        let (head, _) = client::ask(&mut stream, &url, headers).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    }
    // A token of one kind is none of another.
    let url = exec_url(&daemon, request(&id, "true")).await.replace("/exec/", "/attach/");
    let mut stream = client::dial(&daemon, &url).await;
    let (head, _) = client::ask(&mut stream, &url, &with(V4)).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

    let code = async |change: fn(&mut cri::ExecRequest)| {
        let mut request = request(&id, "true");
        change(&mut request);
        daemon.runtime().await.exec(request).await.unwrap_err().code()
    };
    assert_eq!(code(|request| request.tty = true).await, Code::InvalidArgument);
    assert_eq!(code(|request| request.cmd.clear()).await, Code::InvalidArgument);
    let none = |request: &mut cri::ExecRequest| {
        (request.stdin, request.stdout, request.stderr) = (false, false, false);
    };
    assert_eq!(code(none).await, Code::InvalidArgument);
    assert_eq!(code(|request| request.container_id = "none".into()).await, Code::NotFound);
    daemon.stop(&id, 0).await;
    assert_eq!(code(|_| {}).await, Code::FailedPrecondition);
    daemon.stop_pod(&pod).await;
    let request = cri::PortForwardRequest { pod_sandbox_id: pod, port: vec![80] };
    let refused = daemon.runtime().await.port_forward(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_hundred_connections_are_forwarded_at_once() {
    let daemon = Daemon::start().await;
    let script = "mkdir /tmp/www; echo the page > /tmp/www/index.html; \
                  exec httpd -f -p 127.0.0.1:80 -h /tmp/www";
    let (pod, id) = pod_with(&daemon, script).await;
    while daemon.exec(&id, &["wget", "-q", "-O", "-", "http://127.0.0.1/"]).await.0 != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let request = cri::PortForwardRequest { pod_sandbox_id: pod, port: vec![] };
    let url = daemon.runtime().await.port_forward(request).await.unwrap().into_inner().url;
    let (mut to, mut from) = client::connect(&daemon, &url, "portforward.k8s.io").await;
    let mut open = std::collections::BTreeMap::new();
    for number in 0..100 {
        let request = number.to_string();
        let headers = |kind| [("streamtype", kind), ("port", "80"), ("requestid", &*request)];
        let error = to.open(&headers("error")).await;
        to.end(error).await;
        let data = to.open(&headers("data")).await;
        open.insert(data, Vec::new());
    }
    for id in open.keys() {
        to.data(*id, "GET / HTTP/1.0\r\n\r\n").await;
    }
    // Nothing listens there.
    let headers = |kind| [("streamtype", kind), ("port", "81"), ("requestid", "x")];
    let error = to.open(&headers("error")).await;
    to.open(&headers("data")).await;
    let (mut ended, mut words) = (0, Vec::new());
    while ended < 100 || words.is_empty() {
        match from.next().await.expect("it goes on") {
            Frame::Data { id, data, .. } if id == error => words.extend_from_slice(&data),
            Frame::Data { id, fin, data } => {
                let Some(page) = open.get_mut(&id) else { continue };
                page.extend_from_slice(&data);
                ended += usize::from(fin);
            }
            _ => {}
        }
    }
    for page in open.values() {
        let page = String::from_utf8_lossy(page);
        assert!(page.starts_with("HTTP/1.") && page.ends_with("the page\n"), "{page}");
    }
    let words = String::from_utf8(words).unwrap();
    assert!(words.contains("port 81") && words.contains("refused"), "{words}");
}

async fn attach(daemon: &Daemon, id: &str, tty: bool) -> (client::Sender, client::Receiver) {
    let request = cri::AttachRequest {
        container_id: id.into(),
        stdin: true,
        tty,
        stdout: true,
        stderr: !tty,
    };
    let response = daemon.runtime().await.attach(request).await;
    let url = response.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log())).into_inner().url;
    client::connect(daemon, &url, V4).await
}

#[tokio::test]
async fn attach_joins_a_containers_streams_also_after_the_daemon_was_away() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("stream")).await;
    let mut config = Daemon::container("app", "while read l; do echo $l; echo e$l >&2; done");
    (config.stdin, config.stdin_once) = (true, true);
    let id = daemon.run_container(&pod, config).await;
    daemon.kill();
    daemon.launch().await;

    // One that only looks on, and is not told where its streams end by the other's end.
    let (mut to, mut onlooker) = attach(&daemon, &id, false).await;
    let onlooker_error = to.open(&[("streamtype", "error")]).await;
    to.open(&[("streamtype", "stdin")]).await;
    let seen = to.open(&[("streamtype", "stdout")]).await;
    to.open(&[("streamtype", "stderr")]).await;

    let (mut to, mut from) = attach(&daemon, &id, false).await;
    let error = to.open(&[("streamtype", "error")]).await;
    let stdin = to.open(&[("streamtype", "stdin")]).await;
    let stdout = to.open(&[("streamtype", "stdout")]).await;
    let stderr = to.open(&[("streamtype", "stderr")]).await;
    // Both are attached once this is seen by both.
    to.data(stdin, "one\n").await;
    from.until(stdout, "one\n").await;
    // The onlooker may have come later than that.
    let mut more = String::new();
    for number in 0..20_000 {
        more += &number.to_string();
        more.push('\n');
    }
    to.data(stdin, more.clone()).await;
    to.end(stdin).await;
    let [error, out, err] = from.collect([error, stdout, stderr]).await;
    assert_eq!(error, SUCCESS);
    assert_eq!(out, more);
    assert!(err.ends_with("e19999\n"), "{}", err.len());
    let [error, out] = onlooker.collect([onlooker_error, seen]).await;
    assert_eq!(error, SUCCESS);
    assert!(out.ends_with("19999\n"));
    // Its input's end was the container's, and the log has everything.
    assert_eq!(daemon.exited(&id).await.exit_code, 0);
    let log = daemon.log_lines("stream", "app/0.log");
    assert_eq!(log.len(), 2 * 20_001);
}

#[tokio::test]
async fn attach_to_a_terminal_sizes_it_and_leaves_it_when_the_client_goes() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("stream")).await;
    let mut config = Daemon::container("app", "while read l; do stty size; echo $l; done");
    (config.stdin, config.tty) = (true, true);
    let id = daemon.run_container(&pod, config).await;
    for word in ["first", "second"] {
        let (mut to, mut from) = attach(&daemon, &id, true).await;
        let error = to.open(&[("streamtype", "error")]).await;
        let stdin = to.open(&[("streamtype", "stdin")]).await;
        let stdout = to.open(&[("streamtype", "stdout")]).await;
        let resize = to.open(&[("streamtype", "resize")]).await;
        to.data(resize, format!("{{\"Width\":{},\"Height\":9}}\n", word.len())).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        to.data(stdin, format!("{word}\r")).await;
        let seen = from.until(stdout, &format!("9 {}\r\n{word}\r\n", word.len())).await;
        assert!(!seen.is_empty());
        to.end(stdin).await;
        // Without stdin_once the end of the input is only the client's.
        assert_eq!(from.collect([error]).await, [SUCCESS]);
    }
    assert_eq!(daemon.status(&id).await.state(), cri::ContainerState::ContainerRunning);
    daemon.stop(&id, 0).await;
    let request = cri::AttachRequest { container_id: id, stdout: true, ..Default::default() };
    let refused = daemon.runtime().await.attach(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_attached_client_that_reads_nothing_holds_up_no_log() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("stream")).await;
    let script = "until [ -e /go ]; do sleep 0.05; done; seq 2000000; exec sleep 600";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    let (mut to, _from) = attach(&daemon, &id, false).await;
    for kind in ["error", "stdin", "stdout", "stderr"] {
        to.open(&[("streamtype", kind)]).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(daemon.exec(&id, &["touch", "/go"]).await.0, 0);
    daemon
        .until("the whole log", || {
            daemon.log_lines("stream", "app/0.log").last().is_some_and(|last| last == "2000000")
        })
        .await;
}
