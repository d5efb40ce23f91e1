//! A pod's reason and its numbers, by the rules of kubectl's columns.

use std::collections::HashMap;

use crate::proto::haled::{Container, Pod};

/// A pod's reason as the one word that lists show, and the explanation: `ErrImagePull: why`.
/// A reason that begins with no such word is all explanation.
pub(super) fn reason(pod: &Pod) -> (&str, &str) {
    let (word, rest) = pod.reason.split_once(": ").unwrap_or((&pod.reason, ""));
    let is_word = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    if is_word { (word, rest) } else { ("", &pod.reason) }
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

/// What the columns count: the containers and, as they stay, the sidecars.
fn counted(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().filter(|container| container.sidecar).chain(&pod.containers)
}

/// The READY column: `1/2`.
pub(super) fn ready(pod: &Pod) -> String {
    let ready = counted(pod).filter(|container| container.ready).count();
    format!("{ready}/{}", counted(pod).count())
}

/// The RESTARTS column. While a pod initializes, they are its init containers'.
pub(super) fn restarts(pod: &Pod) -> u64 {
    restarting(pod).map(|container| u64::from(container.restart_count)).sum()
}

/// The last start of a container that was restarted, in nanoseconds since the epoch.
pub(super) fn last_restart(pod: &Pod) -> Option<i64> {
    let restarted = restarting(pod).filter(|c| c.restart_count > 0 && c.started_at != 0);
    restarted.map(|container| container.started_at).max()
}

fn restarting(pod: &Pod) -> impl Iterator<Item = &Container> {
    let initializes = pod.containers.iter().all(|container| container.id.is_empty());
    let init = pod.init_containers.iter().filter(move |c| initializes || c.sidecar);
    init.chain(&pod.containers)
}

/// `3 pods`.
pub(super) fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
