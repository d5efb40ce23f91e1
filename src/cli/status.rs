//! One word for a pod, and its numbers, by the rules of kubectl's columns.

use std::collections::HashMap;

use crate::proto::haled::{Container, Pod};

/// The STATUS column: the pod's reason or phase, unless a container has something to say.
///
/// The first container that waits or has ended goes before the others, as kubectl has it. A
/// running container's reason is its health, which the READY column tells.
pub(super) fn status(pod: &Pod) -> String {
    if pod.phase == "Terminating" {
        return pod.phase.clone();
    }
    let (word, _) = reason(pod);
    let whole = if word.is_empty() { pod.phase.as_str() } else { word };
    if let Some(word) = initializing(pod) {
        return word;
    }
    let found = pod.containers.iter().find_map(troubled);
    let one_runs = pod.containers.iter().any(|c| c.state == "Running" && c.ready);
    match found {
        // Some are done, some are not: with a container that has ended a pod isn't ready.
        Some(reason) if reason == "Completed" && one_runs => "NotReady".to_owned(),
        Some(reason) => reason,
        None if whole.is_empty() => "Unknown".to_owned(),
        None => whole.to_owned(),
    }
}

/// `Init:1/2`, or what keeps an init container from passing, as kubectl has it.
fn initializing(pod: &Pod) -> Option<String> {
    let passed = |container: &&Container| {
        if container.sidecar {
            container.started
        } else {
            container.state == "Terminated" && container.exit_code == 0
        }
    };
    if !pod.containers.iter().all(|container| container.id.is_empty()) {
        return None;
    }
    let (at, current) =
        pod.init_containers.iter().enumerate().find(|(_, container)| !passed(container))?;
    let count = pod.init_containers.len();
    Some(match troubled(current) {
        Some(why) if why != "PodInitializing" && why != "ContainerCreating" => {
            format!("Init:{why}")
        }
        _ => format!("Init:{at}/{count}"),
    })
}

/// A pod's reason as the one word that lists show, and the explanation: `ErrImagePull: why`.
/// A reason that begins with no such word is all explanation.
pub(super) fn reason(pod: &Pod) -> (&str, &str) {
    let (word, rest) = pod.reason.split_once(": ").unwrap_or((&pod.reason, ""));
    let is_word = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    if is_word { (word, rest) } else { ("", &pod.reason) }
}

/// What a container that isn't running says.
fn troubled(container: &Container) -> Option<String> {
    match container.state.as_str() {
        "Waiting" if !container.reason.is_empty() => Some(container.reason.clone()),
        "Terminated" => Some(ended(container)),
        _ => None,
    }
}

/// Why a terminated container ended.
pub(super) fn ended(container: &Container) -> String {
    match container.reason.as_str() {
        "" if container.exit_code == 0 => "Completed".to_owned(),
        "" => format!("ExitCode:{}", container.exit_code),
        reason => reason.to_owned(),
    }
}

/// Why an attempt ended, where haled knows no better, in the kubelet's words.
pub(super) fn reason_of_end(reason: &str, exit_code: i32) -> &str {
    match reason {
        "" if exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    }
}

/// `key=value`, sorted.
pub(super) fn pairs(map: &HashMap<String, String>) -> Vec<String> {
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort_unstable();
    pairs
}

/// A pod's labels, but for those in which its own name and uid are noted for the CRI.
pub(super) fn labels(pod: &Pod) -> Vec<String> {
    let mut labels = pairs(&pod.labels);
    labels.retain(|label| !label.starts_with("io.kubernetes.pod."));
    labels
}

/// The READY column: `1/2`.
pub(super) fn ready(pod: &Pod) -> String {
    let ready = pod.containers.iter().filter(|container| container.ready).count();
    format!("{ready}/{}", pod.containers.len())
}

/// All containers' restarts.
pub(super) fn restarts(pod: &Pod) -> u64 {
    pod.containers.iter().map(|container| u64::from(container.restart_count)).sum()
}

/// The last start of a container that was restarted, in nanoseconds since the epoch.
pub(super) fn last_restart(pod: &Pod) -> Option<i64> {
    let restarted = pod.containers.iter().filter(|c| c.restart_count > 0 && c.started_at != 0);
    restarted.map(|container| container.started_at).max()
}
