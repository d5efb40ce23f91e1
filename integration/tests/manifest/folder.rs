//! Pods from the files of a directory.

use std::io::Write as _;

use super::{delete, phase, pod, until};
use crate::daemon::Daemon;

/// A daemon that watches a directory, which is empty.
async fn with_folder() -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("[manifest]\ndir = \"{}\"\n", dir.path().display());
    let daemon = Daemon::start_with(&settings).await;
    (dir, daemon)
}

fn sleeps(seconds: u32) -> String {
    pod(&format!(
        "  terminationGracePeriodSeconds: 0\n  containers: [{{name: app, image: busybox, command: [sleep, '{seconds}']}}]\n"
    ))
}

#[tokio::test]
async fn the_manifests_of_a_directory_run() {
    let (dir, mut daemon) = with_folder().await;
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, sleeps(600)).unwrap();
    std::fs::write(dir.path().join(".hidden.yaml"), "nonsense").unwrap();
    let first = phase(&daemon, "Running").await;
    // One that is broken leaves its pod alone, and is named.
    std::fs::write(&file, "kind: Pod\napiVersion: v1\nmetadata: {name: pod}\nspec: {}\n").unwrap();
    let broken = format!("{}:4:1: spec.containers", file.display());
    daemon.until("the broken file is told", || daemon.log().contains(&broken)).await;
    assert_eq!(daemon.pod("pod").await.unwrap().uid, first.uid);
    std::fs::write(&file, sleeps(700)).unwrap();
    let second =
        until(&daemon, "pod", "another pod", |pod| pod.uid != first.uid && pod.phase == "Running");
    second.await;
    // What goes while haled is away goes when it is back.
    daemon.kill();
    std::fs::remove_file(&file).unwrap();
    daemon.launch().await;
    daemon.no_pods().await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_belongs_to_who_made_it() {
    let (dir, daemon) = with_folder().await;
    daemon.apply(&sleeps(600)).await.unwrap();
    let first = phase(&daemon, "Running").await;
    // Its name in a file: told, and nothing is taken over, whether it says the same or not.
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, sleeps(700)).unwrap();
    let conflict = format!("{}: pod \"pod\" in namespace \"default\" was made by", file.display());
    daemon.until("the conflict is told", || daemon.log().contains(&conflict)).await;
    assert_eq!(daemon.pod("pod").await.unwrap().uid, first.uid);
    // When the other one goes the file's comes.
    delete(&daemon, "pod").await;
    let second = until(&daemon, "pod", "the file's pod", |pod| pod.phase == "Running").await;
    assert_ne!(second.uid, first.uid);
    for seconds in [600, 700] {
        let error = daemon.apply(&sleeps(seconds)).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::FailedPrecondition);
        let wanted = format!("belongs to the manifest {}", file.display());
        assert!(error.message().contains(&wanted), "{error}");
    }
    // Nor is it deleted behind its file's back.
    let deleted = std::process::Command::new(env!("CARGO_BIN_EXE_halectl"))
        .arg("--address")
        .arg(daemon.socket())
        .args(["delete", "pod", "pod"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&deleted.stderr);
    assert_eq!(deleted.status.code(), Some(1), "{told}");
    let wanted = format!("belongs to the manifest {}: ", file.display());
    assert!(told.contains(&wanted) && told.contains("remove it from there"), "{told}");
    assert_eq!(daemon.pod("pod").await.unwrap().uid, second.uid);
    assert_eq!(daemon.log().matches(&conflict).count(), 1);
    // A file that is renamed takes its pod along, as it is.
    let renamed = dir.path().join("b.yaml");
    std::fs::rename(&file, &renamed).unwrap();
    let began = std::time::Instant::now();
    let wanted = format!("belongs to the manifest {}", renamed.display());
    while !daemon.apply(&sleeps(600)).await.unwrap_err().message().contains(&wanted) {
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(daemon.pod("pod").await.unwrap().uid, second.uid);
}

/// A file is read when its writer has closed it, however long that takes: half a manifest can
/// be a manifest too.
#[tokio::test]
async fn a_file_is_read_when_it_is_whole() {
    let (dir, daemon) = with_folder().await;
    let mut file = std::fs::File::create(dir.path().join("slow.yaml")).unwrap();
    file.write_all(sleeps(600).as_bytes()).unwrap();
    // Another file's pod has come by then: the directory was looked at.
    std::fs::write(
        dir.path().join("other.yaml"),
        sleeps(1000).replace("{name: pod}", "{name: other}"),
    )
    .unwrap();
    until(&daemon, "other", "another file's pod", |pod| pod.phase == "Running").await;
    assert!(daemon.pod("pod").await.is_none());
    file.write_all(b"  restartPolicy: OnFailure\n").unwrap();
    drop(file);
    let made = phase(&daemon, "Running").await;
    assert!(made.manifest.contains("OnFailure"), "{}", made.manifest);
    // The whole of another put in its place is there at once, and so is its end.
    let written = dir.path().join("written");
    std::fs::write(&written, sleeps(900)).unwrap();
    std::fs::rename(&written, dir.path().join("slow.yaml")).unwrap();
    let again =
        until(&daemon, "pod", "another", |pod| pod.uid != made.uid && pod.phase == "Running");
    again.await;
    // Another directory in the place of this one is watched as well.
    let aside = dir.path().with_extension("aside");
    std::fs::rename(dir.path(), &aside).unwrap();
    std::fs::create_dir(dir.path()).unwrap();
    daemon.no_pods().await;
    std::fs::write(dir.path().join("new.yaml"), sleeps(800)).unwrap();
    phase(&daemon, "Running").await;
    std::fs::remove_dir_all(aside).unwrap();
    std::fs::remove_file(dir.path().join("new.yaml")).unwrap();
    daemon.no_pods().await;
    daemon.nothing_is_left().await;
}
