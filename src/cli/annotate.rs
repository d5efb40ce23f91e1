//! `halectl annotate`: a manifest's own probes as annotations, so that haled heals pods that
//! come through a kubelet: `halectl annotate -f deploy.yaml | kubectl apply -f -`.
//!
//! Documents without probes, and of other kinds, pass through as they were written.

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::options::AnnotateArgs;
use super::output::{complain, print};
use super::{Failure, Outcome, manifest};

/// `halectl annotate`.
pub(super) async fn annotate(args: AnnotateArgs) -> Outcome {
    let mut all = Vec::new();
    for file in &args.filename {
        let (manifest, source) = manifest::read(file).await?;
        let failed = |why: String| Failure::Message(format!("{source}: {why}"));
        let text = String::from_utf8(manifest).map_err(|error| failed(error.to_string()))?;
        let documents = annotated(&text).map_err(failed)?;
        if documents.iter().all(|(_, changed)| !changed) {
            complain(&format!("{source}: there is no probe in it, so it stays as it is"));
        }
        all.extend(documents.into_iter().map(|(document, _)| document));
    }
    print(all.join("---\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Every document of a manifest, annotated, and whether that has changed it.
pub(super) fn annotated(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut documents = Vec::new();
    for part in parts(text) {
        let value: Value = serde_saphyr::from_str(&part).map_err(|error| error.to_string())?;
        if value.is_null() {
            continue;
        }
        let mut changed = value.clone();
        document(&mut changed)?;
        documents.push(if changed == value {
            (part, false)
        } else {
            (serde_saphyr::to_string(&changed).map_err(|error| error.to_string())?, true)
        });
    }
    Ok(documents)
}

/// The text between the lines that separate documents.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Annotates a Pod, or the template of what makes pods.
fn document(value: &mut Value) -> Result<(), String> {
    let template = match value.get("kind").and_then(Value::as_str) {
        Some("Pod") => "",
        Some("Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job") => "/spec/template",
        Some("CronJob") => "/spec/jobTemplate/spec/template",
        Some("List") => {
            let items = value.get_mut("items").and_then(Value::as_array_mut);
            return items.into_iter().flatten().try_for_each(document);
        }
        _ => return Ok(()),
    };
    let Some(pod) = value.pointer_mut(template) else { return Ok(()) };
    let annotations = annotations(pod)?;
    if annotations.is_empty() {
        return Ok(());
    }
    let Some(pod) = pod.as_object_mut() else { return Ok(()) };
    let empty = || Value::Object(Map::new());
    let metadata = pod.entry("metadata").or_insert_with(empty);
    let Some(metadata) = metadata.as_object_mut() else {
        return Err("metadata: an object is wanted".to_owned());
    };
    let there = metadata.entry("annotations").or_insert_with(empty);
    let Some(there) = there.as_object_mut() else {
        return Err("metadata.annotations: an object is wanted".to_owned());
    };
    there.extend(annotations);
    Ok(())
}

/// What haled is to know of a pod.
fn annotations(pod: &Value) -> Result<Map<String, Value>, String> {
    let mut annotations = Map::new();
    let Some(spec) = pod.get("spec") else { return Ok(annotations) };
    let list = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
    // Of the init containers only sidecars may have probes.
    for container in list("initContainers").chain(list("containers")) {
        let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
        for (kind, field) in [
            ("startup", "startupProbe"),
            ("liveness", "livenessProbe"),
            ("readiness", "readinessProbe"),
        ] {
            let Some(probe) = container.get(field).filter(|probe| !probe.is_null()) else {
                continue;
            };
            let probe = numbered(probe, container)
                .map_err(|why| format!("container \"{name}\": {field}: {why}"))?;
            annotations.insert(format!("{kind}.haled/{name}"), probe.to_string().into());
        }
    }
    let policy = spec.get("restartPolicy").and_then(Value::as_str);
    if let Some(policy) = policy.filter(|policy| *policy != "Always" && !annotations.is_empty()) {
        annotations.insert("haled/restart-policy".to_owned(), policy.into());
    }
    Ok(annotations)
}

/// A probe with the number of its port: the names of ports don't reach a CRI runtime.
fn numbered(probe: &Value, container: &Value) -> Result<Value, String> {
    let mut probe = probe.clone();
    for handler in ["httpGet", "tcpSocket"] {
        let Some(port) = probe.pointer_mut(&format!("/{handler}/port")) else { continue };
        let Some(name) = port.as_str().map(str::to_owned) else { continue };
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let mut named =
            ports.filter(|port| port.get("name").and_then(Value::as_str) == Some(&name));
        let number = named.next().and_then(|port| port.get("containerPort"));
        *port = number.cloned().ok_or_else(|| format!("no port of it is named \"{name}\""))?;
    }
    Ok(probe)
}
