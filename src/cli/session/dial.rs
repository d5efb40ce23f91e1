//! The connection to the streaming server, at the URL that the CRI gave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::Uri;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::Failure;
use crate::tls::AnyCertificate;

/// A connection, encrypted or not.
pub(in crate::cli) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to where the URL points.
pub(in crate::cli) async fn dial(url: &str) -> Result<(Uri, Box<dyn Io>), Failure> {
    let failed = |why: String| {
        Failure::Message(format!(
            "cannot reach haled's streaming server at {}: {why}; halectl must run on the node \
             (stream.address in haled's configuration)",
            origin(url)
        ))
    };
    let (uri, tls) = place(url).map_err(&failed)?;
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = reachable(uri.host().unwrap_or_default());
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    // Every key that is pressed is a packet of its own. Without it, it only is slower.
    stream.set_nodelay(true).ok();
    if !tls {
        return Ok((uri, Box::new(stream)));
    }
    let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
    let encrypted = tls_connector()
        .map_err(|error| failed(error.to_string()))?
        .connect(name, stream)
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok((uri, Box::new(encrypted)))
}

/// The URL without its path, which is a secret.
fn origin(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

/// The URL's parts, and whether it wants TLS.
fn place(url: &str) -> Result<(Uri, bool), String> {
    let uri: Uri = url.parse().map_err(|error| format!("its URL is none: {error}"))?;
    match uri.scheme_str() {
        Some("http") => Ok((uri, false)),
        Some("https") => Ok((uri, true)),
        _ => Err("its URL is neither http nor https".to_owned()),
    }
}

/// A server that listens everywhere names no address to connect to: loopback will do.
fn reachable(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    }
}

/// Takes any certificate. The address came over root's own socket and is this machine's, and
/// the certificate is for whoever connects from elsewhere: its names needn't be loopback's.
fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let any = AnyCertificate { provider: provider.clone(), has_its_key: true };
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_never_told_and_everywhere_is_here() {
        assert_eq!(origin("http://127.0.0.1:4/exec/secret"), "http://127.0.0.1:4");
        assert_eq!(reachable("0.0.0.0"), "127.0.0.1");
        assert_eq!(reachable("[::]"), "::1");
        assert_eq!(reachable("[fe80::1]"), "fe80::1");
        assert_eq!(reachable("node.example"), "node.example");
        assert!(place("https://h:1/x").unwrap().1);
        assert!(!place("http://h:1/x").unwrap().1);
        for bad in ["", "spdy://h/x", "h:1 /x"] {
            place(bad).unwrap_err();
        }
    }

    #[tokio::test]
    async fn any_certificate_of_this_machine_will_do() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let made = rcgen::generate_simple_self_signed(vec!["node.example".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(b"hi").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let (_, mut io) = dial(&format!("https://0.0.0.0:{port}/exec/x")).await.unwrap();
        let mut text = String::new();
        io.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hi");
        serving.await.unwrap();
    }
}
