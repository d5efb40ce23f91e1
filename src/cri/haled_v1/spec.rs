//! What is known of the v1 PodSpec of a pod that came through the CRI.
//!
//! Never its containers' environment: secrets may be among it, and this is printed.

use serde_json::{Map, Value, json};

use crate::container::config::ContainerConfig;
use crate::health::RestartPolicy;
use crate::oci::model::{Mount, Resources, Sharing};
use crate::pod::view::PodView;

/// What a CPU is worth in shares.
const SHARES: u64 = 1024;

/// The spec, of the newest attempt of each of these containers.
pub(super) fn of(view: &PodView, names: &[&str]) -> Value {
    let newest: Vec<&ContainerConfig> =
        names.iter().filter_map(|name| Some(&*view.newest(name)?.config)).collect();
    let mut volumes: Vec<Value> = Vec::new();
    let containers: Value =
        newest.iter().map(|config| container(view, config, &mut volumes)).collect();
    let mut spec = Map::from_iter([("containers".to_owned(), containers)]);
    if !volumes.is_empty() {
        spec.insert("volumes".to_owned(), volumes.into());
    }
    if view.config.network == Sharing::Node {
        spec.insert("hostNetwork".to_owned(), true.into());
    }
    if let Some(policy) = &view.policy {
        let word = match policy.restart {
            RestartPolicy::Always => "Always",
            RestartPolicy::OnFailure => "OnFailure",
            RestartPolicy::Never => "Never",
        };
        spec.insert("restartPolicy".to_owned(), word.into());
    }
    spec.into()
}

fn container(view: &PodView, config: &ContainerConfig, volumes: &mut Vec<Value>) -> Value {
    let mounts = config.mounts.iter().map(|mount| {
        let name = volume(mount, volumes);
        json!({"name": name, "mountPath": mount.container_path, "readOnly": mount.readonly})
    });
    let mounts: Vec<Value> = mounts.collect();
    let (limits, requests) = resources(&config.resources);
    let mut resources = Map::new();
    insert(&mut resources, "limits", limits.into());
    insert(&mut resources, "requests", requests.into());
    let mut container = Map::new();
    for (name, value) in [
        ("name", config.name.clone().into()),
        ("image", config.user_image.clone().into()),
        ("command", config.command.clone().into()),
        ("args", config.args.clone().into()),
        ("workingDir", config.working_dir.clone().into()),
        ("resources", resources.into()),
        ("volumeMounts", mounts.into()),
    ] {
        insert(&mut container, name, value);
    }
    // The CRI tells the pod's ports, not whose they are: one container's they must be.
    let alone = view.containers.iter().all(|other| other.config.name == config.name);
    let ports = view.config.port_mappings.iter().filter(|_| alone).map(|port| {
        json!({
            "containerPort": port.container_port,
            "hostPort": port.host_port,
            "protocol": port.protocol.to_uppercase(),
        })
    });
    insert(&mut container, "ports", ports.collect());
    for (name, is_so) in [("stdin", config.stdin), ("tty", config.tty)] {
        if is_so {
            container.insert(name.to_owned(), true.into());
        }
    }
    container.into()
}

/// The name of the volume that this is a mount of; one that is not there yet is added.
fn volume(mount: &Mount, volumes: &mut Vec<Value>) -> String {
    let source = match &mount.image {
        Some(image) => json!({"reference": image.name}),
        None => json!({"path": mount.host_path}),
    };
    let kind = if mount.image.is_some() { "image" } else { "hostPath" };
    if let Some(known) = volumes.iter().find(|volume| volume[kind] == source) {
        return known["name"].as_str().unwrap_or_default().to_owned();
    }
    let name = format!("mount-{}", volumes.len());
    volumes.push(json!({"name": name, kind: source}));
    name
}

/// Limits and requests, as quantities.
fn resources(resources: &Resources) -> (Map<String, Value>, Map<String, Value>) {
    let (mut limits, mut requests) = (Map::new(), Map::new());
    let quota = resources.cpu_quota_us.and_then(|quota| u64::try_from(quota).ok());
    if let (Some(quota), Some(period @ 1..)) = (quota.filter(|q| *q > 0), resources.cpu_period_us) {
        let milli = quota.saturating_mul(1000) / period;
        limits.insert("cpu".to_owned(), format!("{milli}m").into());
    }
    if let Some(bytes @ 1..) = resources.memory_limit_bytes {
        limits.insert("memory".to_owned(), bytes.to_string().into());
    }
    // 2 is the kernel's least, and what no request at all comes to.
    if let Some(shares @ 3..) = resources.cpu_shares {
        let milli = shares.saturating_mul(1000).div_ceil(SHARES);
        requests.insert("cpu".to_owned(), format!("{milli}m").into());
    }
    (limits, requests)
}

/// Unless it says nothing.
fn insert(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let is_empty = match &value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if !is_empty {
        fields.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_quantities_again() {
        let told = |resources: &Resources| json!(super::resources(resources));
        assert_eq!(told(&Resources::default()), json!([{}, {}]));
        let limited = Resources {
            cpu_shares: Some(102),
            cpu_quota_us: Some(25_000),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(64 << 20),
            ..Resources::default()
        };
        assert_eq!(told(&limited), json!([{"cpu": "250m", "memory": "67108864"}, {"cpu": "100m"}]));
        let unlimited = Resources {
            cpu_shares: Some(2),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(0),
            ..Resources::default()
        };
        assert_eq!(told(&unlimited), json!([{}, {}]));
    }
}
