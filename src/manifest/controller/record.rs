//! What is remembered of a manifest's pod.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Key;
use crate::manifest::PodPlan;
use crate::manifest::plan::Ending;
use crate::manifest::status::{Condition, Course};
use crate::store;

/// The label in which a kubelet notes a pod's uid.
const POD_UID: &str = "io.kubernetes.pod.uid";

/// A pod of a manifest as stored, under `namespace/name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PodRecord {
    pub(super) uid: String,
    pub(super) plan: PodPlan,
    pub(super) created_at: i64,
    /// When its first sandbox was asked for; 0: not yet.
    pub(super) started_at: i64,
    /// Of the sandbox that is next made.
    pub(super) next_attempt: u32,
    /// Being taken down: nothing is brought up any more.
    pub(super) deleting: bool,
    /// When the grace of its deletion is over, in nanoseconds since the epoch; 0: it isn't
    /// being taken down.
    #[serde(default)]
    pub(super) delete_at: i64,
    /// The whole of that grace, in seconds.
    #[serde(default)]
    pub(super) delete_grace_seconds: Option<u64>,
    /// It is to end so: it used more than it may.
    pub(super) evicted: Option<Ending>,
    /// It is over: nothing is brought up any more.
    pub(super) ended: Option<Ending>,
    /// The file of the manifest directory that it is in.
    pub(super) file: Option<PathBuf>,
    /// Each condition: whether it is met, and since when, in nanoseconds since the epoch.
    #[serde(default)]
    pub(super) conditions: BTreeMap<String, (bool, i64)>,
}

impl PodRecord {
    /// One that is new: nothing was done for it yet.
    pub(super) fn new(uid: String, plan: PodPlan, file: Option<PathBuf>, now: i64) -> Self {
        Self {
            uid,
            plan,
            created_at: now,
            started_at: 0,
            next_attempt: 0,
            deleting: false,
            delete_at: 0,
            delete_grace_seconds: None,
            evicted: None,
            ended: None,
            file,
            conditions: BTreeMap::new(),
        }
    }

    /// It is to be taken down, with this grace or else its own. A deletion that goes on keeps
    /// its time, unless it is to be over sooner.
    pub(super) fn condemn(&mut self, grace: Option<Duration>, now: i64) {
        let begun = self.deleting && self.delete_at != 0;
        let whole = grace.unwrap_or(self.plan.grace);
        let nanos = i64::try_from(whole.as_nanos()).unwrap_or(i64::MAX);
        let delete_at = now.saturating_add(nanos);
        if !begun || grace.is_some() && delete_at < self.delete_at {
            self.delete_at = delete_at;
            self.delete_grace_seconds = Some(whole.as_secs());
        }
        self.deleting = true;
    }

    pub(super) fn course(&self) -> Course<'_> {
        Course { plan: &self.plan, deleting: self.deleting, ended: self.ended.as_ref() }
    }

    /// Fills in since when conditions are as they are, and notes those that have changed just
    /// now. Gives whether any has.
    pub(super) fn note(&mut self, conditions: &mut [Condition], now: i64) -> bool {
        let mut changed = false;
        for condition in conditions {
            let noted = self.conditions.get(condition.kind);
            condition.since = match noted {
                Some(&(met, since)) if met == condition.met => since,
                _ => {
                    changed = true;
                    self.conditions.insert(condition.kind.to_owned(), (condition.met, now));
                    now
                }
            };
        }
        changed
    }
}

impl store::Record for PodRecord {
    const KIND: &'static str = "manifest-pod";
    const VERSION: u32 = 3;
}

pub(super) fn key(plan: &PodPlan) -> Key {
    (plan.sandbox.namespace.clone(), plan.sandbox.name.clone())
}

pub(super) fn stored_key((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

impl PodPlan {
    /// Gives the pod its uid, and tells it where the kubelet would.
    pub(super) fn set_uid(&mut self, uid: &str) {
        uid.clone_into(&mut self.sandbox.uid);
        let all = self.init.iter_mut().chain(&mut self.containers);
        let labels = all.map(|planned| &mut planned.config.labels);
        for labels in labels.chain([&mut self.sandbox.labels]) {
            labels.insert(POD_UID.to_owned(), uid.to_owned());
        }
    }
}

/// Whether a recorded plan is what this manifest asks for, but for what was added to it and
/// however that is written.
pub(super) fn same(recorded: &PodPlan, asked: &PodPlan) -> bool {
    let mut asked = asked.clone();
    asked.document.clone_from(&recorded.document);
    asked.sandbox.log_directory.clone_from(&recorded.sandbox.log_directory);
    asked.set_uid(&recorded.sandbox.uid);
    if asked.sandbox.userns.is_some() && recorded.sandbox.userns.is_some() {
        asked.sandbox.userns.clone_from(&recorded.sandbox.userns);
    }
    *recorded == asked
}

/// A random UUID (RFC 9562, version 4).
pub(super) fn new_uid() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 7, containers: [{name: a, image: x}]}}";

    #[test]
    fn a_deletion_that_goes_on_keeps_its_time() {
        let plan = crate::manifest::parse(POD).unwrap().pods.remove(0);
        let mut record = PodRecord::new(new_uid(), plan, None, 0);
        let second = 1_000_000_000;
        record.condemn(None, 100 * second);
        assert_eq!((record.deleting, record.delete_at), (true, 107 * second));
        assert_eq!(record.delete_grace_seconds, Some(7));
        // By the daemon that comes after this one.
        record.condemn(None, 105 * second);
        assert_eq!(record.delete_at, 107 * second);
        record.condemn(Some(Duration::from_secs(1)), 105 * second);
        assert_eq!(record.delete_at, 106 * second);
        assert_eq!(record.delete_grace_seconds, Some(1));
        // It only ever gets less.
        record.condemn(Some(Duration::MAX), 105 * second);
        assert_eq!(record.delete_at, 106 * second);
        assert_eq!(record.delete_grace_seconds, Some(1));
    }
}
