//! What halectl prints, as text.

use crate::proto::haled::{
    Attempt, Condition, Container, Event, ImageSummary, Pod, ProbeStatus, PruneImagesResponse,
};

use super::get::{Columns, View};
use super::options::TimeFormat;
use super::wait::{Met, Wanted, judge};
use super::{Failure, annotate, describe, events, health, image, json, logs, manifest, status};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-02T03:04:05Z.
const NOW: i64 = 1_767_323_045 * SECOND;

fn container(name: &str, state: &str, reason: &str) -> Container {
    Container {
        name: name.into(),
        id: "0123456789abcdef".repeat(4),
        image: "docker.io/library/busybox:latest".into(),
        state: state.into(),
        reason: reason.into(),
        ready: state == "Running",
        started_at: NOW - 65 * SECOND,
        ..Container::default()
    }
}

fn pod(name: &str, phase: &str, containers: Vec<Container>) -> Pod {
    Pod {
        namespace: "default".into(),
        name: name.into(),
        uid: "c0ffee".into(),
        sandbox_id: "fedcba9876543210".repeat(4),
        phase: phase.into(),
        status: phase.into(),
        created_at: NOW - 300 * SECOND,
        ips: vec!["10.88.0.7".into()],
        containers,
        origin: "manifest".into(),
        ..Pod::default()
    }
}

fn liveness() -> Pod {
    let mut app = container("liveness", "Running", "Unhealthy");
    app.restart_count = 2;
    app.message = "Liveness probe failed 1 times in a row: ls: /tmp/healthy".into();
    app.probes = vec![
        ProbeStatus {
            kind: "liveness".into(),
            handler: "exec [ls /tmp/healthy]".into(),
            result: "Success".into(),
            run: 1,
            success_threshold: 1,
            failure_threshold: 2,
            last_output: "ls: /tmp/healthy: No such file or directory\n".into(),
            last_run_at: NOW - 2 * SECOND,
            last_change_at: 0,
            next_run_at: NOW + 3 * SECOND,
            initial_delay_ms: 0,
            timeout_ms: 1000,
            period_ms: 500,
            last_success: false,
        },
        ProbeStatus { kind: "readiness".into(), result: "Unknown".into(), ..Default::default() },
    ];
    let mut pod = pod("liveness-exam", "Running", vec![app]);
    pod.labels.insert("app".into(), "exam".into());
    pod.annotations.insert("b".into(), "2".into());
    pod.annotations.insert("a".into(), "1\n2".into());
    pod
}

fn exam_events() -> Vec<Event> {
    let event = |at: i64, container: &str, reason: &str, message: &str, warning, count| Event {
        at: NOW - at * SECOND,
        namespace: "default".into(),
        pod: "liveness-exam".into(),
        container: container.into(),
        reason: reason.into(),
        message: message.into(),
        warning,
        count,
    };
    vec![
        event(60, "", "Created", "sandbox fedcba9876543", false, 1),
        event(59, "liveness", "Started", "attempt 0", false, 1),
        event(
            9,
            "liveness",
            "Unhealthy",
            "Liveness probe failed (1/2): ls: /tmp/healthy: No such file or directory\n",
            true,
            2,
        ),
    ]
}

#[test]
fn pods_are_a_table() {
    let mut crashed = container("app", "Waiting", "CrashLoopBackOff");
    crashed.restart_count = 5;
    let pods = [
        liveness(),
        pod("done", "Completed", vec![container("a", "Terminated", "")]),
        pod("crash", "CrashLoopBackOff", vec![crashed, container("side", "Running", "")]),
    ];
    let table = |pods: &[Pod], columns| {
        View { output: None, one: false, columns, heading: true }.whole(pods, NOW).unwrap()
    };
    insta::assert_snapshot!(table(&pods, Columns::default()), @r"
    NAME            READY   STATUS             RESTARTS      AGE
    liveness-exam   1/1     Running            2 (65s ago)   5m
    done            0/1     Completed          0             5m
    crash           1/2     CrashLoopBackOff   5 (65s ago)   5m
    ");
    let all = Columns { namespaces: true, wide: true, labels: true };
    insta::assert_snapshot!(table(&pods[..1], all), @r"
    NAMESPACE   NAME            READY   STATUS    RESTARTS      AGE   IP          ORIGIN     SANDBOX         LABELS
    default     liveness-exam   1/1     Running   2 (65s ago)   5m    10.88.0.7   manifest   fedcba9876543   app=exam
    ");
}

#[test]
fn a_pods_reason_is_a_word_and_an_explanation() {
    let mut without = pod("p", "Pending", vec![]);
    without.reason = "ErrImageNeverPull: image \"x\" is not on this node".into();
    assert_eq!(status::reason(&without), ("ErrImageNeverPull", "image \"x\" is not on this node"));
    without.reason = "image \"x\" is not on this node: pull it first".into();
    assert_eq!(status::reason(&without), ("", without.reason.as_str()));
}

#[test]
fn sidecars_count_as_containers_and_init_containers_while_they_run() {
    let restarted = |name, count| {
        let reason = "CrashLoopBackOff";
        Container { restart_count: count, ..container(name, "Waiting", reason) }
    };
    let mut pod = pod("p", "Running", vec![container("app", "Running", "")]);
    pod.init_containers = vec![
        restarted("setup", 2),
        Container { sidecar: true, ready: true, ..restarted("proxy", 3) },
    ];
    assert_eq!((status::ready(&pod).as_str(), status::restarts(&pod)), ("2/2", 3));
    pod.containers[0] = Container::default();
    assert_eq!((status::ready(&pod).as_str(), status::restarts(&pod)), ("1/2", 5));
}

#[test]
fn a_pod_is_described() {
    insta::assert_snapshot!(describe::describe(&liveness(), &exam_events(), NOW));
}

#[test]
fn a_waiting_and_an_ended_container_are_described() {
    let mut waits = container("app", "Waiting", "CrashLoopBackOff");
    waits.message = "back-off 40s".into();
    waits.backoff_left_ms = Some(12_345);
    waits.last = Some(Attempt {
        exit_code: 3,
        reason: "Error".into(),
        finished_at: NOW - 20 * SECOND,
        ..Attempt::default()
    });
    let mut ended = container("job", "Terminated", "OOMKilled");
    ended.exit_code = 137;
    ended.finished_at = NOW - 5 * SECOND;
    let pod = pod("two", "CrashLoopBackOff", vec![waits, ended]);
    insta::assert_snapshot!(describe::describe(&pod, &[], NOW));
}

#[test]
fn what_is_wanted_of_a_pod_is_described_beside_what_it_is() {
    let mut pod = whole();
    pod.containers[0].image_id = format!("sha256:{}", "5".repeat(64));
    let unready = Condition {
        r#type: "ContainersReady".into(),
        reason: "ContainersNotReady".into(),
        message: "containers with unready status: [app]".into(),
        last_transition_at: NOW - 70 * SECOND,
        ..Condition::default()
    };
    pod.conditions.push(unready);
    let spec = serde_json::json!({
        "restartPolicy": "OnFailure",
        "initContainers": [{"name": "init", "image": "busybox", "command": ["sh", "-c", "true"]}],
        "containers": [{
            "name": "app",
            "image": "busybox",
            "args": ["one", "two\nthree"],
            "workingDir": "/srv",
            "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
            "env": [
                {"name": "A", "value": "b"},
                {"name": "EMPTY"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
            ],
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": 1}},
            "volumeMounts": [
                {"name": "cache", "mountPath": "/cache"},
                {"name": "host", "mountPath": "/h", "readOnly": true, "subPath": "a"},
            ],
        }],
        "volumes": [
            {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "host", "hostPath": {"path": "/srv"}},
            {"name": "plain", "emptyDir": {}},
        ],
    });
    pod.manifest = serde_json::json!({"metadata": {"name": "whole"}, "spec": spec}).to_string();
    pod.deletion_at = NOW + 12 * SECOND;
    pod.reason = "ErrImagePull: no such image".into();
    pod.init_containers[0].message = "no such image".into();
    insta::assert_snapshot!(describe::describe(&pod, &[], NOW));
}

#[test]
fn pods_are_kubernetes_objects_as_json() {
    let mut pod = liveness();
    let mut ended = container("job", "Terminated", "Error");
    ended.exit_code = 1;
    ended.finished_at = NOW;
    pod.containers.push(ended);
    pod.containers.push(container("third", "Waiting", "CrashLoopBackOff"));
    insta::assert_snapshot!(json::pods(&[pod.clone()], true));
    let list: serde_json::Value =
        serde_json::from_str(&json::pods(&[pod.clone(), pod], false)).unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("List"), 2));
    assert!(json::pods(&[], false).contains("\"items\": []"));
}

#[test]
fn events_are_a_table_and_a_stream() {
    insta::assert_snapshot!(events::table(&exam_events(), NOW), @r"
    LAST SEEN   TYPE      REASON      OBJECT                       MESSAGE
    60s         Normal    Created     pod/liveness-exam            sandbox fedcba9876543
    59s         Normal    Started     pod/liveness-exam:liveness   attempt 0
    9s          Warning   Unhealthy   pod/liveness-exam:liveness   Liveness probe failed (1/2): ls: /tmp/healthy: No such file or directory (x2)
    ");
    let first = exam_events()[0].at;
    let stream = |format| -> String {
        exam_events().iter().map(|event| events::streamed(event, format, first, NOW)).collect()
    };
    insta::assert_snapshot!(stream(TimeFormat::Offset), @r"
    +0.0s          Normal   Created           pod/liveness-exam         sandbox fedcba9876543
    +1.0s          Normal   Started           pod/liveness-exam:liveness attempt 0
    +51.0s         Warning  Unhealthy         pod/liveness-exam:liveness Liveness probe failed (1/2): ls: /tmp/healthy: No such file or directory (x2)
    ");
    assert!(stream(TimeFormat::Clock).starts_with("03:03:05.000 "));
}

#[test]
fn what_a_container_wrote_cannot_play_with_the_terminal() {
    let mut event = exam_events().remove(0);
    event.message = "\u{1b}[2Jgone\r\nnext\u{9b}1m".into();
    let line = events::streamed(&event, TimeFormat::Clock, 0, NOW);
    assert!(line.ends_with("\\u{1b}[2Jgone\\r / next\\u{9b}1m\n"), "{line}");
}

#[test]
fn images_are_a_table() {
    let image = |id: &str, tags: &[&str], digests: &[&str], size, used_by: &[&str]| ImageSummary {
        id: format!("sha256:{}", id.repeat(8)),
        tags: tags.iter().map(ToString::to_string).collect(),
        digests: digests.iter().map(ToString::to_string).collect(),
        size,
        created: "2023-11-13T22:13:20.5Z".into(),
        pinned: id == "99887766",
        used_by: used_by.iter().map(ToString::to_string).collect(),
    };
    let digest = format!("docker.io/library/nginx@sha256:{}", "5".repeat(64));
    let mut old = image("11223344", &[], &["q.io/b@sha256:00"], 2_160_000, &["a/b/c", "a/b/d"]);
    old.created = "1970-01-01T00:00:00Z".into();
    let images = [
        image(
            "aabbccdd",
            &["docker.io/library/nginx:1", "localhost:5000/nginx:latest"],
            &[&digest],
            70_500_000,
            &["default/web/app"],
        ),
        old,
        image("99887766", &[], &[], 12, &[]),
    ];
    let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    insta::assert_snapshot!(image::image_table(&images, now, false), @r"
    REPOSITORY                TAG      DIGEST         IMAGE ID       CREATED   SIZE     USED BY
    <none>                    <none>   <none>         998877669988   23h       12B      pinned
    docker.io/library/nginx   1        555555555555   aabbccddaabb   23h       70.5MB   default/web/app
    localhost:5000/nginx      latest   <none>         aabbccddaabb   23h       70.5MB   default/web/app
    q.io/b                    <none>   00             112233441122   -         2.16MB   a/b/c and 1 more
    ");
    let answer = PruneImagesResponse { removed: images.to_vec(), freed: 72_660_012 };
    insta::assert_snapshot!(image::pruned(&answer), @r"
    docker.io/library/nginx:1 removed
    q.io/b@sha256:00 removed
    sha256:9988776699887766998877669988776699887766998877669988776699887766 removed
    72.7MB freed
    ");
}

#[test]
fn the_pods_of_a_manifest_are_named() {
    let named = |text: &str| match manifest::named_pods(text.as_bytes(), "p.yaml") {
        Ok(pods) => Ok(pods),
        Err(Failure::Message(message)) => Err(message),
        Err(other) => panic!("{other:?}"),
    };
    let two = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec: {containers: []}\n---\n\
               kind: ConfigMap\nmetadata: {name: c}\n---\n---\nkind: Pod\nmetadata: {name: b, namespace: n}\n";
    assert_eq!(named(two), Ok(vec![("default".into(), "a".into()), ("n".into(), "b".into())]));
    let list = "kind: List\nitems:\n- {kind: Pod, metadata: {name: a}}\n- {kind: Service}\n";
    assert_eq!(named(list), Ok(vec![("default".into(), "a".into())]));
    let json = r#"{"kind": "Pod", "metadata": {"name": "j"}}"#;
    assert_eq!(named(json), Ok(vec![("default".into(), "j".into())]));
    assert_eq!(
        named("kind: Service"),
        Err("p.yaml: there is no document of kind Pod in it".into())
    );
    assert_eq!(named(""), Err("p.yaml: there is no document of kind Pod in it".into()));
    assert_eq!(named("kind: Pod\nmetadata: {}"), Err("p.yaml: metadata.name is missing".into()));
    assert_eq!(named("kind: Pod"), Err("p.yaml: metadata is missing".into()));
    assert!(named("kind: [").unwrap_err().starts_with("p.yaml: "));
}

/// A manifest's pod with an init container that has passed and a main one that was restarted.
fn whole() -> Pod {
    let mut init = container("init", "Terminated", "Completed");
    init.finished_at = NOW - 66 * SECOND;
    let mut app = container("app", "Running", "");
    app.started = true;
    app.restart_count = 1;
    app.last = Some(Attempt { exit_code: 255, reason: "Unknown".into(), ..Attempt::default() });
    let ready = Condition { r#type: "Ready".into(), status: true, ..Condition::default() };
    Pod {
        init_containers: vec![init],
        conditions: vec![ready],
        qos_class: "BestEffort".into(),
        started_at: NOW - 299 * SECOND,
        host_ip: "192.0.2.7".into(),
        node_name: "node".into(),
        manifest: r#"{"metadata": {"name": "whole", "labels": {"app": "a"}}, "spec": {"initContainers": [{"name": "init", "image": "busybox"}], "containers": [{"name": "app", "image": "busybox"}]}}"#.into(),
        ..pod("whole", "Running", vec![app])
    }
}

#[test]
fn a_manifests_pod_is_printed_as_applied_and_with_its_status() {
    insta::assert_snapshot!(json::yaml(&[whole()], true).unwrap_or_default());
}

#[test]
fn a_log_of_several_says_whose_line_it_is() {
    let pod = pod("web", "Running", vec![]);
    assert_eq!(logs::prefix(&pod, "app", false, None), "[web/app] ");
    assert_eq!(logs::prefix(&pod, "app", true, None), "[default/web/app] ");
    assert_eq!(logs::prefix(&pod, "app", false, Some(7)), "\u{1b}[33m[web/app]\u{1b}[0m ");
}

#[test]
fn waiting_looks_into_the_pods_json() {
    let judged = |what: &str| judge(Some(&whole()), &what.parse().unwrap());
    for met in [
        "jsonpath={.metadata.labels.app}=a",
        "jsonpath=.status.phase=Running",
        "jsonpath={.status.containerStatuses[0].restartCount}=1",
        "jsonpath={.status.containerStatuses[0].ready}=true",
        "jsonpath={.status.podIP}",
        "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
    ] {
        assert_eq!(judged(met), Met::Yes, "{met}");
    }
    for not in ["jsonpath={.status.phase}=Failed", "jsonpath={.status.containerStatuses[9]}"] {
        assert_eq!(judged(not), Met::NotYet, "{not}");
    }
    for wrong in ["jsonpath=", "jsonpath={.a", "jsonpath={.a}b", "jsonpath={.a[x]}"] {
        wrong.parse::<Wanted>().expect_err(wrong);
    }
}

#[test]
fn waiting_ends_when_it_is_so_or_can_not_be() {
    let ready: Wanted = "condition=ready".parse().unwrap();
    let unready: Wanted = "condition=Ready=False".parse().unwrap();
    let succeeded: Wanted = "phase=Succeeded".parse().unwrap();
    let mut pod = whole();
    assert_eq!(judge(Some(&pod), &ready), Met::Yes);
    assert_eq!(judge(Some(&pod), &unready), Met::NotYet);
    assert_eq!(judge(Some(&pod), &succeeded), Met::NotYet);
    assert_eq!(judge(Some(&pod), &Wanted::Delete), Met::NotYet);
    assert_eq!(judge(None, &Wanted::Delete), Met::Yes);
    assert_eq!(judge(None, &ready), Met::Never);
    pod.phase = "Failed".into();
    assert_eq!(judge(Some(&pod), &succeeded), Met::Never);
    for wrong in ["Ready", "condition=Redy", "phase=Done", "condition=Ready=maybe"] {
        wrong.parse::<Wanted>().unwrap_err();
    }
}

#[test]
fn every_probe_has_a_row() {
    let rows = health::rows(&[liveness()], NOW);
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[0][..6],
        ["liveness-exam", "liveness", "liveness", "Success", "1 failed, fails at 2", "2s ago"]
    );
    assert_eq!(rows[1][4..6], ["none yet", "never"]);
}

#[test]
fn a_row_of_results_says_what_the_next_one_needs() {
    let mut probe = liveness().containers[0].probes[0].clone();
    probe.success_threshold = 3;
    for (result, last_success, run, expected) in [
        ("Success", true, 18, "18 ok, fails at 2"),
        ("Success", false, 1, "1 failed, fails at 2"),
        ("Failure", false, 4, "4 failed, passes at 3"),
        ("Failure", true, 2, "2 ok, passes at 3"),
        ("Unknown", true, 1, "1 ok, passes at 3"),
        ("Unknown", false, 1, "1 failed, fails at 2"),
    ] {
        (probe.result, probe.last_success, probe.run) = (result.into(), last_success, run);
        assert_eq!(health::in_a_row(&probe), expected);
    }
}

#[test]
fn an_event_is_a_kubernetes_object() {
    let event = json::event(&exam_events()[2]);
    let at = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/kind"), "Event");
    assert_eq!(at("/involvedObject/name"), "liveness-exam");
    assert_eq!(at("/involvedObject/fieldPath"), "spec.containers{liveness}");
    assert_eq!((at("/type"), at("/count")), ("Warning".into(), 2.into()));
    assert_eq!(at("/lastTimestamp"), "2026-01-02T03:03:56Z");
    assert!(json::event(&exam_events()[0]).pointer("/involvedObject/fieldPath").is_none());
}

#[test]
fn a_probed_container_that_does_not_run_is_not_well() {
    let mut pod = liveness();
    pod.containers[0].probes.truncate(1);
    assert!(health::is_well(&pod));
    "Waiting".clone_into(&mut pod.containers[0].state);
    assert!(!health::is_well(&pod));
    let output = |pod: &Pod| health::rows(std::slice::from_ref(pod), NOW)[0][6].clone();
    assert_eq!(output(&pod), "not running; ls: /tmp/healthy: No such file or directory");
    pod.containers[0].probes[0].last_run_at = 0;
    assert_eq!(output(&pod), "not running yet");
    pod.containers[0].probes.clear();
    assert!(health::is_well(&pod), "without probes there is nothing to say");
}

#[test]
fn a_deletion_has_its_time() {
    let mut pod = liveness();
    assert!(!json::pods(&[pod.clone()], true).contains("deletionTimestamp"));
    pod.deletion_at = NOW + 30 * SECOND;
    pod.deletion_grace_seconds = Some(30);
    let text = json::pods(&[pod], true);
    assert!(text.contains(r#""deletionGracePeriodSeconds": 30"#), "{text}");
    assert!(text.contains(r#""deletionTimestamp": "2026-01-02T03:04:35Z""#), "{text}");
}

const DEPLOYMENT: &str = "# kept
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
      - name: app
        image: web
        ports: [{name: http, containerPort: 8080}]
        livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 5}
";

#[test]
fn a_manifests_own_probes_become_annotations() {
    let documents = annotate::annotated(DEPLOYMENT).unwrap();
    let [(service, false), (deployment, true)] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!(service, DEPLOYMENT.split("---\n").next().unwrap());
    let value: serde_json::Value = serde_saphyr::from_str(deployment).unwrap();
    let probe = value.pointer("/spec/template/metadata/annotations/liveness.haled~1app").unwrap();
    let probe: serde_json::Value = serde_json::from_str(probe.as_str().unwrap()).unwrap();
    let wanted =
        serde_json::json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    assert_eq!(probe, wanted);
    let unknown = DEPLOYMENT.replace("port: http}", "port: web}");
    assert!(annotate::annotated(&unknown).unwrap_err().contains("no port of it is named"));
}
