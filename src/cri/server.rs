//! The socket: who may connect, and what is served on it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::sys::stat::{Mode, umask};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Status};

use super::Face;
use crate::pod::orchestrator::{Open, Presence};
use crate::proto::cri::image_service_server::ImageServiceServer;
use crate::proto::cri::runtime_service_server::RuntimeServiceServer;
use crate::proto::haled::haled_server::HaledServer;

/// The largest message taken and sent, in bytes: the kubelet's own limit.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Binds the socket, readable and writable by its owner alone. A socket that a daemon has
/// left behind is replaced, but never one that something listens on.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) => {
            use std::os::unix::fs::FileTypeExt as _;
            if !there.file_type().is_socket() {
                return Err(io::Error::other("there is a file there that is no socket"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("another program listens on it already"));
            }
            std::fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // By the umask, so that there is no moment at which others may connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Serves until `shutdown` resolves, and lets running calls end.
pub async fn serve(
    face: Face,
    listener: UnixListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let presence = face.pods.services().presence.clone();
    let connections = UnixListenerStream::new(listener)
        .map(move |stream| stream.map(|stream| Connection::new(stream, &presence)));
    let runtime = RuntimeServiceServer::new(face.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let image = ImageServiceServer::new(face.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Server::builder()
        // An orchestrator is known by the use of the CRI, so only its services are noted.
        .add_service(InterceptedService::new(runtime, note_use))
        .add_service(InterceptedService::new(image, note_use))
        .add_service(
            HaledServer::new(face)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .serve_with_incoming_shutdown(connections, shutdown)
        .await
}

/// Notes that a connection is used.
#[allow(clippy::unnecessary_wraps)]
fn note_use(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(open) = request.extensions().get::<Arc<Open>>() {
        open.used(std::time::Instant::now());
    }
    Ok(request)
}

/// A client's connection; its drop ends its presence.
struct Connection {
    stream: UnixStream,
    open: Arc<Open>,
}

impl Connection {
    fn new(stream: UnixStream, presence: &Presence) -> Self {
        Self { stream, open: Arc::new(presence.open(std::time::Instant::now())) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Open>;

    fn connect_info(&self) -> Arc<Open> {
        self.open.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
