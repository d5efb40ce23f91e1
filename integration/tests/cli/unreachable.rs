//! Sockets that lead to no haled.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::{ended, halectl};

#[test]
fn a_daemon_that_is_not_there_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let told = |origin: &str, why: &str| {
        let socket = socket.display();
        format!(
            "halectl: cannot reach haled at {socket} ({origin}): {why}; or say where it listens: \
             --socket PATH, or HALED_ADDRESS\n"
        )
    };
    let start = "is haled running? Start it: systemctl start haled";
    let (code, out, error) = ended(halectl(&socket, &["get", "pods"]).output().unwrap());
    let expected = told("by --address", &format!("there is no such socket; {start}"));
    assert_eq!((code, out.as_str(), error), (Some(1), "", expected));

    // A socket that nobody listens on any more; by the environment, as a URL.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_halectl"));
    command.env("HALED_ADDRESS", format!("unix://{}", socket.display())).args(["get", "pods"]);
    let expected = told("by HALED_ADDRESS", &format!("nobody listens on it; {start}"));
    let (code, _, error) = ended(command.output().unwrap());
    assert_eq!((code, error), (Some(1), expected));

    // A file, and what can't be a path.
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_halectl"));
    let output = command.args(["get", "pods", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(ended(output).2, told("by --socket", "that is no socket").replace("; or", ";"));
    let below = socket.join("h.sock");
    let error = ended(halectl(&below, &["get", "pods"]).output().unwrap()).2;
    assert!(error.contains("a part of the path is no directory"), "{error}");
    let long = dir.path().join("x".repeat(120));
    let error = ended(halectl(&long, &["get", "pods"]).output().unwrap()).2;
    assert!(error.contains("the kernel's limit is 107 bytes"), "{error}");
}

#[test]
fn a_socket_that_only_root_may_use_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("h.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, mode) in [(dir.path(), 0o755), (&socket, 0o600)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // The program may be where only root can look: it is called by its descriptor.
    let program = std::fs::File::open(env!("CARGO_BIN_EXE_halectl")).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/proc/self/fd/0"])
        .arg("--socket")
        .arg(&socket)
        .args(["get", "pods"])
        .stdin(program)
        .output()
        .unwrap();
    let (code, _, error) = ended(output);
    let expected = "permission denied: only root may use it; try again with sudo\n";
    assert!(error.ends_with(expected) && code == Some(1), "{error}");
}

#[test]
fn something_else_on_the_socket_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    let (code, out, error) = ended(halectl(&socket, &["get", "pods"]).output().unwrap());
    other.join().unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.starts_with("halectl: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn a_command_that_says_too_little_is_a_mistake_of_the_command_line() {
    // No daemon is asked: there is none.
    let socket = std::path::Path::new("/nonexistent/haled.sock");
    let cases: [(&[&str], &str); 4] = [
        (&["delete", "pods"], "which pods? Name them, or say -l LABELS, --all or -f FILE"),
        (&["wait", "pods"], "for which pods? Name them, or say -l LABELS, --all or -A"),
        (&["-n", "x", "apply", "-f", "x.yaml"], "--namespace says nothing about a manifest"),
        (&["-n", "x", "delete", "-f", "x.yaml"], "--namespace says nothing about a manifest"),
    ];
    for (arguments, told) in cases {
        let (code, out, error) = ended(halectl(socket, arguments).output().unwrap());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {error}");
        assert!(error.starts_with(&format!("halectl: {told}")), "{error}");
        let usage = if arguments.contains(&"-n") { arguments[2] } else { arguments[0] };
        assert!(error.contains(&format!("\nUsage: halectl {usage} ")), "{error}");
    }
}

#[test]
fn what_listens_and_is_not_haled_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("mail.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            // It may have gone by then.
            caller.unwrap().write_all(b"220 mail.example ESMTP, and so on and so on\r\n").ok();
        }
    });
    let (code, _, error) = ended(halectl(&socket, &["get", "pods"]).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(error.contains("what listens ") && error.contains("is not haled"), "{error}");

    // Nobody ever takes this call from the queue.
    let socket = dir.path().join("mute.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let (code, _, error) = ended(halectl(&socket, &["get", "pods"]).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(error.contains("haled doesn't answer"), "{error}");
    let limited = halectl(&socket, &["get", "pods", "--request-timeout", "100ms"]).output();
    let (code, _, error) = ended(limited.unwrap());
    assert_eq!((code, &*error), (Some(1), "halectl: not done within 100ms (--request-timeout)\n"));
}

#[test]
fn an_empty_address_is_none_and_a_wrong_one_is_named() {
    let of = |address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halectl"));
        let output = command.env("HALED_ADDRESS", address).args(["config"]).output().unwrap();
        ended(output)
    };
    assert!(of("").1.contains("/run/haled/haled.sock, the default"));
    let (code, _, error) = of("tcp://127.0.0.1:1");
    assert_eq!(code, Some(1));
    assert!(error.starts_with("halectl: HALED_ADDRESS=tcp://127.0.0.1:1: only unix"), "{error}");
}

#[test]
fn versions_of_halectl_alone_need_no_daemon() {
    let socket = std::path::Path::new("/nonexistent/haled.sock");
    let (code, out, error) = ended(halectl(socket, &["version", "--client"]).output().unwrap());
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(out.starts_with("halectl ") && out.lines().count() == 1, "{out}");
}
