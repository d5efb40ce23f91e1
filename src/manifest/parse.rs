//! A manifest's text → plans. Pure: nothing is looked up, every mistake is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::expand::expand;
use super::quantity::{bytes, millicores};
use super::{Errors, PodPlan, PullPolicy};
use crate::container::config::ContainerConfig;
use crate::health::fields::{Mistakes, Object, nearest};
use crate::health::{Heal, Kind, Policy, Probes, RestartPolicy, schema};
use crate::network::PortMapping;
use crate::oci::model::{EnvVar, PidMode, Profile, Resources, Security, Sharing};
use crate::pod::config::SandboxConfig;

/// Documents in one manifest.
const MAX_DOCUMENTS: usize = 256;
/// Containers in one pod.
const MAX_CONTAINERS: usize = 64;
/// The longest name, in bytes: a DNS label.
const MAX_NAME: usize = 63;
/// Microseconds: the period of CPU limits, Kubernetes' own.
const CPU_PERIOD_US: u64 = 100_000;
/// terminationGracePeriodSeconds' default.
const DEFAULT_GRACE: u64 = 30;

const POD: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
const METADATA: &[&str] = &["name", "namespace", "labels", "annotations"];
const METADATA_LATER: &[&str] = &[
    "creationTimestamp",
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
const SPEC: &[&str] =
    &["containers", "restartPolicy", "hostNetwork", "terminationGracePeriodSeconds"];
const SPEC_LATER: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "env",
    "ports",
    "resources",
    "livenessProbe",
];
const CONTAINER_LATER: &[&str] = &[
    "envFrom",
    "lifecycle",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
const ENV: &[&str] = &["name", "value"];
const PORT: &[&str] = &["name", "containerPort", "hostPort", "hostIP", "protocol"];

/// Reads every document of a manifest. Nothing is given where anything is wrong.
pub fn parse(text: &str) -> Result<Vec<PodPlan>, Errors> {
    let mut mistakes = Mistakes::default();
    let mut plans = Vec::new();
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_multiple_with_options::<Value>(text, options) {
        Ok(documents) if documents.len() > MAX_DOCUMENTS => {
            let count = documents.len();
            mistakes.add("", format!("{count} documents: {MAX_DOCUMENTS} are allowed"));
        }
        Ok(documents) => {
            let documents: Vec<&Value> =
                documents.iter().filter(|value| !value.is_null()).collect();
            if documents.is_empty() {
                mistakes.add("", "there is no Pod in it");
            }
            for (at, document) in documents.iter().enumerate() {
                // One document needs no number.
                let path =
                    if documents.len() == 1 { String::new() } else { format!("document[{at}]") };
                plans.extend(pod(&path, document, &mut mistakes));
            }
            twice(&plans, &mut mistakes);
        }
        Err(error) => mistakes.add("", error.to_string()),
    }
    if mistakes.0.is_empty() { Ok(plans) } else { Err(Errors(mistakes.0)) }
}

/// Two documents that name the same pod.
fn twice(plans: &[PodPlan], mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for plan in plans {
        let (namespace, name) = (&plan.sandbox.namespace, &plan.sandbox.name);
        if !seen.insert((namespace, name)) {
            mistakes.add("", format!("pod \"{name}\" of namespace \"{namespace}\" is there twice"));
        }
    }
}

fn pod(path: &str, value: &Value, mistakes: &mut Mistakes) -> Option<PodPlan> {
    let before = mistakes.0.len();
    let object = Object::new(path, value, mistakes)?;
    for (field, wanted) in [("apiVersion", "v1"), ("kind", "Pod")] {
        match object.required(field, mistakes) {
            Some(found) if found != wanted => {
                mistakes.add(object.at(field), format!("is \"{found}\": \"{wanted}\" is allowed"));
                // Its fields are another kind's.
                return None;
            }
            _ => {}
        }
    }
    object.only(POD, &["status"], mistakes);
    let empty = Value::Object(serde_json::Map::new());
    let metadata = object.get("metadata").unwrap_or(&empty);
    let metadata = Object::new(object.at("metadata"), metadata, mistakes)?;
    metadata.only(METADATA, METADATA_LATER, mistakes);
    let name = label(&metadata, "name", mistakes);
    let namespace = match metadata.get("namespace") {
        Some(_) => label(&metadata, "namespace", mistakes),
        None => Some("default".to_owned()),
    };
    let mut labels = metadata.string_map("labels", mistakes);
    let annotations = metadata.string_map("annotations", mistakes);
    if object.get("spec").is_none() {
        mistakes.add(path, "field \"spec\" is missing");
    }
    let spec = object.object("spec", mistakes)?;
    spec.only(SPEC, SPEC_LATER, mistakes);
    let host_network = spec.boolean("hostNetwork", mistakes).unwrap_or(false);
    let grace_field = "terminationGracePeriodSeconds";
    let grace = spec.integer(grace_field, 0..=u64::from(u32::MAX), mistakes);
    let grace = grace.unwrap_or(DEFAULT_GRACE);
    let mut health = Policy { heal: Heal::Restart, ..Policy::default() };
    let policies = ["Always", "OnFailure", "Never"];
    health.restart = match one_of(&spec, "restartPolicy", &policies, mistakes) {
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    };
    let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
    let own_labels = |labels: &mut BTreeMap<String, String>| {
        labels.insert("io.kubernetes.pod.name".to_owned(), name.clone());
        labels.insert("io.kubernetes.pod.namespace".to_owned(), namespace.clone());
    };
    own_labels(&mut labels);

    let mut plan = PodPlan {
        containers: Vec::new(),
        pull: Vec::new(),
        health,
        grace: Duration::from_secs(grace),
        sandbox: SandboxConfig {
            hostname: if host_network { String::new() } else { name.clone() },
            name: name.clone(),
            namespace: namespace.clone(),
            uid: String::new(),
            attempt: 0,
            log_directory: PathBuf::new(),
            dns: None,
            port_mappings: Vec::new(),
            labels,
            annotations,
            cgroup_parent: String::new(),
            sysctls: BTreeMap::new(),
            network: if host_network { Sharing::Node } else { Sharing::Pod },
            ipc: Sharing::Pod,
            pid: PidMode::Container,
            privileged: false,
            resources: None,
            runtime_handler: String::new(),
        },
    };
    containers(&spec, &mut plan, own_labels, mistakes);
    (mistakes.0.len() == before).then_some(plan)
}

fn containers(
    spec: &Object<'_>,
    plan: &mut PodPlan,
    own_labels: impl Fn(&mut BTreeMap<String, String>),
    mistakes: &mut Mistakes,
) {
    let all = spec.list("containers", mistakes);
    if all.is_empty() || all.len() > MAX_CONTAINERS {
        let what = format!("has {} containers: 1 to {MAX_CONTAINERS} are allowed", all.len());
        mistakes.add(spec.at("containers"), what);
        return;
    }
    let mut names = BTreeSet::new();
    for (path, value) in all {
        let Some(object) = Object::new(path.clone(), value, mistakes) else { continue };
        let Some(mut parsed) = container(&object, mistakes) else { continue };
        if !names.insert(parsed.config.name.clone()) {
            mistakes.add(object.at("name"), format!("\"{}\" is there twice", parsed.config.name));
        }
        for mapping in parsed.published {
            let taken = |other: &PortMapping| {
                other.host_port == mapping.host_port
                    && other.protocol == mapping.protocol
                    && (other.host_ip == mapping.host_ip
                        || other.host_ip.is_none()
                        || mapping.host_ip.is_none())
            };
            if plan.sandbox.port_mappings.iter().any(taken) {
                let what = format!("host port {} is there twice", mapping.host_port);
                mistakes.add(object.at("ports"), what);
            }
            plan.sandbox.port_mappings.push(mapping);
        }
        let annotations = &mut parsed.config.annotations;
        annotations.insert("io.kubernetes.container.restartCount".to_owned(), "0".to_owned());
        let grace = plan.grace.as_secs().to_string();
        annotations.insert("io.kubernetes.pod.terminationGracePeriod".to_owned(), grace);
        own_labels(&mut parsed.config.labels);
        plan.health.probes.insert(parsed.config.name.clone(), parsed.probes);
        plan.pull.push(parsed.pull);
        plan.containers.push(parsed.config);
    }
}

struct Parsed {
    config: ContainerConfig,
    pull: PullPolicy,
    published: Vec<PortMapping>,
    probes: Probes,
}

fn container(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<Parsed> {
    object.only(CONTAINER, CONTAINER_LATER, mistakes);
    let name = label(object, "name", mistakes);
    let image = object.required("image", mistakes);
    let policies = ["IfNotPresent", "Always", "Never"];
    let pull = match one_of(object, "imagePullPolicy", &policies, mistakes) {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        // Also for :latest, unlike in Kubernetes: an image that was imported must be enough.
        _ => PullPolicy::IfNotPresent,
    };
    let env = env(object, mistakes);
    let value = |name: &str| env.iter().rfind(|env| env.name == name).map(|env| env.value.as_str());
    let expanded = |field: &str, mistakes: &mut Mistakes| -> Vec<String> {
        object.strings(field, mistakes).iter().map(|text| expand(text, value)).collect()
    };
    let (command, args) = (expanded("command", mistakes), expanded("args", mistakes));
    let (named, published) = ports(object, mistakes);
    let resources = resources(object, mistakes);
    let mut probes = Probes::default();
    if let Some(value) = object.get("livenessProbe") {
        let path = object.at("livenessProbe");
        probes.liveness = schema::probe(&path, value, Kind::Liveness, Some(&named), mistakes);
    }
    let (name, image) = (name?, image?);
    let labels = BTreeMap::from([("io.kubernetes.container.name".to_owned(), name.clone())]);
    let config = ContainerConfig {
        log_path: PathBuf::from(&name).join("0.log"),
        name,
        attempt: 0,
        user_image: image.clone(),
        image,
        command,
        args,
        working_dir: String::new(),
        env,
        mounts: Vec::new(),
        devices: Vec::new(),
        labels,
        annotations: BTreeMap::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        pid_mode: PidMode::Container,
        security: Security { seccomp: Profile::RuntimeDefault, ..Security::default() },
        resources,
        stop_signal: None,
    };
    Some(Parsed { config, pull, published, probes })
}

/// Variables, each expanded by those before it.
fn env(object: &Object<'_>, mistakes: &mut Mistakes) -> Vec<EnvVar> {
    let mut env: Vec<EnvVar> = Vec::new();
    for (path, value) in object.list("env", mistakes) {
        let Some(variable) = Object::new(path, value, mistakes) else { continue };
        variable.only(ENV, &["valueFrom"], mistakes);
        let Some(name) = variable.required("name", mistakes) else { continue };
        if name.contains('=') || name.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) {
            let what = format!("{name:?} is no variable's name: printable ASCII without = is");
            mistakes.add(variable.at("name"), what);
        }
        let value = variable.string("value", mistakes).unwrap_or_default();
        let value = expand(&value, |name| {
            env.iter().rfind(|env| env.name == name).map(|env| env.value.as_str())
        });
        env.push(EnvVar { name, value });
    }
    env
}

/// Ports with a name, and those to be published.
fn ports(object: &Object<'_>, mistakes: &mut Mistakes) -> (Vec<(String, u16)>, Vec<PortMapping>) {
    let (mut named, mut published) = (Vec::new(), Vec::new());
    for (path, value) in object.list("ports", mistakes) {
        let Some(port) = Object::new(path.clone(), value, mistakes) else { continue };
        port.only(PORT, &[], mistakes);
        let number = |field: &str, mistakes: &mut Mistakes| {
            let number = port.integer(field, 1..=65535, mistakes)?;
            u16::try_from(number).ok()
        };
        if port.get("containerPort").is_none() {
            mistakes.add(path, "field \"containerPort\" is missing");
        }
        let container_port = number("containerPort", mistakes);
        let host_port = number("hostPort", mistakes);
        let protocol = one_of(&port, "protocol", &["TCP", "UDP", "SCTP"], mistakes);
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        let host_ip = port.string("hostIP", mistakes).filter(|ip| !ip.is_empty());
        let host_ip = host_ip.and_then(|ip| {
            let parsed = ip.parse().ok();
            if parsed.is_none() {
                mistakes.add(port.at("hostIP"), format!("\"{ip}\" is no IP address"));
            }
            parsed
        });
        let Some(container_port) = container_port else { continue };
        if port.get("name").is_some()
            && let Some(name) = label(&port, "name", mistakes)
        {
            if named.iter().any(|(other, _)| *other == name) {
                mistakes.add(port.at("name"), format!("\"{name}\" is there twice"));
            }
            named.push((name, container_port));
        }
        if let Some(host_port) = host_port {
            published.push(PortMapping { protocol, container_port, host_port, host_ip });
        }
    }
    (named, published)
}

/// Requests and limits, as a kubelet turns them into cgroup values.
fn resources(object: &Object<'_>, mistakes: &mut Mistakes) -> Resources {
    let mut resources = Resources::default();
    let Some(both) = object.object("resources", mistakes) else { return resources };
    both.only(&["limits", "requests"], &["claims"], mistakes);
    let mut read = |field: &str| {
        let Some(amounts) = both.object(field, mistakes) else { return (None, None) };
        amounts.only(&["cpu", "memory"], &["ephemeral-storage"], mistakes);
        let cpu = amount(&amounts, "cpu", "500m and 2", millicores, mistakes);
        (cpu, amount(&amounts, "memory", "64Mi and 1G", bytes, mistakes))
    };
    let (cpu_limit, memory_limit) = read("limits");
    let (cpu_request, memory_request) = read("requests");
    for (name, request, limit) in
        [("cpu", cpu_request, cpu_limit), ("memory", memory_request, memory_limit)]
    {
        if request.zip(limit).is_some_and(|(request, limit)| request > limit) {
            mistakes.add(format!("{}.requests.{name}", both.path), "is more than the limit");
        }
    }
    // 1024 shares are one core; the kernel takes no less than 2.
    let shares = |milli: u64| (milli.saturating_mul(1024) / 1000).clamp(2, 262_144);
    resources.cpu_shares = cpu_request.or(cpu_limit).map(shares);
    if let Some(milli) = cpu_limit.filter(|milli| *milli > 0) {
        // The kernel takes no quota below a millisecond.
        let quota = (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(1000);
        resources.cpu_period_us = Some(CPU_PERIOD_US);
        resources.cpu_quota_us = i64::try_from(quota).ok();
    }
    resources.memory_limit_bytes =
        memory_limit.filter(|limit| *limit > 0).and_then(|limit| i64::try_from(limit).ok());
    resources
}

/// A quantity, written as a string or as a number.
fn amount(
    object: &Object<'_>,
    name: &str,
    examples: &str,
    read: impl Fn(&str) -> Option<u64>,
    mistakes: &mut Mistakes,
) -> Option<u64> {
    let text = match object.get(name)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let amount = read(&text);
    if amount.is_none() {
        mistakes.add(object.at(name), format!("\"{text}\" is no quantity: {examples} are"));
    }
    amount
}

/// A DNS label (RFC 1123), which every name of Kubernetes' that haled uses is.
fn label(object: &Object<'_>, field: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = object.required(field, mistakes)?;
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    let good = text.len() <= MAX_NAME
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last());
    if !good {
        let what = format!(
            "{text:?}: at most {MAX_NAME} lower-case letters, digits and - are allowed, and no - at either end"
        );
        mistakes.add(object.at(field), what);
    }
    good.then_some(text)
}

/// A word of a list.
fn one_of<'w>(
    object: &Object<'_>,
    field: &str,
    words: &[&'w str],
    mistakes: &mut Mistakes,
) -> Option<&'w str> {
    let text = object.string(field, mistakes)?;
    let found = words.iter().find(|word| **word == text).copied();
    if found.is_none() {
        let meant = nearest(&text, words.iter().copied());
        let meant = meant.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
        let what = format!("is \"{text}\": {} are allowed{meant}", words.join(", "));
        mistakes.add(object.at(field), what);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAM: &str = include_str!("../../integration/pods/liveness-exam.yaml");
    const FAST: &str = include_str!("../../integration/pods/liveness-exam-fast.yaml");
    const WEB: &str = include_str!("../../integration/pods/web.yaml");
    const TCP: &str = include_str!("../../integration/pods/tcp.yaml");
    const TYPO: &str = include_str!("../../integration/pods/typo.yaml");

    #[test]
    fn the_liveness_exam_is_read_whole() {
        let plan = parse(EXAM).unwrap().remove(0);
        assert_eq!(plan.sandbox.name, "liveness-exam");
        let name = &plan.containers[0].name;
        let probe = plan.health.probes[name].liveness.as_ref().unwrap();
        assert_eq!(probe.handler.to_string(), "exec [ls /tmp/healthy]");
        assert_eq!((probe.initial_delay.as_secs(), probe.period.as_secs()), (10, 5));
        assert_eq!(probe.failure_threshold, 2);
        assert_eq!(plan.health.restart, RestartPolicy::Always);
        assert_eq!(plan.health.heal, Heal::Restart);
        for other in [FAST, WEB, TCP] {
            assert_eq!(parse(other).unwrap().len(), 1);
        }
    }

    #[test]
    fn the_typo_is_told_with_what_was_meant() {
        let errors = parse(TYPO).unwrap_err().to_string();
        assert_eq!(
            errors,
            "spec.containers[0]: unknown field \"livenessProve\", did you mean \"livenessProbe\"?"
        );
    }

    fn mistakes(spec: &str) -> String {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn every_mistake_is_named_by_its_path() {
        for (spec, needle) in [
            ("{}", "spec.containers: has 0 containers"),
            ("{containers: {}}", "spec.containers: a list is wanted"),
            ("{containers: [{name: a}]}", "spec.containers[0]: field \"image\" is missing"),
            ("{containers: [{name: A_b, image: x}]}", "spec.containers[0].name"),
            ("{containers: [{name: a, image: x}, {name: a, image: x}]}", "\"a\" is there twice"),
            (
                "{containers: [{name: a, image: x, imagePullPolicy: always}]}",
                "did you mean \"Always\"?",
            ),
            (
                "{containers: [{name: a, image: x, command: sh}]}",
                "spec.containers[0].command: a list is wanted",
            ),
            (
                "{containers: [{name: a, image: x, args: [1]}]}",
                "spec.containers[0].args[0]: a string is wanted",
            ),
            (
                "{containers: [{name: a, image: x, env: [{name: A=B}]}]}",
                "spec.containers[0].env[0].name",
            ),
            (
                "{containers: [{name: a, image: x, env: [{name: A, valueFrom: {}}]}]}",
                "\"valueFrom\" is not supported yet",
            ),
            (
                "{containers: [{name: a, image: x, ports: [{}]}]}",
                "spec.containers[0].ports[0]: field \"containerPort\"",
            ),
            (
                "{containers: [{name: a, image: x, ports: [{containerPort: 99999}]}]}",
                "ports[0].containerPort: is 99999",
            ),
            (
                "{containers: [{name: a, image: x, ports: [{containerPort: 1, hostPort: 2}, {containerPort: 3, hostPort: 2}]}]}",
                "host port 2 is there twice",
            ),
            (
                "{containers: [{name: a, image: x, resources: {limits: {cpu: lots}}}]}",
                "resources.limits.cpu: \"lots\" is no quantity",
            ),
            (
                "{containers: [{name: a, image: x, resources: {limits: {cpu: 1}, requests: {cpu: 2}}}]}",
                "resources.requests.cpu: is more",
            ),
            (
                "{containers: [{name: a, image: x, livenessProbe: {}}]}",
                "spec.containers[0].livenessProbe: exactly one",
            ),
            (
                "{containers: [{name: a, image: x}], volumes: []}",
                "spec: field \"volumes\" is not supported yet",
            ),
            (
                "{containers: [{name: a, image: x}], restartpolicy: Never}",
                "did you mean \"restartPolicy\"?",
            ),
            (
                "{containers: [{name: a, image: x}], restartPolicy: Sometimes}",
                "spec.restartPolicy: is \"Sometimes\"",
            ),
        ] {
            let errors = mistakes(spec);
            assert!(errors.contains(needle), "{spec}\n{errors}");
        }
        let several = mistakes("{containers: [{name: a}], hostNetwork: 7}");
        assert_eq!(several.lines().count(), 2, "{several}");
    }

    #[test]
    fn what_is_no_pod_is_told_from_one() {
        for (text, needle) in [
            ("", "no Pod"),
            ("---\n---\n", "no Pod"),
            ("[]", "an object is wanted"),
            ("kind: Deployment\napiVersion: apps/v1", "apiVersion: is \"apps/v1\""),
            (
                "kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, image: x}]}",
                "metadata: field \"name\"",
            ),
            ("a: [", "line 1"),
            ("a: &a [*a, *a]", ""),
            ("a: 1\na: 2", "a"),
        ] {
            let errors = parse(text).unwrap_err().to_string();
            assert!(errors.contains(needle), "{text}: {errors}");
        }
    }

    #[test]
    fn several_documents_are_several_pods_and_none_comes_twice() {
        let json = r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "a", "image": "x"}]}}"#;
        let both = format!("{WEB}\n---\n{json}\n");
        assert_eq!(parse(&both).unwrap().len(), 2);
        let twice = parse(&format!("{json}\n---\n{json}\n")).unwrap_err().to_string();
        assert!(twice.contains("is there twice"), "{twice}");
    }

    #[test]
    fn variables_are_expanded_by_those_before_them() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    image: x\n    args: [\"$(B)\", \"$(C)\", \"$$(B)\"]\n    env: [{name: A, value: \"1\"}, {name: B, value: \"$(A)2\"}]\n";
        let plan = parse(text).unwrap().remove(0);
        assert_eq!(plan.containers[0].args, ["12", "$(C)", "$(B)"]);
    }

    #[test]
    fn resources_become_cgroup_values() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: x, resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 0.25}}}]}";
        let plan = parse(text).unwrap().remove(0);
        let resources = &plan.containers[0].resources;
        assert_eq!((resources.cpu_quota_us, resources.cpu_shares), (Some(50_000), Some(256)));
        assert_eq!(resources.memory_limit_bytes, Some(64 << 20));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z:{}\\[\\],&*\"' \n|>-]{0,200}") {
            drop(parse(&text));
        }
    }
}
