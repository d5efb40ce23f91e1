//! Credentials: from files, from helpers, and what is said when there are none to be had.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::server::Server;
use super::{Ended, ended, halectl};

/// A home with `docker login`'s file, and a directory of helpers before the PATH.
pub(super) struct Home(tempfile::TempDir);

impl Home {
    pub(super) fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        std::fs::create_dir(home.path().join("bin")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
        Self(home)
    }

    pub(super) fn helper(&self, name: &str, script: &str) {
        let path = self.0.path().join("bin").join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(super) fn command(&self, socket: &Path, args: &[&str]) -> Command {
        let mut command = halectl(socket, args);
        for name in ["DOCKER_CONFIG", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"] {
            command.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.0.path().join("bin").display()));
        command.env("HOME", self.0.path());
        command
    }

    fn pull(&self, server: &Server, args: &[&str]) -> Ended {
        let args = [&["image", "pull"], args].concat();
        ended(self.command(&server.socket(), &args).output().unwrap())
    }
}

#[test]
fn a_login_is_sent_with_the_pull_and_to_its_registry_only() {
    let server = Server::start();
    let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpzZWNyZXQ="}}}"#;
    let home = Home::new(config);
    assert_eq!(home.pull(&server, &["busybox"]).0, Some(0));
    // Of another registry: there is none.
    assert_eq!(home.pull(&server, &["quay.io/busybox"]).0, Some(1));
    assert_eq!(home.pull(&server, &["busybox", "--creds", "me:pass:word"]).0, Some(0));
    let file = home.0.path().join("auth.json");
    std::fs::write(&file, r#"{"auths": {"docker.io": {"username": "a", "password": "b"}}}"#)
        .unwrap();
    assert_eq!(home.pull(&server, &["busybox", "--authfile", file.to_str().unwrap()]).0, Some(0));
    assert_eq!(
        server.asked(),
        [
            r#"pull as "user" "secret" at docker.io"#,
            r#"pull as "me" "pass:word" at docker.io"#,
            r#"pull as "a" "b" at docker.io"#,
        ]
    );
}

#[test]
fn helpers_are_asked_by_dockers_protocol() {
    let server = Server::start();
    let home = Home::new(
        r#"{"credHelpers": {"docker.io": "own"}, "credsStore": "all",
            "auths": {"https://index.docker.io/v1/": {}}}"#,
    );
    let asked = home.0.path().join("asked");
    let noting = |answer: &str| format!("read s; echo $1 $s >> {}; {answer}", asked.display());
    home.helper("own", &noting("echo credentials not found in native keychain; exit 1"));
    home.helper("all", &noting(r#"echo '{"ServerURL":"x","Username":"u","Secret":"s"}'"#));
    assert_eq!(home.pull(&server, &["busybox"]).0, Some(0));
    assert_eq!(server.asked(), [r#"pull as "u" "s" at docker.io"#]);
    assert_eq!(
        std::fs::read_to_string(&asked).unwrap(),
        "get docker.io\nget https://index.docker.io/v1/\n"
    );
}

#[test]
fn a_helper_that_fails_is_told_without_its_secret() {
    let server = Server::start();
    let home = Home::new(r#"{"credsStore": "it"}"#);
    for (script, told) in [
        (
            "echo the keychain is locked; exit 1",
            "failed for https://index.docker.io/v1/ (exit status: 1): the keychain is locked\n",
        ),
        (
            "echo '{\"Secret\": \"hidden\"'",
            "gave no credentials for https://index.docker.io/v1/, but something else\n",
        ),
    ] {
        home.helper("it", script);
        let (code, out, error) = home.pull(&server, &["busybox"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert_eq!(error, format!("halectl: the credential helper docker-credential-it {told}"));
    }
    assert!(server.asked().is_empty());
}
