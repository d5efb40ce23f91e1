//! Checkpoints by the real CRIU: what is in the archive, what is left after a failure, and
//! containers that go on from one.

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
    assert!(std::env::var_os("CI").is_none(), "no CRIU: run integration/criu");
    eprintln!("SKIPPED: there is no target/criu/criu: run integration/criu");
    None
}

async fn daemon_with_criu(settings: &str) -> Option<Daemon> {
    let programs = criu()?;
    let mut daemon = Daemon::start_with(settings).await;
    daemon.terminate();
    daemon.programs = Some(programs);
    daemon.launch().await;
    Some(daemon)
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
    let Some(daemon) = daemon_with_criu("").await else { return };
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
    let saved: u64 = String::from_utf8_lossy(&changes["count"]).trim().parse().unwrap();
    assert!(changes.contains_key("tmp/link"), "{:?}", changes.keys());

    counts_beyond(&daemon, &id, saved).await;
    // Over the one that is there, while a client asks for its status.
    checkpoint(&daemon, &id, &location, 0).await.unwrap();
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_checkpoint_that_fails_leaves_nothing_and_the_container_runs_on() {
    let Some(mut daemon) = daemon_with_criu("").await else { return };
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
