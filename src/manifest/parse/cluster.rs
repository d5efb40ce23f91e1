//! What a cluster, `kubectl get -o yaml` or `halectl get -o yaml` adds to a Pod that somebody
//! wrote: what a server notes of it is passed over, and the token that is made for every pod is
//! left out, for there is none here. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a server notes of any object.
const METADATA: [&str; 10] = [
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// What a cluster calls the volume with the token that it adds to a pod, and something random.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Takes out what a server notes of an object. The places of all else stay as they are.
pub(super) fn strip(document: &mut Value) {
    let Some(object) = document.as_object_mut() else { return };
    object.remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !METADATA.contains(&name.as_str()));
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        // Where it runs is told of every pod; this node is all there is.
        spec.remove("nodeName");
    }
}

/// The names of a pod's volumes that hold nothing but a cluster's token and what goes with it.
pub(super) fn token_volumes(document: &Value) -> BTreeSet<String> {
    let volumes = document.pointer("/spec/volumes").and_then(Value::as_array);
    let name = |volume: &Value| {
        let name = volume.get("name")?.as_str()?;
        let sources = volume.pointer("/projected/sources")?.as_array()?;
        let token = sources.iter().any(|source| source.get("serviceAccountToken").is_some());
        (token && name.starts_with(TOKEN_VOLUME)).then(|| name.to_owned())
    };
    volumes.into_iter().flatten().filter_map(name).collect()
}

/// A pod without these volumes and their mounts.
pub(super) fn without_volumes(document: &Value, names: &BTreeSet<String>) -> Value {
    let mut document = document.clone();
    let is_one = |value: &Value| {
        value.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(name))
    };
    let drop_from = |list: Option<&mut Value>| {
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.retain(|value| !is_one(value));
        }
    };
    drop_from(document.pointer_mut("/spec/volumes"));
    for field in ["/spec/initContainers", "/spec/containers"] {
        let containers = document.pointer_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            drop_from(container.get_mut("volumeMounts"));
        }
    }
    document
}
