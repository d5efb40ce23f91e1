//! lifecycle, restartPolicy and restartPolicyRules of a container.

use std::time::Duration;

use super::objects;
use super::schema::{CONTAINER, EXIT_CODES, HOOK, LIFECYCLE, RULE, SLEEP};
use crate::health::fields::{Field, Mistakes, Object};
use crate::health::schema::{self, Ports};
use crate::health::{
    ContainerPolicy, Handler, Hook, Hooks, RestartPolicy, RestartRule, RuleAction,
};

/// restartPolicyRules of one container, as in Kubernetes.
const MAX_RULES: usize = 20;
/// Exit codes of one rule.
const MAX_CODES: usize = 255;

/// A restart policy, by the table of what it is a field of.
pub(super) fn restart_policy(
    object: &Object<'_>,
    fields: &'static [Field],
    mistakes: &mut Mistakes,
) -> Option<RestartPolicy> {
    object.word(fields, "restartPolicy", mistakes).map(|name| match name {
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    })
}

/// What a container has of its own.
pub(super) fn policy(
    object: &Object<'_>,
    ports: Ports<'_>,
    mistakes: &mut Mistakes,
) -> ContainerPolicy {
    let restart = restart_policy(object, CONTAINER, mistakes);
    let rules = rules(object, mistakes);
    if !rules.is_empty() && restart.is_none() {
        let what = "needs a restartPolicy of the container's own beside it";
        mistakes.add(object.at("restartPolicyRules"), what);
    }
    ContainerPolicy { restart, rules, hooks: hooks(object, ports, mistakes) }
}

fn hooks(object: &Object<'_>, ports: Ports<'_>, mistakes: &mut Mistakes) -> Hooks {
    let Some(lifecycle) = object.object("lifecycle", mistakes) else { return Hooks::default() };
    lifecycle.known(LIFECYCLE, &["stopSignal"], mistakes);
    Hooks {
        post_start: hook(&lifecycle, "postStart", ports, mistakes),
        pre_stop: hook(&lifecycle, "preStop", ports, mistakes),
    }
}

fn hook(
    lifecycle: &Object<'_>,
    field: &str,
    ports: Ports<'_>,
    mistakes: &mut Mistakes,
) -> Option<Hook> {
    let object = lifecycle.object(field, mistakes)?;
    object.known(HOOK, &["tcpSocket"], mistakes);
    let Some(sleep) = object.object("sleep", mistakes) else {
        let handler = schema::handler(&object, ports, mistakes)?;
        return matches!(handler, Handler::Exec { .. } | Handler::HttpGet { .. })
            .then_some(Hook::Run(handler));
    };
    if object.get("exec").is_some() || object.get("httpGet").is_some() {
        mistakes.add(object.path.clone(), "exactly one of exec, httpGet and sleep is wanted");
    }
    sleep.known(SLEEP, &[], mistakes);
    if sleep.get("seconds").is_none() {
        mistakes.add(sleep.path.clone(), "field \"seconds\" is missing");
    }
    let seconds = sleep.number(SLEEP, "seconds", mistakes)?;
    Some(Hook::Sleep(Duration::from_secs(seconds)))
}

fn rules(object: &Object<'_>, mistakes: &mut Mistakes) -> Vec<RestartRule> {
    let all = objects(object, "restartPolicyRules", mistakes);
    if all.len() > MAX_RULES {
        let what = format!("has {} rules: {MAX_RULES} are allowed", all.len());
        mistakes.add(object.at("restartPolicyRules"), what);
    }
    all.iter().filter_map(|rule| self::rule(rule, mistakes)).collect()
}

fn rule(rule: &Object<'_>, mistakes: &mut Mistakes) -> Option<RestartRule> {
    rule.known(RULE, &[], mistakes);
    rule.required("action", mistakes)?;
    let action = rule.word(RULE, "action", mistakes);
    let Some(codes) = rule.object("exitCodes", mistakes) else {
        mistakes.add(rule.path.clone(), "field \"exitCodes\" is missing");
        return None;
    };
    codes.known(EXIT_CODES, &[], mistakes);
    codes.required("operator", mistakes)?;
    let operator = codes.word(EXIT_CODES, "operator", mistakes);
    let mut values = Vec::new();
    for code in codes.numbers(EXIT_CODES, "values", mistakes) {
        values.push(code as i32);
    }
    if values.is_empty() || values.len() > MAX_CODES {
        let what = format!("has {} exit codes: 1 to {MAX_CODES} are allowed", values.len());
        mistakes.add(codes.at("values"), what);
    }
    Some(RestartRule {
        within: operator? == "In",
        codes: values,
        action: match action? {
            "Restart" => RuleAction::Restart,
            _ => RuleAction::RestartAllContainers,
        },
    })
}
