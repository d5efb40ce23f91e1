//! The daemon's side of a monitor's socket.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::attach;
use super::exit_record;
use super::link::{Link, LinkState, Waiting, encode, follow, open, refusal, send, unexpected};
use super::run_dir::STDERR;
use super::wire::{
    Ask, Event, Inventory, Process, Reply, Request, SandboxSpec, StartSpec, Started,
};
use crate::sys::socket;

/// How long a monitor may take from exec until it listens.
const SPAWN_LIMIT: Duration = Duration::from_secs(20);

/// How long the answer to a request may take that a monitor gives at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a start may take: more than the monitor gives the runtime for it and for undoing
/// it.
const START_LIMIT: Duration = Duration::from_secs(150);

/// Before a start whose answer was lost is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is shown of a failed monitor's standard error, in bytes.
const MAX_COMPLAINT: u64 = 4 * 1024;

/// The daemon's PATH where it has none: runtimes look for their own helpers.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a request to a monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor is gone: killed, or never there.
    #[error("the pod's monitor is gone")]
    Gone,
    /// It did what it could; its own words.
    #[error("{0}")]
    Refused(String),
    /// It lives, and whether it did what was asked is not known.
    #[error("{0}")]
    Unanswered(String),
}

impl Error {
    /// Nobody is there to ask again.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }
}

/// What comes from a monitor unasked.
///
/// An exit can be told before the answer to the container's own start is seen, since the two
/// come by different ways; and it can be told twice, when a connection had to be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something happened.
    Event(Event),
    /// The connection ended and the monitor is not there any more. Comes once, last.
    Gone,
}

/// A live connection. Cheap to clone; the last clone's drop closes the socket, which the
/// monitor takes as the daemon's being away.
#[derive(Debug, Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

/// What the clones share. The tasks hold the link alone, so that they don't keep it alive.
#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    reader: JoinHandle<()>,
    pid: i32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Monitor {
    /// Starts a monitor that outlives this process: own session, no inherited descriptors,
    /// its standard error to `<dir>/monitor.log`. `dir` exists and is the pod's own run
    /// directory: socket, exit records and pid file go there.
    ///
    /// Its environment is PATH alone, so that no OCI runtime acts on what is meant for this
    /// process (`NOTIFY_SOCKET`, `LISTEN_FDS`).
    pub async fn spawn(
        executable: PathBuf,
        dir: PathBuf,
        notices: mpsc::Sender<Notice>,
    ) -> Result<Self, Error> {
        let refused =
            |what: String| move |error: io::Error| Error::Refused(what + &error.to_string());
        let log = dir.join(STDERR);
        let stderr = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(refused(format!("cannot open {}: ", log.display())))?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let mut child = Command::new(&executable)
            .arg("--dir")
            .arg(&dir)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(refused(format!("cannot start {}: ", executable.display())))?;
        let stdout = child.stdout.take();
        let ready = timeout(SPAWN_LIMIT, async {
            let mut said = [0; 6];
            match stdout {
                Some(mut stdout) => stdout.read_exact(&mut said).await.map(|_| said),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            }
        });
        let is_ready = matches!(ready.await, Ok(Ok(said)) if &said == b"ready\n");
        if !is_ready {
            // The kill fails only if it has ended, and waiting then gives its code.
            let killed = child.start_kill();
            let ended = child.wait().await.map(|status| status.to_string());
            let how = ended.unwrap_or_else(|error| error.to_string());
            drop(killed);
            let said = last_words(&log);
            return Err(Error::Refused(format!("the pod's monitor did not start ({how}): {said}")));
        }
        // Reaped here when it ends while this process runs.
        tokio::spawn(async move { child.wait().await.map(drop).unwrap_or_default() });
        Self::connect(dir, notices).await.map(|(monitor, _)| monitor)
    }

    /// Connects to the monitor that runs in `dir`.
    pub async fn connect(
        dir: PathBuf,
        notices: mpsc::Sender<Notice>,
    ) -> Result<(Self, Inventory), Error> {
        let (socket, inventory) = open(&dir).await?;
        let pid = socket::peer_pid(socket.as_fd())
            .map_err(|error| Error::Refused(format!("the monitor's credentials: {error}")))?;
        let state = LinkState { socket: Some(socket.clone()), waiting: HashMap::new() };
        let link = Arc::new(Link {
            dir,
            next_id: AtomicU64::new(1),
            has_pause: AtomicBool::new(inventory.pause.is_some()),
            state: Mutex::new(state),
        });
        let reader = tokio::spawn(follow(link.clone(), socket, notices));
        Ok((Self { inner: Arc::new(Inner { link, reader, pid }) }, inventory))
    }

    /// The monitor's number, as it was when this connected.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// Whether a monitor serves `dir`, be it that none can be talked to: it holds a lock
    /// until its end.
    pub fn lives(dir: &Path) -> bool {
        super::run_dir::is_locked(dir)
    }

    /// Exit records left in `dir` by a monitor that is gone.
    pub fn exits_on_disk(dir: &Path) -> Vec<(String, super::wire::Exit)> {
        exit_record::all(dir)
    }

    /// Makes namespaces and pause.
    pub async fn sandbox(&self, spec: SandboxSpec) -> Result<Process, Error> {
        match self.ask("sandbox", Ask::Sandbox(spec), ANSWER_LIMIT).await? {
            Reply::Pause(process) => {
                self.inner.link.has_pause.store(true, Ordering::Relaxed);
                Ok(process)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a container. The same again joins the start under way, or gives its result: so
    /// it is asked again where an answer was lost.
    pub async fn start(&self, spec: StartSpec) -> Result<Started, Error> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let ask = if spec.restore.is_some() { Ask::Restore } else { Ask::Start };
            match self.ask("start", ask(spec.clone()), left).await {
                Ok(Reply::Started(started)) => return Ok(started),
                Ok(other) => return Err(unexpected(&other)),
                Err(Error::Unanswered(_)) if Instant::now() < end => sleep(ASK_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Signals a container's init.
    pub async fn signal(&self, container: &str, signal: i32) -> Result<(), Error> {
        self.done("signal", Ask::Signal { container: container.into(), signal }).await
    }

    /// Reopens a log.
    pub async fn reopen_log(&self, container: &str) -> Result<(), Error> {
        self.done("reopen_log", Ask::ReopenLog { container: container.into() }).await
    }

    /// Drops an exited container.
    pub async fn forget(&self, container: &str) -> Result<(), Error> {
        self.done("forget", Ask::Forget { container: container.into() }).await
    }

    /// Ends pause and monitor.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.done("shutdown", Ask::Shutdown).await
    }

    async fn done(&self, name: &str, ask: Ask) -> Result<(), Error> {
        match self.ask(name, ask, ANSWER_LIMIT).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// One request and its reply.
    async fn ask(&self, name: &str, ask: Ask, limit: Duration) -> Result<Reply, Error> {
        let link = &self.inner.link;
        let id = link.next_id.fetch_add(1, Ordering::Relaxed);
        let packet = encode(&Request { id, body: ask })?;
        let (sender, receiver) = oneshot::channel();
        let socket = {
            let mut state = link.lock();
            let socket = state.socket.clone().ok_or(Error::Gone)?;
            state.waiting.insert(id, sender);
            socket
        };
        let _forget = Waiting { link, id };
        let answer = timeout(limit, async {
            // A socket that takes no packet is one whose loss is about to be seen.
            send(&socket, &packet).await.ok()?;
            receiver.await.ok()
        });
        match answer.await {
            Ok(Some(reply)) => refusal(reply),
            Ok(None) if link.lock().socket.is_none() => Err(Error::Gone),
            Ok(None) => Err(Error::Unanswered(format!(
                "the connection to the pod's monitor was lost before its answer to \"{name}\""
            ))),
            Err(_) => Err(Error::Unanswered(format!(
                "the pod's monitor did not answer \"{name}\" within {} s",
                limit.as_secs()
            ))),
        }
    }
}

/// A connection that carries a container's streams.
#[derive(Debug)]
pub struct Attachment(super::link::Socket);

/// What comes of a container.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal's.
    Out(Vec<u8>),
    /// Standard error.
    Err(Vec<u8>),
    /// There is no more.
    Ended,
}

impl Attachment {
    /// Attaches to a container that runs, by the monitor that serves `dir`.
    pub async fn open(
        dir: &Path,
        container: &str,
        (stdin, stdout, stderr): (bool, bool, bool),
    ) -> Result<Self, Error> {
        let body = Ask::Attach { container: container.into(), stdin, stdout, stderr };
        super::link::turn(dir, &Request { id: 0, body }).await.map(Self)
    }

    /// The next piece; an error: the monitor is gone, or has found this reader too slow.
    pub async fn next(&self) -> io::Result<Output> {
        loop {
            let packet =
                self.0.reading(|fd| socket::receive_packet(fd, super::wire::MAX_PACKET)).await?;
            let mut packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
            match packet.remove(0) {
                attach::OUT => return Ok(Output::Out(packet)),
                attach::ERR => return Ok(Output::Err(packet)),
                attach::ENDED => return Ok(Output::Ended),
                // A later monitor may say what this build doesn't know.
                _ => {}
            }
        }
    }

    /// Sends input, at most 64 KiB; nothing: its end.
    pub async fn input(&self, input: &[u8]) -> io::Result<()> {
        let packet = [&[attach::INPUT], input].concat();
        super::link::send(&self.0, &packet).await
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
        super::link::send(&self.0, &[attach::SIZE, a, b, c, d]).await
    }
}

/// The end of a monitor's standard error.
fn last_words(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(MAX_COMPLAINT)))?;
        let mut text = Vec::new();
        file.take(MAX_COMPLAINT).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    match read() {
        Ok(text) if text.is_empty() => "it said nothing".into(),
        Ok(text) => text,
        Err(error) => format!("its words in {} can't be read: {error}", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_monitor_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (notices, _taken) = mpsc::channel(1);
        let error = Monitor::connect(dir.path().into(), notices.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Gone), "{error:?}");
        let error = Monitor::connect(dir.path().join("none"), notices).await.unwrap_err();
        assert!(matches!(error, Error::Gone), "{error:?}");
    }

    #[tokio::test]
    async fn a_monitor_that_does_not_start_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (notices, _taken) = mpsc::channel(1);
        let none = dir.path().join("none");
        let error = Monitor::spawn(none.clone(), dir.path().into(), notices.clone()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(none.to_str().unwrap()), "{error}");
        let error = Monitor::spawn("/bin/false".into(), dir.path().into(), notices).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did not start") && error.contains("it said nothing"), "{error}");
    }
}
