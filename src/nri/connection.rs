//! A plugin's connection: calls to it, and its calls, over one socket.
//!
//! Two tasks, one that reads and one that writes, so that nobody who calls is ever stuck with
//! half a frame written. When either ends, every call that waits is told so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::frame::{BadFrame, Callee, Decoder, Kind, Message};

/// Messages that may wait to be written.
const OUTGOING: usize = 16;
/// Calls of a plugin that are answered at once; more are refused.
const INCOMING: usize = 8;
/// Bytes read at once.
const READ: usize = 16 << 10;
/// The package of the services.
const PACKAGE: &str = "nri.pkg.api.v1alpha1";

/// Codes of ttrpc, which are gRPC's.
pub(super) const UNIMPLEMENTED: i32 = 12;
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNKNOWN: i32 = 2;

/// The envelope of a call.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

/// The envelope of an answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The connection is gone.
    #[error("its connection is closed")]
    Gone,
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// What it says can't be understood.
    #[error("{0}")]
    Garbled(String),
    /// The plugin's own answer: no.
    #[error("{message}")]
    Refused {
        /// gRPC's.
        code: i32,
        /// The plugin's words.
        message: String,
    },
}

/// Answers a plugin's calls: the method and its message, to a message or what is wrong.
pub(super) type Serve =
    Arc<dyn Fn(String, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// Calls that wait for their answers, and the number of the next.
struct Calls {
    waiting: HashMap<u32, oneshot::Sender<Response>>,
    next: u32,
}

/// One side of a plugin's connection: the runtime's. Closed when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::Sender<Vec<u8>>,
    closed: watch::Receiver<bool>,
    close: Arc<Closer>,
}

/// Closes when dropped, or before.
struct Closer {
    sender: watch::Sender<bool>,
    done: AtomicBool,
}

impl Closer {
    fn close(&self) {
        if !self.done.swap(true, Ordering::Relaxed) {
            self.sender.send_replace(true);
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connection {
    /// Begins to read and write.
    pub(super) fn new(stream: UnixStream, serve: Serve) -> Self {
        let (reader, writer) = stream.into_split();
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let (sender, closed) = watch::channel(false);
        let calls = Arc::new(Mutex::new(Calls { waiting: HashMap::new(), next: 1 }));
        let closer = Closer { sender: sender.clone(), done: AtomicBool::new(false) };
        let connection =
            Self { calls: calls.clone(), outgoing: outgoing.clone(), closed, close: closer.into() };
        tokio::spawn(write(writer, queue, sender.clone()));
        tokio::spawn(async move {
            let mut stop = sender.subscribe();
            let replies = outgoing.downgrade();
            drop(outgoing);
            tokio::select! {
                ended = read(reader, &calls, &serve, &replies) => if let Err(why) = ended {
                    tracing::warn!(why, "a plugin's connection is closed");
                },
                _ = stop.wait_for(|closed| *closed) => {}
            }
            sender.send_replace(true);
            // Whoever waits learns of it by its sender's end.
            lock(&calls).waiting.clear();
        });
        connection
    }

    /// Calls the plugin and waits for its answer, no longer than `limit`.
    pub(super) async fn call<Answer: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        let request = Request {
            service: format!("{PACKAGE}.Plugin"),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        let payload = request.encode_to_vec();
        let response = timeout(limit, self.exchange(payload))
            .await
            .unwrap_or(Err(CallError::TimedOut(limit)))?;
        match response.status {
            Some(Status { code, message }) if code != 0 => {
                Err(CallError::Refused { code, message })
            }
            _ => Answer::decode(&response.payload[..])
                .map_err(|error| CallError::Garbled(format!("its answer to {method}: {error}"))),
        }
    }

    async fn exchange(&self, payload: Vec<u8>) -> Result<Response, CallError> {
        let mut closed = self.closed.clone();
        let place = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return Err(CallError::Gone),
            place = self.outgoing.reserve() => place.map_err(|_| CallError::Gone)?,
        };
        let (sender, answer) = oneshot::channel();
        let stream = {
            // Numbers must be on the wire in their order.
            let mut calls = lock(&self.calls);
            let stream = calls.next;
            calls.next = calls.next.wrapping_add(2);
            let message = Message { callee: Callee::Plugin, stream, kind: Kind::Request, payload };
            let bytes = message.encode().map_err(|error| CallError::Garbled(error.to_string()))?;
            calls.waiting.insert(stream, sender);
            place.send(bytes);
            stream
        };
        let _forget = Forget { calls: &self.calls, stream };
        tokio::select! {
            answer = answer => answer.map_err(|_| CallError::Gone),
            _ = closed.wait_for(|closed| *closed) => Err(CallError::Gone),
        }
    }

    /// Closes it; calls that wait end with [`CallError::Gone`].
    pub(super) fn close(&self) {
        self.close.close();
    }

    /// Whether it can't be called any more.
    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until it is closed, by whichever side. Doesn't keep it open.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            // The sender's end is an end, too.
            drop(closed.wait_for(|closed| *closed).await);
        }
    }
}

/// A call that nobody waits for any more.
struct Forget<'a> {
    calls: &'a Mutex<Calls>,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.calls).waiting.remove(&self.stream);
    }
}

fn lock(calls: &Mutex<Calls>) -> std::sync::MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    closed: watch::Sender<bool>,
) {
    let mut stop = closed.subscribe();
    let written = async {
        while let Some(bytes) = queue.recv().await {
            if socket.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = written => {}
        _ = stop.wait_for(|closed| *closed) => {}
    }
    closed.send_replace(true);
}

/// Reads until the other side closes (`Ok`) or can't be understood.
async fn read(
    mut socket: OwnedReadHalf,
    calls: &Mutex<Calls>,
    serve: &Serve,
    replies: &mpsc::WeakSender<Vec<u8>>,
) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(INCOMING));
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ];
    loop {
        let count = socket.read(&mut buffer).await.map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(());
        }
        for message in decoder.take(&buffer[..count]).map_err(|error| error.to_string())? {
            match (message.callee, message.kind) {
                (Callee::Plugin, Kind::Response) => {
                    let response = Response::decode(&message.payload[..])
                        .map_err(|error| format!("a response: {error}"))?;
                    // An answer that comes too late is nobody's.
                    if let Some(waiting) = lock(calls).waiting.remove(&message.stream) {
                        drop(waiting.send(response));
                    }
                }
                (Callee::Runtime, Kind::Request) => {
                    let (serve, replies) = (serve.clone(), replies.clone());
                    let place = places.clone().try_acquire_owned();
                    tokio::spawn(async move {
                        let response = match place {
                            Ok(_place) => answer(&message.payload, &serve).await,
                            Err(_) => refusal(
                                RESOURCE_EXHAUSTED,
                                format!("{INCOMING} calls are being answered: wait for one"),
                            ),
                        };
                        reply(message.stream, &response, &replies).await;
                    });
                }
                (_, kind) => return Err(format!("a {kind:?} on the wrong connection")),
            }
        }
    }
}

async fn answer(payload: &[u8], serve: &Serve) -> Response {
    let request = match Request::decode(payload) {
        Ok(request) => request,
        Err(error) => return refusal(INVALID_ARGUMENT, format!("no request: {error}")),
    };
    if request.service != format!("{PACKAGE}.Runtime") {
        return refusal(UNIMPLEMENTED, format!("there is no service {}", request.service));
    }
    match serve(request.method, request.payload).await {
        Ok(payload) => Response { status: None, payload },
        Err(why) => refusal(UNKNOWN, why),
    }
}

fn refusal(code: i32, message: String) -> Response {
    Response { status: Some(Status { code, message }), payload: Vec::new() }
}

async fn reply(stream: u32, response: &Response, replies: &mpsc::WeakSender<Vec<u8>>) {
    let payload = response.encode_to_vec();
    let message = Message { callee: Callee::Runtime, stream, kind: Kind::Response, payload };
    let bytes = message.encode().or_else(|error: BadFrame| {
        let payload = refusal(RESOURCE_EXHAUSTED, error.to_string()).encode_to_vec();
        Message { callee: Callee::Runtime, stream, kind: Kind::Response, payload }.encode()
    });
    if let (Ok(bytes), Some(replies)) = (bytes, replies.upgrade()) {
        // A plugin that has gone needs no answer.
        drop(replies.send(bytes).await);
    }
}
