//! One connection to a port of a pod, over SPDY/3.1 as Kubernetes forwards ports: it has what
//! WebSocket channels lack, an end for each direction.
//!
//! The frames are the streaming server's own codec, which is pure; nothing else of that room
//! is used.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{PIECE, dial};
use crate::cli::Failure;
use crate::stream::spdy::Headers;
use crate::stream::spdy::frame::{Decoder, Encoder, Frame};

const PROTOCOL: &str = "portforward.k8s.io";
/// The streams of the connection.
const ERROR: u32 = 1;
const DATA: u32 = 3;
/// Bytes of a refusal, or of what went wrong, that are kept.
const MAX_WORDS: usize = 4 << 10;

/// Carries one connection between `local` and a port, at a URL of the CRI's PortForward.
pub(in crate::cli) async fn forward(
    url: &str,
    port: u16,
    local: impl AsyncRead + AsyncWrite,
) -> Result<(), Failure> {
    let (mut from_pod, mut to_pod) = tokio::io::split(TokioIo::new(upgrade(url).await?));
    let (mut from_local, mut to_local) = tokio::io::split(local);
    let mut encoder = Encoder::default();
    let mut bytes = Vec::new();
    for frame in opening(port) {
        encoder.encode(&frame, &mut bytes);
    }
    to_pod.write_all(&bytes).await.map_err(|error| broke(&error))?;

    let up = async {
        let mut piece = vec![0; PIECE];
        loop {
            // A local end that has broken is as good as one that has ended.
            let read = from_local.read(&mut piece).await.unwrap_or(0);
            let data = Bytes::copy_from_slice(&piece[..read]);
            let mut frames = Vec::new();
            encoder.encode(&Frame::Data { id: DATA, fin: read == 0, data }, &mut frames);
            if to_pod.write_all(&frames).await.is_err() || read == 0 {
                // The other direction says when it is over.
                return std::future::pending::<()>().await;
            }
        }
    };
    let mut down = async || -> Result<Vec<u8>, Failure> {
        let mut decoder = Decoder::default();
        let mut words = Vec::new();
        loop {
            while let Some(frame) = decoder.decode().map_err(|error| broke(&error))? {
                match frame {
                    // Whoever connected may have gone: then there is nobody to carry for.
                    Frame::Data { id: DATA, fin, data }
                        if to_local.write_all(&data).await.is_err() || fin =>
                    {
                        return Ok(words);
                    }
                    Frame::Data { id: ERROR, data, .. } => {
                        let room = MAX_WORDS.saturating_sub(words.len());
                        words.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    Frame::RstStream { .. } | Frame::GoAway { .. } => return Ok(words),
                    _ => {}
                }
            }
            decoder.buffer.reserve(PIECE);
            let read = from_pod.read_buf(&mut decoder.buffer).await;
            if read.map_err(|error| broke(&error))? == 0 {
                return Ok(words);
            }
        }
    };
    let words = tokio::select! {
        words = down() => words?,
        () = up => Vec::new(),
    };
    // One that has gone already needs no end.
    to_local.shutdown().await.ok();
    if words.is_empty() {
        Ok(())
    } else {
        Err(Failure::Message(String::from_utf8_lossy(&words).into_owned()))
    }
}

/// The two streams: what goes wrong, on which nothing is sent, and the data.
fn opening(port: u16) -> [Frame; 3] {
    let stream = |id, kind: &str| {
        let header = |name: &str, value: String| (name.to_owned(), value);
        let headers = Headers(vec![
            header("streamtype", kind.to_owned()),
            header("port", port.to_string()),
            header("requestid", "0".to_owned()),
        ]);
        Frame::SynStream { id, associated: 0, fin: false, unidirectional: false, headers }
    };
    let over = Frame::Data { id: ERROR, fin: true, data: Bytes::new() };
    [stream(ERROR, "error"), over, stream(DATA, "data")]
}

async fn upgrade(url: &str) -> Result<Upgraded, Failure> {
    let (uri, io) = dial(url).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| broke(&error))?;
    // Ends with the exchange; the upgraded connection is handed over before.
    tokio::spawn(connection.with_upgrades());
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| broke(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| broke(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(answer).await);
    }
    hyper::upgrade::on(answer).await.map_err(|error| broke(&error))
}

async fn refused(answer: Response<hyper::body::Incoming>) -> Failure {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_WORDS).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let words = String::from_utf8_lossy(&body);
    Failure::Message(format!(
        "haled's streaming server refused the session: {status}: {}",
        words.trim_end()
    ))
}

fn broke(error: &dyn std::fmt::Display) -> Failure {
    Failure::Message(format!("the connection to haled's streaming server broke: {error}"))
}
