//! What follows a container's end: rules by exit code, its own policy, the pod's. Pure.

use super::{ContainerPolicy, Policy, RestartPolicy, RestartRule, RuleAction};

/// Reason of a container that a liveness probe ended.
pub const LIVENESS_KILL: &str = "LivenessProbeFailed";
/// Reason of a container that a startup probe ended.
pub const STARTUP_KILL: &str = "StartupProbeFailed";
/// Reason of a container that was ended because its postStart hook failed.
pub const POST_START_KILL: &str = "FailedPostStartHook";

/// Reason of a container that a person had ended for it to run again.
pub const RESTART_ASKED: &str = "RestartRequested";

/// Whether `reason` of an ended container says that its health, or a wish for it to run again,
/// was why haled ended it. Such an end is a failure, whatever its exit code.
pub fn is_kill(reason: &str) -> bool {
    [LIVENESS_KILL, STARTUP_KILL, POST_START_KILL, RESTART_ASKED].contains(&reason)
}

/// What follows a container's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequel {
    /// It stays as it is.
    Rest,
    /// It is started again, after its back-off.
    Restart,
    /// Every container of the pod is started again, after its back-off.
    RestartAll,
}

impl Policy {
    /// What follows the end of `container` with this exit code. `killed`: [`is_kill`].
    pub fn after(&self, container: &str, exit_code: i32, killed: bool) -> Sequel {
        let own = self.containers.get(container);
        let rules = own.map(|own| own.rules.as_slice()).filter(|_| !killed).unwrap_or_default();
        match rules.iter().find(|rule| rule.fits(exit_code)).map(|rule| rule.action) {
            Some(RuleAction::Restart) => Sequel::Restart,
            Some(RuleAction::RestartAllContainers) => Sequel::RestartAll,
            None if self.restart_of(container).restarts(exit_code, killed) => Sequel::Restart,
            None => Sequel::Rest,
        }
    }

    /// Whether it is started again, by itself or with all others.
    pub fn restarts(&self, container: &str, exit_code: i32, killed: bool) -> bool {
        self.after(container, exit_code, killed) != Sequel::Rest
    }

    /// A container's own restart policy, or the pod's.
    pub fn restart_of(&self, container: &str) -> RestartPolicy {
        let own = self.containers.get(container);
        own.and_then(|own: &ContainerPolicy| own.restart).unwrap_or(self.restart)
    }
}

impl RestartRule {
    fn fits(&self, exit_code: i32) -> bool {
        self.codes.contains(&exit_code) == self.within
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rule(within: bool, codes: &[i32], action: RuleAction) -> RestartRule {
        RestartRule { within, codes: codes.to_vec(), action }
    }

    fn policy(restart: Option<RestartPolicy>, rules: Vec<RestartRule>) -> Policy {
        let own = ContainerPolicy { restart, rules, ..ContainerPolicy::default() };
        Policy {
            restart: RestartPolicy::Never,
            containers: BTreeMap::from([("app".to_owned(), own)]),
            ..Policy::default()
        }
    }

    #[test]
    fn a_containers_own_policy_goes_before_the_pods() {
        let policy = policy(Some(RestartPolicy::OnFailure), Vec::new());
        assert_eq!(policy.after("app", 1, false), Sequel::Restart);
        assert_eq!(policy.after("app", 0, false), Sequel::Rest);
        assert_eq!(policy.after("other", 1, false), Sequel::Rest);
    }

    #[test]
    fn the_first_rule_that_fits_goes_before_both() {
        let rules = vec![
            rule(true, &[42, 43], RuleAction::Restart),
            rule(true, &[42, 44], RuleAction::RestartAllContainers),
        ];
        let policy = policy(Some(RestartPolicy::Never), rules);
        for (code, sequel) in [
            (42, Sequel::Restart),
            (43, Sequel::Restart),
            (44, Sequel::RestartAll),
            (1, Sequel::Rest),
            (0, Sequel::Rest),
        ] {
            assert_eq!(policy.after("app", code, false), sequel, "{code}");
        }
    }

    #[test]
    fn not_in_fits_every_other_code() {
        let policy = policy(None, vec![rule(false, &[0, 3], RuleAction::Restart)]);
        assert_eq!(policy.after("app", 4, false), Sequel::Restart);
        assert_eq!(policy.after("app", 3, false), Sequel::Rest);
    }

    #[test]
    fn rules_are_not_asked_after_a_kill_and_a_kill_is_a_failure() {
        let all = vec![rule(false, &[], RuleAction::RestartAllContainers)];
        let never = policy(Some(RestartPolicy::Never), all.clone());
        let on_failure = policy(Some(RestartPolicy::OnFailure), all);
        for reason in [LIVENESS_KILL, STARTUP_KILL, POST_START_KILL] {
            assert!(is_kill(reason));
            assert_eq!(never.after("app", 137, true), Sequel::Rest);
            assert_eq!(on_failure.after("app", 0, true), Sequel::Restart);
        }
        assert_eq!(never.after("app", 137, false), Sequel::RestartAll);
    }
}
