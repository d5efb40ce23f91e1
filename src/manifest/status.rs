//! What a pod is to people: its phase and conditions, by the rules of Kubernetes' Pod
//! lifecycle. Pure.

use super::controller::{Managed, started};
use super::{Planned, PodPlan};
use crate::container::state::State;
use crate::health::{Policy, is_kill};
use crate::pod::view::PodView;

/// The phase of a manifest's pod.
pub fn phase(managed: &Managed, view: Option<&PodView>) -> &'static str {
    if managed.deleting {
        return "Terminating";
    }
    if let Some(ended) = &managed.ended {
        return if ended.succeeded { "Succeeded" } else { "Failed" };
    }
    let names = managed.plan.containers.iter().map(|planned| planned.config.name.as_str());
    match view {
        Some(view) if initialized(&managed.plan, view) => {
            match phase_of(view, names, Some(&managed.plan.health)) {
                // It is over when its sidecars are.
                "Succeeded" | "Failed" => "Running",
                phase => phase,
            }
        }
        _ => "Pending",
    }
}

/// The phase of a pod whose containers have these names.
pub fn phase_of<'a>(
    pod: &PodView,
    names: impl IntoIterator<Item = &'a str>,
    policy: Option<&Policy>,
) -> &'static str {
    let (mut waiting, mut running, mut failed) = (false, false, false);
    for name in names {
        match pod.newest(name) {
            None => waiting = true,
            Some(container) => match &container.state {
                // Another attempt of what has run already.
                State::Created | State::Starting if container.config.attempt > 0 => running = true,
                State::Created | State::Starting => waiting = true,
                State::Running(_) => running = true,
                State::Exited(ended) => {
                    let killed = is_kill(&ended.reason);
                    running |=
                        policy.is_some_and(|policy| policy.restarts(name, ended.code, killed));
                    failed |= ended.code != 0;
                }
            },
        }
    }
    match (waiting, running, failed) {
        (true, false, _) => "Pending",
        (_, true, _) => "Running",
        (false, false, true) => "Failed",
        (false, false, false) => "Succeeded",
    }
}

/// Every init container has passed.
pub fn initialized(plan: &PodPlan, view: &PodView) -> bool {
    let has_main = plan.containers.iter().any(|main| view.newest(&main.config.name).is_some());
    has_main || plan.init.iter().all(|planned| passed(plan, planned, view))
}

/// An init container has exited with 0; a sidecar has started.
fn passed(plan: &PodPlan, planned: &Planned, view: &PodView) -> bool {
    let Some(container) = view.newest(&planned.config.name) else { return false };
    match &container.state {
        State::Running(_) => planned.sidecar && started(plan, container),
        State::Exited(ended) => !planned.sidecar && ended.code == 0,
        State::Created | State::Starting => false,
    }
}
