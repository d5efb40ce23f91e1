//! The HTTP side: a request with a token becomes a session.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming as Body;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::command::{self, Start, Wanted};
use super::negotiate::{self, ACCEPTED, Refusal, VERSION};
use super::port_forward::{self, Connect};
use super::spdy::connection::Connection;
use super::tls::{Files, Tls, Unservable};
use super::token::Tokens;
use super::websocket::{self, Codec};

/// Sessions at once; more connections wait.
const MAX_SESSIONS: usize = 512;
/// How long a client may take to send its request; and before that, for TLS's handshake.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SPDY: &str = "SPDY/3.1";

/// Where and how it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Port 0: any that is free.
    pub address: SocketAddr,
    /// A session on which nothing has moved for this long is broken off.
    pub idle: Duration,
    /// How long a client may take to open the streams of its session.
    pub creation: Duration,
    /// Without, what is said is not encrypted.
    pub tls: Option<Files>,
}

/// One of [`MAX_SESSIONS`]; shared by all that belongs to the session.
type Place = Arc<OwnedSemaphorePermit>;

/// What a token stands for.
enum Session {
    Exec(Wanted, Start),
    Attach(Wanted, Start),
    /// With the ports that the CRI's caller has named.
    PortForward(Vec<u16>, Connect),
}

impl Session {
    /// The first part of its URL's path.
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec(..) => "exec",
            Self::Attach(..) => "attach",
            Self::PortForward(..) => "portforward",
        }
    }
}

/// Gives URLs for sessions.
#[derive(Clone)]
pub struct Server {
    tokens: Arc<Mutex<Tokens<Session>>>,
    base: String,
    tls: Option<Arc<Tls>>,
    settings: Settings,
}

/// Too many URLs have been given and not used.
#[derive(Debug, thiserror::Error)]
#[error("too many streaming sessions wait for their client; try again")]
pub struct TooMany;

impl Server {
    /// Listens; [`Server::serve`] does the rest.
    pub async fn bind(settings: Settings) -> Result<(Self, TcpListener), Unservable> {
        let tls = settings.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = settings.address;
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            Ok((listener.local_addr()?, listener))
        };
        let (bound, listener) =
            bound.await.map_err(|error| Unservable::Listen { address, error })?;
        let base = format!("{scheme}://{bound}");
        Ok((Self { tokens: Arc::default(), base, tls, settings }, listener))
    }

    /// The URL of a command to execute.
    pub fn exec(&self, wanted: Wanted, start: Start) -> Result<String, TooMany> {
        self.url(Session::Exec(wanted, start))
    }

    /// The URL of a container to attach to.
    pub fn attach(&self, wanted: Wanted, start: Start) -> Result<String, TooMany> {
        self.url(Session::Attach(wanted, start))
    }

    /// The URL of a pod whose ports are forwarded. A client that can't say which ports it
    /// wants gets `ports`.
    pub fn port_forward(&self, ports: Vec<u16>, connect: Connect) -> Result<String, TooMany> {
        self.url(Session::PortForward(ports, connect))
    }

    fn url(&self, session: Session) -> Result<String, TooMany> {
        let kind = session.kind();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.issue(session, Instant::now()).ok_or(TooMany)?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }

    fn redeem(&self, path: &str) -> Option<Session> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.redeem(token, Instant::now()).filter(|session| session.kind() == kind)
    }

    /// Accepts connections for ever.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_SESSIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a streaming connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let server = self.clone();
            tokio::spawn(async move {
                // Held by whatever the connection becomes.
                server.connection(stream, Arc::new(place)).await;
            });
        }
    }

    async fn connection(self, stream: TcpStream, place: Place) {
        if let Err(error) = crate::sys::socket::prepare_tcp(&stream) {
            tracing::debug!(%error, "a streaming connection can't be set up");
        }
        let Some(tls) = self.tls.clone() else { return self.requests(stream, place).await };
        let accepted = async {
            // It may read files.
            let config = tokio::task::spawn_blocking(move || tls.config()).await?;
            TlsAcceptor::from(config).accept(stream).await
        };
        match timeout(REQUEST_LIMIT, accepted).await {
            Ok(Ok(stream)) => self.requests(stream, place).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn requests(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        place: Place,
    ) {
        let service = service_fn(|request| {
            let (server, place) = (self.clone(), place.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(request, place)) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a streaming connection ended");
        }
    }

    fn answer(self, mut request: Request<Body>, place: Place) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        }
        let Some(session) = self.redeem(request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND, "404 page not found");
        };
        if negotiate::upgrades_to(request.headers(), "websocket") {
            return self.over_websocket(request, session, place);
        }
        let spoken = match session {
            Session::Exec(..) | Session::Attach(..) => negotiate::COMMAND,
            Session::PortForward(..) => negotiate::PORT_FORWARD,
        };
        let subprotocol = match negotiate::subprotocol(request.headers(), spoken) {
            Ok(subprotocol) => subprotocol,
            Err(refusal) => return refused(refusal, spoken),
        };
        if !negotiate::upgrades_to(request.headers(), SPDY) {
            let why = "unable to upgrade: missing upgrade headers in request".to_owned();
            return refused(Refusal::BadRequest(why), spoken);
        }
        let Settings { idle, creation, .. } = self.settings;
        hand_on(&mut request, place, move |upgraded| async move {
            let connection = Connection::new(upgraded, idle);
            let version = negotiate::version(subprotocol);
            match session {
                Session::Exec(wanted, start) | Session::Attach(wanted, start) => {
                    command::over_spdy(connection, version, wanted, start, creation).await;
                }
                Session::PortForward(_, connect) => {
                    port_forward::over_spdy(connection, connect, creation).await;
                }
            }
        });
        let mut response = switching(SPDY);
        response.headers_mut().insert(VERSION, HeaderValue::from_static(subprotocol));
        response
    }

    fn over_websocket(
        self,
        mut request: Request<Body>,
        mut session: Session,
        place: Place,
    ) -> Response<Full<Bytes>> {
        let spoken = match session {
            Session::Exec(..) | Session::Attach(..) => negotiate::COMMAND_WEBSOCKET,
            Session::PortForward(..) => negotiate::PORT_FORWARD_WEBSOCKET,
        };
        let subprotocol = match negotiate::websocket_subprotocol(request.headers(), spoken) {
            Ok(subprotocol) => subprotocol,
            Err(refusal) => return refused(refusal, spoken),
        };
        let tunnel = subprotocol == negotiate::TUNNEL;
        if let Session::PortForward(ports, _) = &mut session
            && !tunnel
            && let Err(why) = negotiate::ports(request.uri().query(), ports)
        {
            return plain(StatusCode::BAD_REQUEST, &why);
        }
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let accept = key.map(derive_accept_key).and_then(|accept| accept.try_into().ok());
        let Some(accept) = accept else {
            return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
        };
        let Settings { idle, creation, .. } = self.settings;
        let version = negotiate::version(subprotocol);
        let codec = Codec { version, base64: subprotocol.contains("base64") };
        hand_on(&mut request, place, move |upgraded| async move {
            match session {
                Session::Exec(wanted, start) | Session::Attach(wanted, start) => {
                    websocket::command(upgraded, codec, wanted, start, idle).await;
                }
                Session::PortForward(ports, connect) if !tunnel => {
                    websocket::ports(upgraded, codec, ports, connect, idle).await;
                }
                Session::PortForward(_, connect) => {
                    let connection = Connection::new(websocket::tunnel(upgraded).await, idle);
                    port_forward::over_spdy(connection, connect, creation).await;
                }
            }
        });
        let mut response = switching("websocket");
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        if !subprotocol.is_empty() {
            let chosen = HeaderValue::from_static(subprotocol);
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        response
    }
}

/// Has `serve` go on with the connection once it has changed its protocol. `place` is given
/// back when that is over.
fn hand_on<Served: Future<Output = ()> + Send>(
    request: &mut Request<Body>,
    place: Place,
    serve: impl FnOnce(TokioIo<Upgraded>) -> Served + Send + 'static,
) {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let _place = place;
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
}

fn switching(protocol: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

fn refused(refusal: Refusal, spoken: &[&'static str]) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::BadRequest(why) => plain(StatusCode::BAD_REQUEST, &why),
        Refusal::Forbidden(why) => {
            let mut response = plain(StatusCode::FORBIDDEN, &why);
            for protocol in spoken {
                response.headers_mut().append(ACCEPTED, HeaderValue::from_static(protocol));
            }
            response
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
