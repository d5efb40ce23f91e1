//! The daemon's connection to a monitor: kept up, read to its end, made again when lost.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::client::{Error, Notice};
use super::run_dir::SOCKET;
use super::wire::{Ask, Event, Inventory, MAX_PACKET, Reply, Request, Say, VERSION, speaks};
use crate::sys::readiness::Registered;
use crate::sys::socket;

/// How long connecting may take: a monitor accepts between two events.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Notices that may wait for the pod's driver. A monitor keeps no more than 256 containers,
/// so a driver that is so far behind is stuck, and the connection ends.
const MAX_NOTICES: usize = 1024;

/// Between two attempts to make a lost connection again: the first, and the most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) type Socket = Arc<Registered>;

/// The connection of the moment, and who waits for what.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) dir: PathBuf,
    pub(super) next_id: AtomicU64,
    /// A pause process was told of, so its absence would be news.
    pub(super) has_pause: AtomicBool,
    pub(super) state: Mutex<LinkState>,
}

#[derive(Debug)]
pub(super) struct LinkState {
    /// `None`: the monitor is gone.
    pub(super) socket: Option<Socket>,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Reply>>,
}

/// Takes a request off the list of those waited for, however its waiting ends.
pub(super) struct Waiting<'l> {
    pub(super) link: &'l Link,
    pub(super) id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.lock().waiting.remove(&self.id);
    }
}

impl Link {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, LinkState> {
        // What is inside stays whole whatever panics: it is a map and a handle.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the monitor is gone, and says so.
pub(super) async fn follow(link: Arc<Link>, mut socket: Socket, notices: mpsc::Sender<Notice>) {
    let (queue, waiting) = mpsc::channel(MAX_NOTICES);
    let forwarder = tokio::spawn(forward(waiting, notices.clone()));
    let _stop = AbortOnDrop(forwarder.abort_handle());
    let mut pause = Duration::ZERO;
    loop {
        if read_all(&link, &socket, &queue, &mut pause).await.is_err() {
            tracing::error!(dir = %link.dir.display(), "the pod's driver takes no notices");
            break;
        }
        // What was asked can't be asked again here: some of it may have been done.
        link.lock().waiting.clear();
        let Some((again, inventory)) = open_again(&link.dir, &mut pause).await else { break };
        socket = again;
        {
            let mut state = link.lock();
            state.socket = Some(socket.clone());
            state.waiting.clear();
        }
        let missed = missed(inventory, link.has_pause.load(Ordering::Relaxed));
        if missed.into_iter().any(|event| queue.try_send(Notice::Event(event)).is_err()) {
            break;
        }
    }
    {
        let mut state = link.lock();
        state.socket = None;
        state.waiting.clear();
    }
    drop(queue);
    // What is queued goes first. It ends when all has been taken, or nobody listens.
    if forwarder.await.is_ok() && notices.send(Notice::Gone).await.is_err() {
        tracing::debug!(dir = %link.dir.display(), "nobody listens for the monitor's end");
    }
}

/// Stops the forwarding when reading is stopped.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What an inventory tells that events may have told.
fn missed(inventory: Inventory, had_pause: bool) -> Vec<Event> {
    let exited = |entry: super::wire::Entry| {
        Some(Event::Exited { container: entry.container, exit: entry.exit? })
    };
    let mut events: Vec<Event> = inventory.containers.into_iter().filter_map(exited).collect();
    if had_pause && inventory.pause.is_none() {
        events.push(Event::PauseExited);
    }
    events
}

/// Passes notices on, so that a slow taker holds no reply up.
async fn forward(mut from: mpsc::Receiver<Notice>, to: mpsc::Sender<Notice>) {
    while let Some(notice) = from.recv().await {
        if to.send(notice).await.is_err() {
            return;
        }
    }
}

/// Connects until it succeeds, less and less often; `None`: the monitor is gone. One that
/// can't take a connection now may be out of descriptors, or stopped: its pod lives on.
async fn open_again(dir: &Path, pause: &mut Duration) -> Option<(Socket, Inventory)> {
    loop {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).clamp(BACK_OFF.0, BACK_OFF.1);
        match open(dir).await {
            Ok(opened) => return Some(opened),
            Err(Error::Gone) => return None,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot reconnect to a monitor");
            }
        }
    }
}

/// The queue of notices is full.
struct Full;

/// Reads one connection to its end.
async fn read_all(
    link: &Link,
    socket: &Socket,
    queue: &mpsc::Sender<Notice>,
    pause: &mut Duration,
) -> Result<(), Full> {
    loop {
        match receive(socket).await {
            Ok(Some(Say::Reply { id, body })) => {
                *pause = Duration::ZERO;
                if let Some(waiting) = link.lock().waiting.remove(&id) {
                    // Whoever asked may have been cancelled.
                    waiting.send(body).unwrap_or_default();
                }
            }
            Ok(Some(Say::Event(event))) => {
                *pause = Duration::ZERO;
                match queue.try_send(Notice::Event(event)) {
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => return Err(Full),
                }
            }
            // A later monitor may say what this build doesn't know.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(dir = %link.dir.display(), %error, "a monitor's packet was passed over");
            }
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}

/// Connects and says hello. `Gone`: nobody listens there.
pub(super) async fn open(dir: &Path) -> Result<(Socket, Inventory), Error> {
    let work = async {
        let socket = connect(dir).await?;
        let hello = encode(&Request { id: 0, body: Ask::Hello { version: VERSION } })?;
        let closed = || Error::Refused("the pod's monitor closed the connection".into());
        send(&socket, &hello).await.map_err(|_| closed())?;
        loop {
            match receive(&socket).await {
                Ok(Some(Say::Reply { id: 0, body })) => match refusal(body)? {
                    Reply::Inventory(inventory) if speaks(VERSION, inventory.version) => {
                        return Ok((socket, inventory));
                    }
                    Reply::Inventory(inventory) => {
                        return Err(Error::Refused(format!(
                            "the pod's monitor speaks version {}, this haled {VERSION} and the \
                             one before",
                            inventory.version
                        )));
                    }
                    other => return Err(unexpected(&other)),
                },
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Error::Refused(format!("the pod's monitor: {error}")));
                }
                // One that has ended refuses the next connection.
                Ok(None) | Err(_) => return Err(closed()),
            }
        }
    };
    timeout(CONNECT_LIMIT, work).await.unwrap_or_else(|_| {
        let seconds = CONNECT_LIMIT.as_secs();
        Err(Error::Refused(format!("the pod's monitor did not say hello within {seconds} s")))
    })
}

/// A connection of its own that one request turns into something else.
pub(super) async fn turn(dir: &Path, request: &Request) -> Result<Socket, Error> {
    let packet = encode(request)?;
    let work = async {
        let socket = connect(dir).await?;
        let lost = |error| Error::Unanswered(format!("the pod's monitor: {error}"));
        send(&socket, &packet).await.map_err(lost)?;
        match receive(&socket).await.map_err(lost)? {
            Some(Say::Reply { body, .. }) => match refusal(body)? {
                Reply::Done => Ok(socket),
                other => Err(unexpected(&other)),
            },
            _ => Err(Error::Refused("the pod's monitor closed the connection".into())),
        }
    };
    timeout(CONNECT_LIMIT, work).await.unwrap_or_else(|_| {
        let seconds = CONNECT_LIMIT.as_secs();
        Err(Error::Unanswered(format!("the pod's monitor did not answer within {seconds} s")))
    })
}

async fn connect(dir: &Path) -> Result<Socket, Error> {
    /// Between two tries while the monitor's backlog is full.
    const PAUSE: Duration = Duration::from_millis(10);
    let refused = |error: io::Error| {
        Error::Refused(format!("cannot connect to the monitor in {}: {error}", dir.display()))
    };
    let directory = match std::fs::File::open(dir) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Gone),
        Err(error) => return Err(refused(error)),
    };
    loop {
        match socket::connect_at(directory.as_fd(), SOCKET) {
            Ok(socket) => return Ok(Arc::new(Registered::new(socket).map_err(refused)?)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Err(Error::Gone);
                }
                _ => return Err(refused(error)),
            },
        }
    }
}

pub(super) async fn send(socket: &Socket, packet: &[u8]) -> io::Result<()> {
    socket.writing(|fd| socket::send_packet(fd, packet)).await
}

async fn receive(socket: &Socket) -> io::Result<Option<Say>> {
    let packet = socket.reading(|fd| socket::receive_packet(fd, MAX_PACKET)).await?;
    let parse = |packet: Vec<u8>| serde_json::from_slice(&packet);
    packet.map(parse).transpose().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(super) fn encode(request: &Request) -> Result<Vec<u8>, Error> {
    let packet = serde_json::to_vec(request)
        .map_err(|error| Error::Refused(format!("the request can't be said in JSON: {error}")))?;
    if packet.len() > MAX_PACKET {
        let length = packet.len();
        return Err(Error::Refused(format!(
            "the request is {length} bytes long, {MAX_PACKET} are the most"
        )));
    }
    Ok(packet)
}

pub(super) fn refusal(reply: Reply) -> Result<Reply, Error> {
    match reply {
        Reply::Error { message } => Err(Error::Refused(message)),
        other => Ok(other),
    }
}

pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::Refused(format!("the pod's monitor answered something else: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::client::Monitor;
    use super::super::wire::Process;
    use super::*;

    #[test]
    fn a_daemon_speaks_with_its_own_version_and_the_one_before() {
        assert!(speaks(VERSION, VERSION));
        assert!(speaks(3, 3));
        assert!(speaks(3, 2));
        assert!(!speaks(3, 1));
        assert!(!speaks(3, 4));
        assert!(!speaks(1, 0));
        assert!(!speaks(1, u32::MAX - 1));
    }

    /// A monitor played by a thread: one script of packets for each connection in turn.
    fn played(dir: &Path, connections: Vec<Vec<Step>>) -> std::thread::JoinHandle<()> {
        let directory = std::fs::File::open(dir).unwrap();
        let kind = socket::Kind::SEQPACKET;
        let listener = socket::listen_at(directory.as_fd(), SOCKET, kind, 4).unwrap();
        let path = dir.join(SOCKET);
        std::thread::spawn(move || {
            for steps in connections {
                let connection = patiently(|| socket::accept(&listener).unwrap());
                for step in steps {
                    match step {
                        Step::Reads => {
                            patiently(|| socket::receive_packet(&connection, MAX_PACKET).ok());
                        }
                        Step::Replies(body) => {
                            let packet =
                                patiently(|| socket::receive_packet(&connection, MAX_PACKET).ok());
                            let request: Request =
                                serde_json::from_slice(&packet.unwrap()).unwrap();
                            let text =
                                format!(r#"{{"reply":{{"id":{},"body":{body}}}}}"#, request.id);
                            socket::send_packet(&connection, text.as_bytes()).unwrap();
                        }
                        Step::Says(text) => {
                            socket::send_packet(&connection, text.as_bytes()).unwrap();
                        }
                    }
                }
            }
            std::fs::remove_file(path).unwrap();
        })
    }

    enum Step {
        Reads,
        Says(&'static str),
        /// Reads a request and replies to it with this body.
        Replies(&'static str),
    }

    fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
        let end = std::time::Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(value) = attempt() {
                return value;
            }
            assert!(std::time::Instant::now() < end, "the daemon's side does nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn hello() -> Step {
        Step::Says(
            r#"{"reply":{"id":0,"body":{"inventory":{"version":1,"pause":{"pid":7,"start_ticks":8}}}}}"#,
        )
    }

    #[tokio::test]
    async fn a_lost_connection_is_made_again_and_what_was_missed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let back = r#"{"reply":{"id":0,"body":{"inventory":{"version":1,"containers":[
            {"container":"c","started":{"init":{"pid":1,"start_ticks":2},"at":3},
             "exit":{"code":4}}]}}}}"#;
        let thread = played(
            dir.path(),
            vec![
                vec![Step::Reads, hello(), Step::Reads],
                vec![
                    Step::Reads,
                    Step::Says(back),
                    Step::Says(r#"{"event":{"of_a_later":"version"}}"#),
                    Step::Says(r#"{"reply":{"id":99,"body":"done"}}"#),
                ],
            ],
        );
        let (sender, mut notices) = mpsc::channel(8);
        let (monitor, inventory) = Monitor::connect(dir.path().into(), sender).await.unwrap();
        assert_eq!(inventory.pause, Some(Process { pid: 7, start_ticks: 8 }));
        let error = monitor.forget("c").await.unwrap_err();
        assert!(matches!(&error, Error::Unanswered(said) if said.contains("lost")), "{error:?}");
        let exit = super::super::wire::Exit { code: 4, ..Default::default() };
        let exited = Event::Exited { container: "c".into(), exit };
        assert_eq!(notices.recv().await, Some(Notice::Event(exited)));
        assert_eq!(notices.recv().await, Some(Notice::Event(Event::PauseExited)));
        assert_eq!(notices.recv().await, Some(Notice::Gone));
        assert_eq!(notices.recv().await, None);
        assert!(matches!(monitor.forget("c").await.unwrap_err(), Error::Gone));
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_monitor_that_takes_no_connection_now_is_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let started = r#"{"started":{"init":{"pid":1,"start_ticks":2},"at":3}}"#;
        let thread = played(
            dir.path(),
            vec![
                vec![Step::Reads, hello(), Step::Reads],
                vec![],
                vec![Step::Reads],
                vec![Step::Reads, hello(), Step::Replies(started), Step::Reads],
            ],
        );
        let (sender, mut notices) = mpsc::channel(8);
        let (monitor, _) = Monitor::connect(dir.path().into(), sender).await.unwrap();
        let spec = super::super::wire::StartSpec { container: "c".into(), ..Default::default() };
        assert_eq!(monitor.start(spec).await.unwrap().init.pid, 1);
        assert!(notices.try_recv().is_err(), "nothing is lost");
        drop(monitor);
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_monitor_of_another_time_is_refused_with_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let later = Step::Says(r#"{"reply":{"id":0,"body":{"inventory":{"version":9}}}}"#);
        let thread = played(dir.path(), vec![vec![Step::Reads, later]]);
        let (sender, _notices) = mpsc::channel(1);
        let error = Monitor::connect(dir.path().into(), sender).await.unwrap_err().to_string();
        assert!(error.contains("version 9") && error.contains("haled 1"), "{error}");
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_driver_that_takes_no_notices_holds_no_reply_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = vec![Step::Reads, hello()];
        steps.extend((0..20).map(|_| Step::Says(r#"{"event":"pause_exited"}"#)));
        let done = Step::Says(r#"{"reply":{"id":1,"body":"done"}}"#);
        steps.extend([Step::Reads, done, Step::Reads]);
        let thread = played(dir.path(), vec![steps]);
        let (sender, mut notices) = mpsc::channel(1);
        let (monitor, _) = Monitor::connect(dir.path().into(), sender).await.unwrap();
        monitor.forget("c").await.unwrap();
        for _ in 0..20 {
            assert_eq!(notices.recv().await, Some(Notice::Event(Event::PauseExited)));
        }
        drop(monitor);
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        assert_eq!(notices.recv().await, None, "an end of our own making is no loss");
    }
}
