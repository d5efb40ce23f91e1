//! The order in which containers come and go, and what brings a pod back.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{delete, halectl, phase, pod, until};
use crate::daemon::Daemon;

const QUICK: &str = "[healing]\nbackoff_initial = \"100ms\"\nbackoff_max = \"100ms\"\n";

/// What the containers of a pod have written into a directory of the node's.
fn order(daemon: &Daemon) -> Vec<String> {
    let text = std::fs::read_to_string(daemon.path("shared/order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Containers that share a directory of the node's.
fn shared(daemon: &Daemon, spec: &str) -> String {
    let dir = daemon.path("shared");
    let mounts = "volumeMounts: [{name: shared, mountPath: /shared}]";
    let spec = spec.replace("MOUNTS", &format!("image: busybox, {mounts}"));
    let volume = format!("{{path: {}, type: DirectoryOrCreate}}", dir.display());
    pod(&format!("  volumes: [{{name: shared, hostPath: {volume}}}]\n{spec}"))
}

#[tokio::test]
async fn init_containers_run_in_order_and_one_that_fails_is_tried_again() {
    let daemon = Daemon::start_with(QUICK).await;
    let text = shared(
        &daemon,
        r"  restartPolicy: OnFailure
  initContainers:
  - {name: one, MOUNTS, command: [sh, -c, 'echo one >> /shared/order; test $(grep -c one /shared/order) = 3']}
  - {name: two, MOUNTS, command: [sh, -c, 'echo two >> /shared/order']}
  containers:
  - {name: app, MOUNTS, command: [sh, -c, 'echo app >> /shared/order']}
",
    );
    daemon.apply(&text).await.unwrap();
    let over = phase(&daemon, "Succeeded").await;
    assert_eq!(order(&daemon), ["one", "one", "one", "two", "app"]);
    assert_eq!(over.init_containers[0].restart_count, 2);
    let last = over.init_containers[0].last.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (1, "Error"));
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_sidecar_starts_before_the_others_and_stops_after_them() {
    let daemon = Daemon::start_with(QUICK).await;
    let side = |name: &str| {
        format!(
            "  - {{name: {name}, MOUNTS, restartPolicy: Always, startupProbe: {{exec: {{command: [ls, /tmp/up]}}, periodMilliseconds: 100, failureThreshold: 100}}, command: [sh, -c, 'trap \"echo {name} ends >> /shared/order; exit 0\" TERM; sleep 0.3; echo {name} >> /shared/order; touch /tmp/up; while true; do sleep 0.1; done']}}\n"
        )
    };
    let text = shared(
        &daemon,
        &format!(
            "  restartPolicy: Never\n  initContainers:\n{}{}  containers:\n  - {{name: app, MOUNTS, command: [sh, -c, 'echo app >> /shared/order; sleep 0.5; echo app ends >> /shared/order']}}\n",
            side("first"),
            side("second"),
        ),
    );
    daemon.apply(&text).await.unwrap();
    phase(&daemon, "Succeeded").await;
    let wanted = ["first", "second", "app", "app ends", "second ends", "first ends"];
    assert_eq!(order(&daemon), wanted);
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_rule_has_the_whole_pod_begin_again() {
    let daemon = Daemon::start_with(QUICK).await;
    let text = shared(
        &daemon,
        r"  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: init, MOUNTS, command: [sh, -c, 'echo init >> /shared/order']}
  - {name: side, MOUNTS, restartPolicy: Always, startupProbe: {exec: {command: [ls, /tmp/up]}, periodMilliseconds: 100, failureThreshold: 100}, command: [sh, -c, 'echo side >> /shared/order; touch /tmp/up; exec sleep 600']}
  containers:
  - name: app
    MOUNTS
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [44]}}]
    command: [sh, -c, 'echo app >> /shared/order; test $(grep -c app /shared/order) = 2 && exec sleep 600; exit 44']
",
    )
    .replace("    image: busybox, volumeMounts", "    image: busybox\n    volumeMounts");
    daemon.apply(&text).await.unwrap();
    let again = until(&daemon, "pod", "the second time", |pod| {
        pod.containers[0].restart_count == 1 && pod.containers[0].state == "Running"
    })
    .await;
    assert_eq!(order(&daemon), ["init", "side", "app", "init", "side", "app"]);
    assert_eq!(again.phase, "Running");
    assert_eq!(again.containers[0].last.as_ref().unwrap().exit_code, 44);
    for init in &again.init_containers {
        assert_eq!(init.restart_count, 1, "{}", init.name);
    }
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn of_the_dead_attempts_the_newest_is_kept() {
    let daemon = Daemon::start_with(QUICK).await;
    let text = shared(
        &daemon,
        "  terminationGracePeriodSeconds: 0\n  containers: [{name: app, MOUNTS, command: [sh, -c, 'echo x >> /shared/order; n=$(wc -l < /shared/order); echo run $n; test $n = 4 && exec sleep 600; exit 3']}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let pod = until(&daemon, "pod", "the fourth time", |pod| {
        pod.containers[0].restart_count == 3 && pod.containers[0].state == "Running"
    })
    .await;
    let began = std::time::Instant::now();
    loop {
        let all = daemon.containers(&pod.sandbox_id).await;
        let attempt = |c: &haled::proto::cri::Container| c.metadata.as_ref().unwrap().attempt;
        let mut attempts: Vec<u32> = all.iter().map(attempt).collect();
        attempts.sort_unstable();
        if attempts == [2, 3] {
            break;
        }
        assert!(began.elapsed() < crate::daemon::PATIENCE, "{attempts:?}\n{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let request = haled::proto::haled::LogsRequest {
        namespace: "default".into(),
        pod: "pod".into(),
        previous: true,
        ..Default::default()
    };
    let mut log = daemon.haled().await.logs(request).await.unwrap().into_inner();
    assert_eq!(log.message().await.unwrap().unwrap().line, "run 3");
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn restart_policies_and_exit_codes_give_the_phase() {
    let daemon = Daemon::start_with(QUICK).await;
    let once = |policy: &str, code: u8| {
        pod(&format!(
            "  restartPolicy: {policy}\n  containers: [{{name: app, image: busybox, command: [sh, -c, 'exit {code}']}}]\n"
        ))
    };
    for (policy, code, wanted) in
        [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")]
    {
        daemon.apply(&once(policy, code)).await.unwrap();
        let over = phase(&daemon, wanted).await;
        assert_eq!(over.containers[0].exit_code, i32::from(code), "{policy}: {over:?}");
        assert_eq!(over.containers[0].restart_count, 0);
        delete(&daemon, "pod").await;
    }
    for (policy, code) in [("OnFailure", 3), ("Always", 0), ("Always", 3)] {
        daemon.apply(&once(policy, code)).await.unwrap();
        let again = |pod: &haled::proto::haled::Pod| pod.containers[0].restart_count >= 2;
        until(&daemon, "pod", "restarts", again).await;
        delete(&daemon, "pod").await;
    }
}

#[tokio::test]
async fn a_pod_that_lives_too_long_is_ended() {
    let daemon = Daemon::start().await;
    let text = pod(
        "  activeDeadlineSeconds: 2\n  terminationGracePeriodSeconds: 1\n  containers: [{name: app, image: busybox, command: [sleep, '600']}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let over = phase(&daemon, "Failed").await;
    assert!(over.reason.starts_with("DeadlineExceeded"), "{over:?}");
}

/// A reboot: every process, mount and namespace is gone and so is the run directory; only the
/// disk is as it was.
#[tokio::test]
async fn a_pod_comes_back_after_a_reboot() {
    let mut daemon = Daemon::start().await;
    let text = pod(
        "  initContainers: [{name: init, image: busybox, command: ['true']}]\n  volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]\n  containers: [{name: app, image: busybox, command: [sleep, '600'], volumeMounts: [{name: v, mountPath: /v}]}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let first = phase(&daemon, "Running").await;
    daemon.exec(&first.containers[0].id, &["touch", "/v/file"]).await;
    daemon.reboot().await;
    let again = until(&daemon, "pod", "a second attempt", |pod| {
        pod.containers[0].state == "Running" && pod.containers[0].restart_count == 1
    })
    .await;
    let (old, new) = (&first.containers[0], &again.containers[0]);
    let last = new.last.as_ref().unwrap();
    assert_eq!(last.id, old.id);
    assert_eq!((last.exit_code, last.reason.as_str()), (255, "Unknown"));
    assert_eq!(again.init_containers[0].restart_count, 1);
    assert_eq!(again.uid, first.uid);
    // crictl's view: the old attempt is there, and has exited.
    let dead = daemon.status(&old.id).await;
    assert_eq!(dead.state(), haled::proto::cri::ContainerState::ContainerExited);
    let (code, text) =
        daemon.exec(&new.id, &["sh", "-c", "ls /v; grep -c ' /v tmpfs' /proc/mounts"]).await;
    assert_eq!((code, text.as_str()), (0, "1\n"), "the memory volume is mounted anew, empty");
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

/// The pod of Kubernetes' documentation: it waits for two services, one after the other.
#[tokio::test]
async fn myapp_waits_for_its_services() {
    let daemon = Daemon::start().await;
    daemon.apply(include_str!("../../pods/myapp-pod.yaml")).await.unwrap();
    let serve = |port: u16| {
        let script = format!("echo | timeout 30 busybox nc -l -p {port}");
        daemon.on_node(&script).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let runs = |at: usize| {
        move |pod: &haled::proto::haled::Pod| pod.init_containers[at].state == "Running"
    };
    until(&daemon, "myapp-pod", "init-myservice", runs(0)).await;
    let mut service = serve(7001);
    let pod = until(&daemon, "myapp-pod", "init-mydb", runs(1)).await;
    assert_eq!(pod.phase, "Pending");
    assert!(pod.containers[0].id.is_empty());
    let mut database = serve(7002);
    let pod = until(&daemon, "myapp-pod", "it runs", |pod| pod.containers[0].ready).await;
    let initialized = pod.conditions.iter().find(|condition| condition.r#type == "Initialized");
    assert!(initialized.is_some_and(|condition| condition.status));
    service.wait().unwrap();
    database.wait().unwrap();
    delete(&daemon, "myapp-pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_that_fills_its_volume_is_evicted() {
    let daemon = Daemon::start().await;
    let text = pod(
        "  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]\n  containers: [{name: app, image: busybox, command: [sh, -c, 'dd if=/dev/zero of=/v/file bs=1M count=3; exec sleep 600'], volumeMounts: [{name: v, mountPath: /v}]}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let over = phase(&daemon, "Failed").await;
    let why = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\".";
    assert_eq!(over.reason, format!("Evicted: {why}"));
    assert_eq!(over.containers[0].state, "Terminated");
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

/// A condition's time is that of its last change, whoever looks and whenever the daemon began.
#[tokio::test]
async fn conditions_tell_since_when() {
    let mut daemon = Daemon::start().await;
    let text = pod(
        "  terminationGracePeriodSeconds: 0\n  containers: [{name: app, image: busybox, command: [sleep, '600'], readinessProbe: {exec: {command: [ls, /ready]}, periodMilliseconds: 100, failureThreshold: 1}}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let unready = phase(&daemon, "Running").await;
    let since = |pod: &haled::proto::haled::Pod, kind: &str| {
        let condition = pod.conditions.iter().find(|condition| condition.r#type == kind).unwrap();
        (condition.status, condition.last_transition_at)
    };
    assert!(!since(&unready, "Ready").0);
    daemon.exec(&unready.containers[0].id, &["touch", "/ready"]).await;
    let is_ready = |pod: &haled::proto::haled::Pod| since(pod, "Ready").0;
    let ready = until(&daemon, "pod", "readiness", is_ready).await;
    assert!(since(&ready, "Ready").1 > since(&unready, "Ready").1);
    let same = |pod: &haled::proto::haled::Pod| {
        for kind in ["PodScheduled", "Initialized", "PodReadyToStartContainers"] {
            assert_eq!(since(pod, kind), since(&unready, kind), "{kind}");
        }
    };
    same(&ready);
    daemon.kill();
    daemon.launch().await;
    same(&until(&daemon, "pod", "readiness again", is_ready).await);
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_that_is_being_deleted_says_until_when() {
    let daemon = Daemon::start_without_network().await;
    let text = pod(
        "  hostNetwork: true\n  terminationGracePeriodSeconds: 600\n  containers: [{name: app, image: busybox, command: [sh, -c, 'trap \"\" TERM; until test -e /tmp/end; do sleep 0.1; done']}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let running = phase(&daemon, "Running").await;
    assert_eq!(running.deletion_at, 0);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    let before = now();
    let deleted = async {
        let seen = phase(&daemon, "Terminating").await;
        let (asked, until) = (seen.deletion_at - 600_000_000_000, now());
        assert!((before..=until).contains(&asked), "{asked} isn't in {before}..{until}");
        let (_, yaml) = halectl(&daemon, Path::new("/"), &["get", "pod", "pod", "-o", "yaml"]);
        assert!(yaml.contains("\n  deletionTimestamp: "), "{yaml}");
        assert!(yaml.contains("\n  deletionGracePeriodSeconds: 600\n"), "{yaml}");
        daemon.exec(&running.containers[0].id, &["touch", "/tmp/end"]).await;
    };
    tokio::join!(delete(&daemon, "pod"), deleted);
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_probed_pod_without_a_container_is_not_well() {
    let daemon = Daemon::start_without_network().await;
    let text = pod(
        "  hostNetwork: true\n  containers: [{name: app, image: nowhere, imagePullPolicy: Never, livenessProbe: {exec: {command: [ls]}}}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let (code, printed) = halectl(&daemon, Path::new("/"), &["health", "pod"]);
    assert!(code == 3 && printed.contains("not running yet"), "{code}: {printed}");
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_container_that_waits_for_its_next_start_says_how_it_ended() {
    let daemon = Daemon::start_without_network().await;
    let text = pod(
        "  hostNetwork: true\n  containers: [{name: app, image: busybox, command: [sh, -c, 'exit 3']}]\n",
    );
    daemon.apply(&text).await.unwrap();
    let waits = until(&daemon, "pod", "a second end", |pod| {
        let app = &pod.containers[0];
        app.reason == "CrashLoopBackOff" && app.restart_count > 0
    })
    .await;
    let app = &waits.containers[0];
    let last = app.last.as_ref().unwrap();
    assert_eq!((&last.id, last.exit_code), (&app.id, 3), "{app:?}");
    delete(&daemon, "pod").await;
    daemon.nothing_is_left().await;
}
