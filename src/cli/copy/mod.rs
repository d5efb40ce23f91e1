//! `halectl cp`: files between here and a container, by tar run in the container, as kubectl
//! has it.
//!
//! What comes out of a container is hostile: `unpack` says what is taken of it.

mod unpack;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::proto::cri::{ExecRequest, ExecSyncRequest};

use super::client::{self, Address};
use super::options::CopyArgs;
use super::output::{complain, plain};
use super::session::{Ended, From, Input, PIECE, PIECES};
use super::{Failure, Outcome, archive, names, pods, session};
use unpack::Target;

/// What tar says that is kept, in bytes.
const MAX_WORDS: usize = 4 << 10;
/// Files named that were left out; the rest is counted.
const MOST_NAMED: usize = 20;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Here(PathBuf),
    /// The pod as it was named, and the path there.
    Pod(String, String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pod, path) = match text.split_once(':') {
            // A name begins with neither: so files with a colon can be named, too.
            Some(parts) if !text.starts_with(['/', '.']) => parts,
            _ if text.is_empty() => return Err("the path is missing".to_owned()),
            _ if text == "-" => {
                let instead = "halectl exec POD -- tar cf - PATH writes one";
                return Err(format!(
                    "a stream isn't copied: {instead}; ./- is a file of that name"
                ));
            }
            _ => return Ok(Self::Here(text.into())),
        };
        if pod.is_empty() || path.is_empty() {
            return Err("POD:PATH is wanted, or a path of this machine".to_owned());
        }
        Ok(Self::Pod(pod.to_owned(), path.to_owned()))
    }
}

/// `halectl cp`.
pub(super) async fn copy(address: &Address, namespace: &str, args: CopyArgs) -> Outcome {
    let (pod, is_upload) = match (&args.from, &args.to) {
        (Place::Here(_), Place::Pod(pod, _)) => (pod, true),
        (Place::Pod(pod, _), Place::Here(_)) => (pod, false),
        _ => {
            let why = "one of the two must be POD:PATH, and the other a path of this machine";
            return Err(Failure::Message(why.to_owned()));
        }
    };
    let pod = pods::one(address, namespace, pod).await?;
    let container = names::running(&pod, args.container.as_deref()).map_err(Failure::Message)?;
    let there = There { address, container: container.id.clone(), name: container.name.clone() };
    match (args.from, args.to, is_upload) {
        (Place::Here(from), Place::Pod(_, to), true) => there.upload(&from, &to).await?,
        (Place::Pod(_, from), Place::Here(to), false) => there.download(&from, &to).await?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A container.
struct There<'a> {
    address: &'a Address,
    container: String,
    name: String,
}

impl There<'_> {
    async fn upload(&self, from: &Path, to: &str) -> Result<(), Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::Message(format!("cannot read {}: {error}", from.display()))
        };
        // What a link leads to is copied, not the link.
        let source = from.canonicalize().map_err(|error| cannot(&error))?;
        let own = source.file_name().map(|name| name.to_string_lossy().into_owned());
        let (dir, name) = if self.is_dir(to).await? {
            let name = own.ok_or_else(|| cannot(&"it has no name: copy what is in it"))?;
            (to.to_owned(), name)
        } else {
            split(to)
        };
        let command = ["tar", "xmf", "-", "-C", &dir].map(str::to_owned);
        let (pieces, stdin) = mpsc::channel(PIECES);
        let packing = tokio::task::spawn_blocking(move || {
            let out = io::BufWriter::with_capacity(PIECE, Sender(pieces));
            archive::write_as(&source, Path::new(&name), out)
        });
        let (ended, words) = self.tar(command.into(), Some(stdin), async |_| Ok(())).await?;
        let packed = packing.await.map_err(|panic| cannot(&panic))?;
        // Where tar has gone early its words say why; else a file that can't be read is the
        // cause of whatever it says.
        match packed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot(&error)),
            packed => {
                self.well(&ended, &words)?;
                left_out(packed.unwrap_or_default().iter().map(|path| path.display().to_string()));
                Ok(())
            }
        }
    }

    async fn download(&self, from: &str, to: &Path) -> Result<(), Failure> {
        let (dir, name) = split(from);
        let command = ["tar", "cf", "-", "-C", &dir, &format!("./{name}")].map(str::to_owned);
        let target = Target::new(to, &name).map_err(Failure::Message)?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let unpacking = tokio::task::spawn_blocking(move || target.unpack(Receiver::new(pieces)));
        let taken = self
            .tar(command.into(), None, async move |piece| {
                // Where the unpacking has failed, its own error is told.
                sender.send(piece).await.map_err(|_| Failure::ReaderGone)
            })
            .await;
        let unpacked = unpacking.await.map_err(|panic| Failure::Message(panic.to_string()))?;
        let unpacked = unpacked.map_err(Failure::Message)?;
        let (ended, words) = taken?;
        left_out(unpacked.left_out.iter().map(|name| plain(name)));
        self.well(&ended, &words)?;
        if unpacked.files + unpacked.directories == 0 {
            return Err(Failure::Message(format!("nothing was copied of {from}")));
        }
        Ok(())
    }

    /// Runs tar; gives how it ended and what it said.
    async fn tar(
        &self,
        cmd: Vec<String>,
        stdin: Option<mpsc::Receiver<Bytes>>,
        mut take: impl AsyncFnMut(Bytes) -> Result<(), Failure>,
    ) -> Result<(Ended, String), Failure> {
        let request = ExecRequest {
            container_id: self.container.clone(),
            cmd,
            tty: false,
            stdin: stdin.is_some(),
            stdout: true,
            stderr: true,
        };
        let url = client::runtime(self.address).await?.exec(request).await?.into_inner().url;
        let mut words = Vec::new();
        let ended =
            session::run(&url, Input { stdin, sizes: None }, async |from, piece| match from {
                From::Stdout => take(piece).await,
                From::Stderr => {
                    let room = MAX_WORDS.saturating_sub(words.len());
                    words.extend_from_slice(&piece[..piece.len().min(room)]);
                    Ok(())
                }
            });
        let ended = ended.await?;
        Ok((ended, plain(String::from_utf8_lossy(&words).trim_end())))
    }

    /// Or what tar said that ended otherwise than well.
    fn well(&self, ended: &Ended, words: &str) -> Result<(), Failure> {
        let name = &self.name;
        let why = match ended {
            Ended::Exited(0) => return Ok(()),
            Ended::Exited(code) if words.is_empty() => format!("tar exited with {code}"),
            Ended::Exited(_) => words.to_owned(),
            Ended::Failed(why) if why.contains("not found") => {
                "there is no tar in its image, and cp needs one, as kubectl's does".to_owned()
            }
            Ended::Failed(why) => plain(why),
        };
        Err(Failure::Message(format!("container \"{name}\": {why}")))
    }

    async fn is_dir(&self, path: &str) -> Result<bool, Failure> {
        let request = ExecSyncRequest {
            container_id: self.container.clone(),
            cmd: ["test", "-d", path].map(str::to_owned).into(),
            timeout: 0,
        };
        let answer = client::runtime(self.address).await?.exec_sync(request).await?;
        Ok(answer.into_inner().exit_code == 0)
    }
}

/// A path in a container: the directory, and the name in it. `.`: all that is in it.
fn split(path: &str) -> (String, String) {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return ("/".to_owned(), ".".to_owned());
    }
    let (dir, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((dir, name)) => (dir, name),
        None => (".", trimmed),
    };
    match name {
        "." | ".." => (trimmed.to_owned(), ".".to_owned()),
        name => (dir.to_owned(), name.to_owned()),
    }
}

fn left_out(names: impl ExactSizeIterator<Item = String>) {
    let count = names.len();
    for name in names.take(MOST_NAMED) {
        complain(&format!("left out: {name}"));
    }
    if count > MOST_NAMED {
        complain(&format!("left out: {} more", count - MOST_NAMED));
    }
}

/// What is written goes to the session.
struct Sender(mpsc::Sender<Bytes>);

impl io::Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes from the session is read.
struct Receiver {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Receiver {
    fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, rest: Bytes::new() }
    }
}

impl io::Read for Receiver {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(into.len()));
        into[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_paths_here_or_in_a_pod() {
        let pod = |pod: &str, path: &str| Ok(Place::Pod(pod.into(), path.into()));
        let here = |path: &str| Ok(Place::Here(path.into()));
        assert_eq!("web:/etc/hosts".parse(), pod("web", "/etc/hosts"));
        assert_eq!("ns/web:a:b".parse(), pod("ns/web", "a:b"));
        assert_eq!("./a:b".parse(), here("./a:b"));
        assert_eq!("/a:b".parse(), here("/a:b"));
        assert_eq!("plain".parse(), here("plain"));
        for bad in ["", ":x", "web:"] {
            bad.parse::<Place>().expect_err(bad);
        }
    }

    #[test]
    fn paths_are_split_for_tar() {
        let both = |path| {
            let (dir, name) = split(path);
            format!("{dir} {name}")
        };
        for (path, parts) in [
            ("/etc/hosts", "/etc hosts"),
            ("/etc/", "/ etc"),
            ("/", "/ ."),
            ("a", ". a"),
            ("a/b/", "a b"),
            ("/a/.", "/a/. ."),
            ("..", ".. ."),
            ("-x", ". -x"),
        ] {
            assert_eq!(both(path), parts, "{path}");
        }
    }
}
