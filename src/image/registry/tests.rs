//! Against scripted servers: logins, retries, bounds.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::super::Auth;
use super::super::hosts;
use super::*;

const MANIFEST: &str = r#"{"schemaVersion":2}"#;
const QUICK: Patience = Patience {
    connect: Duration::from_secs(10),
    inactivity: Duration::from_millis(200),
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_secs(2),
    pace_time: Duration::from_millis(300),
    pace_bytes: 1000,
};

/// A server that answers each request as it is told to, and notes them.
fn serve(
    answer: impl Fn(&str, &str) -> String + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let (own, noted) = (host.clone(), Arc::clone(&seen));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut buffer = [0; 4096];
            while !complete(&request) {
                match stream.read(&mut buffer) {
                    Ok(length @ 1..) => {
                        request.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    }
                    _ => break,
                }
            }
            noted.lock().unwrap().push(request.clone());
            drop(stream.write_all(answer(&request, &own).as_bytes()));
        }
    });
    (host, seen)
}

fn complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn pull(host: &str, auth: Option<Auth>) -> Result<(Bytes, Digest), Error> {
    pull_by(host, "", auth).await
}

/// With this as the host's hosts.toml.
async fn pull_by(
    host: &str,
    hosts_toml: &str,
    auth: Option<Auth>,
) -> Result<(Bytes, Digest), Error> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(host)).unwrap();
    if !hosts_toml.is_empty() {
        std::fs::write(dir.path().join(host).join("hosts.toml"), hosts_toml).unwrap();
    }
    let image = Reference::parse(&format!("{host}/some/app:v1")).unwrap();
    let endpoints = hosts::endpoints(&[dir.path().to_owned()], &image.domain).unwrap();
    let remote = Remote::new(&image, endpoints, auth, QUICK).unwrap();
    remote.manifest(&image.version).await
}

#[tokio::test]
async fn a_token_is_fetched_with_basic_credentials_and_with_a_refresh_token() {
    let (host, seen) = serve(|request, own| {
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s s\"\r\n");
        if request.contains("/token") {
            response("200 OK", "", r#"{"access_token":"granted"}"#)
        } else if request.to_ascii_lowercase().contains("authorization: bearer granted") {
            response("200 OK", "", MANIFEST)
        } else {
            response("401 Unauthorized", &challenge, "")
        }
    });
    let basic = Auth { username: "user".into(), password: "secret".into(), ..Auth::default() };
    pull(&host, Some(basic)).await.unwrap();
    let requests = std::mem::take(&mut *seen.lock().unwrap());
    assert!(
        requests[1].starts_with("GET /token?scope=repository%3Asome%2Fapp%3Apull&service=s+s "),
        "{requests:?}"
    );
    assert!(requests[1].contains("Basic dXNlcjpzZWNyZXQ="), "{requests:?}");

    let refresh =
        Auth { username: "user".into(), identity_token: "re/fresh".into(), ..Auth::default() };
    pull(&host, Some(refresh)).await.unwrap();
    let requests = std::mem::take(&mut *seen.lock().unwrap());
    assert!(
        requests[1].starts_with("POST /token ") && requests[1].contains("grant_type=refresh_token"),
        "{requests:?}"
    );
    assert!(requests[1].contains("refresh_token=re%2Ffresh"), "{requests:?}");

    let own_token = Auth { registry_token: "granted".into(), ..Auth::default() };
    pull(&host, Some(own_token)).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_lasting_ones_are_not() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let (host, _) = serve(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 => response("503 Service Unavailable", "", "busy"),
        1 => response("429 Too Many Requests", "", ""),
        2 => String::new(),
        _ => response("200 OK", "", MANIFEST),
    });
    assert_eq!(pull(&host, None).await.unwrap().0, MANIFEST);

    let (host, seen) = serve(|_, _| response("404 Not Found", "", "{}"));
    assert!(matches!(pull(&host, None).await, Err(Error::NotInRegistry { .. })));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn several_scopes_are_parameters_of_their_own() {
    let (host, seen) = serve(|request, own| {
        if request.contains("/token") {
            return response("200 OK", "", r#"{"token":"granted"}"#);
        }
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{own}/token\",scope=\"repository:a:pull repository:b:pull\"\r\n"
        );
        response("401 Unauthorized", &challenge, "")
    });
    drop(pull(&host, None).await);
    let requests = seen.lock().unwrap();
    let expected = "GET /token?scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull ";
    assert!(requests[1].starts_with(expected), "{requests:?}");
}

/// Whether any request had this.
fn told(seen: &Mutex<Vec<String>>, secret: &str) -> bool {
    seen.lock().unwrap().iter().any(|request| request.contains(secret))
}

#[tokio::test]
async fn credentials_go_to_the_registry_they_are_for() {
    let basic = |server_address: &str| {
        let (username, password) = ("user".into(), "secret".into());
        let server_address = server_address.into();
        Some(Auth { username, password, server_address, ..Auth::default() })
    };
    let asks = || {
        serve(|_, _| response("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""))
    };
    for (address, is_told) in [
        ("", true),
        ("https://@/v1/", true),
        ("@", true),
        ("elsewhere.example", false),
        ("https://index.docker.io/v1/", false),
    ] {
        let (host, seen) = asks();
        drop(pull(&host, basic(&address.replace('@', &host))).await);
        assert_eq!(told(&seen, "Basic dXNlcjpzZWNyZXQ="), is_told, "{address}");
    }
    assert_eq!(hosts::domain_of("https://index.docker.io/v1/"), "docker.io");
}

#[tokio::test]
async fn a_registry_token_goes_to_no_mirror() {
    let bearer = "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\"\r\n";
    let (mirror, asked) = serve(move |_, _| response("401 Unauthorized", bearer, ""));
    let (upstream, seen) = serve(|_, _| response("200 OK", "", MANIFEST));
    let hosts_toml = format!("server = \"http://{upstream}\"\n[host.\"http://{mirror}\"]\n");
    let auth = Auth { registry_token: "granted".into(), ..Auth::default() };
    pull_by(&upstream, &hosts_toml, Some(auth)).await.unwrap();
    assert!(told(&seen, "Bearer granted") && !told(&asked, "granted"));
}

#[tokio::test]
async fn a_refresh_token_does_not_follow_redirects() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let (other, seen) = serve(|_, _| response("200 OK", "", r#"{"token":"x"}"#));
        let (host, _) = serve(move |request, own| {
            if request.contains("/token") {
                return response(status, &format!("Location: http://{other}/token\r\n"), "");
            }
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
            response("401 Unauthorized", &challenge, "")
        });
        let auth = Auth { identity_token: "refresh".into(), ..Auth::default() };
        pull(&host, Some(auth)).await.unwrap_err();
        assert!(seen.lock().unwrap().is_empty(), "{status}");
    }
}

#[tokio::test]
async fn credentials_of_a_secure_registry_never_go_in_clear() {
    let (realm, seen) = serve(|_, _| response("200 OK", "", r#"{"token":"x"}"#));
    let endpoints = hosts::endpoints(&[], "registry.example").unwrap();
    let server = Server::new(endpoints.into_iter().next().unwrap(), &QUICK).unwrap();
    let url = format!("http://{realm}/token");
    for credentials in [Credentials::Basic("Basic x".into()), Credentials::Refresh("x".into())] {
        let fault = server.token(&url, None, "s", &credentials).await.unwrap_err();
        assert!(matches!(&fault, Fault::Lasting(why) if why.contains("in clear")), "{fault:?}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_to_another_host_loses_the_login() {
    let (storage, seen) = serve(|_, _| response("200 OK", "", MANIFEST));
    let (host, _) = serve(move |_, _| {
        response("307 Temporary Redirect", &format!("Location: http://{storage}/blob\r\n"), "")
    });
    let auth = Auth { registry_token: "granted".into(), ..Auth::default() };
    pull(&host, Some(auth)).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert!(!told(&seen, "granted"));
}

#[tokio::test]
async fn a_mirror_that_does_not_have_it_is_passed_over() {
    let page = "<html>please log in</html>";
    for (status, body) in [
        ("200 OK", page),
        ("200 OK", r#"{"schemaVersion":1}"#),
        ("401 Unauthorized", ""),
        ("403 Forbidden", page),
        ("404 Not Found", ""),
        ("500 Internal Server Error", page),
    ] {
        let (upstream, _) = serve(|_, _| response("200 OK", "", MANIFEST));
        let (mirror, seen) = serve(move |_, _| response(status, "", body));
        let hosts_toml = format!("server = \"http://{upstream}\"\n[host.\"http://{mirror}\"]\n");
        let found = pull_by(&upstream, &hosts_toml, None).await.unwrap();
        assert_eq!(found.0, MANIFEST, "{status}");
        let requests = seen.lock().unwrap();
        assert_eq!(requests.len(), 1, "{status}");
        assert!(requests[0].contains(&format!("?ns={upstream}")), "{requests:?}");
    }
}

#[tokio::test]
async fn answers_without_end_and_without_beginning_are_errors() {
    let (host, _) = serve(|_, _| format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(5 << 20)));
    let error = pull(&host, None).await.unwrap_err().to_string();
    assert!(error.contains("larger than 4194304 bytes"), "{error}");

    // A word every now and then, and no end of them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let error = pull(&host, None).await.unwrap_err().to_string();
    // The latter only where the machine itself was too slow.
    assert!(error.contains("too slow") || error.contains("sends nothing"), "{error}");

    // Accepts, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error =
        pull(&listener.local_addr().unwrap().to_string(), None).await.unwrap_err().to_string();
    assert!(error.contains("sends nothing"), "{error}");
}

#[tokio::test]
async fn a_told_digest_is_verified() {
    let told = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"else"));
    let (host, _) = serve(move |_, _| response("200 OK", &told, MANIFEST));
    let error = pull(&host, None).await.unwrap_err().to_string();
    assert!(error.contains("the manifest should be"), "{error}");
}
