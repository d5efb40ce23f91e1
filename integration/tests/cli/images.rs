//! `halectl image` with the real daemon, a real registry and a real terminal.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use haled::proto::cri;
use serde_json::{Value, json};

use super::credentials::Home;
use super::server::Server;
use super::terminal::Terminal;
use super::{Ended, ended, halectl};
use crate::daemon::{BUSYBOX, Daemon};
use crate::image::build::{Built, Layer, Packing, archive, sha256};
use crate::image::registry::{Mischief, Registry, Tap};

fn run(daemon: &Daemon, args: &[&str]) -> Ended {
    ended(halectl(&daemon.socket(), args).output().unwrap())
}

fn well(daemon: &Daemon, args: &[&str]) -> String {
    let (code, out, error) = run(daemon, args);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}\n{}", daemon.log());
    out
}

fn badly(daemon: &Daemon, args: &[&str]) -> String {
    let (code, out, error) = run(daemon, args);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {error}");
    error
}

/// A halectl in a terminal.
fn terminal(socket: PathBuf, args: &[&str]) -> Terminal {
    let socket = socket.display().to_string();
    let words = [&[env!("CARGO_BIN_EXE_halectl"), "--address", &socket], args].concat();
    Terminal::run(&words, None)
}

fn listed(daemon: &Daemon) -> Vec<Value> {
    serde_json::from_str(&well(daemon, &["image", "ls", "-o", "json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_login_is_pulled_from_by_dockers_file_and_by_a_helper() {
    let daemon = Daemon::start_without_network().await;
    let registry = Registry::with_login();
    let built = Built::oci(&[(Layer::new().file("a", "a").tar(), Packing::Gzip)]);
    registry.push("team/app", "v1", &built);
    let tap = Tap::at(daemon.listener(), &registry, |_| Mischief::None);
    let (host, name) = (&tap.host, format!("{}/team/app:v1", tap.host));
    let pull = |home: &Home, args: &[&str]| {
        let args = [&["image", "pull", &name], args].concat();
        ended(home.command(&daemon.socket(), &args).output().unwrap())
    };
    let gone = || well(&daemon, &["image", "rm", &name]);
    let id = format!("{}\n", built.id());
    // user:secret, and user:wrong.
    let login = |auth: &str| format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    let (nobody, right) = (Home::new("{}"), Home::new(&login("dXNlcjpzZWNyZXQ=")));
    let wrong = Home::new(&login("dXNlcjp3cm9uZw=="));
    for (home, args) in [(&nobody, &[][..]), (&wrong, &[]), (&right, &["--creds", "user:wrong"])] {
        let (code, out, error) = pull(home, args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}");
        let told = format!("cannot pull \"{name}\": registry {host} says unauthorized");
        assert!(error.contains(&told) && !error.contains("wrong"), "{args:?}: {error}");
    }
    assert_eq!(listed(&daemon).len(), 1);
    assert_eq!(pull(&right, &[]), (Some(0), id.clone(), String::new()));
    gone();
    assert_eq!(pull(&nobody, &["--creds", "user:secret"]), (Some(0), id.clone(), String::new()));
    gone();
    // A helper that knows this registry alone.
    let helped = Home::new(&format!(r#"{{"credHelpers": {{"{host}": "own"}}}}"#));
    let answer = r#"{"ServerURL":"x","Username":"user","Secret":"secret"}"#;
    helped.helper("own", &format!("read s; [ \"$s\" = {host} ] && echo '{answer}'"));
    assert_eq!(pull(&helped, &[]), (Some(0), id, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_uses_is_removed_by_force_alone() {
    let daemon = Daemon::start_without_network().await;
    for name in ["docker.io/library/own:1", "docker.io/library/own:2"] {
        daemon.import(name, &crate::daemon::busybox::tar()).await.unwrap();
    }
    let mut container = Daemon::host_container("app", "exec sleep 600");
    container.image = Some(cri::ImageSpec { image: "own:1".into(), ..Default::default() });
    let pod = daemon.run(&daemon.host_sandbox("user")).await;
    let running = daemon.run_container(&pod, container).await;

    let images = listed(&daemon);
    let own = images.iter().find(|image| image["usedBy"] != json!([])).unwrap();
    assert_eq!(own["usedBy"], json!(["default/user/app"]));
    let tags = [BUSYBOX, "docker.io/library/own:1", "docker.io/library/own:2"];
    assert_eq!(own["tags"], json!(tags), "one image by its content: {images:?}");
    let id = own["id"].as_str().unwrap();
    let yaml = well(&daemon, &["image", "ls", "-o", "yaml"]);
    assert!(yaml.contains(&format!("id: {id}")) && yaml.contains("default/user/app"), "{yaml}");
    let wide = well(&daemon, &["image", "ls", "-o", "wide"]);
    assert_eq!(wide.matches(id).count(), 3, "{wide}");
    let inspected: Value =
        serde_json::from_str(&well(&daemon, &["image", "inspect", "own:2"])).unwrap();
    assert_eq!((&inspected[0]["id"], &inspected[0]["usedBy"]), (&own["id"], &own["usedBy"]));
    assert_eq!(inspected[0]["layers"].as_array().unwrap().len(), 1);
    assert!(inspected[0]["size"].as_u64().unwrap() > 0);

    // A name that isn't the last one goes, whoever uses the image.
    assert_eq!(
        well(&daemon, &["image", "rm", "own:1", "busybox"]),
        "own:1 removed\nbusybox removed\n"
    );
    let short = &id[7..19];
    for name in ["own:2", short, id] {
        let error = badly(&daemon, &["image", "rm", name]);
        let told = format!("image \"{name}\" is used by default/user/app: delete what uses it");
        assert!(error.contains(&told), "{error}");
    }
    assert_eq!(well(&daemon, &["image", "prune", "--all"]), "0B freed\n");
    assert_eq!(listed(&daemon).len(), 1);
    well(&daemon, &["image", "rm", "--force", short]);
    assert!(listed(&daemon).is_empty());
    let error = badly(&daemon, &["image", "inspect", "own:2"]);
    assert!(error.contains("\"own:2\" is not on this node"), "{error}");
    // It runs on, and what it stood on goes with it.
    assert_eq!(daemon.exec(&running, &["echo", "on"]).await.1, "on\n");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
    for dir in ["layers", "blobs/sha256"] {
        let left = std::fs::read_dir(daemon.path("root/images").join(dir)).unwrap().count();
        assert_eq!(left, 0, "{dir}");
    }
}

/// Bytes that the images take on the disk, as the CRI tells it.
async fn used(daemon: &Daemon) -> u64 {
    let info = daemon.images().await.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap();
    info.into_inner().image_filesystems[0].used_bytes.unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_takes_what_nothing_uses_and_tells_what_that_freed() {
    let daemon = Daemon::start_without_network().await;
    let import = async |name: &str, letter: u8| {
        let layer = Layer::new().program("large", &vec![letter; 2 << 20]).tar();
        let built = Built::oci(&[(layer, Packing::Plain)]);
        let archive = archive(&built.layout(&json!({})));
        daemon.import(name, &archive).await.unwrap().remove(0)
    };
    let old = import("docker.io/library/app:1", b'a').await;
    // Takes the name from the other, which has none then but its digest.
    import("docker.io/library/app:1", b'b').await;
    import("docker.io/library/app:2", b'c').await;
    let pod = daemon.run(&daemon.host_sandbox("user")).await;
    daemon.run_container(&pod, Daemon::host_container("app", "exec sleep 600")).await;
    assert_eq!(listed(&daemon).len(), 4);
    for (args, gone) in [(&["image", "prune"][..], 1), (&["image", "prune", "--all"], 2)] {
        let before = used(&daemon).await;
        let answer = well(&daemon, args);
        let freed = before - used(&daemon).await;
        assert!(freed > gone * (4 << 20), "a blob and a layer each: {freed}");
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!(lines.len() as u64, gone + 1, "{answer}");
        let megabytes = freed as f64 / 1e6;
        let told = if freed < 9_995_000 {
            format!("{megabytes:.2}MB")
        } else {
            format!("{megabytes:.1}MB")
        };
        assert_eq!(lines.last(), Some(&&*format!("{told} freed")), "{answer}");
    }
    let left = listed(&daemon);
    assert_eq!((left.len(), &left[0]["tags"]), (1, &json!([BUSYBOX])));
    let error = badly(&daemon, &["image", "rm", &old.id]);
    assert!(error.contains("is not on this node"), "{error}");
    assert_eq!(well(&daemon, &["image", "prune", "--all", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_in_a_terminal_shows_how_far_it_is_and_leaves_the_id_alone() {
    let daemon = Daemon::start_without_network().await;
    let registry = Registry::start();
    let layer = |letter| Layer::new().program("large", &vec![letter; 4 << 20]).tar();
    let built = Built::oci(&[(layer(b'a'), Packing::Plain), (layer(b'b'), Packing::Plain)]);
    registry.push("app", "v1", &built);
    let (open, last) = (Arc::new(AtomicBool::new(false)), sha256(&built.blobs[1]));
    let gate = Arc::clone(&open);
    let tap = Tap::at(daemon.listener(), &registry, move |line| {
        while line.contains(&last) && !gate.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Mischief::None
    });
    let name = format!("{}/app:v1", tap.host);
    let mut pull = terminal(daemon.socket(), &["image", "pull", &name]);
    // One layer of two is here, of 8.4 MB in all.
    let seen = pull.until("4.20 MB/8.39 MB");
    assert!(seen.contains("pulling 2 layers [=") && seen.contains('>'), "{seen}");
    pull.until("/s");
    open.store(true, Ordering::Relaxed);
    pull.until(&built.id());
    assert!(pull.end().success());
    assert!(pull.is_plain());

    // Not where it isn't wanted, nor where nobody looks.
    let mut quiet = terminal(daemon.socket(), &["image", "pull", "-q", &name]);
    let seen = quiet.until(&built.id());
    assert_eq!(seen, built.id());
    assert!(quiet.end().success());
    assert_eq!(well(&daemon, &["image", "pull", &name]), format!("{}\n", built.id()));
}

#[test]
fn an_import_and_an_export_in_a_terminal_show_how_far_they_are() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    std::fs::File::create(&file).unwrap().set_len(3_500_000).unwrap();
    let args = ["image", "import", "--name", "x:1", file.to_str().unwrap()];
    let mut import = terminal(server.socket(), &args);
    import.until("sending [");
    import.until("/3.50 MB");
    let seen = import.until("docker.io/library/x:latest sha256:");
    assert!(seen.contains("unpacking layer 2 of 2 [="), "{seen}");
    assert!(import.end().success());
    let mut quiet = terminal(server.socket(), &[&args[..], &["-q"]].concat());
    assert_eq!(quiet.until("docker.io"), "docker.io");
    assert!(quiet.end().success());

    let out = dir.path().join("out.tar");
    let args = ["image", "export", "-o", out.to_str().unwrap(), "busybox"];
    let mut export = terminal(server.socket(), &args);
    export.until("exporting [");
    assert!(export.end().success());
    assert_eq!(std::fs::read(&out).unwrap(), b"archive");
    let mut nowhere = terminal(server.socket(), &["image", "export", "busybox"]);
    nowhere.until("an archive is nothing for a terminal: give a file with -o");
    assert_eq!(nowhere.end().code(), Some(1));
}

/// A socket before the daemon's that passes on so many bytes of what it says to one client, and
/// then nothing until the daemon is gone.
fn halting(daemon: &Daemon, bytes: usize) -> (PathBuf, Arc<AtomicBool>) {
    let (path, reached) = (daemon.path("halting.sock"), Arc::new(AtomicBool::new(false)));
    let listener = UnixListener::bind(&path).unwrap();
    let (socket, told) = (daemon.socket(), Arc::clone(&reached));
    std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut server = UnixStream::connect(socket).unwrap();
        let (mut asking, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut asking, &mut asked).ok());
        let mut passed = 0;
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            if passed < bytes && client.write_all(&buffer[..length]).is_err() {
                return;
            }
            passed += length;
            told.store(passed >= bytes, Ordering::Relaxed);
        }
        client.shutdown(std::net::Shutdown::Both).ok();
    });
    (path, reached)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_daemon_is_killed_leaves_no_file() {
    let mut daemon = Daemon::start_without_network().await;
    let layer = Layer::new().program("large", &vec![7; 32 << 20]).tar();
    let built = Built::oci(&[(layer, Packing::Plain)]);
    let whole = archive(&built.layout(&json!({})));
    daemon.import("docker.io/library/app:1", &whole).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.tar");
    let args = ["image", "export", "-o", file.to_str().unwrap(), "app:1"];
    let (socket, reached) = halting(&daemon, 4 << 20);
    let exporting = halectl(&socket, &args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    daemon.until("a part of it", || reached.load(Ordering::Relaxed)).await;
    daemon.kill();
    let (code, out, error) = ended(exporting.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    assert!(error.starts_with("halectl: "), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    daemon.launch().await;
    assert_eq!(well(&daemon, &args), "");
    daemon.import("docker.io/library/again:1", &std::fs::read(&file).unwrap()).await.unwrap();
    let same = listed(&daemon).into_iter().find(|image| image["id"] == json!(built.id())).unwrap();
    assert_eq!(same["tags"].as_array().unwrap().len(), 2);
    // To what is no file it is written as it is.
    assert_eq!(well(&daemon, &["image", "export", "-o", "/dev/null", "app:1"]), "");
    let null = std::fs::metadata("/dev/null").unwrap();
    assert!(!null.is_file());

    // halectl itself is killed: not even a part is left.
    let (socket, reached) = {
        std::fs::remove_file(daemon.path("halting.sock")).unwrap();
        halting(&daemon, 4 << 20)
    };
    std::fs::remove_file(&file).unwrap();
    let mut exporting = halectl(&socket, &args).spawn().unwrap();
    daemon.until("a part of it", || reached.load(Ordering::Relaxed)).await;
    exporting.kill().unwrap();
    exporting.wait().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
