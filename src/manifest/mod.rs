//! Pod manifests: YAML or JSON text → a plan in haled's own words.
//!
//! `parse` is pure. The controller that keeps manifests' pods running stands beside it.

use std::time::Duration;

use crate::container::config::ContainerConfig;
use crate::health::Policy;
use crate::pod::config::SandboxConfig;

/// A Pod as it is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// The sandbox; its `uid` is empty until the controller gives one.
    pub sandbox: SandboxConfig,
    /// In the manifest's order, `attempt` 0.
    pub containers: Vec<ContainerConfig>,
    /// IfNotPresent, Always or Never, one for each container.
    pub pull: Vec<PullPolicy>,
    /// Probes and restart policy.
    pub health: Policy,
    /// terminationGracePeriodSeconds.
    pub grace: Duration,
}

/// imagePullPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Pull what isn't here.
    #[default]
    IfNotPresent,
    /// Ask the registry each time.
    Always,
    /// Fail where it isn't here.
    Never,
}

/// Everything wrong with a manifest, in its order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Errors(pub Vec<Mistake>);

/// One mistake: `spec.containers[0]: unknown field "livenessProve", did you mean "livenessProbe"?`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Mistake {
    /// `spec.containers[0].ports[1]`.
    pub path: String,
    /// What was found, what is allowed.
    pub what: String,
}

/// Reads every document of a manifest.
pub fn parse(_text: &str) -> Result<Vec<PodPlan>, Errors> {
    todo!()
}
