//! One server of the distribution protocol: the connection, the time limits, the login.
//! Bytes leave here only through a bound, or as a stream that its reader bounds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::Error;
use super::challenge::Credentials;
use super::error::{innermost, with_causes};
use super::hosts::{self, Endpoint};
use super::{certificates, manifest};

/// Largest answer of a token server, in bytes.
const MAX_TOKEN: u64 = 64 << 10;
/// Largest error text taken from a registry, in bytes.
const MAX_ERROR: u64 = 4 << 10;
/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;

/// How long a server is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a TCP and TLS connection.
    pub(super) connect: Duration,
    /// A server that sends nothing for so long is given up.
    pub(super) inactivity: Duration,
    /// Wait after the first failure; doubled after each.
    pub(super) first_wait: Duration,
    /// Longest wait, also where the server asks for one (Retry-After): a server that asks
    /// for a longer one is given up.
    pub(super) longest_wait: Duration,
    /// A server that was waited for so long altogether has to have sent `pace_bytes`
    /// meanwhile, or is given up; then it counts anew.
    pub(super) pace_time: Duration,
    /// See `pace_time`.
    pub(super) pace_bytes: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            inactivity: Duration::from_secs(30),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(30),
            pace_time: Duration::from_mins(1),
            pace_bytes: 64 << 10,
        }
    }
}

/// One server's refusal or failure.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It has no such thing.
    Missing,
    /// Our credentials don't do.
    Unauthorized(String),
    /// May pass: a lost connection, a time-out, an overloaded server.
    Passing(String),
    /// As `Passing`, and it says when to come again.
    Busy(String, Duration),
    /// It can't give the rest of a blob; the whole may do.
    NoPart,
    /// Will be the same next time.
    Lasting(String),
    /// It doesn't speak this protocol: another one may do.
    Protocol(String),
    /// Nothing of the server's: ours.
    Local(Error),
}

impl Fault {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let text = if error.is_timeout() {
            "it sends nothing (timed out)".to_owned()
        } else {
            innermost(error)
        };
        if error.is_builder() || error.is_redirect() {
            Self::Lasting(text)
        } else {
            Self::Passing(text)
        }
    }
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// A manifest or an index.
    Manifest,
    /// Only the headers of one.
    ManifestHead,
    /// A blob from this byte on.
    Blob { from: u64 },
}

/// A server, our connection to it and our login there, for one pull.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    client: reqwest::Client,
    headers: HeaderMap,
    patience: Patience,
    /// The Authorization header that was accepted last.
    login: Mutex<Option<HeaderValue>>,
}

impl Server {
    pub(super) fn new(endpoint: Endpoint, patience: &Patience) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        let wrong = |cause: String| Error::Registry { image: endpoint.host().to_owned(), cause };
        for (name, value) in &endpoint.headers {
            let bad = || wrong(format!("the header \"{name}\" of its hosts.toml is not valid"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        let client = build_client(&endpoint, &headers, patience, Redirects::Follow)?;
        Ok(Self { endpoint, client, headers, patience: *patience, login: Mutex::new(None) })
    }

    pub(super) fn login(&self) -> Option<HeaderValue> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_login(&self, value: HeaderValue) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    pub(super) async fn send(
        &self,
        url: &Url,
        login: Option<&HeaderValue>,
        ask: Ask,
    ) -> Result<Response, Fault> {
        let mut request = match ask {
            Ask::Manifest => self.client.get(url.clone()).header(ACCEPT, manifest::ACCEPT),
            Ask::ManifestHead => self.client.head(url.clone()).header(ACCEPT, manifest::ACCEPT),
            Ask::Blob { from: 0 } => self.client.get(url.clone()),
            Ask::Blob { from } => {
                self.client.get(url.clone()).header(RANGE, format!("bytes={from}-"))
            }
        };
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login.clone());
        }
        request.send().await.map_err(|error| Fault::of(&error))
    }

    /// The body of an answer, bounded in time.
    pub(super) fn body(&self, response: Response) -> Body {
        Body::new(response, &self.patience)
    }

    /// Asks a token server (the distribution project's token authentication): GET with
    /// basic credentials or none, POST with a refresh token.
    pub(super) async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: &Credentials,
    ) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let mut parameters: Vec<_> =
            service.map(|service| ("service", service)).into_iter().collect();
        let bad = |why: String| {
            Fault::Lasting(format!("its token server \"{realm}\" can't be used: {why}"))
        };
        let mut url = Url::parse(realm).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("it is no http or https URL".to_owned()));
        }
        let secure = url.scheme() == "https" || !self.endpoint.base.starts_with("https://");
        if !secure && !matches!(credentials, Credentials::Anonymous) {
            return Err(bad("the credentials would go to it in clear".to_owned()));
        }
        // One that lists several scopes separates them with spaces.
        let scopes = || scope.split_ascii_whitespace().map(|scope| ("scope", scope));
        let request = match credentials {
            Credentials::Refresh(token) => {
                parameters.extend([
                    ("scope", scope),
                    ("grant_type", "refresh_token"),
                    ("client_id", "haled"),
                    ("refresh_token", token),
                ]);
                // A URL's query has the same coding as a form.
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(&parameters);
                let body = form.query().unwrap_or_default().to_owned();
                // A redirect would take the body, and the token in it, to another host.
                build_client(&self.endpoint, &self.headers, &self.patience, Redirects::Refuse)
                    .map_err(Fault::Local)?
                    .post(url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body)
            }
            other => {
                url.query_pairs_mut().extend_pairs(scopes()).extend_pairs(&parameters);
                let request = self.client.get(url);
                match other {
                    Credentials::Basic(value) => request.header(AUTHORIZATION, secret(value)?),
                    _ => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| Fault::of(&error))?;
        if matches!(response.status(), StatusCode::BAD_REQUEST) {
            return Err(Fault::Unauthorized(format!(
                "the token server answered {}",
                response.status()
            )));
        }
        let bytes = self.body(accept(response).await?).read(MAX_TOKEN).await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() { Err(bad("its answer has no token".to_owned())) } else { Ok(token) }
    }
}

#[derive(Clone, Copy)]
enum Redirects {
    Follow,
    Refuse,
}

fn build_client(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    patience: &Patience,
    redirects: Redirects,
) -> Result<reqwest::Client, Error> {
    // The provider is process-wide; a second call changes nothing and says so.
    drop(rustls::crypto::ring::default_provider().install_default());
    let secure = endpoint.base.starts_with("https://");
    let builder = || {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("haled/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(endpoint.dial_timeout.unwrap_or(patience.connect))
            .read_timeout(patience.inactivity)
            .default_headers(headers.clone())
            .tls_danger_accept_invalid_certs(endpoint.skip_verify)
            .redirect(match redirects {
                Redirects::Follow => Policy::custom(no_downgrade),
                Redirects::Refuse => Policy::none(),
            });
        if hosts::is_loopback(endpoint.host()) {
            builder = builder.no_proxy();
        }
        builder
    };
    if !endpoint.clients.is_empty() {
        let with_certificates =
            builder().tls_backend_preconfigured(certificates::config(endpoint)?);
        return with_certificates.build().map_err(|error| tls(endpoint, &error));
    }
    let mut with_authorities = builder();
    let mut roots = Vec::new();
    for file in &endpoint.authorities {
        let pem = hosts::read_pem(file)?;
        let bad = |cause: String| Error::Hosts { path: file.clone(), cause };
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| bad(with_causes(&error)))?;
        if certificates.is_empty() {
            return Err(bad("it has no PEM certificate".to_owned()));
        }
        roots.extend(certificates);
    }
    if !roots.is_empty() {
        with_authorities = with_authorities.tls_certs_merge(roots.clone());
    }
    match with_authorities.build() {
        Ok(client) => Ok(client),
        // A machine without any CA certificates can still talk plain HTTP, or to a
        // registry whose authority is configured.
        Err(_) if !secure || !roots.is_empty() || endpoint.skip_verify => {
            builder().tls_certs_only(roots).build().map_err(|error| tls(endpoint, &error))
        }
        Err(error) => Err(tls(endpoint, &error)),
    }
}

fn tls(endpoint: &Endpoint, error: &reqwest::Error) -> Error {
    let cause = format!(
        "TLS can't be set up ({}): install ca-certificates, or name a ca in hosts.toml",
        with_causes(error)
    );
    Error::Registry { image: endpoint.host().to_owned(), cause }
}

/// Follows redirects, but never from https to http.
fn no_downgrade(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        attempt.error("the registry redirects from https to plain http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

pub(super) fn secret(text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Fault::Unauthorized("the credentials have characters that no header takes".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn bearer(token: &str) -> Result<HeaderValue, Fault> {
    secret(&format!("Bearer {token}"))
}

/// A successful answer, or what its status says.
pub(super) async fn accept(response: Response) -> Result<Response, Fault> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let wanted = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wanted = wanted.and_then(|text| retry_after(text, SystemTime::now()));
    let why = match Body::new(response, &Patience::default()).read(MAX_ERROR).await {
        Ok(body) if !body.is_empty() => format!("{status}: {}", one_line(&body)),
        _ => status.to_string(),
    };
    let busy = |why| match wanted {
        Some(wait) => Fault::Busy(format!("{why} (asks for {} s)", wait.as_secs()), wait),
        None => Fault::Passing(why),
    };
    Err(match status {
        StatusCode::NOT_FOUND => Fault::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::Unauthorized(why),
        StatusCode::RANGE_NOT_SATISFIABLE => Fault::NoPart,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => busy(why),
        status if status.is_server_error() => busy(why),
        _ => Fault::Lasting(why),
    })
}

/// How long a Retry-After header (RFC 9110, 10.2.3) asks to wait: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(SystemTime::from(at.timestamp()).duration_since(now).unwrap_or_default())
}

fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// An answer's body as it comes, from a server that has to keep a pace.
pub(super) struct Body {
    response: Response,
    pace: Pace,
}

impl Body {
    fn new(response: Response, patience: &Patience) -> Self {
        let (time, bytes) = (patience.pace_time, patience.pace_bytes);
        Self { response, pace: Pace { time, bytes, waited: Duration::ZERO, seen: 0 } }
    }

    /// The next chunk; none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let asked = Instant::now();
        let chunk = self.response.chunk().await.map_err(|error| Fault::of(&error))?;
        if let Some(chunk) = &chunk {
            self.pace.saw(chunk.len() as u64, asked.elapsed())?;
        }
        Ok(chunk)
    }

    /// All of it, at most `limit` bytes.
    pub(super) async fn read(mut self, limit: u64) -> Result<Bytes, Fault> {
        let too_large = || Fault::Lasting(format!("the answer is larger than {limit} bytes"));
        if self.response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = bytes::BytesMut::new();
        while let Some(chunk) = self.next().await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Whether a server sends enough to be worth waiting for. Only the time that we wait for it
/// counts, not what our own disk takes.
struct Pace {
    time: Duration,
    bytes: u64,
    waited: Duration,
    seen: u64,
}

impl Pace {
    fn saw(&mut self, bytes: u64, waited: Duration) -> Result<(), Fault> {
        self.waited += waited;
        self.seen += bytes;
        if self.waited < self.time {
            return Ok(());
        }
        let (seen, waited) = (self.seen, self.waited.as_secs());
        (self.seen, self.waited) = (0, Duration::ZERO);
        if seen >= self.bytes {
            return Ok(());
        }
        Err(Fault::Passing(format!("it is too slow: {seen} bytes in {waited} s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_busy_server_asks_for() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_server_has_to_keep_a_pace() {
        let pace =
            || Pace { time: Duration::from_mins(1), bytes: 1000, waited: Duration::ZERO, seen: 0 };
        // A byte every now and then.
        let mut slow = pace();
        let tries = (0..5).map(|_| slow.saw(1, Duration::from_secs(29)).is_ok());
        assert_eq!(tries.collect::<Vec<_>>(), [true, true, false, true, true]);
        // As slow as is allowed.
        let mut steady = pace();
        assert!((0..1000).all(|_| steady.saw(17, Duration::from_secs(1)).is_ok()));
        // Our own slowness is none of the server's.
        let mut quick = pace();
        assert!((0..1000).all(|_| quick.saw(1, Duration::from_millis(1)).is_ok()));
    }
}
