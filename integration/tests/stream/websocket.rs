//! The same over WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{SUCCESS, client, exec_url, pod_with, request};
use crate::daemon::Daemon;

type Socket = WebSocketStream<TcpStream>;

/// Or the status of the refusal.
async fn connect(daemon: &Daemon, url: &str, protocols: &str) -> Result<Socket, u16> {
    let stream = client::dial(daemon, url).await;
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn exec_over_a_websocket_half_closes_and_tells_the_exit_code() {
    let daemon = Daemon::start().await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    let url = exec_url(&daemon, request(&id, "cat; echo err >&2; exit 7")).await;
    let protocols = "v9.channel.k8s.io, v5.channel.k8s.io, v4.channel.k8s.io";
    let (mut to, mut from) = connect(&daemon, &url, protocols).await.unwrap().split();
    let sending = async {
        for number in 0..256_u32 {
            let mut message = vec![0];
            message.resize(64 * 1024 + 1, number as u8);
            to.send(Message::Binary(message.into())).await.unwrap();
        }
        to.send(Message::Ping("x".into())).await.unwrap();
        to.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    };
    let receiving = async {
        let (mut channels, mut ponged) = ([const { Vec::new() }; 5], false);
        while let Some(Ok(message)) = from.next().await {
            match message {
                Message::Binary(data) => {
                    channels[usize::from(data[0])].extend_from_slice(&data[1..]);
                }
                Message::Pong(_) => ponged = true,
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 1000);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        (channels, ponged)
    };
    let ((), ([_, out, err, error, _], ponged)) = tokio::join!(sending, receiving);
    assert_eq!(out.len(), 256 * 64 * 1024);
    assert!(
        out.chunks(64 * 1024)
            .enumerate()
            .all(|(at, piece)| { piece.iter().all(|byte| *byte == at as u8) })
    );
    assert_eq!(err, b"err\n");
    let status: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert!(ponged);
}

#[tokio::test]
async fn base64_channels_and_refusals() {
    let daemon = Daemon::start().await;
    let (pod, id) = pod_with(&daemon, "exec sleep 600").await;
    let url = exec_url(&daemon, request(&id, "read l; echo got $l")).await;
    let mut socket = connect(&daemon, &url, "v4.base64.channel.k8s.io").await.unwrap();
    socket.send(Message::Text("0aGkK".into())).await.unwrap();
    let mut all = Vec::new();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        all.push(text.to_string());
    }
    assert!(all.contains(&"1Z290IGhpCg==".to_owned()), "{all:?}");
    assert_eq!(all[0], "1");
    assert!(all.last().unwrap().starts_with('3') && all.last().unwrap().len() > SUCCESS.len());

    let url = exec_url(&daemon, request(&id, "true")).await;
    assert_eq!(connect(&daemon, &url, "v9.channel.k8s.io").await.unwrap_err(), 403);
    let forward = haled::proto::cri::PortForwardRequest { pod_sandbox_id: pod, port: vec![] };
    let url = async || {
        let url = daemon.runtime().await.port_forward(forward.clone()).await;
        url.unwrap().into_inner().url
    };
    assert_eq!(connect(&daemon, &url().await, "v3.channel.k8s.io").await.unwrap_err(), 403);
    assert_eq!(connect(&daemon, &url().await, "v4.channel.k8s.io").await.unwrap_err(), 400);
    let none = url().await + "?port=0";
    assert_eq!(connect(&daemon, &none, "v4.channel.k8s.io").await.unwrap_err(), 400);
}

#[tokio::test]
async fn ports_are_forwarded_on_two_channels_each() {
    let daemon = Daemon::start().await;
    let script = "mkdir /tmp/www; head -c 3000000 /dev/zero > /tmp/www/zero; \
                  exec httpd -f -p 127.0.0.1:80 -h /tmp/www";
    let (pod, id) = pod_with(&daemon, script).await;
    while daemon.exec(&id, &["wget", "-q", "-O", "/dev/null", "http://127.0.0.1/zero"]).await.0 != 0
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // One port as the kubelet passes it on, one by the client's own query.
    let forward = haled::proto::cri::PortForwardRequest { pod_sandbox_id: pod, port: vec![80] };
    let url = daemon.runtime().await.port_forward(forward).await.unwrap().into_inner().url;
    let mut socket = connect(&daemon, &(url + "?port=81"), "v4.channel.k8s.io").await.unwrap();
    let request = b"\x00GET /zero HTTP/1.0\r\n\r\n";
    socket.send(Message::Binary(request.as_slice().into())).await.unwrap();
    let mut channels = [const { Vec::new() }; 4];
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(data) => {
                channels[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
            Message::Close(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let [page, no_error, nothing, error] = channels;
    assert_eq!((page[..2].to_vec(), no_error), (vec![80, 0], vec![80, 0]));
    assert!(page.len() > 3_000_000 && page.ends_with(&[0; 100]), "{}", page.len());
    assert_eq!((nothing, &error[..2]), (vec![81, 0], &[81, 0][..]));
    let error = String::from_utf8_lossy(&error[2..]);
    assert!(error.contains("port 81") && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn half_a_frame_is_waited_for_only_so_long() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let daemon = Daemon::start_with("[stream]\nidle_limit = \"1s\"\n").await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    let url = exec_url(&daemon, request(&id, "cat; echo ended > /tmp/ended; exec sleep 600")).await;
    let socket = connect(&daemon, &url, "v5.channel.k8s.io").await.unwrap();
    let mut stream = socket.into_inner();
    // The head of a masked binary message of 64 KiB, and a little of it.
    let half = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 0];
    stream.write_all(&half).await.unwrap();
    let mut rest = Vec::new();
    drop(
        tokio::time::timeout(crate::daemon::PATIENCE, stream.read_to_end(&mut rest)).await.unwrap(),
    );
    // Its input has ended with it.
    let began = std::time::Instant::now();
    while daemon.exec(&id, &["cat", "/tmp/ended"]).await != (0, "ended\n".into()) {
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_websocket_client_that_vanishes_takes_its_terminal_with_it() {
    let daemon = Daemon::start().await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    let script = "trap 'echo hung up > /tmp/hup; exit 1' HUP; read l; stty size; \
                  echo got $l; while :; do sleep 0.05; done";
    let mut request = request(&id, script);
    (request.tty, request.stderr) = (true, false);
    let url = exec_url(&daemon, request).await;
    let mut socket = connect(&daemon, &url, "v5.channel.k8s.io").await.unwrap();
    let size = b"\x04{\"Width\":99,\"Height\":33}";
    socket.send(Message::Binary(size.as_slice().into())).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    socket.send(Message::Binary(b"\x00hi\r".as_slice().into())).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("got hi") {
        let message = socket.next().await.unwrap().unwrap();
        seen += &String::from_utf8_lossy(&message.into_data());
    }
    assert!(seen.contains("33 99"), "{seen:?}");
    drop(socket);
    let began = std::time::Instant::now();
    while daemon.exec(&id, &["cat", "/tmp/hup"]).await != (0, "hung up\n".into()) {
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
