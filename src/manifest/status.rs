//! What a pod is to people: its phase and conditions, by the rules of Kubernetes' Pod
//! lifecycle. Pure.

use super::controller::started;
use super::plan::Ending;
use super::{Planned, PodPlan};
use crate::container::state::State;
use crate::health::{Policy, is_kill};
use crate::pod::view::PodView;

/// What decides over a pod beside its containers.
#[derive(Debug, Clone, Copy)]
pub struct Course<'a> {
    /// As the manifest says.
    pub plan: &'a PodPlan,
    /// Being taken down.
    pub deleting: bool,
    /// How it ended.
    pub ended: Option<&'a Ending>,
}

/// One of a pod's conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`.
    pub kind: &'static str,
    /// Whether it is met.
    pub met: bool,
    /// Why it isn't, in one word; empty: it is.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
    /// When that last changed, in nanoseconds since the epoch.
    pub since: i64,
}

/// The phase of a manifest's pod; `view`: its newest sandbox.
pub fn phase(course: Course, view: Option<&PodView>) -> &'static str {
    if course.deleting {
        return "Terminating";
    }
    if let Some(ended) = course.ended {
        return if ended.succeeded { "Succeeded" } else { "Failed" };
    }
    let plan = course.plan;
    let names = plan.containers.iter().map(|planned| planned.config.name.as_str());
    match view {
        Some(view) if initialized(plan, view) => {
            match phase_of(view, names, Some(&plan.health)) {
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

/// The conditions of a manifest's pod, as a kubelet computes and orders them; `since` is
/// the caller's to fill in.
pub fn conditions(course: Course, view: Option<&PodView>) -> Vec<Condition> {
    let plan = course.plan;
    let over = course.ended.is_some();
    let incomplete = names(plan.init.iter().filter(|planned| !has_passed(plan, planned, view)));
    // Sidecars count; other init containers are done by then.
    let serving = plan.init.iter().filter(|planned| planned.sidecar).chain(&plan.containers);
    let unready = names(serving.filter(|planned| !is_ready(planned, view)));
    let (ready, why, message) = match course.ended {
        Some(ended) if ended.succeeded => (false, "PodCompleted", String::new()),
        Some(_) => (false, "PodFailed", String::new()),
        None => {
            let message = format!("containers with unready status: [{unready}]");
            (unready.is_empty(), "ContainersNotReady", message)
        }
    };
    let condition = |kind, met, reason, message: &str| Condition {
        kind,
        met,
        reason: if met { "" } else { reason },
        message: if met { String::new() } else { message.to_owned() },
        since: 0,
    };
    let initialized = over || view.is_some_and(|view| initialized(plan, view));
    let to_initialize = format!("containers with incomplete status: [{incomplete}]");
    vec![
        condition("PodReadyToStartContainers", !over && view.is_some_and(PodView::ready), "", ""),
        condition("Initialized", initialized, "ContainersNotInitialized", &to_initialize),
        condition("Ready", ready, why, &message),
        condition("ContainersReady", ready, why, &message),
        condition("PodScheduled", true, "", ""),
    ]
}

fn names<'a>(of: impl Iterator<Item = &'a Planned>) -> String {
    of.map(|planned| planned.config.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn has_passed(plan: &PodPlan, planned: &Planned, view: Option<&PodView>) -> bool {
    view.is_some_and(|view| passed(plan, planned, view))
}

fn is_ready(planned: &Planned, view: Option<&PodView>) -> bool {
    let newest = view.and_then(|view| view.newest(&planned.config.name));
    newest.is_some_and(|container| container.ready)
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
