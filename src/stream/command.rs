//! Exec and attach: a process' streams joined to a client's.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::channel::{Incoming, Outgoing, PIECE};
use super::spdy::connection::Connection;
use super::status::{self, Outcome};

/// After a command has ended, how long its outputs may be silent before they count as ended:
/// something it has left running may hold them open for ever.
const SILENCE: Duration = Duration::from_millis(500);
/// Bytes read from an output after the command's end: a full pipe, the largest that is
/// allowed without privilege (pipe(7)).
const MAX_AFTER_END: usize = 1024 * 1024;
/// Bytes of an unfinished terminal size.
const MAX_SIZE_TEXT: usize = 1024;

/// A boxed future.
pub type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;
/// Starts what the client asked for; or says why it can't be.
pub type Start = Box<dyn FnOnce() -> Future<Result<Process, String>> + Send>;

/// Which streams a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// What has been started. Its streams are dropped when the client is gone; what becomes of
/// the process then is not this room's.
pub struct Process {
    /// Dropped when the client ends its side.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Of a terminal, everything.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Never with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Sets a terminal's columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// Its exit code, or why its end was not seen.
    pub ended: Future<Result<i32, String>>,
}

/// A client's streams, all of them open.
pub(super) struct Streams {
    pub(super) error: Outgoing,
    pub(super) stdin: Option<(Incoming, Outgoing)>,
    pub(super) stdout: Option<Outgoing>,
    pub(super) stderr: Option<Outgoing>,
    pub(super) resize: Option<Incoming>,
}

/// Serves a session over SPDY: waits at most `limit` for its streams, and runs it.
pub(super) async fn over_spdy(
    mut connection: Connection,
    protocol: u8,
    wanted: Wanted,
    start: Start,
    limit: Duration,
) {
    match timeout(limit, collect(&mut connection, protocol, wanted)).await {
        Ok(Some(streams)) => run(streams, protocol, start).await,
        Ok(None) => {}
        Err(_) => tracing::info!(
            seconds = limit.as_secs(),
            "a client did not open the streams of its session in time"
        ),
    }
    connection.close().await;
}

/// `None`: the client is gone.
async fn collect(connection: &mut Connection, protocol: u8, wanted: Wanted) -> Option<Streams> {
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    let sizes = wanted.tty && protocol >= 3;
    loop {
        let missing = error.is_none()
            || (wanted.stdin && stdin.is_none())
            || (wanted.stdout && stdout.is_none())
            || (wanted.stderr && stderr.is_none())
            || (sizes && resize.is_none());
        if !missing {
            let error = error?;
            return Some(Streams { error, stdin, stdout, stderr, resize });
        }
        let opened = connection.next().await?;
        match opened.headers.get("streamtype") {
            Some("error") if error.is_none() => error = Some(opened.accept().await.1),
            Some("stdin") if wanted.stdin && stdin.is_none() => stdin = Some(opened.accept().await),
            Some("stdout") if wanted.stdout && stdout.is_none() => {
                stdout = Some(opened.accept().await.1);
            }
            Some("stderr") if wanted.stderr && stderr.is_none() => {
                stderr = Some(opened.accept().await.1);
            }
            Some("resize") if sizes && resize.is_none() => resize = Some(opened.accept().await.0),
            _ => opened.refuse().await,
        }
    }
}

/// Runs a session to the process' end, or until the client is gone.
pub(super) async fn run(streams: Streams, protocol: u8, start: Start) {
    let Streams { error, stdin, stdout, stderr, resize } = streams;
    let outcome = match start().await {
        Err(why) => Outcome::Failed(why),
        Ok(process) => {
            let (end, ended) = watch::channel(false);
            let feeding = tokio::spawn(feed(stdin, process.stdin));
            let sizing = tokio::spawn(size(resize, process.resize));
            let outputs = async {
                tokio::join!(
                    carry(process.stdout, stdout, ended.clone()),
                    carry(process.stderr, stderr, ended.clone()),
                );
            };
            tokio::pin!(outputs);
            let whole = async {
                let mut process_ended = process.ended;
                let mut carried = false;
                let result = loop {
                    tokio::select! {
                        result = &mut process_ended => break result,
                        () = &mut outputs, if !carried => carried = true,
                    }
                };
                end.send_replace(true);
                if !carried {
                    outputs.await;
                }
                result
            };
            let result = tokio::select! {
                result = whole => Some(result),
                () = error.gone() => None,
            };
            feeding.abort();
            sizing.abort();
            match result {
                Some(Ok(code)) => Outcome::Exited(code),
                Some(Err(why)) => Outcome::Failed(why),
                None => return,
            }
        }
    };
    if let Some(text) = status::text(&outcome, protocol)
        && error.send(text).await.is_err()
    {
        return;
    }
    error.end().await;
}

/// Carries what the client sends to the process until either has enough.
async fn feed(from: Option<(Incoming, Outgoing)>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let Some((mut from, back)) = from else { return };
    if let Some(mut to) = to {
        while let Some(piece) = from.next().await {
            let written = async {
                to.write_all(&piece).await?;
                to.flush().await
            };
            if written.await.is_err() {
                // It reads no more. What comes yet is dropped, and the client told.
                break;
            }
        }
    }
    drop(from);
    back.end().await;
}

/// Carries an output to the client until it ends. Of what the command has left running when
/// it ended, only what comes at once is taken.
async fn carry(
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    to: Option<Outgoing>,
    mut ended: watch::Receiver<bool>,
) {
    let Some(to) = to else { return };
    let mut after_end = 0;
    if let Some(mut from) = from {
        let mut buffer = BytesMut::new();
        while after_end < MAX_AFTER_END {
            buffer.reserve(PIECE);
            let over = *ended.borrow();
            let read = if over {
                let Ok(read) = timeout(SILENCE, from.read_buf(&mut buffer)).await else { break };
                read
            } else {
                tokio::select! {
                    biased;
                    read = from.read_buf(&mut buffer) => read,
                    changed = ended.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => break,
                    },
                }
            };
            // A terminal that nobody holds open any more gives an error (EIO).
            let Ok(length @ 1..) = read else { break };
            if over {
                after_end += length;
            }
            if to.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
    }
    to.end().await;
}

/// Sets a terminal's size as often as the client says one: JSON objects in a row.
async fn size(from: Option<Incoming>, set: Option<Box<dyn Fn(u16, u16) + Send + Sync>>) {
    let (Some(mut from), Some(set)) = (from, set) else { return };
    let mut text = Vec::new();
    while let Some(piece) = from.next().await {
        for (columns, rows) in sizes(&mut text, &piece) {
            set(columns, rows);
        }
    }
}

/// Reads sizes, for the fuzz target.
#[cfg(fuzzing)]
pub(super) async fn fuzz_sizes(mut pieces: tokio::sync::mpsc::Receiver<Bytes>) {
    let mut text = Vec::new();
    while let Some(piece) = pieces.recv().await {
        sizes(&mut text, &piece);
        assert!(text.len() <= MAX_SIZE_TEXT);
    }
}

/// The sizes that are whole now; what is begun stays in `text`.
fn sizes(text: &mut Vec<u8>, piece: &Bytes) -> Vec<(u16, u16)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    text.extend_from_slice(piece);
    let mut all = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut found = Vec::new();
    let broken = loop {
        match all.next() {
            Some(Ok(size)) => found.push((size.width, size.height)),
            // What is only begun is an end of file too early.
            Some(Err(error)) => break !error.is_eof(),
            None => break false,
        }
    };
    let done = all.byte_offset();
    text.drain(..done);
    if broken || text.len() > MAX_SIZE_TEXT {
        text.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut text = Vec::new();
        let mut feed = |piece: &'static str| sizes(&mut text, &piece.into());
        assert_eq!(feed("{\"Width\":80,\"Hei"), []);
        assert_eq!(feed("ght\":24}\n"), [(80, 24)]);
        let two = "{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}\n{";
        assert_eq!(feed(two), [(1, 2), (3, 4)]);
        assert_eq!(feed("\"Width\":5,\"Height\":6}"), [(5, 6)]);
        assert_eq!(feed("{\"Width\":-5,\"Height\":6}"), []);
        assert_eq!(feed("{\"Width\":7,\"Height\":8}"), [(7, 8)]);
    }
}
