//! What a registry is told of us: `--creds`, or the files that `docker login` and `podman login`
//! write, or the credential helpers they name.
//!
//! No secret is ever part of a message: what fails is told by its place, not by its content.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::proto::haled::Credentials;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a helper is looked at.
const HELPER_LOOK: Duration = Duration::from_millis(10);
/// Largest file of credentials, and largest answer of a helper, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What a helper says where it knows nothing of a registry (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name with which a helper gives an identity token.
const TOKEN_USER: &str = "<token>";
/// The key of Docker Hub in all these files.
const HUB: &str = "https://index.docker.io/v1/";
/// Docker's configuration may lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of `docker login`; other keys are other programs' concern.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Where credentials may come from.
#[derive(Default)]
pub(super) struct Sources {
    /// `user:password`, of --creds.
    pub(super) given: Option<String>,
    /// --authfile: must be there, and nothing else is looked at.
    pub(super) authfile: Option<PathBuf>,
}

/// For the registry of this reference; none: nobody told us any.
pub(super) fn find(reference: &str, sources: &Sources) -> Result<Option<Credentials>, String> {
    if let Some(pair) = &sources.given {
        let Some((username, password)) = pair.split_once(':').filter(|(user, _)| !user.is_empty())
        else {
            return Err("--creds has to be USER:PASSWORD".to_owned());
        };
        let (username, password) = (username.to_owned(), password.to_owned());
        let server_address = registry(reference).to_owned();
        return Ok(Some(Credentials { username, password, server_address, ..Default::default() }));
    }
    if let Some(file) = &sources.authfile {
        let text = read(file)?.ok_or_else(|| format!("{} is not there", file.display()))?;
        return of_file(&text, file, reference);
    }
    for file in known_files(|name| std::env::var_os(name).map(PathBuf::from)) {
        if let Some(text) = read(&file)?
            && let Some(found) = of_file(&text, &file, reference)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files to look at, in this order.
fn known_files(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let mut files = Vec::new();
    // As podman and skopeo have it.
    files.extend(set("REGISTRY_AUTH_FILE"));
    files.extend(set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
    match set("DOCKER_CONFIG") {
        Some(dir) => files.push(dir.join("config.json")),
        None => files.extend(set("HOME").map(|home| home.join(".docker/config.json"))),
    }
    files
}

fn read(file: &Path) -> Result<Option<String>, String> {
    let wrong = |why: String| format!("cannot read {}: {why}", file.display());
    match std::fs::metadata(file) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(wrong(format!("it is larger than {MAX_FILE} bytes")))
        }
        Ok(_) => std::fs::read_to_string(file).map(Some).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// By the helper for the registry, the helper for all of them, or the file itself.
fn of_file(text: &str, path: &Path, reference: &str) -> Result<Option<Credentials>, String> {
    // The parser's own message could quote a secret.
    let file: File = serde_json::from_str(text).map_err(|error| {
        format!(
            "{} is no file of credentials: line {}, column {}",
            path.display(),
            error.line(),
            error.column()
        )
    })?;
    let host = registry(reference);
    let server = if host == "docker.io" { HUB } else { host };
    let helpers = file.cred_helpers.iter();
    let own = helpers.filter(|(key, _)| host_of(key) == host).map(|(key, name)| (&**key, &**name));
    let all = Some((server, &*file.creds_store)).filter(|(_, name)| !name.is_empty());
    for (server, name) in own.chain(all) {
        if let Some(found) = ask(name, server, HELPER_TIMEOUT)? {
            return Ok(Some(found));
        }
    }
    let Some(entry) = best(&file.auths, reference) else { return Ok(None) };
    let mut found = Credentials {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
        server_address: host.to_owned(),
        ..Default::default()
    };
    if !entry.auth.is_empty() {
        let wrong =
            || format!("{}: the auth of {host} is not base64 of USER:PASSWORD", path.display());
        let clean: String = entry.auth.chars().filter(char::is_ascii_graphic).collect();
        let plain = BASE64.decode(clean).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Old versions of Docker padded it with zero bytes.
        let plain = plain.ok_or_else(wrong)?;
        let (username, password) =
            plain.trim_end_matches('\0').split_once(':').ok_or_else(wrong)?;
        found.username = username.to_owned();
        found.password = password.to_owned();
    }
    // An entry that only says that a helper keeps the rest.
    Ok(Some(found).filter(|found| *found != empty(host)))
}

fn empty(host: &str) -> Credentials {
    Credentials { server_address: host.to_owned(), ..Default::default() }
}

/// The entry of the longest path that leads to the repository, or of its registry.
fn best<'a>(auths: &'a BTreeMap<String, Entry>, reference: &str) -> Option<&'a Entry> {
    let repository = repository(reference);
    let fits = |key: &str| {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
        if host_of(key) == registry(reference)
            && (!key.contains('/') || key.ends_with("/v1") || key.ends_with("/v2"))
        {
            return Some(0);
        }
        let below = repository.strip_prefix(key)?;
        (below.is_empty() || below.starts_with('/')).then_some(key.len())
    };
    let fitting = auths.iter().filter_map(|(key, entry)| Some((fits(key)?, entry)));
    fitting.max_by_key(|(length, _)| *length).map(|(_, entry)| entry)
}

/// The registry that a file's key is of, as references name it.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The registry of a reference: what stands before its first slash, where that is a host.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host_of(host),
        _ => "docker.io",
    }
}

/// The reference with its registry, without tag and digest.
fn repository(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let registry = registry(reference);
    match name.split_once('/') {
        Some((host, path)) if host_of(host) == registry => format!("{registry}/{path}"),
        Some(_) => format!("{registry}/{name}"),
        None => format!("{registry}/library/{name}"),
    }
}

/// Asks `docker-credential-NAME get`: the server on its standard input, an object on its
/// standard output. None: it knows nothing of that server.
fn ask(name: &str, server: &str, limit: Duration) -> Result<Option<Credentials>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(format!("\"{name}\" is not the name of a credential helper"));
    }
    let wrong = |why: String| format!("the credential helper {program} {why}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // So that what it has started can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|error| wrong(format!("cannot be run: {error}: install it, or use --creds")))?;
    let mut stdin = child.stdin.take().expect("piped");
    // One that doesn't read has ended, or will be told by what it says.
    drop(writeln!(stdin, "{server}"));
    drop(stdin);
    let stdout = child.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        let read =
            std::io::Read::read_to_string(&mut std::io::Read::take(stdout, MAX_FILE), &mut text);
        read.map(|_| text)
    });
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| wrong(format!("is lost: {error}")))? {
            // One that has closed its output late, or a child of its that holds it.
            Some(status) if reading.is_finished() => break status,
            _ if started.elapsed() > limit => {
                let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
                nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
                child.wait().map_err(|error| wrong(format!("is lost: {error}")))?;
                return Err(wrong(format!("did not answer within {} s", limit.as_secs())));
            }
            _ => std::thread::sleep(HELPER_LOOK),
        }
    };
    let text = reading.join().expect("reading doesn't panic");
    let text = text.map_err(|error| wrong(format!("cannot be understood: {error}")))?;
    if !status.success() {
        // The protocol has errors on standard output, which then is no secret.
        return match text.trim() {
            NOT_FOUND => Ok(None),
            why => Err(wrong(format!("failed for {server} ({status}): {why}"))),
        };
    }
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|_| wrong(format!("gave no credentials for {server}, but something else")))?;
    let mut found = empty(host_of(server));
    if answer.username == TOKEN_USER {
        found.identity_token = answer.secret;
    } else {
        (found.username, found.password) = (answer.username, answer.secret);
    }
    Ok(Some(found).filter(|found| *found != empty(host_of(server))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, reference: &str) -> Result<Option<(String, String, String)>, String> {
        let found = of_file(text, Path::new("/config.json"), reference)?;
        Ok(found.map(|c| (c.username, c.password, c.identity_token)))
    }

    fn pair(user: &str, password: &str) -> (String, String, String) {
        (user.to_owned(), password.to_owned(), String::new())
    }

    #[test]
    fn entries_of_a_docker_configuration() {
        let text = r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M6d29yZA"},
                "quay.io": {"username": "u", "password": "p"},
                "quay.io/team": {"auth": "dGVhbTp0\n"},
                "http://127.0.0.1:5000/v2/": {"identitytoken": "refresh"},
                "empty.example": {}
            },
            "detachKeys": "ctrl-a"
        }"#
        .replace('\n', " ");
        let of = |reference: &str| of(&text, reference).unwrap();
        for hub in ["busybox", "library/busybox:1", "docker.io/a/b", "index.docker.io/a/b@sha256:0"]
        {
            assert_eq!(of(hub), Some(pair("hub", "pass:word")), "{hub}");
        }
        assert_eq!(of("quay.io/a/b:v1"), Some(pair("u", "p")));
        assert_eq!(of("quay.io/team/b"), Some(pair("team", "t")));
        assert_eq!(of("quay.io/teams/b"), Some(pair("u", "p")));
        let refresh = Some((String::new(), String::new(), "refresh".to_owned()));
        assert_eq!(of("127.0.0.1:5000/a"), refresh);
        for unknown in ["empty.example/a", "localhost/a", "127.0.0.1:5001/a"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_wrong_never_quotes_a_secret() {
        for (text, told) in [
            (r#"{"auths":{"quay.io":{"auth":"c2VjcmV0"}}}"#, "the auth of quay.io is not base64"),
            (r#"{"auths":{"quay.io":{"auth":["c2VjcmV0"]}}}"#, "line 1, column"),
            (r#"{"auths":{"quay.io":{"password":"c2VjcmV0""#, "line 1, column"),
        ] {
            let error = of(text, "quay.io/a").unwrap_err();
            assert!(error.contains(told) && !error.contains("c2VjcmV0"), "{error}");
            assert!(error.contains("/config.json"), "{error}");
        }
        let bad = Sources { given: Some("secret".into()), ..Sources::default() };
        assert_eq!(find("a", &bad).unwrap_err(), "--creds has to be USER:PASSWORD");
        let gone = Sources { authfile: Some("/nowhere.json".into()), ..Sources::default() };
        assert_eq!(find("a", &gone).unwrap_err(), "/nowhere.json is not there");
    }

    #[test]
    fn files_in_their_order() {
        let files = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            known_files(value).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/x")]),
            ["/x/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(
            files(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d"), ("REGISTRY_AUTH_FILE", "/r")]),
            ["/r", "/d/config.json"]
        );
        assert!(files(&[("DOCKER_CONFIG", "")]).is_empty());
    }

    #[test]
    fn a_helper_that_is_not_there_is_told_with_the_remedy() {
        let error = of(r#"{"credsStore":"no-such-helper"}"#, "busybox").unwrap_err();
        assert!(error.starts_with("the credential helper docker-credential-no-such-helper cannot"));
        assert!(of(r#"{"credsStore":"../x"}"#, "busybox").is_err());
    }
}
