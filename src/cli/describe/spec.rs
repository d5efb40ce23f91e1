//! Parts of a v1 PodSpec in words; what is not there is no words. Pure.

use serde_json::Value;

/// A value in a line.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A list's words, a line each.
pub(super) fn lines(list: &Value) -> String {
    items(list).iter().map(word).collect::<Vec<_>>().join("\n")
}

/// `cpu 500m, memory 64Mi`.
pub(super) fn pairs(map: &Value) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name} {}", word(value));
    map.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(", ")
}

/// `80/TCP (http), 8080 on the node`.
pub(super) fn ports(list: &Value) -> String {
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let name = port["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        let host = match (&port["hostPort"], port["hostIP"].as_str()) {
            (Value::Null, _) => String::new(),
            (number, None) => format!(", {number} on the node"),
            (number, Some(ip)) => format!(", {number} on the node's {ip}"),
        };
        format!("{}/{protocol}{name}{host}", word(&port["containerPort"]))
    };
    items(list).iter().map(port).collect::<Vec<_>>().join("\n")
}

/// `NAME=value`, and where from what has no value of its own.
pub(super) fn environment(container: &Value) -> String {
    let whole = |source: &Value| {
        let (kind, reference) = [("ConfigMap", "configMapRef"), ("Secret", "secretRef")]
            .into_iter()
            .find(|(_, field)| !source[*field].is_null())
            .unwrap_or_default();
        let prefix = source["prefix"].as_str().map(|prefix| format!(", as {prefix}*"));
        let name = word(&source[reference]["name"]);
        format!("all of {kind} {name}{}", prefix.unwrap_or_default())
    };
    let one = |variable: &Value| {
        let name = word(&variable["name"]);
        match origin(&variable["valueFrom"]) {
            Some(origin) => format!("{name} from {origin}"),
            None => format!("{name}={}", word(&variable["value"])),
        }
    };
    let all = items(&container["envFrom"]).iter().map(whole);
    all.chain(items(&container["env"]).iter().map(one)).collect::<Vec<_>>().join("\n")
}

/// What a variable's value is taken from.
fn origin(from: &Value) -> Option<String> {
    let (field, source) = from.as_object()?.iter().next()?;
    let of_key =
        |kind: &str| format!("{} of {kind} {}", word(&source["key"]), word(&source["name"]));
    Some(match field.as_str() {
        "configMapKeyRef" => of_key("ConfigMap"),
        "secretKeyRef" => of_key("Secret"),
        "fieldRef" => word(&source["fieldPath"]),
        "resourceFieldRef" => word(&source["resource"]),
        _ => format!("{field} {source}"),
    })
}

/// `/data from cache (ro)`.
pub(super) fn mounts(list: &Value) -> String {
    let mount = |mount: &Value| {
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let path = ["subPath", "subPathExpr"].iter().find_map(|field| mount[*field].as_str());
        let path = path.map(|path| format!(",path=\"{path}\"")).unwrap_or_default();
        format!("{} from {} ({access}{path})", word(&mount["mountPath"]), word(&mount["name"]))
    };
    items(list).iter().map(mount).collect::<Vec<_>>().join("\n")
}

/// Each volume's name, and its kind with what is said of it: `emptyDir, medium Memory`.
pub(super) fn volumes(list: Option<&Value>) -> Vec<(String, String)> {
    let volume = |volume: &Value| {
        let source =
            volume.as_object().and_then(|all| all.iter().find(|(name, _)| *name != "name"));
        let what = source.map(|(kind, source)| match pairs(source) {
            none if none.is_empty() => kind.clone(),
            pairs => format!("{kind}, {pairs}"),
        });
        (word(&volume["name"]), what.unwrap_or_else(|| "emptyDir".to_owned()))
    };
    list.map(items).unwrap_or_default().iter().map(volume).collect()
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
