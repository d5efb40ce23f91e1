//! The connection to haled, and what its failures are called.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::proto::cri::runtime_service_client::RuntimeServiceClient;
use crate::proto::haled::haled_client::HaledClient;
use crate::proto::haled::images_client::ImagesClient;

use super::Failure;

/// The longest message that is taken, in bytes; the kubelet's own limit.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;

/// What listens on the socket is asked after this long whether it lives, and then has as long to
/// answer: not the call itself, which may take its time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where haled listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    path: PathBuf,
    origin: &'static str,
}

impl Address {
    /// As the daemon's configuration has it.
    pub(super) const DEFAULT: &'static str = "unix:///run/haled/haled.sock";

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Who says so, in words.
    pub(super) fn origin(&self) -> &'static str {
        self.origin
    }

    /// The same, and who says so.
    pub(super) fn said_by(self, origin: &'static str) -> Self {
        Self { origin, ..self }
    }

    /// What the command line says, else HALED_ADDRESS unless it is empty, else the default.
    pub(super) fn settled(given: Option<Self>) -> Result<Self, String> {
        if let Some(given) = given {
            return Ok(given);
        }
        let (text, origin) = match std::env::var("HALED_ADDRESS") {
            Ok(text) if !text.is_empty() => (text, "by HALED_ADDRESS"),
            _ => (Self::DEFAULT.to_owned(), "the default"),
        };
        let address: Self = text.parse().map_err(|why| format!("HALED_ADDRESS={text}: {why}"))?;
        Ok(address.said_by(origin))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = match text.strip_prefix("unix:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if text.contains("://") => {
                return Err("only unix:///PATH or a path is understood".to_owned());
            }
            None => text,
        };
        if path.is_empty() {
            return Err("the socket's path is missing".to_owned());
        }
        Ok(Self { path: path.into(), origin: "by --socket" })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// haled v1.
pub(super) async fn haled(address: &Address) -> Result<HaledClient<Channel>, Failure> {
    Ok(HaledClient::new(channel(address).await?).max_decoding_message_size(MESSAGE_LIMIT))
}

/// haled v1's Images.
pub(super) async fn own_images(address: &Address) -> Result<ImagesClient<Channel>, Failure> {
    Ok(ImagesClient::new(channel(address).await?).max_decoding_message_size(MESSAGE_LIMIT))
}

/// The CRI's RuntimeService.
pub(super) async fn runtime(address: &Address) -> Result<RuntimeServiceClient<Channel>, Failure> {
    let channel = channel(address).await?;
    Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
}

async fn channel(address: &Address) -> Result<Channel, Failure> {
    // Connected here and handed over, so that the system's own answer is at hand.
    let stream = UnixStream::connect(address.path())
        .await
        .map_err(|error| Failure::Message(unreachable(address, &error)))?;
    let first = Arc::new(Mutex::new(Some(stream)));
    let path = address.path().to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let path = path.clone();
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The name goes into :authority and nowhere else.
    let endpoint = Endpoint::from_static("http://localhost")
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true);
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Failure::Message(format!("what listens at {address} is not haled: {why}"))
    })
}

fn unreachable(address: &Address, error: &io::Error) -> String {
    use std::os::unix::fs::FileTypeExt as _;
    let other = "say where it listens: --socket PATH, or HALED_ADDRESS";
    let start = "is haled running? Start it: systemctl start haled";
    let is_socket = std::fs::metadata(address.path()).map(|there| there.file_type().is_socket());
    let why = match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such socket; {start}; or {other}"),
        io::ErrorKind::PermissionDenied => {
            "permission denied: only root may use it; try again with sudo".to_owned()
        }
        io::ErrorKind::InvalidInput => {
            format!("no socket has so long a path, the kernel's limit is 107 bytes; {other}")
        }
        io::ErrorKind::NotADirectory => format!("a part of the path is no directory; {other}"),
        _ if is_socket.is_ok_and(|is_socket| !is_socket) => {
            format!("that is no socket; {other}")
        }
        io::ErrorKind::ConnectionRefused => format!("nobody listens on it; {start}; or {other}"),
        _ => error.to_string(),
    };
    format!("cannot reach haled at {address} ({}): {why}", address.origin())
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // The client's own trouble has a cause; what haled answered has none.
        if let Some(cause) = status.source() {
            let mut cause: &dyn std::error::Error = cause;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            return Self::Message(match cause.to_string() {
                // What hyper says of a keep-alive that was not answered.
                why if why == "operation timed out" => {
                    "haled doesn't answer: what listens on its socket takes calls and says nothing"
                        .to_owned()
                }
                // What the system says is of a connection that was one.
                why if cause.is::<io::Error>() => format!("the connection to haled broke: {why}"),
                why => format!("what listens on the socket is not haled: {why}"),
            });
        }
        match status.message() {
            "" => Self::Message(format!("haled answered: {}", status.code().description())),
            message => Self::Message(message.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_urls_or_paths() {
        let path = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(path(Address::DEFAULT), Ok("/run/haled/haled.sock".into()));
        assert_eq!(path("unix:/a/b"), Ok("/a/b".into()));
        assert_eq!(path("/a/b"), Ok("/a/b".into()));
        assert_eq!(path("here.sock"), Ok("here.sock".into()));
        for bad in ["", "unix://", "unix:", "tcp://127.0.0.1:1", "http://x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_haled_answered_is_told_plainly() {
        let told = |status| match Failure::from(status) {
            Failure::Message(message) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(Status::not_found("no pod \"a\"")), "no pod \"a\"");
        let empty = told(Status::deadline_exceeded(""));
        assert!(empty.starts_with("haled answered: "), "{empty}");
    }
}
