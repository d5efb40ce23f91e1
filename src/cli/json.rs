//! Pods as Kubernetes v1 objects: what haled tells of them, in the fields that kubectl's users
//! and `jq` scripts look at.

use serde_json::{Map, Value, json};

use crate::proto::haled::{Container, Pod};

use super::age::rfc3339;
use super::status;

/// A v1 Pod for one, else a v1 List; with a newline at its end.
pub(super) fn pods(pods: &[Pod], one: bool) -> String {
    let items: Vec<Value> = pods.iter().map(pod).collect();
    let value = match (one, items) {
        (true, mut items) if items.len() == 1 => items.remove(0),
        (_, items) => json!({"apiVersion": "v1", "kind": "List", "items": items}),
    };
    format!("{value:#}\n")
}

fn pod(pod: &Pod) -> Value {
    let spec: Vec<Value> =
        pod.containers.iter().map(|c| json!({"name": c.name, "image": c.image})).collect();
    let statuses: Vec<Value> = pod.containers.iter().map(container).collect();
    let mut metadata = object([
        ("name", text(&pod.name)),
        ("namespace", text(&pod.namespace)),
        ("uid", text(&pod.uid)),
        ("creationTimestamp", time(pod.created_at)),
    ]);
    for (name, map) in [("labels", &pod.labels), ("annotations", &pod.annotations)] {
        if !map.is_empty() {
            // A JSON object sorts its keys: the same pod is the same text.
            let map: Map<String, Value> =
                map.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
            metadata.insert(name.into(), map.into());
        }
    }
    let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({"ip": ip})).collect();
    let (reason, message) = status::reason(pod);
    let mut stated = object([
        ("phase", text(&pod.phase)),
        ("reason", text(reason)),
        ("message", text(message)),
        ("podIP", pod.ips.first().map(|ip| ip.clone().into())),
        ("podIPs", (!ips.is_empty()).then(|| ips.into())),
    ]);
    stated.insert("containerStatuses".into(), statuses.into());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": spec},
        "status": stated,
    })
}

fn container(container: &Container) -> Value {
    let started = time(container.started_at);
    let reason = match container.reason.as_str() {
        "" if container.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let (state, detail) = match container.state.as_str() {
        "Running" => ("running", object([("startedAt", started.clone())])),
        "Terminated" => (
            "terminated",
            object([
                ("exitCode", Some(container.exit_code.into())),
                ("reason", text(reason)),
                ("message", text(&container.message)),
                ("startedAt", started.clone()),
                ("finishedAt", time(container.finished_at)),
            ]),
        ),
        _ => (
            "waiting",
            object([("reason", text(&container.reason)), ("message", text(&container.message))]),
        ),
    };
    let mut value = object([("containerID", text(&container.id).map(|_| id(container)))]);
    value.insert("name".into(), container.name.clone().into());
    value.insert("image".into(), container.image.clone().into());
    value.insert("ready".into(), container.ready.into());
    value.insert("restartCount".into(), container.restart_count.into());
    value.insert("state".into(), json!({state: detail}));
    value.into()
}

fn id(container: &Container) -> Value {
    format!("haled://{}", container.id).into()
}

/// Those of the fields that have a value.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    there.collect()
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn time(at: i64) -> Option<Value> {
    rfc3339(at).map(Value::from)
}
