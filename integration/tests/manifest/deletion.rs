//! How pods go: each by itself, sooner where somebody asks again, and to the end.
//!
//! The graces here are longer than a test may take: one that is waited for fails it.

use std::path::Path;
use std::time::Duration;

use haled::proto::haled as wire;
use tokio::task::JoinHandle;

use super::{halectl, until};
use crate::daemon::{Daemon, PATIENCE};

/// Longer than anything is waited for, in seconds.
const LONG: u32 = 3600;

/// A pod that ends at once.
fn quick(name: &str) -> String {
    pod(name, 0, "")
}

/// A pod that takes all of its grace.
fn stubborn(name: &str) -> String {
    pod(name, LONG, &format!(", lifecycle: {{preStop: {{sleep: {{seconds: {LONG}}}}}}}"))
}

fn pod(name: &str, grace: u32, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: {grace}\n  containers: [{{name: app, image: busybox, \
         command: [sleep, '600']{more}}}]\n"
    )
}

async fn running(daemon: &Daemon, name: &str) -> wire::Pod {
    let runs = |c: &wire::Container| c.state == "Running";
    let all_run = |pod: &wire::Pod| pod.containers.iter().chain(&pod.init_containers).all(runs);
    until(daemon, name, "it runs", all_run).await
}

async fn terminating(daemon: &Daemon, name: &str) -> wire::Pod {
    until(daemon, name, "its end", |pod| pod.phase == "Terminating").await
}

async fn delete(daemon: &Daemon, name: &str, grace: Option<u32>) -> Result<(), tonic::Status> {
    let request = wire::DeleteRequest {
        namespace: "default".into(),
        name: name.into(),
        grace_seconds: grace,
        no_wait: false,
    };
    let mut haled = daemon.haled().await;
    let deleted = tokio::time::timeout(PATIENCE, haled.delete(request)).await;
    deleted.unwrap_or_else(|_| panic!("deleting {name} hangs\n{}", daemon.log())).map(drop)
}

/// The same, in the background.
async fn deleting(daemon: &Daemon, name: &str) -> JoinHandle<Result<(), tonic::Status>> {
    let mut haled = daemon.haled().await;
    let request = wire::DeleteRequest {
        namespace: "default".into(),
        name: name.into(),
        ..wire::DeleteRequest::default()
    };
    tokio::spawn(async move { haled.delete(request).await.map(drop) })
}

/// What became of each pod.
async fn applied(daemon: &Daemon, text: &str) -> Result<Vec<String>, tonic::Status> {
    let applied = tokio::time::timeout(PATIENCE, daemon.apply(text)).await;
    let applied = applied.unwrap_or_else(|_| panic!("an apply hangs\n{}", daemon.log()))?;
    let told = |pod: &wire::AppliedPod| format!("{} {:?}", pod.name, pod.result());
    Ok(applied.pods.iter().map(told).collect())
}

/// The same, in the background.
async fn applying(daemon: &Daemon, text: &str) -> JoinHandle<Result<(), tonic::Status>> {
    let mut haled = daemon.haled().await;
    let request = wire::ApplyRequest {
        manifest: text.as_bytes().to_vec().into(),
        source: "test.yaml".into(),
        dry_run: false,
    };
    tokio::spawn(async move { haled.apply(request).await.map(drop) })
}

async fn joined(
    daemon: &Daemon,
    task: JoinHandle<Result<(), tonic::Status>>,
) -> Result<(), tonic::Status> {
    let ended = tokio::time::timeout(PATIENCE, task).await;
    ended.unwrap_or_else(|_| panic!("a call hangs\n{}", daemon.log())).unwrap()
}

async fn gone(daemon: &Daemon, name: &str) {
    let began = std::time::Instant::now();
    while daemon.pod(name).await.is_some() {
        assert!(began.elapsed() < PATIENCE, "{name} stays\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pod_that_stops_holds_up_no_other() {
    let manifests = tempfile::tempdir().unwrap();
    let settings = format!("[manifest]\ndir = \"{}\"\n", manifests.path().display());
    let daemon = Daemon::start_so("", &settings).await;
    daemon.apply(&format!("{}---\n{}", stubborn("slow"), quick("fast"))).await.unwrap();
    running(&daemon, "slow").await;
    let slow = deleting(&daemon, "slow").await;
    terminating(&daemon, "slow").await;

    assert_eq!(applied(&daemon, &quick("third")).await.unwrap(), ["third Created"]);
    let other = quick("fast").replace("600", "700");
    assert_eq!(applied(&daemon, &other).await.unwrap(), ["fast Replaced"]);
    delete(&daemon, "fast", None).await.unwrap();
    // Nor one of a file, whether it is a file's itself or not.
    let file = manifests.path().join("a.yaml");
    std::fs::write(&file, format!("{}---\n{}", stubborn("filed"), quick("beside"))).unwrap();
    running(&daemon, "filed").await;
    std::fs::write(&file, quick("beside")).unwrap();
    terminating(&daemon, "filed").await;
    let again = manifests.path().join("b.yaml");
    std::fs::write(&again, quick("later")).unwrap();
    running(&daemon, "later").await;
    std::fs::remove_file(&again).unwrap();
    gone(&daemon, "later").await;

    assert!(!slow.is_finished());
    for name in ["slow", "filed", "third"] {
        delete(&daemon, name, Some(0)).await.unwrap();
    }
    joined(&daemon, slow).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    daemon.no_pods().await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn who_deletes_again_only_ever_hurries() {
    let mut daemon = Daemon::start_without_network().await;
    daemon.apply(&stubborn("slow")).await.unwrap();
    running(&daemon, "slow").await;
    let first = deleting(&daemon, "slow").await;
    let begun = terminating(&daemon, "slow").await;
    let later = ["delete", "pod", "slow", "--grace-period", "360000", "--wait=false"];
    let (code, told) = halectl(&daemon, Path::new("/"), &later);
    assert_eq!((code, told.as_str()), (0, "pod/slow is being deleted\n"));
    let after = terminating(&daemon, "slow").await;
    assert_eq!(after.deletion_at, begun.deletion_at);
    assert_eq!(after.deletion_grace_seconds, Some(LONG.into()));
    let sooner = ["delete", "pod", "slow", "--grace-period", "1000", "--timeout", "1s"];
    let (code, told) = halectl(&daemon, Path::new("/"), &sooner);
    let waits = "halectl: pod/slow is not gone yet: it goes on being deleted\n";
    assert_eq!((code, told.as_str()), (1, waits));
    let after = terminating(&daemon, "slow").await;
    assert!(after.deletion_at < begun.deletion_at);
    assert_eq!(after.deletion_grace_seconds, Some(1000));
    // What was asked is the next daemon's too.
    daemon.kill();
    assert!(joined(&daemon, first).await.is_err());
    daemon.launch().await;
    let again = terminating(&daemon, "slow").await;
    assert_eq!(again.deletion_at, after.deletion_at);
    let (code, told) = halectl(&daemon, Path::new("/"), &["delete", "pod", "slow", "--force"]);
    assert_eq!((code, told.as_str()), (0, "pod/slow deleted\n"));
    daemon.nothing_is_left().await;
}

/// A sidecar has its own part of the grace, and what is hurried there is hurried too.
#[tokio::test]
async fn a_hook_and_a_sidecar_are_hurried_too() {
    let daemon = Daemon::start_without_network().await;
    let dir = daemon.path("shared");
    std::fs::create_dir(&dir).unwrap();
    let volume = format!("  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n", dir.display());
    let mount = "image: busybox, volumeMounts: [{name: v, mountPath: /v}]";
    let loops = |name: &str| {
        format!(
            "trap 'echo {name} TERM >> /v/told' TERM; touch /v/{name}; while true; do sleep 0.1; done"
        )
    };
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: {LONG}\n{volume}  initContainers:\n  - {{name: side, {mount}, restartPolicy: \
         Always, command: [sh, -c, \"{}\"]}}\n  containers:\n  - {{name: app, {mount}, command: [sh, -c, \"{}\"], \
         lifecycle: {{preStop: {{exec: {{command: [sh, -c, \"echo hook >> /v/told; sleep {LONG}\"]}}}}}}}}\n",
        loops("side"),
        loops("app"),
    );
    daemon.apply(&text).await.unwrap();
    daemon.until("both run", || dir.join("side").exists() && dir.join("app").exists()).await;
    running(&daemon, "pod").await;
    let first = deleting(&daemon, "pod").await;
    let told = || std::fs::read_to_string(dir.join("told")).unwrap_or_default();
    daemon.until("the hook runs", || told() == "hook\n").await;
    delete(&daemon, "pod", Some(1)).await.unwrap();
    joined(&daemon, first).await.unwrap();
    // Each was asked before it was killed.
    assert_eq!(told(), "hook\napp TERM\nside TERM\n");
    daemon.nothing_is_left().await;
}

/// A monitor that stands still passes nothing on: to haled that is a process which no signal
/// reaches.
#[tokio::test]
async fn a_container_that_doesnt_die_is_told() {
    let daemon = Daemon::start_without_network().await;
    daemon.apply(&quick("pod")).await.unwrap();
    let pod = running(&daemon, "pod").await;
    let file = daemon.path("state/pods").join(&pod.sandbox_id).join("monitor.pid");
    let monitor = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), signal);
    signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let waits = deleting(&daemon, "pod").await;
    terminating(&daemon, "pod").await;
    let pid = daemon.pid(&pod.containers[0].id).await;
    let why = format!("it is alive 10 s after SIGKILL: process {pid} ");
    let event = until_event(&daemon, "FailedKillPod").await;
    assert!(event.warning && event.container == "app", "{event:?}");
    assert!(event.message.starts_with(&why), "{event:?}");
    daemon.until("it is in the log", || daemon.log().contains(&why)).await;
    signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    joined(&daemon, waits).await.unwrap();
    daemon.nothing_is_left().await;
}

/// The first event of the pod with this reason.
async fn until_event(daemon: &Daemon, reason: &str) -> wire::Event {
    let request = wire::EventsRequest { name: "pod".into(), follow: true, ..Default::default() };
    let mut events = daemon.haled().await.events(request).await.unwrap().into_inner();
    let wanted = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.reason == reason {
                return event;
            }
        }
    };
    let came = tokio::time::timeout(PATIENCE, wanted).await;
    came.unwrap_or_else(|_| panic!("no {reason}\n{}", daemon.log()))
}

#[tokio::test]
async fn what_its_probe_has_killed_is_not_ready() {
    let daemon = Daemon::start_without_network().await;
    let probe = "livenessProbe: {exec: {command: [test, '!', -e, /tmp/bad]}, periodMilliseconds: 500, failureThreshold: 1}";
    let text = stubborn("pod").replace("lifecycle", &format!("{probe}, lifecycle"));
    daemon.apply(&text).await.unwrap();
    let well = until(&daemon, "pod", "it is ready", |pod| pod.containers[0].ready).await;
    daemon.exec(&well.containers[0].id, &["touch", "/tmp/bad"]).await;
    until_event(&daemon, "Killing").await;
    let ending = until(&daemon, "pod", "it isn't ready", |pod| !pod.containers[0].ready).await;
    // The same one, which has all its grace yet.
    assert_eq!(ending.containers[0].id, well.containers[0].id);
    assert_eq!(ending.containers[0].state, "Running");
    let ready = ending.conditions.iter().find(|condition| condition.r#type == "Ready").unwrap();
    assert!(!ready.status);
    delete(&daemon, "pod", Some(0)).await.unwrap();
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn the_last_word_holds_while_a_pod_is_replaced() {
    let daemon = Daemon::start_without_network().await;
    let sleeps = |seconds: u32| quick("pod").replace("600", &seconds.to_string());
    let replaced = async |times: usize| {
        let told = "its manifest has changed: replacing the pod";
        daemon.until("its replacement", || daemon.log().matches(told).count() == times).await;
    };
    daemon.apply(&stubborn("pod")).await.unwrap();
    let first = running(&daemon, "pod").await;
    let replacing = applying(&daemon, &sleeps(601)).await;
    replaced(1).await;
    let delete_it = ["delete", "pod", "pod", "--wait=false"];
    assert_eq!(halectl(&daemon, Path::new("/"), &delete_it).0, 0);
    let error = joined(&daemon, replacing).await.unwrap_err();
    let wanted = "was deleted while it was being replaced: apply it again";
    assert!(error.message().contains(wanted), "{error}");
    // It is going all the same, and what comes after it is what was applied last.
    let earlier = applying(&daemon, &sleeps(602)).await;
    replaced(2).await;
    let later = applying(&daemon, &sleeps(603)).await;
    replaced(3).await;
    assert_eq!(terminating(&daemon, "pod").await.uid, first.uid);
    let pid = nix::unistd::Pid::from_raw(daemon.pid(&first.containers[0].id).await);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    joined(&daemon, earlier).await.unwrap();
    joined(&daemon, later).await.unwrap();
    let last = running(&daemon, "pod").await;
    assert!(last.manifest.contains("603"), "{}", last.manifest);
    delete(&daemon, "pod", None).await.unwrap();
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_that_isnt_there_is_told_from_one_that_isnt_haleds() {
    let daemon = Daemon::start_without_network().await;
    let file = daemon.path("web.yaml");
    std::fs::write(&file, quick("web")).unwrap();
    let delete = ["delete", "-f", file.to_str().unwrap()];
    let (code, told) = halectl(&daemon, Path::new("/"), &delete);
    assert_eq!((code, told.as_str()), (1, "halectl: there is no pod default/web\n"));
    let sandbox = daemon.run(&daemon.host_sandbox("web")).await;
    let (code, told) = halectl(&daemon, Path::new("/"), &delete);
    assert_eq!(code, 1);
    assert!(
        told.contains("pod \"web\" in namespace \"default\" is not one of haled's own"),
        "{told}"
    );
    daemon.remove_pod(&sandbox).await;
    daemon.nothing_is_left().await;
}
