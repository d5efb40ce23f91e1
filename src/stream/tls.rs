//! The certificate that streams are served with: read at start, and again when its files
//! change, since those who issue certificates renew them in place.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate first, then those that lead to its authority.
    pub cert: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Why streams can't be served over TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the files.
    #[error("cannot take {setting}, {}: {error}", path.display())]
    #[allow(missing_docs)]
    File { setting: &'static str, path: PathBuf, error: pem::Error },
    /// Both together.
    #[error(
        "stream.tls_key, {}, does not go with stream.tls_cert, {}: {error}",
        files.key.display(), files.cert.display()
    )]
    #[allow(missing_docs)]
    Pair { files: Files, error: rustls::Error },
}

/// Of a file: what differs once it has been written anew, or another has taken its place.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// What connections are served with now.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    /// Of the files that were last looked at, taken or not; and what was last taken.
    current: Mutex<([Stamp; 2], Arc<ServerConfig>)>,
}

impl Tls {
    pub(super) fn open(files: Files) -> Result<Self, Error> {
        // Before they are read: what changes meanwhile is read again.
        let stamps = files.stamps();
        let config = files.read()?;
        Ok(Self { files, current: Mutex::new((stamps, config)) })
    }

    /// What the next connection is served with. Files that can't be taken leave it as it was:
    /// they may be half renewed. Looks at the disk.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if current.0 != stamps {
            current.0 = stamps;
            match self.files.read() {
                Ok(config) => {
                    tracing::info!(cert = %self.files.cert.display(), "streams have a new certificate");
                    current.1 = config;
                }
                Err(error) => {
                    tracing::error!(%error, "streams go on with the certificate they had");
                }
            }
        }
        current.1.clone()
    }
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [&self.cert, &self.key].map(|path| {
            let about = path.metadata().ok()?;
            Some((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
        })
    }

    fn read(&self) -> Result<Arc<ServerConfig>, Error> {
        let wrong = |setting, path: &Path| {
            let path = path.to_owned();
            move |error| Error::File { setting, path, error }
        };
        let certs = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(
                |certs| if certs.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certs) },
            )
            .map_err(wrong("stream.tls_cert", &self.cert))?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(wrong("stream.tls_key", &self.key))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
            .map_err(|error| Error::Pair { files: self.clone(), error })?;
        // An upgrade needs HTTP/1.1: a client that offers HTTP/2 as well must not choose it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Unservable {
    /// The address.
    #[error("cannot listen on {address} for streams: {error}")]
    #[allow(missing_docs)]
    Listen { address: std::net::SocketAddr, error: io::Error },
    /// The certificate.
    #[error("streams can't be served over TLS: {0}")]
    Tls(#[from] Error),
}
