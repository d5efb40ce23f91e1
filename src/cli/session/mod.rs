//! A session on haled's streaming server: exec and attach over WebSocket, in the subprotocol
//! `v5.channel.k8s.io` of Kubernetes, and SPDY for port-forward.
//!
//! haled is asked for a URL by the CRI; this is a client of that URL as a kubelet's would be.

pub(super) mod detach;
mod dial;
pub(super) mod forward;
pub(super) mod terminal;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::Failure;
pub(super) use dial::dial;

const PROTOCOL: &str = "v5.channel.k8s.io";
/// Bytes of a message that is taken; haled sends less.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of the last word that are kept.
const MAX_STATUS: usize = 64 << 10;
/// Pieces of input that wait to be sent.
pub(super) const PIECES: usize = 4;
/// Bytes of one piece.
pub(super) const PIECE: usize = 32 << 10;

/// The channels' numbers.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Begins a message that ends a channel.
const CLOSE: u8 = 255;

/// What a command is given, beside the arguments that the CRI had.
pub(super) struct Input {
    /// What it reads; ends with its sender. `None`: it has no standard input.
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    /// The sizes of the terminal, columns and rows, as they change.
    pub(super) sizes: Option<mpsc::Receiver<(u16, u16)>>,
}

/// What it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Stdout,
    Stderr,
}

/// How a session ended, where it was not by a failure of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The command's exit code.
    Exited(i32),
    /// It could not be run, or its end was not seen: the runtime's own words.
    Failed(String),
}

/// Has a session at the URL until the command's end. `take` is handed what the command gives.
pub(super) async fn run(
    url: &str,
    input: Input,
    mut take: impl AsyncFnMut(From, Bytes) -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    let (mut sink, mut source) = connect(url).await?.split();
    let Input { mut stdin, mut sizes } = input;
    let mut status = Vec::new();
    // Both at once: were input sent without reading, two full connections would wait for each
    // other.
    let writing = async {
        loop {
            let message = tokio::select! {
                Some(piece) = next(&mut stdin) => piece.map_or_else(
                    || Message::Binary(vec![CLOSE, STDIN].into()),
                    |piece| data(STDIN, &piece),
                ),
                Some(Some(size)) = next(&mut sizes) => data(RESIZE, sized(size).as_bytes()),
                // Nothing is left to send.
                else => std::future::pending().await,
            };
            if sink.send(message).await.is_err() {
                // What is read says why.
                return std::future::pending::<()>().await;
            }
        }
    };
    let mut reading = async || -> Result<(), Failure> {
        while let Some(message) = source.next().await {
            let message = match message.map_err(|error| broke(&error))? {
                Message::Binary(message) => message,
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((&channel, _)) = message.split_first() else { continue };
            let piece = message.slice(1..);
            match channel {
                STDOUT if !piece.is_empty() => take(From::Stdout, piece).await?,
                STDERR if !piece.is_empty() => take(From::Stderr, piece).await?,
                ERROR => {
                    let room = MAX_STATUS.saturating_sub(status.len());
                    status.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        read = reading() => read?,
        () = writing => {}
    }
    ended(&status)
}

/// The next of a channel; its end, `Some(None)`, once; then, or where there is none, `None`.
async fn next<T>(from: &mut Option<mpsc::Receiver<T>>) -> Option<Option<T>> {
    let next = from.as_mut()?.recv().await;
    if next.is_none() {
        *from = None;
    }
    Some(next)
}

fn data(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

fn sized((columns, rows): (u16, u16)) -> String {
    format!("{{\"Width\":{columns},\"Height\":{rows}}}")
}

fn broke(error: &dyn std::fmt::Display) -> Failure {
    Failure::Message(format!("the session with haled broke off: {error}"))
}

async fn connect(url: &str) -> Result<WebSocketStream<Box<dyn dial::Io>>, Failure> {
    let (uri, io) = dial(url).await?;
    let mut parts = uri.into_parts();
    parts.scheme = Some(hyper::http::uri::Scheme::try_from("ws").map_err(|error| broke(&error))?);
    let uri = hyper::Uri::from_parts(parts).map_err(|error| broke(&error))?;
    let mut request = uri.into_client_request().map_err(|error| broke(&error))?;
    let protocol = HeaderValue::from_static(PROTOCOL);
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let connected = tokio_tungstenite::client_async_with_config(request, io, Some(limits)).await;
    connected.map(|(socket, _)| socket).map_err(|error| {
        Failure::Message(format!("haled's streaming server refused the session: {error}"))
    })
}

/// As much of a metav1.Status as says how a command ended.
#[derive(Deserialize)]
struct Status {
    #[serde(rename = "status")]
    word: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Details,
}

#[derive(Deserialize, Default)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn ended(status: &[u8]) -> Result<Ended, Failure> {
    if status.is_empty() {
        return Err(broke(&"haled ended it without a word about the command"));
    }
    let status: Status = serde_json::from_slice(status).map_err(|error| broke(&error))?;
    if status.word == "Success" {
        return Ok(Ended::Exited(0));
    }
    let mut causes = status.details.causes.iter();
    let code = causes.find(|cause| cause.reason == "ExitCode");
    if let Some(code) = code.and_then(|cause| cause.message.parse().ok())
        && status.reason == "NonZeroExitCode"
    {
        return Ok(Ended::Exited(code));
    }
    let message = status.message.strip_prefix("Internal error occurred: ");
    Ok(Ended::Failed(message.unwrap_or(&status.message).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_understood() {
        let ok = |text: &str| ended(text.as_bytes()).unwrap();
        assert_eq!(ok(r#"{"metadata":{},"status":"Success"}"#), Ended::Exited(0));
        let code = r#"{"status":"Failure","reason":"NonZeroExitCode","message":"m",
            "details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(ok(code), Ended::Exited(42));
        let failed = r#"{"status":"Failure","message":"Internal error occurred: why","code":500}"#;
        assert_eq!(ok(failed), Ended::Failed("why".into()));
        for bad in ["", "no json", "[]"] {
            ended(bad.as_bytes()).unwrap_err();
        }
    }
}
