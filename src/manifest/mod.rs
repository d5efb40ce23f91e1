//! Pod manifests: YAML or JSON text → a plan in haled's own words.
//!
//! `parse` is pure. The controller that keeps manifests' pods running stands beside it.

pub mod controller;
mod expand;
mod parse;
pub mod phase;
mod quantity;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::config::ContainerConfig;
use crate::health::Policy;
use crate::health::fields::Mistake;
use crate::pod::config::SandboxConfig;

pub use parse::parse;

/// A Pod as it is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pull what isn't here.
    #[default]
    IfNotPresent,
    /// Ask the registry each time.
    Always,
    /// Fail where it isn't here.
    Never,
}

/// Everything wrong with a manifest, in its order: one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Errors(pub Vec<Mistake>);
