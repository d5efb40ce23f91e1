//! The listener: who is answered, and what is where.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::feed::Feed;
use super::html::{POLICY, View};
use super::metrics::{self, Metrics};
use crate::cri::Face;

/// Connections at once; more are closed as they come.
const CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head, or to send another on its connection.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What answers. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    face: Face,
    feed: Feed,
    metrics: Arc<Metrics>,
    node: Arc<str>,
    /// Only this machine reaches the listener.
    loopback: bool,
}

/// Binds the listener.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    TcpListener::bind(address).await
}

impl Server {
    /// A server of this node's pods, on a listener that is bound to `address`. Everything that
    /// this process measures from now on is counted: there can be one only.
    pub fn new(face: Face, node: &str, address: IpAddr) -> io::Result<Self> {
        let metrics = metrics::listen();
        let metrics = metrics.ok_or_else(|| io::Error::other("something is counting already"))?;
        let feed = Feed::new(face.clone());
        Ok(Self { face, feed, metrics, node: node.into(), loopback: address.is_loopback() })
    }

    /// Serves for as long as it is polled.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection to the status page");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let server = self.clone();
            tokio::spawn(async move {
                server.connection(stream).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: TcpStream) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_LIMIT));
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the status page ended");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if self.loopback && !names_this_machine(request) {
            // A page from elsewhere whose name was made to lead here.
            let why = "haled answers here to its address or \"localhost\" only\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, why);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => {
                let document = View::of(&self.face.list()).document(&self.node);
                let mut page = response(StatusCode::OK, "text/html; charset=utf-8", document);
                if let Ok(policy) = HeaderValue::from_str(&POLICY) {
                    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                }
                page
            }
            "/events" => self.events(),
            "/metrics" => self.metrics().await,
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            _ => plain(
                StatusCode::NOT_FOUND,
                "not here; there are /, /events, /metrics and /healthz\n",
            ),
        }
    }

    fn events(&self) -> Response<Body> {
        let Some(events) = self.feed.follow() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let frames = events.map(|event| Ok::<_, Infallible>(Frame::data(event)));
        with_headers(
            StatusCode::OK,
            "text/event-stream; charset=utf-8",
            StreamBody::new(frames).boxed_unsync(),
        )
    }

    async fn metrics(&self) -> Response<Body> {
        let images = match self.face.images_on_disk().await {
            Ok((count, usage)) => Some((count, usage.bytes)),
            Err(error) => {
                tracing::warn!(%error, "cannot measure the images for the metrics");
                None
            }
        };
        match self.metrics.text(&self.face.list(), images) {
            Ok(text) => response(StatusCode::OK, metrics::MEDIA_TYPE, text),
            Err(error) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("cannot write metrics: {error}\n"),
            ),
        }
    }
}

/// Whether a request is for an address or `localhost`, as everything on this machine asks: a
/// browser that a stranger's page leads here gives the stranger's name.
fn names_this_machine(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    is_this_machine(host.unwrap_or_default())
}

fn is_this_machine(host: &str) -> bool {
    let authority = host.parse::<hyper::http::uri::Authority>();
    authority.is_ok_and(|authority| {
        let name = authority.host();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    })
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn response(status: StatusCode, media_type: &'static str, text: String) -> Response<Body> {
    with_headers(status, media_type, Full::new(Bytes::from(text)).boxed_unsync())
}

fn with_headers(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for good in ["localhost", "LOCALHOST:9470", "127.0.0.1:9470", "[::1]:9470", "10.0.0.1"] {
            assert!(is_this_machine(good), "{good}");
        }
        for bad in ["", "evil.example", "localhost.evil.example:9470", "127.0.0.1.nip.io", "a b"] {
            assert!(!is_this_machine(bad), "{bad}");
        }
    }
}
