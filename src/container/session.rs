//! Running a command in a container with its streams handed out: Exec.
//!
//! Unlike ExecSync's, such a command is never killed: who drops its streams closes them.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::UnixListener;
use tokio::net::unix::pipe;

use super::exec::{Scratch, Wanted};
use super::{Error, Place};
use crate::oci::{self, Runtime};
use crate::sys::socket;

/// In the scratch directory.
const CONSOLE: &str = "console";

/// Which streams are wanted; with a terminal there is no standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A command that has been started, or is being so.
pub struct Session {
    /// The command's standard input, or its terminal.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output, or its terminal.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Sets its terminal's columns and rows. The terminal hangs up when this and the streams
    /// are gone.
    pub resize: Option<Resize>,
    /// Its exit code.
    pub ended: Ended,
}

/// Sets a terminal's columns and rows.
pub type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;
/// What resolves to an exit code.
pub type Ended = Pin<Box<dyn Future<Output = Result<i32, Error>> + Send>>;

/// Starts `command` as the container's own user, in its environment.
pub async fn start(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    streams: Streams,
) -> Result<Session, Error> {
    let name = command.first().cloned().unwrap_or_default();
    let id = place.id.clone();
    let failed = move |why: String| Error::Exec { id, command: name, why };

    let mut scratch = Scratch::new(runtime, place)?;
    let console = streams.tty.then(|| Console::listen(&scratch.dir)).transpose()?;
    let wanted = if streams.tty {
        Wanted::default()
    } else {
        Wanted { stdin: streams.stdin, stdout: streams.stdout, stderr: streams.stderr }
    };
    let path = console.as_ref().map(|console| console.path.as_path());
    let (mut child, ends) = scratch.start(runtime, place, command, path, wanted)?;

    let master = match console {
        None => None,
        Some(console) => tokio::select! {
            biased;
            master = console.receive() => {
                Some(master.map_err(|error| failed.clone()(format!("no terminal: {error}")))?)
            }
            ended = child.wait() => {
                let words = oci::exec_failure(&scratch.dir);
                let ended = || format!("the runtime gave no terminal and ended: {ended:?}");
                return Err(failed(words.unwrap_or_else(ended)));
            }
        },
    };
    let (broken, lost) = (failed.clone(), failed.clone());
    // A task of its own: it goes on whether or not it is waited for.
    let task = tokio::spawn(async move {
        let status = child.wait().await.map_err(|error| failed.clone()(error.to_string()))?;
        scratch.finished(status).map_err(failed)
    });
    let ended: Ended =
        Box::pin(async move { task.await.unwrap_or_else(|panic| Err(lost(panic.to_string()))) });
    if let Some(master) = master {
        return on_terminal(master, streams, ended)
            .map_err(|error| broken(format!("its terminal is of no use: {error}")));
    }
    Ok(Session {
        stdin: ends.stdin.map(|stdin| Box::new(stdin) as _),
        stdout: ends.stdout.map(|stdout| Box::new(stdout) as _),
        stderr: ends.stderr.map(|stderr| Box::new(stderr) as _),
        resize: None,
        ended,
    })
}

fn on_terminal(master: OwnedFd, streams: Streams, ended: Ended) -> std::io::Result<Session> {
    rustix::io::ioctl_fionbio(&master, true)?;
    // A terminal is read and written as a pipe is.
    let writer = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
    Ok(Session {
        stdin: streams.stdin.then(|| Box::new(writer) as _),
        stdout: streams.stdout.then(|| Box::new(reader) as _),
        stderr: None,
        resize: Some(Box::new(move |columns, rows| {
            let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
            if let Err(error) = tcsetwinsize(&master, size) {
                tracing::debug!(%error, "a terminal's size can't be set");
            }
        })),
        ended,
    })
}

/// Where the runtime sends a terminal's master to.
struct Console {
    listener: UnixListener,
    /// By way of the directory's descriptor: a socket's path has an end at 107 bytes.
    path: PathBuf,
    /// Held for `path`.
    _dir: std::fs::File,
}

impl Console {
    fn listen(dir: &Path) -> Result<Self, Error> {
        let failed = || Error::io("cannot make a socket in", dir);
        let held = std::fs::File::open(dir).map_err(failed())?;
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}/{CONSOLE}",
            std::process::id(),
            held.as_raw_fd()
        ));
        let listener = UnixListener::bind(&path).map_err(failed())?;
        Ok(Self { listener, path, _dir: held })
    }

    async fn receive(self) -> std::io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        let received = stream.async_io(Interest::READABLE, || socket::receive_fd(&stream)).await?;
        received.ok_or_else(|| std::io::Error::other("the runtime sent no descriptor"))
    }
}
