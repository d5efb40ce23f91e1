//! The httpGet probe: one GET, redirects on the same host followed, the answer bounded.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::Url;

use super::run::{NoConnection, connect};
use super::{Handler, Outcome, Target};
use crate::tls::AnyCertificate;

/// Requests of one run. As with the kubelet, the redirect that the tenth is answered with is not
/// followed, and fails the probe unless it leads to another host.
const MAX_REQUESTS: usize = 10;
/// What a head may take, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Servers match on `kube-probe/`, so a probe of haled's says so too.
pub(super) const AGENT: &str = concat!("kube-probe/1.36 haled/", env!("CARGO_PKG_VERSION"));

/// Runs an httpGet handler once. Its caller bounds the time.
pub(super) async fn get(handler: &Handler, target: &Target) -> Result<Outcome, NoConnection> {
    let Handler::HttpGet { path, port, host, tls, headers } = handler else {
        return Err(NoConnection::Failed(format!("{handler} is no httpGet")));
    };
    let failed = |why: String| NoConnection::Failed(why);
    let name = host.clone().unwrap_or_else(|| target.address.to_string());
    let bracketed =
        if name.contains(':') && !name.starts_with('[') { format!("[{name}]") } else { name };
    let scheme = if *tls { "https" } else { "http" };
    let text = format!("{scheme}://{bracketed}:{port}{path}");
    let mut url =
        Url::parse(&text).map_err(|error| failed(format!("{text} is no URL: {error}")))?;
    let headers = request_headers(headers);
    for _ in 0..MAX_REQUESTS {
        let answered = answer(&url, &headers, target).await;
        let (status, location, body) = answered.map_err(|error| match error {
            NoConnection::Failed(why) => NoConnection::Failed(format!("Get \"{url}\": {why}")),
            fault @ NoConnection::Fault(_) => fault,
        })?;
        if let Some(next) = location.and_then(|location| url.join(&location).ok()) {
            if next.host_str() != url.host_str() {
                let output = format!("redirected to another host, {next}, which is not probed");
                return Ok(Outcome { success: true, warning: true, output });
            }
            url = next;
            continue;
        }
        let success = (200..400).contains(&status.as_u16());
        let output = if success {
            body
        } else {
            format!("HTTP probe failed with statuscode: {}", status.as_u16())
        };
        return Ok(Outcome { success, warning: false, output });
    }
    Err(failed(format!("Get \"{url}\": stopped after {MAX_REQUESTS} redirects")))
}

/// The defaults, and over them the probe's own; an empty value only removes a default. No
/// request goes without a host, so an empty one leaves it at the URL's.
fn request_headers(own: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let mut replaced = Vec::new();
    for (name, value) in own {
        // Both were checked when the probe was read.
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            continue;
        };
        if !replaced.contains(&name) {
            headers.remove(&name);
            replaced.push(name.clone());
        }
        let default = [USER_AGENT, ACCEPT, HOST].contains(&name);
        if !(default && value.is_empty()) {
            headers.append(name, value);
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

/// One request: status, where it redirects to, and the beginning of the body.
async fn answer(
    url: &Url,
    headers: &HeaderMap,
    target: &Target,
) -> Result<(StatusCode, Option<String>, String), NoConnection> {
    let failed = |why: String| NoConnection::Failed(why);
    let host = url.host_str().ok_or_else(|| failed("no host".to_owned()))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = connect(target, Some(host), port).await?;
    let request = request(url, headers).map_err(|error| failed(error.to_string()))?;
    if url.scheme() == "https" {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| failed(error.to_string()))?;
        let stream = TlsConnector::from(tls().map_err(|error| failed(error.to_string()))?)
            .connect(name, stream)
            .await
            .map_err(|error| failed(format!("TLS: {error}")))?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    }
    .map_err(|error| failed(error.to_string()))
}

fn request(url: &Url, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::get(path).body(Empty::new())?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        request.headers_mut().insert(HOST, host.parse()?);
    }
    Ok(request)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Option<String>, String), hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let followed = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = response.headers().get(LOCATION).filter(|_| followed);
        let location = location.and_then(|location| location.to_str().ok()).map(ToOwned::to_owned);
        Ok((status, location, beginning(response).await))
    };
    tokio::pin!(connection, talk);
    // The connection must be driven while the request waits for its answer; when either
    // ends, so does the probe.
    tokio::select! {
        biased;
        answered = &mut talk => answered,
        ended = &mut connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error),
        },
    }
}

/// The body's beginning; a body that breaks off has come far enough.
async fn beginning(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while read.len() < Outcome::MAX_OUTPUT && !body.is_end_stream() {
        let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        else {
            break;
        };
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
    }
    Outcome::text(&read)
}

/// TLS that takes every certificate, as the kubelet's probes do: they ask whether the server
/// answers, not who it is.
fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate { provider: provider.clone(), has_its_key: false });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_headers_replace_defaults_and_empty_ones_remove_them() {
        let own = [
            ("user-agent".to_owned(), String::new()),
            ("Accept".to_owned(), "text/html".to_owned()),
            ("X-A".to_owned(), "1".to_owned()),
            ("X-A".to_owned(), "2".to_owned()),
        ];
        let headers = request_headers(&own);
        assert!(!headers.contains_key(USER_AGENT));
        assert_eq!(headers[ACCEPT], "text/html");
        assert_eq!(headers.get_all("x-a").iter().count(), 2);
        assert!(request_headers(&[])[USER_AGENT].to_str().unwrap().starts_with("kube-probe/"));
    }

    #[test]
    fn a_host_header_goes_before_the_urls_host() {
        let url = Url::parse("http://10.0.0.1:8080/a?b=c").unwrap();
        let plain = request(&url, &HeaderMap::new()).unwrap();
        assert_eq!(
            (plain.uri().to_string().as_str(), &plain.headers()[HOST]),
            ("/a?b=c", &HeaderValue::from_static("10.0.0.1:8080"))
        );
        let own = request_headers(&[("Host".to_owned(), "web.example".to_owned())]);
        assert_eq!(request(&url, &own).unwrap().headers()[HOST], "web.example");
        let empty = request_headers(&[("Host".to_owned(), String::new())]);
        assert_eq!(request(&url, &empty).unwrap().headers()[HOST], "10.0.0.1:8080");
    }
}
