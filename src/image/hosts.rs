//! Which servers to ask for an image: containerd's `<host>/hosts.toml`.
//!
//! Mirrors in the file's order, then the upstream. Without a file: the registry itself,
//! over plain HTTP first where it is this machine's loopback. A mistake in a file is an
//! error that names the file; it never falls back to the upstream behind its owner's back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::Error;

/// Largest hosts.toml or certificate file read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most mirrors of one registry.
const MAX_MIRRORS: usize = 32;
/// Most client certificates for one host.
const MAX_CLIENTS: usize = 32;
const KEYS: &str = "capabilities, ca, client, skip_verify, override_path, header, dial_timeout";

/// One server that may have a registry's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Scheme, host and path up to the repository's name, no slash at the end.
    pub(super) base: String,
    /// May say what a tag stands for.
    pub(super) resolves: bool,
    /// May give content.
    pub(super) pulls: bool,
    /// Another server than the one the reference names: told so in `?ns=`.
    pub(super) mirror: bool,
    /// The endpoint before it by another protocol: asked only where that one can't be
    /// talked to, since an answer by either is the registry's.
    pub(super) fallback: bool,
    /// Its certificate isn't verified.
    pub(super) skip_verify: bool,
    /// PEM files of authorities to trust besides the system's.
    pub(super) authorities: Vec<PathBuf>,
    /// Our certificates, of which the server says the one it wants.
    pub(super) clients: Vec<ClientFiles>,
    /// For a connection; none: as with every server.
    pub(super) dial_timeout: Option<Duration>,
    /// Sent with each request.
    pub(super) headers: Vec<(String, String)>,
}

/// PEM files with a certificate of ours and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFiles {
    pub(super) certificate: PathBuf,
    /// None: in the file of the certificate.
    pub(super) key: Option<PathBuf>,
}

impl Endpoint {
    fn upstream(base: String) -> Self {
        Self {
            base,
            resolves: true,
            pulls: true,
            mirror: false,
            fallback: false,
            skip_verify: false,
            authorities: Vec::new(),
            clients: Vec::new(),
            dial_timeout: None,
            headers: Vec::new(),
        }
    }

    /// The registry itself, over a way that nobody listens at: it may get a token unasked.
    pub(super) fn is_own_and_private(&self) -> bool {
        !self.mirror && (self.base.starts_with("https://") || is_loopback(self.host()))
    }

    /// Host and port, for messages.
    pub(super) fn host(&self) -> &str {
        let rest = self.base.split_once("://").map_or(&*self.base, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
}

/// The servers for a registry, in the order to ask them.
pub(super) fn endpoints(dirs: &[PathBuf], domain: &str) -> Result<Vec<Endpoint>, Error> {
    let underscored = domain.split_once(':').map(|(host, port)| format!("{host}_{port}_"));
    for dir in dirs {
        for name in underscored.iter().map(String::as_str).chain([domain, "_default"]) {
            let file = dir.join(name).join("hosts.toml");
            if let Some(text) = read(&file)? {
                return parse(&text, domain, &file)
                    .map_err(|cause| Error::Hosts { path: file, cause });
            }
        }
    }
    Ok(upstreams(domain))
}

fn read(file: &Path) -> Result<Option<String>, Error> {
    let wrong = |cause: String| Error::Hosts { path: file.to_owned(), cause };
    match std::fs::metadata(file) {
        Ok(meta) if !meta.is_file() => Err(wrong("it is not a file".to_owned())),
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(wrong(format!("it is larger than {MAX_FILE} bytes")))
        }
        Ok(_) => std::fs::read_to_string(file).map(Some).map_err(|error| wrong(error.to_string())),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(wrong(error.to_string())),
        },
    }
}

/// A PEM file named in a hosts.toml.
pub(super) fn read_pem(file: &Path) -> Result<Vec<u8>, Error> {
    match read(file)? {
        Some(text) => Ok(text.into_bytes()),
        None => Err(Error::Hosts {
            path: file.to_owned(),
            cause: "a hosts.toml names it, but it is not there".into(),
        }),
    }
}

/// The registry itself.
fn upstreams(domain: &str) -> Vec<Endpoint> {
    let https = Endpoint::upstream(format!("https://{}/v2", api_host(domain)));
    if is_loopback(domain) && !domain.ends_with(":443") {
        let https = Endpoint { fallback: true, ..https };
        vec![Endpoint::upstream(format!("http://{domain}/v2")), https]
    } else {
        vec![https]
    }
}

/// The registry that a host or URL stands for, as references name it.
pub(super) fn domain_of(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

/// Docker Hub's API has a host of its own.
fn api_host(domain: &str) -> &str {
    if domain == "docker.io" { "registry-1.docker.io" } else { domain }
}

/// Whether a host, with or without port, is this machine's loopback by its name.
pub(super) fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.starts_with("::1]");
    }
    let name = host.split(':').next().unwrap_or(host);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn parse(text: &str, domain: &str, file: &Path) -> Result<Vec<Endpoint>, String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let mut server = None;
    let mut mirrors = Vec::new();
    let mut of_server = Vec::new();
    for (key, value) in document.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("server", DeValue::String(url)) => server = Some(url.to_string()),
            ("host", DeValue::Table(hosts)) => {
                for (url, table) in hosts {
                    let table = table
                        .get_ref()
                        .as_table()
                        .ok_or_else(|| format!("host.\"{}\" is not a table", url.get_ref()))?;
                    // Tables come sorted by name: their place in the file gives the order.
                    mirrors.push((url.span().start, endpoint(url.get_ref(), table, file)?));
                }
            }
            // Options at the top are the server's.
            (option, value) if KEYS.split(", ").any(|known| known == option) => {
                of_server.push((option.to_owned(), value));
            }
            (other, _) => {
                return Err(format!(
                    "\"{other}\" is not understood here: server, host and the server's {KEYS} are"
                ));
            }
        }
    }
    if mirrors.len() > MAX_MIRRORS {
        return Err(format!("it has {} hosts, {MAX_MIRRORS} are allowed", mirrors.len()));
    }
    mirrors.sort_by_key(|(place, _)| *place);
    let mut found: Vec<Endpoint> = mirrors
        .into_iter()
        .map(|(_, mut mirror)| {
            mirror.mirror = true;
            mirror
        })
        .collect();
    let mut own = match server {
        Some(url) => {
            let mut own = based(&url)?;
            own.mirror = own.host() != api_host(domain) && own.host() != domain;
            vec![own]
        }
        None => upstreams(domain),
    };
    for own in &mut own {
        for (option, value) in &of_server {
            set(own, option, value, file).map_err(|why| format!("{option}: {why}"))?;
        }
        finish(own);
    }
    // A server that is also a [host] isn't asked twice.
    own.retain(|own| !found.iter().any(|mirror| mirror.base == own.base));
    found.append(&mut own);
    Ok(found)
}

fn endpoint(url: &str, table: &DeTable<'_>, file: &Path) -> Result<Endpoint, String> {
    let mut endpoint = based(url)?;
    for (key, value) in table {
        let key = key.get_ref();
        set(&mut endpoint, key, value.get_ref(), file)
            .map_err(|why| format!("host.\"{url}\".{key}: {why}"))?;
    }
    finish(&mut endpoint);
    Ok(endpoint)
}

/// An endpoint whose base has no `/v2` yet.
fn based(url: &str) -> Result<Endpoint, String> {
    let with_scheme = if url.contains("://") {
        url.to_owned()
    } else if is_loopback(url) {
        format!("http://{url}")
    } else {
        format!("https://{url}")
    };
    let bad = |why: &str| format!("\"{url}\" is not a registry's URL: {why}");
    let parsed = reqwest::Url::parse(&with_scheme).map_err(|error| bad(&error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(bad("http:// or https:// is expected"));
    }
    if parsed.query().is_some()
        || parsed.fragment().is_some()
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        return Err(bad("it may have a host, a port and a path only"));
    }
    Ok(Endpoint::upstream(with_scheme.trim_end_matches('/').to_owned()))
}

/// `/v2` at the end, unless the file says that the path is complete.
fn finish(endpoint: &mut Endpoint) {
    match endpoint.base.strip_suffix(COMPLETE) {
        Some(complete) => endpoint.base = complete.to_owned(),
        None if endpoint.base.ends_with("/v2") => {}
        None => endpoint.base.push_str("/v2"),
    }
}

/// Marks a base whose path is complete until `finish`. No URL has a control character.
const COMPLETE: &str = "\u{1}";

fn set(endpoint: &mut Endpoint, key: &str, value: &DeValue<'_>, file: &Path) -> Result<(), String> {
    match key {
        "capabilities" => {
            let capabilities = strings(value)?;
            let capabilities: Vec<String> =
                capabilities.iter().map(|text| text.to_ascii_lowercase()).collect();
            if let Some(bad) = capabilities
                .iter()
                .find(|c| !matches!(c.as_str(), "pull" | "resolve" | "push" | "referrers"))
            {
                return Err(format!("\"{bad}\" is not pull, resolve or push"));
            }
            // None named: all of them.
            let has = |name| capabilities.is_empty() || capabilities.iter().any(|c| c == name);
            (endpoint.pulls, endpoint.resolves) = (has("pull"), has("resolve"));
        }
        "ca" => endpoint.authorities = files(value, file)?,
        "client" => endpoint.clients = clients(value, file)?,
        "dial_timeout" => {
            let text = value.as_str().ok_or("a text like \"5s\" is expected")?;
            let time = duration(text).ok_or("a time like \"5s\" or \"1m30s\" is expected")?;
            endpoint.dial_timeout = Some(time).filter(|time| !time.is_zero());
        }
        "skip_verify" => endpoint.skip_verify = boolean(value)?,
        "override_path" => {
            if boolean(value)? {
                endpoint.base.push_str(COMPLETE);
            }
        }
        "header" => {
            let table = value.as_table().ok_or("a table of headers is expected")?;
            for (name, values) in table {
                for text in strings(values.get_ref())? {
                    endpoint.headers.push((name.get_ref().to_string(), text));
                }
            }
        }
        _ => return Err(format!("not understood: {KEYS} are")),
    }
    Ok(())
}

/// A file with certificate and key; or several such files, or pairs of files.
fn clients(value: &DeValue<'_>, file: &Path) -> Result<Vec<ClientFiles>, String> {
    let one = |value: &DeValue<'_>| {
        let mut files = files(value, file)?.into_iter();
        match (files.next(), files.next(), files.next()) {
            (Some(certificate), key, None) => Ok(ClientFiles { certificate, key }),
            _ => Err("a certificate's file and its key's are expected".to_owned()),
        }
    };
    let Some(several) = value.as_array() else { return Ok(vec![one(value)?]) };
    if several.len() > MAX_CLIENTS {
        return Err(format!("{} are given, {MAX_CLIENTS} are allowed", several.len()));
    }
    several.iter().map(|pair| one(pair.get_ref())).collect()
}

/// Files' names, from the directory of the hosts.toml.
fn files(value: &DeValue<'_>, file: &Path) -> Result<Vec<PathBuf>, String> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    Ok(strings(value)?.into_iter().map(|name| dir.join(name)).collect())
}

/// As Go writes them: `1m30s`, `1.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text);
    loop {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let seconds = match &after[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = &after[end..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("true or false is expected, not {}", value.type_str()))
}

fn strings(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let expected =
        || format!("a string or an array of strings is expected, not {}", value.type_str());
    if let Some(one) = value.as_str() {
        return Ok(vec![one.to_owned()]);
    }
    let array = value.as_array().ok_or_else(expected)?;
    array.iter().map(|v| v.get_ref().as_str().map(str::to_owned).ok_or_else(expected)).collect()
}

#[cfg(test)]
mod tests;
