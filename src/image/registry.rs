//! The distribution protocol: manifests and blobs of one image from the servers that may
//! have it. Digests are verified by the callers that store them and, for manifests, here.
//!
//! This is on an HTTP client directly: a ready-made registry client reads manifests
//! without a bound, keeps one login for every puller of a host, and can't send a refresh
//! token or follow `override_path`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use super::challenge::{self, Challenge, Credentials};
use super::digest::Digest;
use super::hosts::{self, Endpoint};
use super::manifest::{self, Document};
use super::reference::{Reference, Version};
use super::server::{Fault, Patience, Server, accept, bearer, read_bounded, secret};
use super::{Auth, Error};

/// Tries of one request to one server.
const ATTEMPTS: u32 = 4;

/// The servers for one image. Cheap to share between the pull's tasks.
pub(super) struct Remote {
    image: Reference,
    servers: Vec<Server>,
    credentials: Credentials,
    /// The host that the credentials are for; empty: whichever asks.
    credentials_for: String,
    /// The server that gave the manifest is asked first for the rest.
    preferred: AtomicUsize,
    patience: Patience,
}

impl Remote {
    /// Prepares clients for each endpoint. No connection is made.
    pub(super) fn new(
        image: &Reference,
        endpoints: Vec<Endpoint>,
        auth: Option<Auth>,
        patience: Patience,
    ) -> Result<Self, Error> {
        let servers = endpoints
            .into_iter()
            .map(|endpoint| Server::new(endpoint, &patience))
            .collect::<Result<_, _>>()?;
        let credentials_for =
            auth.as_ref().map(|auth| hosts::domain_of(&auth.server_address)).unwrap_or_default();
        Ok(Self {
            image: image.clone(),
            servers,
            credentials: auth.into(),
            credentials_for,
            preferred: 0.into(),
            patience,
        })
    }

    /// A manifest or index: its bytes and digest. A digest asked for or told by the server
    /// is verified.
    pub(super) async fn manifest(&self, version: &Version) -> Result<(Bytes, Digest), Error> {
        let mut tour = self.tour(matches!(version, Version::Tag(_)));
        while let Some(server) = tour.server() {
            match self.manifest_of(server, version).await {
                Ok(found) => {
                    tour.succeeded();
                    return Ok(found);
                }
                Err(fault) => tour.failed(fault).await,
            }
        }
        Err(tour.verdict())
    }

    async fn manifest_of(
        &self,
        server: &Server,
        version: &Version,
    ) -> Result<(Bytes, Digest), Fault> {
        let response = match version {
            Version::Tag(tag) => self.get(server, &format!("manifests/{tag}"), true).await?,
            Version::Digest(digest) => {
                self.get(server, &format!("manifests/{digest}"), true).await?
            }
        };
        let told = response
            .headers()
            .get("docker-content-digest")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let bytes = read_bounded(response, manifest::MAX_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        let wanted = match version {
            Version::Digest(wanted) => Some(wanted.to_string()),
            Version::Tag(_) => told.filter(|told| told.starts_with("sha256:")),
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest.to_string()) {
            return Err(Fault::Lasting(format!(
                "the manifest should be {wanted}, but what came is {digest}"
            )));
        }
        // A mirror's log-in page must not hide the upstream.
        if server.endpoint.mirror {
            Document::parse(&bytes).map_err(Fault::Lasting)?;
        }
        Ok((bytes, digest))
    }

    /// Starts to read a blob. The caller bounds and verifies what comes.
    pub(super) async fn blob(&self, server: &Server, digest: &Digest) -> Result<Response, Fault> {
        self.get(server, &format!("blobs/{digest}"), false).await
    }

    /// The servers to ask, one after another, each a few times.
    pub(super) fn tour(&self, to_resolve: bool) -> Tour<'_> {
        let able = |e: &Endpoint| if to_resolve { e.resolves } else { e.pulls };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order: Vec<usize> =
            (0..self.servers.len()).filter(|&i| able(&self.servers[i].endpoint)).collect();
        order.sort_by_key(|&i| i != first);
        Tour {
            remote: self,
            order: order.into(),
            tried: 0,
            wait: self.patience.first_wait,
            faults: Vec::new(),
        }
    }

    /// One error from each server's: refused credentials say most, then "not there" by all.
    fn verdict(&self, faults: &[(String, String, Fault)]) -> Error {
        let image = self.image.to_string();
        let refused = faults.iter().find_map(|(_, host, fault)| match fault {
            Fault::Unauthorized(cause) => Some((host.clone(), cause.clone())),
            _ => None,
        });
        if let Some((registry, cause)) = refused {
            return Error::Unauthorized { image, registry, cause };
        }
        // A mirror that is down next to an upstream that has no such image: the latter counts.
        if let Some((_, host, Fault::Missing)) = faults.last() {
            return Error::NotInRegistry { image, registry: host.clone() };
        }
        let causes: Vec<String> = faults
            .iter()
            .map(|(base, _, fault)| match fault {
                Fault::Missing => format!("{base} does not have it"),
                Fault::Unauthorized(why)
                | Fault::Passing(why)
                | Fault::Lasting(why)
                | Fault::Protocol(why) => format!("{base}: {why}"),
                Fault::Local(error) => error.to_string(),
            })
            .collect();
        let cause = if causes.is_empty() {
            "no host may be asked for it (capabilities)".to_owned()
        } else {
            causes.join("; ")
        };
        Error::Registry { image, cause }
    }

    /// GET below the repository, logging in where it is asked for.
    async fn get(&self, server: &Server, path: &str, manifest: bool) -> Result<Response, Fault> {
        let mut url = format!("{}/{}/{path}", server.endpoint.base, self.image.repository);
        if server.endpoint.mirror {
            url.push_str("?ns=");
            url.push_str(&self.image.domain);
        }
        let url = Url::parse(&url).map_err(|error| Fault::Lasting(format!("{url}: {error}")))?;
        let credentials = self.credentials(server);
        let mut login = server.login();
        if login.is_none()
            && server.endpoint.is_own_and_private()
            && let Credentials::Bearer(token) = credentials
        {
            login = Some(bearer(token)?);
        }
        let response = server.send(&url, login.as_ref(), manifest).await?;
        // What servers of TLS say to plain HTTP.
        if response.status() == StatusCode::BAD_REQUEST && url.scheme() == "http" {
            return Err(Fault::Protocol("it answers 400 Bad Request to plain HTTP".to_owned()));
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return accept(response).await;
        }
        let asked = response.headers().get_all(WWW_AUTHENTICATE);
        let asked = asked.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(", ");
        let Some(login) = self.log_in(server, &asked, credentials).await? else {
            return accept(response).await;
        };
        let response = accept(server.send(&url, Some(&login), manifest).await?).await?;
        server.set_login(login);
        Ok(response)
    }

    /// What this server may be offered.
    fn credentials(&self, server: &Server) -> &Credentials {
        let own = hosts::domain_of(server.endpoint.host());
        if self.credentials_for.is_empty() || self.credentials_for == own {
            &self.credentials
        } else {
            &Credentials::Anonymous
        }
    }

    /// An Authorization header for a challenge; none where we have nothing to offer.
    async fn log_in(
        &self,
        server: &Server,
        asked: &str,
        credentials: &Credentials,
    ) -> Result<Option<HeaderValue>, Fault> {
        match (challenge::parse(asked), credentials) {
            (Some(Challenge::Basic), Credentials::Basic(value)) => Ok(Some(secret(value)?)),
            (Some(Challenge::Bearer { .. }), Credentials::Bearer(token)) => {
                // A mirror is somebody else; the registry itself has seen it already, unless
                // the way to it is plain HTTP, which the node's owner chose in a hosts.toml.
                let endpoint = &server.endpoint;
                let unseen = !endpoint.mirror && !endpoint.is_own_and_private();
                unseen.then(|| bearer(token)).transpose()
            }
            (Some(Challenge::Basic) | None, _) => Ok(None),
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", self.image.repository));
                let token = server.token(&realm, service.as_deref(), &scope, credentials).await?;
                Ok(Some(bearer(&token)?))
            }
        }
    }
}

/// One request's way through the servers: what may pass is tried again after a wait that
/// doubles, and then the next server is asked.
pub(super) struct Tour<'a> {
    remote: &'a Remote,
    order: VecDeque<usize>,
    tried: u32,
    wait: Duration,
    faults: Vec<(String, String, Fault)>,
}

impl<'a> Tour<'a> {
    /// The server to ask now; none is left: see `verdict`.
    pub(super) fn server(&self) -> Option<&'a Server> {
        self.order.front().map(|&index| &self.remote.servers[index])
    }

    /// It answered: later requests go there first.
    pub(super) fn succeeded(&self) {
        if let Some(&index) = self.order.front() {
            self.remote.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// It didn't. Waits before the next try.
    pub(super) async fn failed(&mut self, fault: Fault) {
        let Some(server) = self.server() else { return };
        self.tried += 1;
        let passing = matches!(fault, Fault::Passing(_));
        // With another server to ask, one failure is enough.
        let attempts = if self.has_alternative() { 1 } else { ATTEMPTS };
        if passing && self.tried < attempts {
            tracing::debug!(server = server.endpoint.base, ?fault, wait = ?self.wait, "asking the registry again");
            tokio::time::sleep(self.wait).await;
            self.wait *= 2;
            return;
        }
        let talked = !passing && !matches!(fault, Fault::Protocol(_));
        self.faults.push((server.endpoint.base.clone(), server.endpoint.host().to_owned(), fault));
        self.order.pop_front();
        if talked && self.server().is_some_and(|next| next.endpoint.fallback) {
            self.order.pop_front();
        }
        (self.tried, self.wait) = (0, self.remote.patience.first_wait);
    }

    /// Whether a server other than the one asked now is left.
    fn has_alternative(&self) -> bool {
        self.order.iter().skip(1).any(|&index| !self.remote.servers[index].endpoint.fallback)
    }

    /// The error of them all.
    pub(super) fn verdict(&self) -> Error {
        self.remote.verdict(&self.faults)
    }
}

#[cfg(test)]
mod tests;
