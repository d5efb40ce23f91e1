//! Streams over TLS.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{SUCCESS, V4, client, exec_url, pod_with, request};
use crate::daemon::Daemon;

/// A certificate for loopback, signed by itself, and its key; put where haled looks for them.
fn renew(dir: &Path) -> CertificateDer<'static> {
    let (cert, key) = pair();
    std::fs::write(dir.join("new"), pem("CERTIFICATE", cert.der())).unwrap();
    std::fs::rename(dir.join("new"), dir.join("tls.crt")).unwrap();
    std::fs::write(dir.join("new"), pem(KEY, &key.serialize_der())).unwrap();
    std::fs::rename(dir.join("new"), dir.join("tls.key")).unwrap();
    cert.der().clone()
}

const KEY: &str = "PRIVATE KEY";

fn pem(what: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

fn pair() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap(), key)
}

fn settings(dir: &Path) -> String {
    let dir = dir.display();
    format!("[stream]\ntls_cert = \"{dir}/tls.crt\"\ntls_key = \"{dir}/tls.key\"\n")
}

/// A connection that trusts this certificate and no other.
async fn dial(
    daemon: &Daemon,
    url: &str,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, client::dial(daemon, url).await).await
}

async fn exec(daemon: &Daemon, id: &str, trusted: &CertificateDer<'static>) {
    let url = exec_url(daemon, request(id, "cat")).await;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let stream = dial(daemon, &url, trusted).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut to, mut from) = client::upgrade(stream, &url, V4).await;
    let error = to.open(&[("streamtype", "error")]).await;
    let stdin = to.open(&[("streamtype", "stdin")]).await;
    let stdout = to.open(&[("streamtype", "stdout")]).await;
    to.open(&[("streamtype", "stderr")]).await;
    // More than any buffer on the way holds.
    let text = "0123456789abcdef".repeat(256 * 1024);
    let (sent, [error, stdout]) = tokio::join!(
        async {
            for piece in text.as_bytes().chunks(32 * 1024) {
                to.data(stdin, piece.to_vec()).await;
            }
            to.end(stdin).await;
            text.len()
        },
        from.collect([error, stdout])
    );
    assert_eq!((error.as_str(), stdout.len()), (SUCCESS, sent));
    assert!(stdout == text);
}

#[tokio::test]
async fn streams_are_served_over_tls_and_a_renewed_certificate_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let first = renew(dir.path());
    let daemon = Daemon::start_with(&settings(dir.path())).await;
    let (_, id) = pod_with(&daemon, "exec sleep 600").await;
    exec(&daemon, &id, &first).await;

    let second = renew(dir.path());
    exec(&daemon, &id, &second).await;
    let url = exec_url(&daemon, request(&id, "cat")).await;
    assert!(dial(&daemon, &url, &first).await.is_err());

    // What is half renewed isn't taken, until it is whole.
    let (_, other) = pair();
    std::fs::write(dir.path().join("tls.key"), pem(KEY, &other.serialize_der())).unwrap();
    exec(&daemon, &id, &second).await;
    assert!(daemon.log().contains("streams go on with the certificate they had"));
    let third = renew(dir.path());
    exec(&daemon, &id, &third).await;

    // Who speaks without TLS hears nothing of what is said.
    let url = exec_url(&daemon, request(&id, "true")).await;
    let mut plain = client::dial(&daemon, &url).await;
    let mut heard = Vec::new();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    drop(tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut heard).await);
    assert!(!heard.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&heard));
}

#[test]
fn a_pair_that_cant_serve_ends_the_start_with_the_file_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("haled.toml");
    let own = dir.path().display();
    let helpers = crate::daemon::helper_dir();
    let head = format!(
        "root = \"{own}/root\"\nstate = \"{own}/state\"\nlisten = \"{own}/s\"\nhelper_dir = {helpers:?}\n"
    );
    std::fs::write(&config, head + &settings(dir.path())).unwrap();
    let refused = || {
        let mut command = std::process::Command::new("unshare");
        command.args(["--net", "--mount", env!("CARGO_BIN_EXE_haled"), "--config"]).arg(&config);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused();
    assert!(said.contains("stream.tls_cert") && said.contains("tls.crt"), "{said}");
    renew(dir.path());
    std::fs::write(dir.path().join("tls.key"), "no key").unwrap();
    let said = refused();
    assert!(said.contains("stream.tls_key") && said.contains("tls.key"), "{said}");
    std::fs::write(dir.path().join("tls.key"), pem(KEY, &pair().1.serialize_der())).unwrap();
    let said = refused();
    assert!(said.contains("does not go with stream.tls_cert"), "{said}");
}
