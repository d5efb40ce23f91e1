//! `halectl wait`: until a pod is as wanted.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use crate::proto::haled::Pod;

use super::client::Address;
use super::options::{Kind, WaitArgs};
use super::output::{complain, print};
use super::{Failure, Outcome, pods};

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
    Delete,
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
        let Some(condition) = text.strip_prefix("condition=") else {
            return Err("condition=NAME, phase=PHASE and delete are allowed".to_owned());
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
    let Kind::Pods = args.kind;
    let limit = Duration::from_secs(args.timeout.into());
    let told = format!("pod/{}", args.name);
    match tokio::time::timeout(limit, met(address, namespace, &args)).await {
        Ok(Ok(true)) => {
            print(format!("{told} condition met\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ok(false)) => {
            complain(&format!("{told}: it can't be met: the pod is over or isn't there"));
            Ok(ExitCode::from(NEVER))
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Message(format!("{told}: timed out after {} s", args.timeout))),
    }
}

async fn met(address: &Address, namespace: &str, args: &WaitArgs) -> Result<bool, Failure> {
    let mut lists = pods::watching(address, namespace, &args.name).await?;
    while let Some(list) = lists.message().await? {
        match self::judge(list.pods.first(), &args.wanted) {
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
