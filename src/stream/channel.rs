//! One stream of a connection, whatever the protocol: bytes that come and bytes that go.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces of a stream that wait for whoever reads it; each is at most one read of the
/// connection. When they are full, the whole connection waits: the protocols have no windows.
pub(super) const PIECES_IN: usize = 4;
/// Messages that wait to be written to a connection.
pub(super) const MESSAGES_OUT: usize = 16;
/// Bytes of one read, of a connection or of what is copied to it.
pub(super) const PIECE: usize = 32 * 1024;

/// The client is gone, or has reset the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// What is written to a connection; the numbers are the streams'.
#[derive(Debug)]
pub(super) enum Message {
    Data(u32, Bytes),
    End(u32),
    /// SPDY only: the stream is accepted.
    Accept(u32),
    /// SPDY only: it is reset, with a status.
    Reset(u32, u32),
    /// SPDY only: the answer to a PING.
    Pong(u32),
    /// Everything has been said.
    Close,
}

/// What the halves of a stream share: the connection keeps a stream while this lives.
#[derive(Debug)]
pub(super) struct Life {
    /// Cancelled when the client resets the stream or is gone.
    pub(super) gone: CancellationToken,
}

/// What the client sends.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) pieces: mpsc::Receiver<Bytes>,
    pub(super) _life: Arc<Life>,
}

impl Incoming {
    /// The next piece; `None`: the client has ended the stream, or is gone.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

/// What is sent to the client.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) id: u32,
    pub(super) to: mpsc::Sender<Message>,
    pub(super) life: Arc<Life>,
}

impl Outgoing {
    /// Waits while the client is behind.
    pub(super) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.message(Message::Data(self.id, data)).await
    }

    /// No more will come. A client that is gone need not be told.
    pub(super) async fn end(self) {
        drop(self.message(Message::End(self.id)).await);
    }

    /// Resolves when the client has reset the stream or is gone.
    pub(super) async fn gone(&self) {
        self.life.gone.cancelled().await;
    }

    async fn message(&self, message: Message) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.life.gone.cancelled() => Err(Gone),
            sent = self.to.send(message) => sent.map_err(|_| Gone),
        }
    }
}
