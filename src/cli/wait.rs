//! `halectl wait`: until pods are as wanted.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::haled::{ListPodsRequest, Pod};

use super::client::Address;
use super::options::{Span, WaitArgs};
use super::output::{complain, print};
use super::path::{self, Path};
use super::{Failure, Outcome, age, json, names, pods};

/// What can't be met any more.
const NEVER: u8 = 3;
/// kubectl's, for a time below 0.
const WEEK: Duration = Duration::from_hours(7 * 24);
pub(super) const CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
pub(super) const PHASES: [&str; 4] = ["Pending", "Running", "Succeeded", "Failed"];

/// What a pod is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Condition(String, bool),
    Phase(String),
    /// A place in the pod as `get -o json` prints it, and its value; `None`: any.
    Json(Path, Option<String>),
    Create,
    Delete,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "create" => return Ok(Self::Create),
            "delete" => return Ok(Self::Delete),
            _ => {}
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
            return path::with_value(path).map(|(path, value)| Self::Json(path, value));
        }
        let Some(condition) = text.strip_prefix("condition=") else {
            return Err(
                "condition=NAME, phase=PHASE, jsonpath={.PATH}=VALUE, create and delete are allowed"
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

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience(pub(super) Duration);

impl FromStr for Patience {
    type Err = String;

    /// As kubectl has it: 0 looks once, less than 0 is a week.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('-') {
            Some(less) => less.parse::<Span>().map(|_| Self(WEEK)),
            None => text.parse::<Span>().map(|span| Self(span.0)),
        }
    }
}

/// `halectl wait`.
pub(super) async fn wait(address: &Address, namespace: &str, args: WaitArgs) -> Outcome {
    let deadline = Instant::now() + args.timeout.0;
    let names = args.kind.with(args.names);
    let among = &args.among;
    if names.is_empty() && among.selector.is_none() && !among.all_namespaces && !args.all {
        let why = "for which pods? Name them, or say -l LABELS, --all or -A";
        return Err(Failure::Usage(why.to_owned()));
    }
    if names.is_empty() && args.wanted == Wanted::Create {
        return Err(Failure::Usage("for which pods to be created? Name them".to_owned()));
    }
    let pods = pods::list(address).await?;
    let (mut keys, mut never) = (Vec::new(), false);
    for name in &names {
        match names::pod(&pods, namespace, name) {
            Ok(pod) => keys.push(pods::key(pod)),
            Err(_) if args.wanted == Wanted::Create => keys.push(names::key(namespace, name)),
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
        keys.extend(pods.iter().filter(|pod| pods::fits(pod, namespace, among)).map(pods::key));
        if keys.is_empty() && args.wanted != Wanted::Delete {
            complain(&format!("there are no pods{}", pods::place(namespace, among)));
            never = true;
        }
    }
    never |= until(address, &mut keys, &args.wanted, deadline).await?;
    let why = match args.timeout.0 {
        Duration::ZERO => "it is not so now".to_owned(),
        time => format!("timed out after {}", age::length(time)),
    };
    for (_, name) in &keys {
        complain(&format!("pod/{name}: {why}"));
    }
    Ok(match (never, keys.is_empty()) {
        (true, _) => ExitCode::from(NEVER),
        (false, false) => ExitCode::FAILURE,
        (false, true) => ExitCode::SUCCESS,
    })
}

/// Waits for all of them at once, at least for one look, and tells of each whose waiting has come
/// to an end; those are left that are late. Gives whether one of them can't be so any more.
async fn until(
    address: &Address,
    keys: &mut Vec<(String, String)>,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<bool, Failure> {
    let mut never = false;
    if keys.is_empty() {
        return Ok(never);
    }
    let mut lists = pods::watching(address, ListPodsRequest::default()).await?;
    let mut list = lists.message().await?;
    loop {
        let ended = || Failure::Message("haled has ended".to_owned());
        let pods = list.ok_or_else(ended)?.pods;
        let mut waiting = Vec::new();
        for key in std::mem::take(keys) {
            let pod = pods.iter().find(|pod| pods::key(pod) == key);
            match judge(pod, wanted) {
                Met::Yes => print(format!("pod/{} condition met\n", key.1))?,
                Met::NotYet => waiting.push(key),
                Met::Never => {
                    let over = "it can't be met: the pod is over or isn't there";
                    complain(&format!("pod/{}: {over}", key.1));
                    never = true;
                }
            }
        }
        *keys = waiting;
        if keys.is_empty() {
            return Ok(never);
        }
        list = match tokio::time::timeout_at(deadline, lists.message()).await {
            Ok(list) => list?,
            Err(_) => return Ok(never),
        };
    }
}

/// Whether a pod is, or can still be, as wanted. `None`: there is none.
pub(super) fn judge(pod: Option<&Pod>, wanted: &Wanted) -> Met {
    let met = match (pod, wanted) {
        (None, Wanted::Delete) | (Some(_), Wanted::Create) => true,
        (None, Wanted::Create) => return Met::NotYet,
        (None, _) => return Met::Never,
        (Some(_), Wanted::Delete) => return Met::NotYet,
        (Some(pod), Wanted::Phase(phase)) => pod.phase == *phase,
        (Some(pod), Wanted::Json(path, value)) => path.has(&json::object(pod), value.as_deref()),
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
