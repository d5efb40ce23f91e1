//! A container's environment: what is known only once its pod is there, and `$(NAME)`. Pure.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Planned;
use super::expand::expand;
use crate::container::config::ContainerConfig;
use crate::oci::model::EnvVar;

/// Where a kubelet notes how often a container has been restarted.
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";

/// One variable of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Never empty, never with `=`.
    pub name: String,
    /// Where its value comes from.
    pub value: Value,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Fact {
    Uid,
    PodIp,
    PodIps,
    HostIp,
    NodeName,
}

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Written in the manifest, with `$(NAME)` in it.
    Text(String),
    /// From a ConfigMap, a Secret or the pod itself: taken as it is.
    Plain(String),
    /// Known when the pod is there.
    Fact(Fact),
    /// The node's own CPUs, in so many thousandths.
    NodeCpu(u64),
    /// The node's own memory, in units of so many bytes.
    NodeMemory(u64),
}

/// What a pod's variables may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The pod's uid.
    pub uid: String,
    /// Its addresses, the primary first.
    pub ips: Vec<String>,
    /// The node's address; empty where it has none.
    pub host_ip: String,
    /// The node's name.
    pub node_name: String,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Facts {
    pub(super) fn value(&self, value: &Value) -> String {
        match value {
            Value::Text(text) | Value::Plain(text) => text.clone(),
            Value::Fact(Fact::Uid) => self.uid.clone(),
            // On the host's network the node's is the pod's.
            Value::Fact(Fact::PodIp) => self.ips.first().unwrap_or(&self.host_ip).clone(),
            Value::Fact(Fact::PodIps) if self.ips.is_empty() => self.host_ip.clone(),
            Value::Fact(Fact::PodIps) => self.ips.join(","),
            Value::Fact(Fact::HostIp) => self.host_ip.clone(),
            Value::Fact(Fact::NodeName) => self.node_name.clone(),
            Value::NodeCpu(divisor) => self.cpu_millis.div_ceil(*divisor).to_string(),
            Value::NodeMemory(divisor) => self.memory_bytes.div_ceil(*divisor).to_string(),
        }
    }
}

impl Planned {
    /// What the pod's driver is asked for: this attempt, its variables filled in. Mounts are
    /// added by whoever has made the volumes.
    pub(super) fn attempt(&self, attempt: u32, facts: &Facts) -> ContainerConfig {
        let mut env: Vec<EnvVar> = Vec::new();
        for variable in &self.env {
            let value = facts.value(&variable.value);
            let value = match variable.value {
                Value::Text(_) => expand(&value, |name| last(&env, name)),
                _ => value,
            };
            env.push(EnvVar { name: variable.name.clone(), value });
        }
        let mut config = self.config.clone();
        for text in config.command.iter_mut().chain(&mut config.args) {
            *text = expand(text, |name| last(&env, name));
        }
        config.env = env;
        config.attempt = attempt;
        config.log_path = Path::new(&config.name).join(format!("{attempt}.log"));
        config.annotations.insert(RESTART_COUNT.to_owned(), attempt.to_string());
        config
    }
}

fn last<'e>(env: &'e [EnvVar], name: &str) -> Option<&'e str> {
    env.iter().rfind(|env| env.name == name).map(|env| env.value.as_str())
}
