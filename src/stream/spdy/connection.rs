//! A server's side of a connection: a task that reads frames and one that writes them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Headers;
use super::frame::{Decoder, Encoder, Frame, StreamId, status};
use crate::stream::channel::{Incoming, Life, MESSAGES_OUT, Message, Outgoing, PIECE, PIECES_IN};

/// Streams at once; more are refused.
const MAX_STREAMS: usize = 1024;
/// Streams that were opened and wait to be looked at.
const WAITING: usize = 16;
/// Bytes gathered for one write.
const BATCH: usize = 64 * 1024;
/// After the last word, how long the client may take to close: were the socket closed
/// before, what the client still sends could cost it what it has not read yet.
const LINGER: Duration = Duration::from_secs(10);

/// A connection. Dropped, it breaks off.
pub(in crate::stream) struct Connection {
    opened: mpsc::Receiver<Opened>,
    to: mpsc::Sender<Message>,
    gone: CancellationToken,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// A stream the client has opened and that has not been answered.
pub(in crate::stream) struct Opened {
    pub(in crate::stream) id: StreamId,
    pub(in crate::stream) headers: Headers,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Opened {
    pub(in crate::stream) async fn accept(self) -> (Incoming, Outgoing) {
        // A client that is gone shows when the stream is used.
        drop(self.outgoing.to.send(Message::Accept(self.id)).await);
        (self.incoming, self.outgoing)
    }

    pub(in crate::stream) async fn refuse(self) {
        drop(self.outgoing.to.send(Message::Reset(self.id, status::REFUSED_STREAM)).await);
    }
}

impl Connection {
    /// Speaks SPDY on `io`. A connection on which nothing has been read or written for
    /// `idle` is broken off.
    pub(in crate::stream) fn new(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        idle: Duration,
    ) -> Self {
        let (read, write) = tokio::io::split(io);
        let (to, messages) = mpsc::channel(MESSAGES_OUT);
        let (open, opened) = mpsc::channel(WAITING);
        let gone = CancellationToken::new();
        let written = Arc::new(std::sync::Mutex::new(Instant::now()));
        let reader =
            Reader { streams: HashMap::new(), last: 0, open, to: to.clone(), gone: gone.clone() };
        let reading = {
            let (gone, written) = (gone.clone(), written.clone());
            async move {
                let ended = tokio::select! {
                    ended = reader.run(read, idle, &written) => ended,
                    () = gone.cancelled() => Ok(()),
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a SPDY connection broke");
                }
                gone.cancel();
            }
        };
        let writing = {
            let gone = gone.clone();
            async move {
                tokio::select! {
                    ended = write_all(messages, write, &written) => if let Err(error) = ended {
                        tracing::debug!(%error, "a SPDY connection broke");
                        gone.cancel();
                    },
                    () = gone.cancelled() => {}
                }
            }
        };
        let (reader, writer) = (tokio::spawn(reading), tokio::spawn(writing));
        Self { opened, to, gone, reader, writer }
    }

    /// The next stream; `None`: the client is gone.
    pub(in crate::stream) async fn next(&mut self) -> Option<Opened> {
        self.opened.recv().await
    }

    /// Says good-bye after everything that was sent, and waits a while for the client to
    /// close.
    pub(in crate::stream) async fn close(mut self) {
        drop(self.to.send(Message::Close).await);
        self.opened.close();
        // Both end as well when the client is gone or the idle limit has passed.
        drop((&mut self.writer).await);
        drop(timeout(LINGER, &mut self.reader).await);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// What the reading task knows of a stream.
struct Entry {
    /// `None`: the client has ended it.
    pieces: Option<mpsc::Sender<Bytes>>,
    life: Weak<Life>,
}

struct Reader {
    streams: HashMap<StreamId, Entry>,
    last: StreamId,
    open: mpsc::Sender<Opened>,
    to: mpsc::Sender<Message>,
    gone: CancellationToken,
}

impl Reader {
    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        idle: Duration,
        written: &std::sync::Mutex<Instant>,
    ) -> io::Result<()> {
        let mut decoder = Decoder::default();
        loop {
            while let Some(frame) = decoder.decode().map_err(io::Error::other)? {
                self.take(frame).await;
            }
            decoder.buffer.reserve(PIECE);
            match timeout(idle, from.read_buf(&mut decoder.buffer)).await {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let last = *written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if last.elapsed() >= idle {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { id, fin, headers, .. } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, data } => {
                let Some(entry) = self.streams.get_mut(&id) else { return };
                if let Some(pieces) = &entry.pieces
                    && !data.is_empty()
                    && pieces.send(data).await.is_err()
                {
                    // Nobody reads it any more; what comes yet is dropped.
                    entry.pieces = None;
                }
                if fin {
                    entry.pieces = None;
                }
            }
            Frame::RstStream { id, .. } => {
                let entry = self.streams.remove(&id);
                if let Some(life) = entry.and_then(|entry| entry.life.upgrade()) {
                    life.gone.cancel();
                }
            }
            Frame::Headers { id, fin: true, .. } => {
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.pieces = None;
                }
            }
            Frame::Ping(id) => self.say(Message::Pong(id)).await,
            // No windows; GOAWAY is followed by the end of the connection.
            Frame::SynReply { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. } => {}
        }
    }

    async fn open(&mut self, id: StreamId, fin: bool, headers: Headers) {
        if id <= self.last || id.is_multiple_of(2) {
            return self.say(Message::Reset(id, status::PROTOCOL_ERROR)).await;
        }
        self.last = id;
        self.streams.retain(|_, entry| entry.life.strong_count() > 0);
        if self.streams.len() >= MAX_STREAMS {
            return self.say(Message::Reset(id, status::REFUSED_STREAM)).await;
        }
        let life = Arc::new(Life { gone: self.gone.child_token() });
        let (pieces, receiver) = mpsc::channel(PIECES_IN);
        let entry = Entry { pieces: (!fin).then_some(pieces), life: Arc::downgrade(&life) };
        self.streams.insert(id, entry);
        let incoming = Incoming { pieces: receiver, _life: life.clone() };
        let outgoing = Outgoing { id, to: self.to.clone(), life };
        if self.open.send(Opened { id, headers, incoming, outgoing }).await.is_err() {
            self.say(Message::Reset(id, status::REFUSED_STREAM)).await;
        }
    }

    /// The writer ends with the connection, and then this has no one to tell.
    async fn say(&self, message: Message) {
        drop(self.to.send(message).await);
    }
}

async fn write_all(
    mut messages: mpsc::Receiver<Message>,
    mut to: impl AsyncWrite + Unpin,
    written: &std::sync::Mutex<Instant>,
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut batch = Vec::new();
    while let Some(message) = messages.recv().await {
        let mut next = Some(message);
        let mut last = false;
        while let Some(message) = next.take() {
            last = matches!(message, Message::Close);
            encoder.encode(&frame(message), &mut batch);
            if !last && batch.len() < BATCH {
                next = messages.try_recv().ok();
            }
        }
        to.write_all(&batch).await?;
        to.flush().await?;
        batch.clear();
        *written.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        if last {
            break;
        }
    }
    to.shutdown().await
}

fn frame(message: Message) -> Frame {
    match message {
        Message::Data(id, data) => Frame::Data { id, fin: false, data },
        Message::End(id) => Frame::Data { id, fin: true, data: Bytes::new() },
        Message::Accept(id) => Frame::SynReply { id, fin: false, headers: Headers::default() },
        Message::Reset(id, status) => Frame::RstStream { id, status },
        Message::Pong(id) => Frame::Ping(id),
        // No stream is said to be the last one taken: clients don't look.
        Message::Close => Frame::GoAway { last: 0, status: 0 },
    }
}

#[cfg(test)]
mod tests;
