//! The same sessions over WebSocket: each message begins with its channel's number; and
//! SPDY in a tunnel of messages.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message as Ws, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::channel::{Incoming, Life, MESSAGES_OUT, Message, Outgoing, PIECE, PIECES_IN};
use super::command::{self, Start, Streams, Wanted};

/// Bytes of a message that is taken.
const MAX_MESSAGE: usize = 1024 * 1024;
/// After the last word, how long the client may take to close.
const LINGER: Duration = Duration::from_secs(10);
/// From version 5 on, what begins a message that ends a channel.
const CLOSE: u8 = 255;
/// The channels, as numbered by Kubernetes.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;

/// How channels are written in messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codec {
    /// Of the subprotocol.
    pub(super) version: u8,
    /// Text messages of a digit and base64, in place of binary ones.
    pub(super) base64: bool,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(u32, Bytes),
    End(u32),
    Nothing,
}

impl Codec {
    fn write(self, channel: u32, data: &[u8]) -> Ws {
        let channel = channel as u8;
        if self.base64 {
            let text = format!("{}{}", char::from(b'0' + channel), BASE64.encode(data));
            return Ws::Text(text.into());
        }
        Ws::Binary([&[channel], data].concat().into())
    }

    fn read(self, message: &Bytes) -> Said {
        match message.split_first() {
            Some((&CLOSE, &[channel])) if self.version >= 5 => Said::End(channel.into()),
            Some((channel, data)) if self.base64 => {
                let channel = u32::from(channel.wrapping_sub(b'0'));
                BASE64.decode(data).map_or(Said::Nothing, |data| Said::Data(channel, data.into()))
            }
            Some((&channel, _)) => Said::Data(channel.into(), message.slice(1..)),
            None => Said::Nothing,
        }
    }
}

async fn socket<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await
}

fn goodbye() -> Ws {
    Ws::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Serves a session. One on which nothing comes for `idle`, pings included, is broken off.
pub(super) async fn command(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    codec: Codec,
    wanted: Wanted,
    start: Start,
    idle: Duration,
) {
    let (mut sink, mut source) = socket(io).await.split();
    let gone = CancellationToken::new();
    let life = Arc::new(Life { gone: gone.clone() });
    let (to, mut messages) = mpsc::channel(MESSAGES_OUT);
    let outgoing = |id: u32| Outgoing { id, to: to.clone(), life: life.clone() };
    let incoming = || {
        let (sender, pieces) = mpsc::channel(PIECES_IN);
        (Some(sender), Incoming { pieces, _life: life.clone() })
    };
    let (mut stdin, from_stdin) = incoming();
    let (mut resize, from_resize) = incoming();

    let writing = async {
        // Of the first channel there is, so that the client knows it is connected.
        let first = if wanted.stdout { STDOUT } else { ERROR };
        sink.send(codec.write(first, b"")).await?;
        while let Some(message) = messages.recv().await {
            match message {
                Message::Data(channel, data) => sink.send(codec.write(channel, &data)).await?,
                Message::Close => return sink.send(goodbye()).await,
                // There is no word for it: channels end with the connection.
                _ => {}
            }
        }
        Ok(())
    };
    let reading = async {
        while let Ok(Some(Ok(message))) = timeout(idle, source.next()).await {
            let message = match message {
                Ws::Binary(message) => message,
                Ws::Text(message) => message.into(),
                Ws::Close(_) => break,
                _ => continue,
            };
            let (channel, data) = match codec.read(&message) {
                Said::Data(channel, data) => (channel, Some(data).filter(|data| !data.is_empty())),
                Said::End(channel) => (channel, None),
                Said::Nothing => continue,
            };
            let ended = matches!(codec.read(&message), Said::End(_));
            let to = match channel {
                STDIN => &mut stdin,
                RESIZE => &mut resize,
                _ => continue,
            };
            let refused = match (to.as_ref(), data) {
                (Some(sender), Some(data)) => sender.send(data).await.is_err(),
                _ => false,
            };
            if ended || refused {
                *to = None;
            }
        }
        gone.cancel();
    };
    let streams = Streams {
        error: outgoing(ERROR),
        stdin: wanted.stdin.then(|| (from_stdin, outgoing(STDIN))),
        stdout: wanted.stdout.then(|| outgoing(STDOUT)),
        stderr: wanted.stderr.then(|| outgoing(STDERR)),
        resize: wanted.tty.then_some(from_resize),
    };
    let running = async {
        command::run(streams, codec.version, start).await;
        drop(to.send(Message::Close).await);
    };
    let written = async {
        let writing = async {
            if let Err(error) = writing.await {
                tracing::debug!(%error, "a WebSocket broke");
                gone.cancel();
            }
        };
        tokio::join!(writing, running);
    };
    tokio::pin!(reading, written);
    tokio::select! {
        () = &mut written => drop(timeout(LINGER, reading).await),
        // What runs is told by `gone`, and then ends.
        () = &mut reading => drop(timeout(LINGER, written).await),
    }
}

/// A byte stream, for SPDY, whose bytes are those of binary messages.
pub(super) async fn tunnel(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> DuplexStream {
    let (near, far) = tokio::io::duplex(2 * PIECE);
    let (mut sink, mut source) = socket(io).await.split();
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let up = async {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Ws::Binary(data) if to.write_all(&data).await.is_ok() => {}
                    Ws::Ping(_) | Ws::Pong(_) => {}
                    _ => break,
                }
            }
            drop(to.shutdown().await);
        };
        let down = async {
            let mut buffer = bytes::BytesMut::new();
            loop {
                buffer.reserve(PIECE);
                let Ok(1..) = from.read_buf(&mut buffer).await else { break };
                if sink.send(Ws::Binary(buffer.split().freeze())).await.is_err() {
                    return;
                }
            }
            drop(sink.send(goodbye()).await);
        };
        tokio::pin!(up, down);
        tokio::select! {
            () = &mut up => down.await,
            () = &mut down => drop(timeout(LINGER, up).await),
        }
    });
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_written_and_read() {
        let binary = Codec { version: 5, base64: false };
        let text = Codec { version: 4, base64: true };
        assert_eq!(binary.write(1, b"hi"), Ws::Binary(b"\x01hi".as_slice().into()));
        assert_eq!(text.write(1, b"hi"), Ws::Text("1aGk=".into()));
        let data = |channel, data: &'static str| Said::Data(channel, data.into());
        assert_eq!(binary.read(&b"\x00in"[..].into()), data(0, "in"));
        assert_eq!(text.read(&b"0aGk="[..].into()), data(0, "hi"));
        assert_eq!(text.read(&b"0%%"[..].into()), Said::Nothing);
        assert_eq!(binary.read(&b"\xff\x00"[..].into()), Said::End(0));
        assert_eq!(Codec { version: 4, ..binary }.read(&b"\xff\x00"[..].into()), data(255, "\0"));
        assert_eq!(binary.read(&Bytes::new()), Said::Nothing);
    }
}
