//! One word for a pod, by the rules of kubectl's STATUS column.

use crate::proto::haled::{Container, Pod};

/// Why the pod isn't what it should be, in the word of a container or its own; else its phase.
///
/// The first container that waits or has ended goes before the others, as kubectl has it. A
/// running container's reason is its health, which the READY column tells.
pub(super) fn of(pod: &Pod) -> String {
    if pod.phase == "Terminating" {
        return pod.phase.clone();
    }
    if let Some(word) = initializing(pod) {
        return word;
    }
    let one_runs = pod.containers.iter().any(|c| c.state == "Running" && c.ready);
    match pod.containers.iter().find_map(troubled) {
        // Some are done, some are not: with a container that has ended a pod isn't ready.
        Some("Completed") if one_runs => "NotReady",
        Some(reason) => reason,
        None => first_word(&pod.reason).unwrap_or(&pod.phase),
    }
    .to_owned()
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
    Some(match troubled(current) {
        Some(why) if why != "PodInitializing" && why != "ContainerCreating" => {
            format!("Init:{why}")
        }
        _ => format!("Init:{at}/{}", pod.init_containers.len()),
    })
}

/// What a container that isn't running says.
fn troubled(container: &Container) -> Option<&str> {
    let says = container.state != "Running" && !container.reason.is_empty();
    says.then_some(&container.reason)
}

/// The word of `ErrImagePull: why`; a sentence has none.
fn first_word(reason: &str) -> Option<&str> {
    let word = reason.split(": ").next()?;
    let is_word = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    is_word.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: &str, reason: &str) -> Container {
        let ready = state == "Running";
        Container { state: state.into(), reason: reason.into(), ready, ..Container::default() }
    }

    fn begun(state: &str, reason: &str) -> Container {
        Container { id: "0123456789ab".into(), ..container(state, reason) }
    }

    fn word(phase: &str, containers: &[Container]) -> String {
        of(&Pod { phase: phase.into(), containers: containers.to_vec(), ..Pod::default() })
    }

    #[test]
    fn a_container_that_has_trouble_speaks_for_its_pod() {
        let failed = begun("Terminated", "Error");
        assert_eq!(word("Pending", &[]), "Pending");
        assert_eq!(word("Running", &[begun("Running", "Unhealthy")]), "Running");
        assert_eq!(word("Pending", &[container("Waiting", "")]), "Pending");
        assert_eq!(word("Pending", &[container("Waiting", "ErrImagePull")]), "ErrImagePull");
        assert_eq!(word("Failed", std::slice::from_ref(&failed)), "Error");
        assert_eq!(word("Failed", &[begun("Terminated", "OOMKilled")]), "OOMKilled");
        assert_eq!(word("Terminating", &[failed]), "Terminating");
        // One is done and one runs; the first that has something to say is heard.
        let done = begun("Terminated", "Completed");
        let runs = begun("Running", "");
        assert_eq!(word("Running", &[done.clone(), runs.clone()]), "NotReady");
        assert_eq!(word("Succeeded", std::slice::from_ref(&done)), "Completed");
        let loops = begun("Waiting", "CrashLoopBackOff");
        assert_eq!(word("Running", &[runs, loops, done]), "CrashLoopBackOff");
    }

    #[test]
    fn a_pod_without_containers_speaks_by_its_reason() {
        let mut pod = Pod { phase: "Pending".into(), ..Pod::default() };
        pod.reason = "ErrImageNeverPull: image \"x\" is not on this node".into();
        assert_eq!(of(&pod), "ErrImageNeverPull");
        pod.reason = "image \"x\" is not on this node: pull it first".into();
        assert_eq!(of(&pod), "Pending");
        pod.reason = "Evicted".into();
        assert_eq!(of(&pod), "Evicted");
    }

    #[test]
    fn a_pod_that_initializes_says_how_far_it_is() {
        let passed = begun("Terminated", "Completed");
        let mut pod = Pod {
            phase: "Pending".into(),
            init_containers: vec![passed, begun("Running", "")],
            containers: vec![container("Waiting", "PodInitializing")],
            ..Pod::default()
        };
        assert_eq!(of(&pod), "Init:1/2");
        pod.init_containers[1] = begun("Waiting", "CrashLoopBackOff");
        assert_eq!(of(&pod), "Init:CrashLoopBackOff");
        // A sidecar has passed once it has started.
        pod.init_containers[1] = Container { sidecar: true, started: true, ..begun("Running", "") };
        assert_eq!(of(&pod), "PodInitializing");
    }
}
