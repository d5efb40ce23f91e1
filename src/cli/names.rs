//! Which pod and which container a name on the command line means. Pure.

use crate::proto::haled::{Container, Pod};

use super::options::DEFAULT_NAMESPACE;

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be offered for the other.
const NEAR: f64 = 0.84;
/// The shortest beginning of an id that is taken for one.
const LEAST_ID: usize = 3;
/// Names in one message.
const MOST_NAMES: usize = 8;
/// As `get` prints pods with `-o name`, and kubectl.
const TYPES: [&str; 3] = ["pod", "pods", "po"];
/// Kinds that kubectl finds a pod of.
const KINDS: [&str; 16] = [
    "cronjob",
    "daemonset",
    "deploy",
    "deployment",
    "deployments",
    "ds",
    "job",
    "jobs",
    "node",
    "replicaset",
    "rs",
    "service",
    "services",
    "statefulset",
    "sts",
    "svc",
];
/// By it a pod says which of its containers is meant where none is named, as for kubectl.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod of a name, `NAMESPACE/NAME`, `pod/NAME`, uid, or a beginning of its uid's or its
/// sandbox's id. `pods` are those of every namespace; `namespace` is that of a bare name.
pub(super) fn pod<'p>(pods: &'p [Pod], namespace: &str, text: &str) -> Result<&'p Pod, String> {
    let exact = |namespace: &str, name: &str| {
        pods.iter().find(|pod| pod.namespace == namespace && pod.name == name)
    };
    let mut name = text;
    if let Some((first, second)) = text.split_once('/') {
        if let Some(pod) = exact(first, second) {
            return Ok(pod);
        }
        if KINDS.contains(&first) && !pods.iter().any(|pod| pod.namespace == first) {
            return Err(format!("\"{text}\": pods are all there is here; name one of its pods"));
        }
        if !TYPES.contains(&first) {
            return Err(missing(pods, first, second));
        }
        name = second;
    }
    if let Some(pod) = exact(namespace, name) {
        return Ok(pod);
    }
    match by_id(pods, name)[..] {
        [] => Err(missing(pods, namespace, name)),
        [pod] => Ok(pod),
        ref several => {
            let all: Vec<String> = several.iter().map(|pod| with_ids(pod)).collect();
            Err(format!("\"{name}\" begins the id of several pods: {}", listed(&all)))
        }
    }
}

/// Namespace and name of a pod that may not be there.
pub(super) fn key(namespace: &str, text: &str) -> (String, String) {
    let (space, name) = match text.split_once('/') {
        Some((kind, name)) if TYPES.contains(&kind) => (namespace, name),
        Some(whole) => whole,
        None => (namespace, text),
    };
    (space.to_owned(), name.to_owned())
}

fn by_id<'p>(pods: &'p [Pod], text: &str) -> Vec<&'p Pod> {
    if let Some(pod) = pods.iter().find(|pod| !text.is_empty() && pod.uid == text) {
        return vec![pod];
    }
    if text.len() < LEAST_ID {
        return Vec::new();
    }
    let begins = |pod: &&Pod| pod.sandbox_id.starts_with(text) || pod.uid.starts_with(text);
    pods.iter().filter(begins).collect()
}

fn with_ids(pod: &Pod) -> String {
    let sandbox = pod.sandbox_id.get(..13).unwrap_or(&pod.sandbox_id);
    format!("{}/{} (sandbox {sandbox}, uid {})", pod.namespace, pod.name, pod.uid)
}

/// There is no such pod; what may have been meant.
fn missing(pods: &[Pod], namespace: &str, name: &str) -> String {
    let told = format!("there is no pod {namespace}/{name}");
    let elsewhere: Vec<&Pod> = pods.iter().filter(|pod| pod.name == name).collect();
    if let [one, ..] = elsewhere[..] {
        return format!("{told}; there is one in namespace {0}: -n {0}", one.namespace);
    }
    let here = pods.iter().filter(|pod| pod.namespace == namespace);
    let mut near = nearest(name, here.map(|pod| pod.name.as_str()));
    if near.is_empty() && namespace == DEFAULT_NAMESPACE {
        let full = pods.iter().filter(|pod| !nearest(name, [pod.name.as_str()]).is_empty());
        near = full.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    }
    if near.is_empty() { told } else { format!("{told}; did you mean {}?", listed(&near)) }
}

/// The container that is meant: the one named, or the pod's own choice, or its only one; of
/// several the first. Init containers too, by name.
pub(super) fn container<'p>(pod: &'p Pod, name: Option<&str>) -> Result<&'p Container, String> {
    let full = format!("{}/{}", pod.namespace, pod.name);
    let named = name.or_else(|| {
        let chosen = pod.annotations.get(DEFAULT_CONTAINER)?;
        containers(pod).any(|container| container.name == *chosen).then_some(chosen.as_str())
    });
    let Some(name) = named else {
        let first = pod.containers.first();
        return first.ok_or_else(|| format!("pod {full} has no container yet"));
    };
    containers(pod).find(|container| container.name == name).ok_or_else(|| {
        let names: Vec<String> = containers(pod).map(|c| c.name.clone()).collect();
        if names.is_empty() {
            return format!("pod {full} has no container yet");
        }
        let near = nearest(name, names.iter().map(String::as_str));
        let meant = near.first().map(|near| format!(", did you mean \"{near}\"?"));
        let has = format!(": it has {}", listed(&names));
        format!("pod {full} has no container \"{name}\"{}", meant.unwrap_or(has))
    })
}

/// The same, and it must run.
pub(super) fn running<'p>(pod: &'p Pod, name: Option<&str>) -> Result<&'p Container, String> {
    let container = container(pod, name)?;
    if container.state == "Running" && !container.id.is_empty() {
        return Ok(container);
    }
    let why = if container.reason.is_empty() { &container.state } else { &container.reason };
    let (namespace, pod, name) = (&pod.namespace, &pod.name, &container.name);
    Err(format!("container \"{name}\" of pod {namespace}/{pod} is not running: {why}"))
}

/// Every container in the order of their life.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().chain(&pod.containers)
}

/// Those of the names that are like this one, the likest first.
fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let likeness = |other: &str| {
        let plain = strsim::jaro_winkler(name, other);
        // A beginning is what people know of a long name; in a short one a slip is a lot.
        let begins = name.len() >= LEAST_ID && other.starts_with(name);
        let slips = strsim::damerau_levenshtein(name, other);
        let near = begins || slips <= (name.chars().count() / 3).max(1) && name.len() > 1;
        if near { plain.max(NEAR) } else { plain }
    };
    let near = names.into_iter().map(|other| (likeness(other), other));
    let mut near: Vec<_> = near.filter(|(likeness, _)| *likeness >= NEAR).collect();
    near.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
    near.into_iter().map(|(_, name)| name.to_owned()).collect()
}

fn listed(names: &[String]) -> String {
    match names.len().checked_sub(MOST_NAMES) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST_NAMES].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<Pod> {
        let pod = |namespace: &str, name: &str, uid: &str, sandbox: &str| Pod {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            sandbox_id: sandbox.repeat(16),
            ..Pod::default()
        };
        vec![
            pod("default", "web-frontend", "1111-aaaa", "ab12"),
            pod("default", "web", "2222-bbbb", "ab13"),
            pod("kube-system", "dns", "3333-cccc", "cd45"),
            pod("pod", "odd", "4444-dddd", "ef67"),
        ]
    }

    #[test]
    fn a_pod_is_found_by_name_full_name_type_and_id() {
        let pods = pods();
        let found = |text: &str| pod(&pods, "default", text).map(|pod| pod.name.as_str());
        for (text, name) in [
            ("web", "web"),
            ("default/web", "web"),
            ("pod/web", "web"),
            ("po/web-frontend", "web-frontend"),
            ("kube-system/dns", "dns"),
            ("pod/odd", "odd"),
            ("3333-cccc", "dns"),
            ("3333", "dns"),
            ("cd4", "dns"),
            ("ab12ab", "web-frontend"),
            ("pod/ab12ab", "web-frontend"),
        ] {
            assert_eq!(found(text), Ok(name), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_may_have_been_meant() {
        let pods = pods();
        let refused = |text: &str| pod(&pods, "default", text).unwrap_err();
        for (text, told) in [
            ("wbe", "there is no pod default/wbe; did you mean web?"),
            ("web-", "there is no pod default/web-; did you mean web, web-frontend?"),
            (
                "dns",
                "there is no pod default/dns; there is one in namespace kube-system: -n kube-system",
            ),
            ("dsn", "there is no pod default/dsn; did you mean kube-system/dns?"),
            ("other", "there is no pod default/other"),
            ("kube-system/dn", "there is no pod kube-system/dn; did you mean dns?"),
            ("", "there is no pod default/"),
            ("cd", "there is no pod default/cd"),
            ("deploy/web", "\"deploy/web\": pods are all there is here; name one of its pods"),
        ] {
            assert_eq!(refused(text), told);
        }
        assert_eq!(
            refused("ab1"),
            "\"ab1\" begins the id of several pods: default/web-frontend (sandbox ab12ab12ab12a, \
             uid 1111-aaaa), default/web (sandbox ab13ab13ab13a, uid 2222-bbbb)"
        );
    }

    #[test]
    fn the_named_the_chosen_or_the_first_container_is_taken() {
        let of = |name: &str, state: &str, reason: &str| Container {
            name: name.into(),
            id: "ab".repeat(32),
            state: state.into(),
            reason: reason.into(),
            ..Container::default()
        };
        let mut pod = Pod {
            namespace: "default".into(),
            name: "web".into(),
            init_containers: vec![of("setup", "Terminated", "Completed")],
            containers: vec![
                of("app", "Running", "Healthy"),
                of("side", "Waiting", "CrashLoopBackOff"),
            ],
            ..Pod::default()
        };
        let name = |pod: &Pod, name| container(pod, name).map(|found| found.name.clone());
        assert_eq!(name(&pod, None).unwrap(), "app");
        assert_eq!(name(&pod, Some("setup")).unwrap(), "setup");
        let told = |name| running(&pod, Some(name)).unwrap_err();
        assert_eq!(
            told("side"),
            "container \"side\" of pod default/web is not running: CrashLoopBackOff"
        );
        assert_eq!(told("apt"), "pod default/web has no container \"apt\", did you mean \"app\"?");
        assert_eq!(told("x"), "pod default/web has no container \"x\": it has setup, app, side");
        pod.annotations.insert(DEFAULT_CONTAINER.into(), "side".into());
        assert_eq!(name(&pod, None).unwrap(), "side");
        pod.annotations.insert(DEFAULT_CONTAINER.into(), "gone".into());
        assert_eq!(name(&pod, None).unwrap(), "app");
        assert_eq!(name(&Pod::default(), None).unwrap_err(), "pod / has no container yet");
    }
}
