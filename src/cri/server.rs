//! The socket: who may connect, and what is served on it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::{Face, measure};
use crate::pod::orchestrator::Open;
use crate::proto::cri::image_service_server::ImageServiceServer;
use crate::proto::cri::runtime_service_server::RuntimeServiceServer;
use crate::proto::haled::haled_server::HaledServer;
use crate::proto::haled::images_server::ImagesServer;

/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
///
/// Without tonic's own server, which ends a call at its client's deadline with CANCELLED where
/// gRPC has DEADLINE_EXCEEDED: clients keep their own deadlines and then cancel the call.
pub async fn serve(face: Face, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    let presence = face.pods.services().presence.clone();
    let routes = routes(face);
    let running = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: some will be free again.
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let open = Arc::new(presence.open(std::time::Instant::now()));
        let routes = routes.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(open.clone());
            measure::call(routes.clone(), request)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let connection = running.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    running.shutdown().await;
}

fn routes(face: Face) -> Routes {
    let runtime = RuntimeServiceServer::new(face.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let image = ImageServiceServer::new(face.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let images = ImagesServer::new(face.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let haled = HaledServer::new(face)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    // An orchestrator is known by the use of the CRI, so only its services are noted.
    Routes::new(InterceptedService::new(runtime, note_use))
        .add_service(InterceptedService::new(image, note_use))
        .add_service(haled)
        .add_service(images)
        .prepare()
}

/// Notes that a connection is used.
#[allow(clippy::unnecessary_wraps)]
fn note_use(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(open) = request.extensions().get::<Arc<Open>>() {
        open.used(std::time::Instant::now());
    }
    Ok(request)
}
