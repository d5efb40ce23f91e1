//! Quantities, resources and ports.

use serde_json::Value;

use super::schema::{AMOUNTS, PORT, RESOURCES};
use super::{label, objects};
use crate::health::fields::{Field, Mistakes, Object, examples};
use crate::manifest::quantity::{bytes, millicores};
use crate::network::PortMapping;
use crate::oci::model::Resources;

/// Microseconds: the period of CPU limits, Kubernetes' own.
const CPU_PERIOD_US: u64 = 100_000;

/// What a container asks for and may have: thousandths of a CPU, and bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amounts {
    pub(super) cpu_limit: Option<u64>,
    pub(super) cpu_request: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) memory_request: Option<u64>,
}

/// Ports with a name, and those to be published.
pub(super) fn ports(
    object: &Object<'_>,
    mistakes: &mut Mistakes,
) -> (Vec<(String, u16)>, Vec<PortMapping>) {
    let (mut named, mut published) = (Vec::new(), Vec::new());
    for port in objects(object, "ports", mistakes) {
        port.known(PORT, &[], mistakes);
        let number = |field: &str, mistakes: &mut Mistakes| {
            let number = port.number(PORT, field, mistakes)?;
            u16::try_from(number).ok()
        };
        if port.get("containerPort").is_none() {
            mistakes.add(port.path.clone(), "field \"containerPort\" is missing");
        }
        let container_port = number("containerPort", mistakes);
        let host_port = number("hostPort", mistakes);
        let protocol = port.word(PORT, "protocol", mistakes);
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        let host_ip = port.string("hostIP", mistakes).filter(|ip| !ip.is_empty());
        let host_ip = host_ip.and_then(|ip| {
            let parsed = ip.parse().ok();
            if parsed.is_none() {
                mistakes.add(port.at("hostIP"), format!("\"{ip}\" is no IP address"));
            }
            parsed
        });
        let Some(container_port) = container_port else { continue };
        if port.get("name").is_some()
            && let Some(name) = label(&port, "name", mistakes)
        {
            if named.iter().any(|(other, _)| *other == name) {
                mistakes.add(port.at("name"), format!("\"{name}\" is there twice"));
            }
            named.push((name, container_port));
        }
        if let Some(host_port) = host_port {
            published.push(PortMapping { protocol, container_port, host_port, host_ip });
        }
    }
    (named, published)
}

/// Requests and limits.
pub(super) fn amounts(object: &Object<'_>, mistakes: &mut Mistakes) -> Amounts {
    let Some(both) = object.object("resources", mistakes) else { return Amounts::default() };
    both.known(RESOURCES, &["claims"], mistakes);
    let mut read = |field: &str| {
        let Some(amounts) = both.object(field, mistakes) else { return (None, None) };
        amounts.known(AMOUNTS, &["ephemeral-storage"], mistakes);
        let cpu = amount(&amounts, AMOUNTS, "cpu", millicores, mistakes);
        (cpu, amount(&amounts, AMOUNTS, "memory", bytes, mistakes))
    };
    let (cpu_limit, memory_limit) = read("limits");
    let (cpu_request, memory_request) = read("requests");
    for (name, request, limit) in
        [("cpu", cpu_request, cpu_limit), ("memory", memory_request, memory_limit)]
    {
        if request.zip(limit).is_some_and(|(request, limit)| request > limit) {
            mistakes.add(format!("{}.requests.{name}", both.path), "is more than the limit");
        }
    }
    Amounts { cpu_limit, cpu_request, memory_limit, memory_request }
}

impl Amounts {
    /// As a kubelet turns them into cgroup values.
    pub(super) fn resources(&self) -> Resources {
        let mut resources = Resources::default();
        // 1024 shares are one core; the kernel takes no less than 2.
        let shares = |milli: u64| (milli.saturating_mul(1024) / 1000).clamp(2, 262_144);
        resources.cpu_shares = self.cpu_request.or(self.cpu_limit).map(shares);
        if let Some(milli) = self.cpu_limit.filter(|milli| *milli > 0) {
            // The kernel takes no quota below a millisecond.
            let quota = (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(1000);
            resources.cpu_period_us = Some(CPU_PERIOD_US);
            resources.cpu_quota_us = i64::try_from(quota).ok();
        }
        let limit = self.memory_limit.filter(|limit| *limit > 0);
        resources.memory_limit_bytes = limit.and_then(|limit| i64::try_from(limit).ok());
        resources
    }
}

/// A quantity, written as a string or as a number.
pub(super) fn amount(
    object: &Object<'_>,
    fields: &[Field],
    name: &str,
    read: impl Fn(&str) -> Option<u64>,
    mistakes: &mut Mistakes,
) -> Option<u64> {
    let text = match object.get(name)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let amount = read(&text);
    if amount.is_none() {
        let examples = examples(fields, name);
        mistakes.add(object.at(name), format!("\"{text}\" is no quantity: {examples} are"));
    }
    amount
}
