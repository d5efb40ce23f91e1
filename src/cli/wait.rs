//! `halectl wait`: until pods are as wanted.

use std::process::ExitCode;
use std::str::FromStr;

use tokio::time::Instant;

use crate::proto::haled::Pod;

use super::client::Address;
use super::options::WaitArgs;
use super::output::{complain, print};
use super::{Failure, Outcome, age, json, names, pods};

/// What can't be met any more.
const NEVER: u8 = 3;
const CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
const PHASES: [&str; 4] = ["Pending", "Running", "Succeeded", "Failed"];

/// What a pod is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Condition(String, bool),
    Phase(String),
    /// A place in the pod as `get -o json` prints it, and its value; `None`: any.
    Json(Vec<Step>, Option<String>),
    Delete,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Item(usize),
}

/// `{.status.podIPs[0].ip}=10.0.0.1`, braces or not, value or not.
fn json_path(text: &str) -> Result<Wanted, String> {
    let wrong = || format!("\"{text}\": {{.status.podIP}}=10.0.0.1 would be one");
    let (path, value) = match text.strip_prefix('{') {
        Some(rest) => {
            let (path, rest) = rest.split_once('}').ok_or_else(wrong)?;
            let value = rest.strip_prefix('=').map(str::to_owned);
            if value.is_none() && !rest.is_empty() {
                return Err(wrong());
            }
            (path, value)
        }
        None => match text.split_once('=') {
            Some((path, value)) => (path, Some(value.to_owned())),
            None => (text, None),
        },
    };
    let mut steps = Vec::new();
    for part in path.strip_prefix('.').ok_or_else(wrong)?.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return Err(wrong());
        }
        steps.push(Step::Field(name.to_owned()));
        while let Some(inner) = rest.strip_prefix('[') {
            let (number, after) = inner.split_once(']').ok_or_else(wrong)?;
            steps.push(Step::Item(number.parse().map_err(|_| wrong())?));
            rest = after;
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
    }
    Ok(Wanted::Json(steps, value))
}

fn has(pod: &Pod, steps: &[Step], wanted: Option<&str>) -> bool {
    let whole = json::object(pod);
    let found = steps.iter().try_fold(&whole, |at, step| match step {
        Step::Field(name) => at.get(name),
        Step::Item(number) => at.get(number),
    });
    match (found, wanted) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(serde_json::Value::String(text)), Some(wanted)) => text == wanted,
        (Some(other), Some(wanted)) => {
            serde_json::from_str(wanted).is_ok_and(|wanted: serde_json::Value| *other == wanted)
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "delete" {
            return Ok(Self::Delete);
        }
        let known = |word: &str, words: &[&str]| {
            let found = words.iter().find(|known| known.eq_ignore_ascii_case(word));
            found
                .map(|found| (*found).to_owned())
                .ok_or_else(|| format!("one of {}", words.join(", ")))
        };
        if let Some(phase) = text.strip_prefix("phase=") {
            return known(phase, &PHASES).map(Self::Phase);
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            return json_path(path);
        }
        let Some(condition) = text.strip_prefix("condition=") else {
            return Err(
                "condition=NAME, phase=PHASE, jsonpath={.PATH}=VALUE and delete are allowed"
                    .to_owned(),
            );
        };
        let (name, value) = condition.split_once('=').unwrap_or((condition, "True"));
        let value = known(value, &["True", "False"])? == "True";
        Ok(Self::Condition(known(name, &CONDITIONS)?, value))
    }
}

/// Whether a pod is as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    NotYet,
    /// It is over, or gone.
    Never,
}

/// `halectl wait`.
pub(super) async fn wait(address: &Address, namespace: &str, args: WaitArgs) -> Outcome {
    let deadline = Instant::now() + args.timeout.0;
    let names = args.kind.with(args.names);
    if names.is_empty() && args.among.selector.is_none() && !args.among.all_namespaces {
        let why = "for which pods? Name them, or say -l LABELS or -A";
        return Err(Failure::Usage(why.to_owned()));
    }
    let mut never = false;
    let pods = pods::list(address).await?;
    let mut keys = Vec::new();
    for name in &names {
        match names::pod(&pods, namespace, name) {
            Ok(pod) => keys.push(pods::key(pod)),
            Err(_) if args.wanted == Wanted::Delete => {
                print(format!("pod/{name} condition met\n"))?;
            }
            Err(why) => {
                complain(&why);
                never = true;
            }
        }
    }
    if names.is_empty() {
        keys.extend(
            pods.iter().filter(|pod| pods::fits(pod, namespace, &args.among)).map(pods::key),
        );
        if keys.is_empty() && args.wanted != Wanted::Delete {
            complain("there are no such pods");
            never = true;
        }
    }
    for key in keys {
        let told = format!("pod/{}", key.1);
        match tokio::time::timeout_at(deadline, met(address, &key, &args.wanted)).await {
            Ok(Ok(true)) => print(format!("{told} condition met\n"))?,
            Ok(Ok(false)) => {
                complain(&format!("{told}: it can't be met: the pod is over or isn't there"));
                never = true;
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                let after = age::length(args.timeout.0);
                return Err(Failure::Message(format!("{told}: timed out after {after}")));
            }
        }
    }
    Ok(if never { ExitCode::from(NEVER) } else { ExitCode::SUCCESS })
}

async fn met(address: &Address, key: &(String, String), wanted: &Wanted) -> Result<bool, Failure> {
    let mut lists = pods::watching(address).await?;
    while let Some(list) = lists.message().await? {
        let pod = list.pods.iter().find(|pod| pods::key(pod) == *key);
        match self::judge(pod, wanted) {
            Met::Yes => return Ok(true),
            Met::Never => return Ok(false),
            Met::NotYet => {}
        }
    }
    Err(Failure::Message("haled has ended".to_owned()))
}

/// Whether a pod is, or can still be, as wanted. `None`: there is none.
pub(super) fn judge(pod: Option<&Pod>, wanted: &Wanted) -> Met {
    let met = match (pod, wanted) {
        (None, Wanted::Delete) => true,
        (None, _) => return Met::Never,
        (Some(_), Wanted::Delete) => return Met::NotYet,
        (Some(pod), Wanted::Phase(phase)) => pod.phase == *phase,
        (Some(pod), Wanted::Json(steps, value)) => has(pod, steps, value.as_deref()),
        (Some(pod), Wanted::Condition(name, value)) => {
            // One that came through the CRI has none: its containers tell whether it is ready.
            let stated = pod.conditions.iter().find(|condition| condition.r#type == *name);
            let all_ready =
                || pod.phase == "Running" && pod.containers.iter().all(|container| container.ready);
            stated.map_or_else(all_ready, |condition| condition.status) == *value
        }
    };
    let over = pod.is_some_and(|pod| pod.phase == "Succeeded" || pod.phase == "Failed");
    match (met, over) {
        (true, _) => Met::Yes,
        (false, true) => Met::Never,
        (false, false) => Met::NotYet,
    }
}
