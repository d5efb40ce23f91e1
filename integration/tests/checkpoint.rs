//! Checkpoints by the real CRIU: what is in the archive, what is left after a failure, and
//! containers that go on from one.

mod images;
mod interrupted;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use haled::proto::cri;
use tonic::Code;

use crate::daemon::Daemon;

/// Counts into a file and its log.
const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo $i >/count; echo $i; sleep 0.05; done";

/// Where integration/criu put it. `None` leaves the test out, and says so.
fn criu() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criu");
    if dir.join("criu").exists() {
        return Some(dir);
    }
    eprintln!("SKIPPED: there is no target/criu/criu: run integration/criu");
    None
}

async fn daemon_with_criu() -> Option<Daemon> {
    let programs = criu()?;
    let mut daemon = Daemon::start_with("").await;
    daemon.terminate();
    daemon.programs = Some(programs);
    allow_restoring(&daemon);
    daemon.launch().await;
    Some(daemon)
}

/// From the daemon's next start.
fn allow_restoring(daemon: &Daemon) {
    let dir = daemon.path("config.d");
    std::fs::create_dir(&dir).unwrap();
    let text = "[runtime]\nrestore_checkpoints = true\n";
    std::fs::write(dir.join("checkpoints.toml"), text).unwrap();
}

async fn checkpoint(
    daemon: &Daemon,
    container: &str,
    location: &Path,
    timeout: i64,
) -> Result<(), tonic::Status> {
    let request = cri::CheckpointContainerRequest {
        container_id: container.into(),
        location: location.to_str().unwrap().into(),
        timeout,
    };
    daemon.runtime().await.checkpoint_container(request).await.map(drop)
}

fn members(archive: impl std::io::Read) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    });
    entries.collect()
}

/// The last number that a counter has written.
async fn count(daemon: &Daemon, container: &str) -> u64 {
    loop {
        // Between its truncation and its writing the file is empty.
        if let Ok(count) = daemon.exec(container, &["cat", "/count"]).await.1.trim().parse() {
            return count;
        }
    }
}

async fn counts_beyond(daemon: &Daemon, container: &str, least: u64) {
    let began = std::time::Instant::now();
    while count(daemon, container).await <= least {
        assert!(began.elapsed() < crate::daemon::PATIENCE, "it does not count: {}", daemon.log());
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn a_running_container_is_written_to_an_archive_and_runs_on() {
    let Some(daemon) = daemon_with_criu().await else { return };
    let pod = daemon.run(&daemon.sandbox("counted")).await;
    let script = format!("rm /etc/passwd; ln -s /bin/sh /tmp/link; {COUNTER}");
    let id = daemon.run_container(&pod, Daemon::container("counter", &script)).await;
    counts_beyond(&daemon, &id, 2).await;
    let dir = daemon.path("checkpoints");
    std::fs::create_dir(&dir).unwrap();
    let location = dir.join("counter.tar");
    checkpoint(&daemon, &id, &location, 60).await.unwrap_or_else(|error| {
        panic!("{error}\n{}", daemon.log());
    });

    let mode = std::fs::metadata(&location).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    let members = members(std::fs::File::open(&location).unwrap());
    let json =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&members[name]).unwrap() };
    let config = json("config.dump");
    assert_eq!(config["id"], id.as_str());
    assert_eq!(config["name"], "counter");
    assert_eq!(config["rootfsImageName"], crate::daemon::BUSYBOX);
    assert_eq!(config["runtime"], "runc");
    assert_eq!(json("spec.dump")["annotations"]["io.kubernetes.cri.container-name"], "counter");
    let status = json("status.dump");
    assert_eq!(status["state"], 1);
    assert_eq!(status["metadata"]["name"], "counter");
    assert_eq!(json("deleted.files"), serde_json::json!(["/etc/passwd"]));
    for name in
        ["dump.log", "stats-dump", "status", "checkpoint/pstree.img", "checkpoint/inventory.img"]
    {
        assert!(members.contains_key(name), "{name}: {:?}", members.keys());
    }
    let changes = self::members(members["rootfs-diff.tar"].as_slice());
    // Empty where it was frozen between truncating the file and writing to it.
    let saved = String::from_utf8_lossy(&changes["count"]);
    let saved: u64 = if saved.is_empty() { 0 } else { saved.trim().parse().unwrap() };
    assert!(changes.contains_key("tmp/link"), "{:?}", changes.keys());

    counts_beyond(&daemon, &id, saved).await;
    // Over the one that is there, while a client asks for its status.
    checkpoint(&daemon, &id, &location, 0).await.unwrap();
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_checkpoint_that_fails_leaves_nothing_and_the_container_runs_on() {
    let Some(mut daemon) = daemon_with_criu().await else { return };
    let pod = daemon.run(&daemon.sandbox("refused")).await;
    let id = daemon.run_container(&pod, Daemon::container("counter", COUNTER)).await;
    let dir = daemon.path("checkpoints");
    std::fs::create_dir(&dir).unwrap();
    for (location, why) in [
        (dir.join("missing/c.tar"), "its directory can't be used"),
        (PathBuf::from("c.tar"), "is not an absolute path"),
        (dir.clone(), "something is there that is no file"),
        (PathBuf::from("/"), "is no path of a file"),
    ] {
        let error = checkpoint(&daemon, &id, &location, 60).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(why), "{error}");
    }
    let location = dir.join("c.tar");
    let error = checkpoint(&daemon, &id, &location, -1).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let error = checkpoint(&daemon, "nobody", &location, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");

    // A CRIU that never ends.
    let slow = daemon.path("slow");
    std::fs::create_dir(&slow).unwrap();
    let script = slow.join("criu");
    std::fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    daemon.terminate();
    daemon.programs = Some(slow);
    daemon.launch().await;
    let error = checkpoint(&daemon, &id, &location, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains("took longer than 1 s"), "{error}");
    assert!(is_empty(&dir));
    let now = count(&daemon, &id).await;
    counts_beyond(&daemon, &id, now).await;

    let created = daemon.create(&pod, Daemon::container("idle", "true")).await.unwrap();
    let error = checkpoint(&daemon, &created, &location, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn without_criu_its_absence_is_the_answer() {
    if std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join("criu").exists())
    {
        eprintln!("SKIPPED: this machine has a criu in PATH");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("bare")).await;
    let id = daemon.run_container(&pod, Daemon::host_container("counter", COUNTER)).await;
    let location = daemon.path("c.tar");
    let error = checkpoint(&daemon, &id, &location, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("install CRIU"), "{error}");
    assert!(!location.exists());
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

/// A container whose image is an archive.
fn from_archive(name: &str, archive: &Path) -> cri::ContainerConfig {
    let image = archive.to_str().unwrap().into();
    cri::ContainerConfig {
        image: Some(cri::ImageSpec { image, ..Default::default() }),
        command: Vec::new(),
        ..Daemon::container(name, "")
    }
}

#[tokio::test]
async fn a_container_goes_on_in_another_pod() {
    let Some(daemon) = daemon_with_criu().await else { return };
    let first = daemon.run(&daemon.sandbox("first")).await;
    let script = format!("rm /etc/passwd; trap 'exit 7' TERM; {COUNTER}");
    let id = daemon.run_container(&first, Daemon::container("counter", &script)).await;
    counts_beyond(&daemon, &id, 20).await;
    let archive = daemon.path("counter.tar");
    checkpoint(&daemon, &id, &archive, 60).await.unwrap();
    daemon.remove_pod(&first).await;

    let second = daemon.run(&daemon.sandbox("second")).await;
    let id = daemon.run_container(&second, from_archive("again", &archive)).await;
    counts_beyond(&daemon, &id, 20).await;
    let now = count(&daemon, &id).await;
    counts_beyond(&daemon, &id, now).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(status.image.unwrap().image, crate::daemon::BUSYBOX);
    // It is in the new pod: its names, its namespaces, its log.
    assert_eq!(daemon.exec(&id, &["hostname"]).await.1.trim(), "second");
    let pid = daemon.pid(&id).await;
    for name in ["net", "uts", "ipc"] {
        use std::os::unix::fs::MetadataExt as _;
        let pin = daemon.path("state/pods").join(&second).join("pins").join(name);
        let pin = daemon.on_node(&format!("stat -c %i {}", pin.display())).output().unwrap();
        let own = std::fs::metadata(format!("/proc/{pid}/ns/{name}")).unwrap().ino();
        assert_eq!(String::from_utf8_lossy(&pin.stdout).trim(), own.to_string(), "{name}");
    }
    let log = daemon.path("logs/second/again/0.log");
    let log = std::fs::read_to_string(log).unwrap();
    let line = log.lines().next().unwrap().split(' ').next_back().unwrap();
    assert!(line.parse::<u64>().unwrap() > 20, "{line}");
    // What it had deleted stays so.
    assert_ne!(daemon.exec(&id, &["ls", "/etc/passwd"]).await.0, 0);

    let request = cri::StopContainerRequest { container_id: id.clone(), timeout: 30 };
    daemon.runtime().await.stop_container(request).await.unwrap();
    assert_eq!(daemon.status(&id).await.exit_code, 7);
    daemon.remove_pod(&second).await;
    daemon.nothing_is_left().await;
}

/// An archive of these members, `..` in names and all.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn a_hostile_archive_is_refused_and_leaves_nothing() {
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("careful")).await;
    let path = daemon.path("hostile.tar");
    let named = format!("{{\"rootfsImageName\": \"{}\"}}", crate::daemon::BUSYBOX);
    let config: (&str, &[u8]) = ("config.dump", named.as_bytes());
    let spec: (&str, &[u8]) = ("spec.dump", br#"{"process": {"args": ["/bin/sh"]}}"#);
    let images: (&str, &[u8]) = ("checkpoint/inventory.img", b"nothing that CRIU knows");
    let container = || {
        let host = Daemon::host_container("app", "");
        cri::ContainerConfig { linux: host.linux, ..from_archive("app", &path) }
    };
    std::fs::write(&path, archive(&[config, spec, images])).unwrap();
    let error = daemon.create(&pod, container()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("runtime.restore_checkpoints = true"), "{error}");

    allow_restoring(&daemon);
    daemon.terminate();
    daemon.launch().await;
    let evil = archive(&[("../../evil", b"x")]);
    let whole = archive(&[config, spec, images, ("rootfs-diff.tar", &[7; 4096])]);
    let cut = &whole[..whole.len() - 3072];
    let cases: [(Vec<u8>, &str); 12] = [
        (b"no archive".repeat(100), "it is no tar archive"),
        (archive(&[spec, images]), "it has no config.dump"),
        (archive(&[config, images]), "it has no spec.dump"),
        (archive(&[config, spec]), "it has no checkpoint/inventory.img"),
        (archive(&[("config.dump", b"[1]"), spec, images]), "is not what it should be"),
        (archive(&[("config.dump", b"{}"), spec, images]), "names no image"),
        (archive(&[config, ("spec.dump", br#"{"process": 1}"#), images]), "\"spec.dump\""),
        (archive(&[config, spec, images, ("checkpoint/../../x", b"")]), "climbs"),
        (archive(&[config, spec, images, ("checkpoint/a/b", b"")]), "in no directories"),
        (archive(&[config, spec, images, images]), "it is there twice"),
        (archive(&[config, spec, images, ("deleted.files", b"[\"/../etc\"]")]), "climbs"),
        (archive(&[config, spec, images, ("rootfs-diff.tar", &evil)]), "climbs"),
    ];
    for (text, why) in
        cases.iter().map(|(text, why)| (&text[..], *why)).chain([(cut, "rootfs-diff.tar")])
    {
        std::fs::write(&path, text).unwrap();
        let error = daemon.create(&pod, container()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{why}: {error}");
        assert!(error.message().contains(why), "{why}: {error}");
        assert!(is_empty(&daemon.path("root/images/rootfs")), "{why}");
    }
    assert!(daemon.containers(&pod).await.is_empty());
    std::fs::remove_file(&path).unwrap();
    let error = daemon.create(&pod, container()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    // Its form is right, and CRIU, or the runtime that finds none, has the last word.
    std::fs::write(&path, archive(&[config, spec, images])).unwrap();
    let id = daemon.create(&pod, container()).await.unwrap();
    let request = cri::StartContainerRequest { container_id: id.clone() };
    let error = daemon.runtime().await.start_container(request).await.unwrap_err();
    assert!(error.message().contains("can't be started"), "{error}");
    assert_eq!(daemon.exited(&id).await.reason, "StartError");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
