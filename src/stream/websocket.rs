//! The same sessions over WebSocket: each message begins with its channel's number; and
//! SPDY in a tunnel of messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message as Ws, Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, tungstenite};
use tokio_util::sync::CancellationToken;

use super::channel::{Incoming, Life, MESSAGES_OUT, Message, Outgoing, PIECE, PIECES_IN};
use super::command::{self, Start, Streams, Wanted};
use super::port_forward::{Connect, forward};

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

/// A connection's channels, for what is run on it.
struct Channels {
    to: mpsc::Sender<Message>,
    life: Arc<Life>,
    incoming: HashMap<u32, Incoming>,
}

impl Channels {
    fn outgoing(&self, id: u32) -> Outgoing {
        Outgoing { id, to: self.to.clone(), life: self.life.clone() }
    }

    /// What comes on a channel that is listened to, once.
    fn incoming(&mut self, id: u32) -> Option<Incoming> {
        self.incoming.remove(&id)
    }
}

/// Serves exec or attach. A session on which nothing comes for `idle`, pings included, is
/// broken off.
pub(super) async fn command(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    codec: Codec,
    wanted: Wanted,
    start: Start,
    idle: Duration,
) {
    // On the first channel there is, so that the client knows it is connected.
    let first = vec![(if wanted.stdout { STDOUT } else { ERROR }, Bytes::new())];
    let inputs = [wanted.stdin.then_some(STDIN), wanted.tty.then_some(RESIZE)];
    let inputs: Vec<_> = inputs.into_iter().flatten().collect();
    session(io, codec, first, &inputs, idle, async |mut channels: Channels| {
        let streams = Streams {
            error: channels.outgoing(ERROR),
            stdin: channels.incoming(STDIN).map(|stdin| (stdin, channels.outgoing(STDIN))),
            stdout: wanted.stdout.then(|| channels.outgoing(STDOUT)),
            stderr: wanted.stderr.then(|| channels.outgoing(STDERR)),
            resize: channels.incoming(RESIZE),
        };
        command::run(streams, codec.version, start).await;
    })
    .await;
}

/// Forwards each port once, as clients had it before there was a tunnel: channel 2n is the
/// data of the nth port, 2n + 1 its errors, and on both comes the port's number first.
pub(super) async fn ports(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    codec: Codec,
    ports: Vec<u16>,
    connect: Connect,
    idle: Duration,
) {
    let numbered: Vec<(u32, u16)> = (0..).step_by(2).zip(ports).collect();
    let number = |port: u16| Bytes::copy_from_slice(&port.to_le_bytes());
    let both = |&(data, port): &(u32, u16)| [(data, number(port)), (data + 1, number(port))];
    let first = numbered.iter().flat_map(both).collect();
    let inputs: Vec<_> = numbered.iter().map(|(data, _)| *data).collect();
    session(io, codec, first, &inputs, idle, async |mut channels: Channels| {
        let mut running = tokio::task::JoinSet::new();
        for (id, port) in numbered {
            if let Some(incoming) = channels.incoming(id) {
                let (data, error) = (channels.outgoing(id), channels.outgoing(id + 1));
                running.spawn(forward(port, connect.clone(), (incoming, data), error));
            }
        }
        running.join_all().await;
    })
    .await;
}

/// Runs something on a connection's channels: says what comes `first` on which of them, and
/// hands on what comes on those of `inputs`.
async fn session(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    codec: Codec,
    first: Vec<(u32, Bytes)>,
    inputs: &[u32],
    idle: Duration,
    run: impl AsyncFnOnce(Channels),
) {
    let (mut sink, source) = socket(io).await.split();
    let gone = CancellationToken::new();
    let life = Arc::new(Life { gone: gone.clone() });
    let (to, mut messages) = mpsc::channel(MESSAGES_OUT);
    let (mut senders, mut incoming) = (HashMap::new(), HashMap::new());
    for id in inputs {
        let (sender, pieces) = mpsc::channel(PIECES_IN);
        senders.insert(*id, sender);
        incoming.insert(*id, Incoming { pieces, _life: life.clone() });
    }
    let writing = async {
        for (channel, data) in first {
            sink.send(codec.write(channel, &data)).await?;
        }
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
        hand_out(source, codec, &mut senders, idle).await;
        gone.cancel();
    };
    let running = async {
        run(Channels { to: to.clone(), life, incoming }).await;
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

/// Hands what comes to its channel until the client closes, or is silent for `idle`.
async fn hand_out(
    mut source: impl Stream<Item = Result<Ws, tungstenite::Error>> + Unpin,
    codec: Codec,
    channels: &mut HashMap<u32, mpsc::Sender<Bytes>>,
    idle: Duration,
) {
    while let Ok(Some(Ok(message))) = timeout(idle, source.next()).await {
        let message = match message {
            Ws::Binary(message) => message,
            Ws::Text(message) => message.into(),
            Ws::Close(_) => return,
            _ => continue,
        };
        match codec.read(&message) {
            Said::Data(_, data) if data.is_empty() => {}
            Said::Data(channel, data) => {
                if let Some(sender) = channels.get(&channel)
                    && sender.send(data).await.is_err()
                {
                    // Nobody listens any more.
                    channels.remove(&channel);
                }
            }
            Said::End(channel) => drop(channels.remove(&channel)),
            Said::Nothing => {}
        }
    }
}

/// Takes any bytes as what a client sends; the first says in which version. Everything that
/// comes on a channel is read.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Some((&head, data)) = data.split_first() else { return };
    let codec = Codec { version: head & 7, base64: head & 8 != 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime can be made").block_on(async {
        let (mut client, server) = tokio::io::duplex(PIECE);
        let (sink, source) = socket(server).await.split();
        let (stdin, mut from_stdin) = mpsc::channel(PIECES_IN);
        let (resize, from_resize) = mpsc::channel(PIECES_IN);
        let mut channels = HashMap::from([(STDIN, stdin), (RESIZE, resize)]);
        let sending = async {
            drop(client.write_all(data).await);
            drop(client);
        };
        let reading = async {
            hand_out(source, codec, &mut channels, Duration::from_secs(10)).await;
            drop((channels, sink));
        };
        let taking = async { while from_stdin.recv().await.is_some() {} };
        tokio::join!(sending, reading, taking, command::fuzz_sizes(from_resize));
    });
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
