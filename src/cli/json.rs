//! Pods and events as Kubernetes v1 objects: what haled tells of them, in the fields that kubectl's users
//! and `jq` scripts look at.

use serde_json::{Map, Value, json};

use crate::proto::haled::{Condition, Container, Event, Pod};

use super::age::rfc3339;
use super::options::ObjectFormat;
use super::{Failure, status};

/// A v1 Pod for one, else a v1 List; with a newline at its end.
pub(super) fn pods(pods: &[Pod], one: bool) -> String {
    format!("{:#}\n", object_of(pods, one))
}

/// The same as YAML.
pub(super) fn yaml(pods: &[Pod], one: bool) -> Result<String, Failure> {
    written(&object_of(pods, one), ObjectFormat::Yaml)
}

/// Any object, with a newline at its end.
pub(super) fn written(value: &Value, format: ObjectFormat) -> Result<String, Failure> {
    match format {
        ObjectFormat::Json => Ok(format!("{value:#}\n")),
        ObjectFormat::Yaml => serde_saphyr::to_string(value)
            .map_err(|error| Failure::Message(format!("cannot write it as YAML: {error}"))),
    }
}

/// A v1 List.
pub(super) fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// A v1 Event.
pub(super) fn event(event: &Event) -> Value {
    let container = Some(&event.container).filter(|name| !name.is_empty());
    let object = known([
        ("apiVersion", text("v1")),
        ("kind", text("Pod")),
        ("namespace", text(&event.namespace)),
        ("name", text(&event.pod)),
        ("fieldPath", container.map(|name| format!("spec.containers{{{name}}}").into())),
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}", event.pod, event.at),
            "namespace": event.namespace,
            "creationTimestamp": time(event.at),
        },
        "involvedObject": object,
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "lastTimestamp": time(event.at),
        "source": {"component": "haled"},
    })
}

/// The object that both print.
pub(super) fn object_of(pods: &[Pod], one: bool) -> Value {
    let mut items: Vec<Value> = pods.iter().map(self::object).collect();
    if one && items.len() == 1 {
        return items.remove(0);
    }
    list(items)
}

/// A pod: a manifest's as it was applied, with what became of it.
pub(super) fn object(pod: &Pod) -> Value {
    let written: Value = serde_json::from_str(&pod.manifest).unwrap_or_default();
    let field = |name: &str| written.get(name).and_then(Value::as_object).cloned();
    let mut spec = spec(pod);
    spec.extend(known([("nodeName", text(&pod.node_name))]));
    let mut metadata = field("metadata").unwrap_or_else(|| {
        let maps = [("labels", &pod.labels), ("annotations", &pod.annotations)];
        let maps = maps.into_iter().filter(|(_, map)| !map.is_empty());
        // A JSON object sorts its keys: the same pod is the same text.
        let value = |map: &std::collections::HashMap<String, String>| -> Value {
            map.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect()
        };
        maps.map(|(name, map)| (name.to_owned(), value(map))).collect()
    });
    metadata.extend(known([
        ("name", text(&pod.name)),
        ("namespace", text(&pod.namespace)),
        ("uid", text(&pod.uid)),
        ("creationTimestamp", time(pod.created_at)),
        ("deletionTimestamp", time(pod.deletion_at)),
        ("deletionGracePeriodSeconds", pod.deletion_grace_seconds.map(Value::from)),
    ]));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": stated(pod),
    })
}

/// What is wanted of a pod: a manifest's as it was applied, else as far as haled told.
pub(super) fn spec(pod: &Pod) -> Map<String, Value> {
    let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    match object(&pod.manifest).remove("spec") {
        Some(Value::Object(spec)) => spec,
        _ if !pod.spec.is_empty() => object(&pod.spec),
        _ => {
            let known = pod.containers.iter().map(|c| json!({"name": c.name, "image": c.image}));
            Map::from_iter([("containers".to_owned(), known.collect())])
        }
    }
}

fn stated(pod: &Pod) -> Map<String, Value> {
    let list = |ips: &[String]| -> Option<Value> {
        (!ips.is_empty()).then(|| ips.iter().map(|ip| json!({"ip": ip})).collect())
    };
    let statuses = |containers: &[Container]| containers.iter().map(container).collect::<Value>();
    let (reason, message) = status::reason(pod);
    // Terminating is no phase: Kubernetes' objects tell it by deletionTimestamp.
    let phase = if pod.phase == "Terminating" { "Running" } else { &pod.phase };
    let mut stated = known([
        ("phase", text(phase)),
        ("reason", text(reason)),
        ("message", text(message)),
        ("hostIP", text(&pod.host_ip)),
        ("podIP", pod.ips.first().map(|ip| ip.clone().into())),
        ("podIPs", list(&pod.ips)),
        ("startTime", time(pod.started_at)),
        ("qosClass", text(&pod.qos_class)),
    ]);
    if !pod.conditions.is_empty() {
        stated.insert("conditions".into(), pod.conditions.iter().map(condition).collect());
    }
    if !pod.init_containers.is_empty() {
        stated.insert("initContainerStatuses".into(), statuses(&pod.init_containers));
    }
    stated.insert("containerStatuses".into(), statuses(&pod.containers));
    stated
}

fn condition(condition: &Condition) -> Value {
    let mut value = known([
        ("type", text(&condition.r#type)),
        ("reason", text(&condition.reason)),
        ("message", text(&condition.message)),
        ("lastTransitionTime", time(condition.last_transition_at)),
    ]);
    // Kubernetes has never filled it in, and prints it.
    value.insert("lastProbeTime".into(), Value::Null);
    let status = if condition.status { "True" } else { "False" };
    value.insert("status".into(), status.into());
    value.into()
}

fn container(container: &Container) -> Value {
    let started = time(container.started_at);
    let (state, detail) = match container.state.as_str() {
        "Running" => ("running", known([("startedAt", started.clone())])),
        "Terminated" => (
            "terminated",
            known([
                ("exitCode", Some(container.exit_code.into())),
                ("reason", text(&container.reason)),
                ("message", text(&container.message)),
                ("startedAt", started.clone()),
                ("finishedAt", time(container.finished_at)),
            ]),
        ),
        _ => (
            "waiting",
            known([("reason", text(&container.reason)), ("message", text(&container.message))]),
        ),
    };
    let mut value = known([("containerID", text(&container.id).map(|_| id(container)))]);
    value.insert("name".into(), container.name.clone().into());
    value.insert("image".into(), container.image.clone().into());
    value.insert("ready".into(), container.ready.into());
    value.insert("restartCount".into(), container.restart_count.into());
    value.insert("state".into(), json!({state: detail}));
    value.insert("started".into(), container.started.into());
    value.extend(known([("imageID", text(&container.image_id))]));
    if let Some(last) = &container.last {
        let ended = known([
            ("containerID", text(&last.id).map(|_| format!("haled://{}", last.id).into())),
            ("exitCode", Some(last.exit_code.into())),
            ("reason", text(&last.reason)),
            ("message", text(&last.message)),
            ("startedAt", time(last.started_at)),
            ("finishedAt", time(last.finished_at)),
        ]);
        value.insert("lastState".into(), json!({"terminated": ended}));
    }
    value.into()
}

fn id(container: &Container) -> Value {
    format!("haled://{}", container.id).into()
}

/// Those of the fields that have a value.
fn known<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    there.collect()
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

/// `None`: it did not happen.
pub(super) fn time(at: i64) -> Option<Value> {
    rfc3339(at).map(Value::from)
}
