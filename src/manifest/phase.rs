//! A pod's phase, by the rules of Kubernetes' documentation of the Pod lifecycle.

use crate::container::state::State;
use crate::health::RestartPolicy;
use crate::pod::view::PodView;

/// Phases of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not every container has been started.
    Pending,
    /// At least one runs, or is to run again.
    Running,
    /// All ended with 0, and none is started again.
    Succeeded,
    /// All ended, one with failure, and none is started again.
    Failed,
}

impl PodPhase {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// The phase of a pod whose containers have these names.
pub fn phase<'a>(
    pod: Option<&PodView>,
    names: impl IntoIterator<Item = &'a str>,
    restart: RestartPolicy,
) -> PodPhase {
    let Some(pod) = pod else { return PodPhase::Pending };
    let (mut waiting, mut running, mut failed) = (false, false, false);
    for name in names {
        match pod.newest(name).map(|container| &container.state) {
            None | Some(State::Created | State::Starting) => waiting = true,
            Some(State::Running(_)) => running = true,
            Some(State::Exited(ended)) => {
                running |= restart.restarts(ended.code, ended.reason.ends_with("ProbeFailed"));
                failed |= ended.code != 0;
            }
        }
    }
    match (waiting, running, failed) {
        (true, false, _) => PodPhase::Pending,
        (_, true, _) => PodPhase::Running,
        (false, false, true) => PodPhase::Failed,
        (false, false, false) => PodPhase::Succeeded,
    }
}
