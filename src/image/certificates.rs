//! TLS with a registry that wants a client's certificate: of several the one that it asks for.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DistinguishedName, RootCertStore, SignatureScheme};

use super::Error;
use super::error::with_causes;
use super::hosts::{self, ClientFiles, Endpoint};
use crate::tls::AnyCertificate;

/// The settings for an endpoint with clients' certificates.
pub(super) fn config(endpoint: &Endpoint) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let impossible = |error: rustls::Error| Error::Registry {
        image: endpoint.host().to_owned(),
        cause: format!("TLS can't be set up ({})", with_causes(&error)),
    };
    let keys = endpoint.clients.iter().map(|files| Ours::read(files, &provider));
    let keys = Certificates(keys.collect::<Result<_, _>>()?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(impossible)?;
    let verified = if endpoint.skip_verify {
        let any = AnyCertificate { provider, has_its_key: false };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(any))
    } else {
        builder.with_root_certificates(roots(endpoint)?)
    };
    let mut config = verified.with_client_cert_resolver(Arc::new(keys));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The system's authorities, where there are any, and those of the hosts.toml.
fn roots(endpoint: &Endpoint) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // Single ones that can't be read are passed over, as everybody does.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in &endpoint.authorities {
        let bad = |cause: String| Error::Hosts { path: file.clone(), cause };
        let pem = hosts::read_pem(file)?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(with_causes(&error)))?;
            count += 1;
        }
        if count == 0 {
            return Err(bad("it has no PEM certificate".to_owned()));
        }
    }
    Ok(roots)
}

/// A certificate with its key, and who has signed it and what is above it.
#[derive(Debug)]
struct Ours {
    key: Arc<CertifiedKey>,
    issuers: Vec<DistinguishedName>,
}

impl Ours {
    fn read(files: &ClientFiles, provider: &CryptoProvider) -> Result<Self, Error> {
        let bad = |why: String| Error::Hosts {
            path: files.certificate.clone(),
            cause: format!("no certificate with its key: {why}"),
        };
        let pem = hosts::read_pem(&files.certificate)?;
        let key = match &files.key {
            Some(key) => &hosts::read_pem(key)?,
            None => &pem,
        };
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(error.to_string()))?;
        let issuer = |certificate: &CertificateDer<'_>| {
            let certificate = webpki::EndEntityCert::try_from(certificate);
            certificate.map(|certificate| DistinguishedName::in_sequence(certificate.issuer()))
        };
        let issuers = chain.iter().map(issuer).collect::<Result<_, _>>();
        let issuers = issuers.map_err(|error: webpki::Error| bad(error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider);
        let key = Arc::new(key.map_err(|error| bad(with_causes(&error)))?);
        Ok(Self { key, issuers })
    }

    fn is_by(&self, authorities: &[&[u8]]) -> bool {
        self.issuers.iter().any(|issuer| authorities.contains(&issuer.as_ref()))
    }
}

#[derive(Debug)]
struct Certificates(Vec<Ours>);

impl ResolvesClientCert for Certificates {
    /// The first that an authority has signed which the server names. Where it names none, or
    /// only others, the first one: it has the last word.
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let able = || self.0.iter().filter(|ours| ours.key.key.choose_scheme(schemes).is_some());
        let asked_for = able().find(|ours| ours.is_by(authorities));
        asked_for.or_else(|| able().next()).map(|ours| Arc::clone(&ours.key))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
