//! A streaming client, frame by frame.

use bytes::Bytes;
use haled::stream::spdy::Headers;
use haled::stream::spdy::frame::{Decoder, Encoder, Frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::daemon::{Daemon, PATIENCE};

pub struct Sender {
    to: Box<dyn AsyncWrite + Send + Unpin>,
    encoder: Encoder,
    next: u32,
}

pub struct Receiver {
    from: Box<dyn AsyncRead + Send + Unpin>,
    decoder: Decoder,
}

/// A TCP connection from the daemon's own network namespace.
pub async fn dial(daemon: &Daemon, url: &str) -> TcpStream {
    let address = url.split('/').nth(2).unwrap().to_owned();
    let netns = format!("/proc/{}/ns/net", daemon.process_id());
    let stream = tokio::task::spawn_blocking(move || {
        haled::sys::netns::within(netns.as_ref(), || std::net::TcpStream::connect(&address))
    });
    let stream = stream.await.unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

/// Asks for an upgrade; gives the head of the answer, and what came after it.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    url: &str,
    headers: &[(&str, &str)],
) -> (String, Vec<u8>) {
    let path = url.splitn(4, '/').nth(3).unwrap();
    let mut request = format!("POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all((request + "\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = answer.split_off(end + 4);
            return (String::from_utf8(answer).unwrap(), rest);
        }
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "no answer: {answer:?}");
    }
}

/// A connection that has been upgraded to SPDY.
pub async fn connect(daemon: &Daemon, url: &str, protocol: &str) -> (Sender, Receiver) {
    upgrade(dial(daemon, url).await, url, protocol).await
}

/// Has a connection upgraded to SPDY.
pub async fn upgrade(
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &str,
    protocol: &str,
) -> (Sender, Receiver) {
    let (head, rest) = ask(
        &mut stream,
        url,
        &[
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", "v99.channel.k8s.io"),
            ("X-Stream-Protocol-Version", protocol),
        ],
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains(&format!("x-stream-protocol-version: {protocol}")));
    let (from, to) = tokio::io::split(stream);
    let (from, to) = (Box::new(from), Box::new(to));
    let mut decoder = Decoder::default();
    decoder.buffer.extend_from_slice(&rest);
    (Sender { to, encoder: Encoder::default(), next: 1 }, Receiver { from, decoder })
}

impl Sender {
    /// Opens a stream and gives its number.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = Headers(headers.iter().map(pair).collect());
        let (associated, fin, unidirectional) = (0, false, false);
        self.send(Frame::SynStream { id, associated, fin, unidirectional, headers }).await;
        id
    }

    pub async fn data(&mut self, id: u32, data: impl Into<Bytes>) {
        self.send(Frame::Data { id, fin: false, data: data.into() }).await;
    }

    pub async fn end(&mut self, id: u32) {
        self.send(Frame::Data { id, fin: true, data: Bytes::new() }).await;
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        self.encoder.encode(&frame, &mut bytes);
        // A daemon that has heard enough may have closed.
        drop(self.to.write_all(&bytes).await);
        drop(self.to.flush().await);
    }
}

impl Receiver {
    /// The next frame; `None`: the daemon has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let next = async {
            loop {
                if let Some(frame) = self.decoder.decode().unwrap() {
                    return Some(frame);
                }
                self.decoder.buffer.reserve(64 * 1024);
                if self.from.read_buf(&mut self.decoder.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame comes")
    }

    /// Everything of these streams until the daemon closes.
    pub async fn collect<const N: usize>(&mut self, ids: [u32; N]) -> [String; N] {
        let mut all = [(); N].map(|()| Vec::new());
        while let Some(frame) = self.next().await {
            if let Frame::Data { id, data, .. } = frame
                && let Some(at) = ids.iter().position(|known| *known == id)
            {
                all[at].extend_from_slice(&data);
            }
        }
        all.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// What comes on one stream until it contains `text`.
    pub async fn until(&mut self, id: u32, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            let so_far = String::from_utf8_lossy(&all).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            match self.next().await {
                Some(Frame::Data { id: of, data, .. }) if of == id => all.extend_from_slice(&data),
                Some(_) => {}
                None => panic!("closed before {text:?}: {so_far:?}"),
            }
        }
    }
}
