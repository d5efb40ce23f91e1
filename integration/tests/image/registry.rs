//! A real docker-registry on loopback, gone with its guard, and pushing to it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::build::{Built, sha256};

/// `user:secret` for the registries with a login.
const HTPASSWD: &str = "user:$2b$04$bed0W4B/zGe6oQhQKQBjp.mZgQ/Iy17pytk0/89tBGErFo62fFiHW\n";
const BASIC: &str = "Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
/// Starting a registry on a loaded machine.
const START: Duration = Duration::from_mins(1);

/// A running registry.
pub(crate) struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    /// `127.0.0.1:port`.
    pub(crate) host: String,
    login: &'static str,
}

impl Registry {
    /// Without a login.
    pub(crate) fn start() -> Self {
        Self::with("", "")
    }

    /// Asks for user "user" and password "secret".
    pub(crate) fn with_login() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: haled-test\n    path: @DIR@/htpasswd\n", BASIC)
    }

    /// Over TLS, with a certificate of its own for 127.0.0.1.
    pub(crate) fn with_tls() -> Self {
        Self::with("  tls:\n    certificate: @DIR@/registry.crt\n    key: @DIR@/registry.key\n", "")
    }

    /// As `with_tls`, and wants a client's certificate: see `client`.
    pub(crate) fn with_client_certificates() -> Self {
        let tls = "  tls:\n    certificate: @DIR@/registry.crt\n    key: @DIR@/registry.key\n    clientcas: [@DIR@/authority.crt]\n";
        Self::with(tls, "")
    }

    /// A certificate that its authority signed, and its key.
    pub(crate) fn client(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("registry.crt"), self.dir.path().join("registry.key"))
    }

    /// The authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.crt")
    }

    fn with(auth: &str, login: &'static str) -> Self {
        let deadline = Instant::now() + START;
        loop {
            // The port may be taken between the two binds: then the registry ends, and the
            // next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display().to_string();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
                 http:\n  addr: 127.0.0.1:{port}\n{}",
                auth.replace("@DIR@", &root)
            );
            std::fs::write(dir.path().join("config.yml"), config).unwrap();
            std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            if auth.contains("tls:") {
                certify(dir.path());
            }
            let child = Command::new("/usr/bin/docker-registry")
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is installed");
            let mut registry = Self { child, dir, host: format!("127.0.0.1:{port}"), login };
            while registry.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&registry.host).is_ok() {
                    return registry;
                }
                assert!(Instant::now() < deadline, "docker-registry does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "docker-registry does not start");
        }
    }

    /// Where a blob's bytes are on its disk.
    pub(crate) fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = &digest[7..];
        self.dir
            .path()
            .join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// `host/name`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Blobs and manifest, under a tag.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Built) {
        for blob in image.blobs.iter().chain([&image.config]) {
            self.push_blob(repository, blob);
        }
        self.push_manifest(repository, tag, image.media_type, &image.manifest);
    }

    pub(crate) fn push_blob(&self, repository: &str, blob: &[u8]) {
        let (status, head) =
            self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202, "{head}");
        let location = head
            .lines()
            .find_map(|l| l.split_once(": ").filter(|(k, _)| k.eq_ignore_ascii_case("location")));
        let location = location.expect("a location").1.trim();
        let path = location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(location);
        let path = format!("{path}&digest={}", sha256(blob));
        let (status, head) =
            self.request("PUT", &path, "Content-Type: application/octet-stream\r\n", blob);
        assert_eq!(status, 201, "{head}");
    }

    pub(crate) fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        manifest: &[u8],
    ) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, head) =
            self.request("PUT", &path, &format!("Content-Type: {media_type}\r\n"), manifest);
        assert_eq!(status, 201, "{head}");
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{}{headers}\r\n",
            self.host,
            body.len(),
            self.login
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

/// Makes an authority, and a key and certificate for 127.0.0.1.
fn certify(dir: &std::path::Path) {
    let script =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj \"/CN=authority of ${PWD##*/}\" -keyout authority.key -out authority.crt &&
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry \
            -keyout registry.key -out registry.csr &&
        printf 'subjectAltName=IP:127.0.0.1' > san &&
        openssl x509 -req -in registry.csr -CA authority.crt -CAkey authority.key -CAcreateserial \
            -days 2 -extfile san -out registry.crt";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

/// What a [`Tap`] does to a request.
pub(crate) enum Mischief {
    /// Nothing.
    None,
    /// The connection ends without a word.
    Refuse,
    /// This status line and these headers.
    Status(&'static str),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Half of the answer, and then nothing.
    Stall,
    /// The body's first byte is another one.
    Flip,
    /// The registry never hears of a Range.
    NoRange,
}

type Script = std::sync::Arc<dyn Fn(&str) -> Mischief + Send + Sync>;

/// A server between a client and a registry that notes each request line, with the Range
/// after it, and does what it is told to.
pub(crate) struct Tap {
    pub(crate) host: String,
    seen: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Tap {
    /// Stalls where `stall_at` is in the path of a request.
    pub(crate) fn before(registry: &Registry, stall_at: Option<String>) -> Self {
        Self::with(registry, move |line| match &stall_at {
            Some(part) if line.contains(part) => Mischief::Stall,
            _ => Mischief::None,
        })
    }

    /// `script` is asked for each request, by its line.
    pub(crate) fn with(
        registry: &Registry,
        script: impl Fn(&str) -> Mischief + Send + Sync + 'static,
    ) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), registry, script)
    }

    /// The same with a socket that may be in another network.
    pub(crate) fn at(
        listener: TcpListener,
        registry: &Registry,
        script: impl Fn(&str) -> Mischief + Send + Sync + 'static,
    ) -> Self {
        let host = listener.local_addr().unwrap().to_string();
        let seen = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let (upstream, noted) = (registry.host.clone(), seen.clone());
        let script: Script = std::sync::Arc::new(script);
        // Ends with the test process: a listener's thread has nothing to clean up.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (upstream, noted, script) = (upstream.clone(), noted.clone(), script.clone());
                std::thread::spawn(move || pass(stream, &upstream, &noted, &script));
            }
        });
        Self { host, seen }
    }

    /// GETs whose path has this in it.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen(part).iter().filter(|line| line.starts_with("GET ")).count()
    }

    /// Every request whose path has this in it.
    pub(crate) fn seen(&self, part: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

/// One request of one connection.
fn pass(
    mut client: TcpStream,
    upstream: &str,
    noted: &std::sync::Mutex<Vec<String>>,
    script: &Script,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let mut head = String::from_utf8(head).unwrap();
    let range = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("range: "))
        .map(str::to_owned);
    let line = [head.lines().next(), range.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    let line = line.join(" ");
    let mischief = script(&line);
    noted.lock().unwrap().push(line);
    match mischief {
        Mischief::Refuse => return,
        Mischief::Status(status) => {
            let answer =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            return drop(client.write_all(answer.as_bytes()));
        }
        Mischief::NoRange => {
            if let Some(range) = range {
                head = head.replace(&format!("{range}\r\n"), "");
            }
        }
        _ => {}
    }
    let mut server = TcpStream::connect(upstream).unwrap();
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|at| at == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    match mischief {
        Mischief::Cut(bytes) => answer.truncate(body + bytes),
        Mischief::Flip if body < answer.len() => answer[body] ^= 1,
        Mischief::Stall => {
            drop(client.write_all(&answer[..answer.len() / 2]));
            // Until the client goes.
            return drop(client.read(&mut byte));
        }
        _ => {}
    }
    drop(client.write_all(&answer));
}
