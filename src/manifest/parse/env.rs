//! env and envFrom.

use std::collections::BTreeMap;

use super::container::Scope;
use super::resources::{Amounts, amount};
use super::schema::{ENV, ENV_FROM, FIELD_REF, KEY_REF, REFERENCE, RESOURCE_REF, VALUE_FROM};
use super::{exactly_one, objects};
use crate::health::fields::{Mistakes, Object, allowed};
use crate::manifest::quantity::{bytes, millicores};
use crate::manifest::variables::{Fact, Value, Variable};

const LATER: &[&str] = &["fileKeyRef"];

/// A container's variables: those of envFrom first, as those of env go over them.
pub(super) fn env(
    object: &Object<'_>,
    scope: &Scope<'_>,
    amounts: &Amounts,
    mistakes: &mut Mistakes,
) -> Vec<Variable> {
    let mut env = Vec::new();
    for source in objects(object, "envFrom", mistakes) {
        env_from(&source, scope, &mut env, mistakes);
    }
    for variable in objects(object, "env", mistakes) {
        variable.known(ENV, &[], mistakes);
        let Some(name) = variable.required("name", mistakes) else { continue };
        if !is_name(&name) {
            let what = format!("{name:?} is no variable's name: printable ASCII without = is");
            mistakes.add(variable.at("name"), what);
        }
        let text = variable.string("value", mistakes);
        let from = variable.object("valueFrom", mistakes);
        let value = match (text, from) {
            (Some(_), Some(_)) => {
                mistakes.add(variable.path.clone(), "value and valueFrom can't both be there");
                None
            }
            (_, Some(from)) => value_from(&from, scope, amounts, mistakes),
            (text, None) => Some(Value::Text(text.unwrap_or_default())),
        };
        // An optional key that isn't there gives no variable.
        env.extend(value.map(|value| Variable { name, value }));
    }
    env
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('=') && name.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn env_from(
    object: &Object<'_>,
    scope: &Scope<'_>,
    env: &mut Vec<Variable>,
    mistakes: &mut Mistakes,
) {
    object.known(ENV_FROM, &[], mistakes);
    let prefix = object.string("prefix", mistakes).unwrap_or_default();
    let Some((field, reference)) = exactly_one(object, ENV_FROM, &[], mistakes) else { return };
    reference.known(REFERENCE, &[], mistakes);
    let optional = reference.boolean("optional", mistakes).unwrap_or(false);
    let secret = field == "secretRef";
    let data =
        scope.sources.find(secret, scope.namespace, (&reference, "name"), optional, mistakes);
    for (key, bytes) in data.into_iter().flatten() {
        let name = format!("{prefix}{key}");
        match std::str::from_utf8(bytes) {
            Ok(text) if is_name(&name) && !text.contains('\0') => {
                env.push(Variable { name, value: Value::Plain(text.to_owned()) });
            }
            _ => mistakes.add(reference.path.clone(), format!("key \"{key}\" can't be a variable")),
        }
    }
}

fn value_from(
    from: &Object<'_>,
    scope: &Scope<'_>,
    amounts: &Amounts,
    mistakes: &mut Mistakes,
) -> Option<Value> {
    from.known(VALUE_FROM, LATER, mistakes);
    let (source, object) = exactly_one(from, VALUE_FROM, LATER, mistakes)?;
    match source {
        "fieldRef" => {
            object.known(FIELD_REF, &[], mistakes);
            let path = object.required("fieldPath", mistakes)?;
            let value = field(&path, scope);
            if value.is_none() {
                let fields = allowed(FIELD_REF, "fieldPath");
                mistakes
                    .add(object.at("fieldPath"), format!("is \"{path}\": {fields} are allowed"));
            }
            value
        }
        "resourceFieldRef" => resource(&object, scope.amounts, Some(amounts), mistakes),
        _ => {
            object.known(KEY_REF, &[], mistakes);
            let optional = object.boolean("optional", mistakes).unwrap_or(false);
            let key = object.required("key", mistakes)?;
            let secret = source == "secretKeyRef";
            let data = scope.sources.find(
                secret,
                scope.namespace,
                (&object, "name"),
                optional,
                mistakes,
            )?;
            match data.get(&key).map(|bytes| String::from_utf8(bytes.clone())) {
                Some(Ok(text)) if !text.contains('\0') => Some(Value::Plain(text)),
                Some(_) => {
                    mistakes.add(object.at("key"), format!("the value of {key:?} is no text"));
                    None
                }
                None if optional => None,
                None => {
                    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
                    let what = format!("{key:?} isn't in it; its keys are: {}", keys.join(", "));
                    mistakes.add(object.at("key"), what);
                    None
                }
            }
        }
    }
}

/// What a fieldPath names.
pub(super) fn field(path: &str, scope: &Scope<'_>) -> Option<Value> {
    let of_map = |map: &std::collections::BTreeMap<String, String>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(Value::Plain(map.get(key).cloned().unwrap_or_default()))
    };
    Some(match path {
        "metadata.name" => Value::Plain(scope.pod.to_owned()),
        "metadata.namespace" => Value::Plain(scope.namespace.to_owned()),
        "metadata.uid" => Value::Fact(Fact::Uid),
        "spec.nodeName" => Value::Fact(Fact::NodeName),
        // There are no service accounts without a cluster.
        "spec.serviceAccountName" => Value::Plain("default".to_owned()),
        "status.hostIP" | "status.hostIPs" => Value::Fact(Fact::HostIp),
        "status.podIP" => Value::Fact(Fact::PodIp),
        "status.podIPs" => Value::Fact(Fact::PodIps),
        _ => {
            if let Some(rest) = path.strip_prefix("metadata.labels") {
                return of_map(scope.labels, rest);
            }
            return of_map(scope.annotations, path.strip_prefix("metadata.annotations")?);
        }
    })
}

/// An amount of a container, in units of the divisor, rounded up.
/// `own`: of the container that asks; a volume belongs to none and must name one of `all`.
pub(super) fn resource(
    object: &Object<'_>,
    all: &BTreeMap<String, Amounts>,
    own: Option<&Amounts>,
    mistakes: &mut Mistakes,
) -> Option<Value> {
    object.known(RESOURCE_REF, &[], mistakes);
    let named = match own {
        None => object.required("containerName", mistakes),
        Some(_) => object.string("containerName", mistakes),
    };
    let amounts = match named.filter(|name| !name.is_empty()) {
        None => own?,
        Some(name) => {
            let found = all.get(&name);
            if found.is_none() {
                let there: Vec<&str> = all.keys().map(String::as_str).collect();
                let there = there.join(", ");
                let what = format!("\"{name}\" is no container of the pod; there are: {there}");
                mistakes.add(object.at("containerName"), what);
            }
            found?
        }
    };
    object.required("resource", mistakes)?;
    let name = object.word(RESOURCE_REF, "resource", mistakes)?;
    let is_cpu = name.ends_with("cpu");
    let read = if is_cpu { millicores } else { bytes };
    let divisor = amount(object, RESOURCE_REF, "divisor", read, mistakes);
    let one = if is_cpu { 1000 } else { 1 };
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(one);
    let (limit, request) = if is_cpu {
        (amounts.cpu_limit, amounts.cpu_request)
    } else {
        (amounts.memory_limit, amounts.memory_request)
    };
    let amount = if name.starts_with("limits") { limit } else { request.or(limit).or(Some(0)) };
    Some(match amount {
        Some(amount) => Value::Plain(amount.div_ceil(divisor).to_string()),
        // No limit but the node's.
        None if is_cpu => Value::NodeCpu(divisor),
        None => Value::NodeMemory(divisor),
    })
}
