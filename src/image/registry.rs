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
use reqwest::header::{CONTENT_RANGE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use super::challenge::{self, Challenge, Credentials};
use super::digest::Digest;
use super::hosts::{self, Endpoint};
use super::manifest::{self, Document};
use super::reference::{Reference, Version};
use super::server::{Ask, Body, Fault, Patience, Server, accept, bearer, secret};
use super::{Auth, Error};

/// Tries of one request to one server.
const ATTEMPTS: u32 = 5;

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
                Err(fault) => tour.failed(fault, false).await,
            }
        }
        Err(tour.verdict())
    }

    async fn manifest_of(
        &self,
        server: &Server,
        version: &Version,
    ) -> Result<(Bytes, Digest), Fault> {
        let path = match version {
            Version::Tag(tag) => format!("manifests/{tag}"),
            Version::Digest(digest) => format!("manifests/{digest}"),
        };
        let response = self.get(server, &path, Ask::Manifest).await?;
        let told = told_digest(&response);
        let bytes = server.body(response).read(manifest::MAX_MANIFEST).await?;
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
            Document::parse(&bytes).map_err(|why| Fault::Lasting(why.to_string()))?;
        }
        Ok((bytes, digest))
    }

    /// What a tag stands for, by the headers alone; none: no server says it that way, which
    /// needn't mean anything.
    pub(super) async fn digest_of(&self, tag: &str) -> Option<Digest> {
        let server = self.tour(true).server()?;
        let path = format!("manifests/{tag}");
        match self.get(server, &path, Ask::ManifestHead).await {
            Ok(response) => told_digest(&response).and_then(|told| Digest::parse(&told).ok()),
            Err(fault) => {
                tracing::debug!(
                    server = server.endpoint.base,
                    ?fault,
                    "asking for the whole manifest"
                );
                None
            }
        }
    }

    /// Starts to read a blob from this byte on, where the server can do so: gives the byte
    /// that the answer starts with, `from` or 0. The caller bounds and verifies what comes.
    pub(super) async fn blob(
        &self,
        server: &Server,
        digest: &Digest,
        from: u64,
    ) -> Result<(Body, u64), Fault> {
        let response = self.get(server, &format!("blobs/{digest}"), Ask::Blob { from }).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((server.body(response), 0));
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
        if start != Some(&from.to_string()) {
            return Err(Fault::NoPart);
        }
        Ok((server.body(response), from))
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
                | Fault::Busy(why, _)
                | Fault::Lasting(why)
                | Fault::Protocol(why) => format!("{base}: {why}"),
                Fault::NoPart => format!("{base} gives another part than it was asked for"),
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
    async fn get(&self, server: &Server, path: &str, ask: Ask) -> Result<Response, Fault> {
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
        let response = server.send(&url, login.as_ref(), ask).await?;
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
        let response = accept(server.send(&url, Some(&login), ask).await?).await?;
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

    /// It didn't. Waits before the next try. A server that was of use meanwhile (`progress`)
    /// may fail again and again.
    pub(super) async fn failed(&mut self, fault: Fault, progress: bool) {
        let Some(server) = self.server() else { return };
        let patience = &self.remote.patience;
        let asked_for = match &fault {
            Fault::Passing(_) => Some(Duration::ZERO),
            Fault::Busy(_, wait) if *wait <= patience.longest_wait => Some(*wait),
            _ => None,
        };
        if progress {
            (self.tried, self.wait) = (0, patience.first_wait);
        } else {
            self.tried += 1;
        }
        // With another server to ask, one failure is enough.
        let attempts = if self.has_alternative() { 1 } else { ATTEMPTS };
        if let Some(asked_for) = asked_for
            && self.tried < attempts
        {
            let wait = asked_for.max(jittered(self.wait));
            tracing::debug!(
                server = server.endpoint.base,
                ?fault,
                ?wait,
                "asking the registry again"
            );
            tokio::time::sleep(wait).await;
            self.wait = (self.wait * 2).min(patience.longest_wait);
            return;
        }
        let talked = !matches!(fault, Fault::Passing(_) | Fault::Busy(..) | Fault::Protocol(_));
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

/// The digest that a server says a manifest has.
fn told_digest(response: &Response) -> Option<String> {
    let told = response.headers().get("docker-content-digest")?;
    told.to_str().ok().map(str::to_owned)
}

/// Between half of it and all of it, so that the nodes of a cluster don't come back as one.
fn jittered(wait: Duration) -> Duration {
    let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    wait.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests;
