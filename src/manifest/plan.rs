//! What is to be done next for a pod: a pure function of its plan and of what is seen of it.
//!
//! Restarting what has ended is the pod's driver's, by the policies it was given; what is
//! decided here is when a container first starts, who stops before whom, and when the pod is
//! over. So a container that has ended and is to run again is something to wait for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Planned, PodPlan};

/// What is seen of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its newest sandbox.
    pub sandbox: Sandbox,
    /// The newest attempt of each container that has one, by name.
    pub containers: BTreeMap<String, Seen>,
}

/// A pod's newest sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none.
    None,
    /// Being made or taken down.
    Changing,
    /// Up.
    Ready,
    /// Its processes are gone, but something may be left: a reboot, or a monitor that died.
    Lost,
    /// Down for good.
    Stopped,
}

/// The newest attempt of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// In the newest sandbox, not one that was lost.
    pub here: bool,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Made, not started.
    Created,
    /// Being started.
    Starting,
    /// It runs.
    Running {
        /// Its startup probe has passed, or it has none.
        started: bool,
    },
    /// It ended.
    Exited {
        /// Its exit code.
        code: i32,
        /// Its health had it stopped.
        killed: bool,
    },
}

/// What is wanted of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// That it runs.
    Run,
    /// That it ends so: its activeDeadlineSeconds are over, or it was evicted.
    End(Ending),
    /// That it goes.
    Delete,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something must happen first.
    Wait,
    /// Make a sandbox.
    RunSandbox,
    /// Take down what is left of a lost one.
    DropSandbox,
    /// Make a container.
    Create(String),
    /// Start a container that was made.
    Start(String),
    /// Stop these, all at once.
    Stop(Vec<String>),
    /// The pod is over: take the sandbox down and remember how it ended.
    Finish(Ending),
    /// Remove everything.
    Remove,
}

/// How a pod ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Every container exited with 0.
    pub succeeded: bool,
    /// `DeadlineExceeded`, `Evicted`; empty: none.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What to do next.
pub fn next(plan: &PodPlan, seen: &Observed, wish: &Wish) -> Action {
    let pod = Pod { plan, seen };
    match (wish, seen.sandbox) {
        (_, Sandbox::Changing) => Action::Wait,
        (Wish::Delete, Sandbox::Ready) => pod.wind_down(Action::Remove),
        (Wish::Delete, _) => Action::Remove,
        (Wish::End(ending), Sandbox::Ready) => pod.wind_down(Action::Finish(ending.clone())),
        (Wish::End(ending), _) => Action::Finish(ending.clone()),
        (Wish::Run, Sandbox::Ready) => pod.run(),
        (Wish::Run, _) if !pod.has_more_to_do() => Action::Finish(pod.ending()),
        (Wish::Run, Sandbox::Lost) => Action::DropSandbox,
        (Wish::Run, Sandbox::None | Sandbox::Stopped) => Action::RunSandbox,
    }
}

impl Ending {
    /// Its activeDeadlineSeconds are over.
    pub fn expired() -> Self {
        Self {
            succeeded: false,
            reason: "DeadlineExceeded".to_owned(),
            message: "it was active longer than its activeDeadlineSeconds".to_owned(),
        }
    }

    /// It used more than it may.
    pub fn evicted(message: String) -> Self {
        Self { succeeded: false, reason: "Evicted".to_owned(), message }
    }
}

struct Pod<'a> {
    plan: &'a PodPlan,
    seen: &'a Observed,
}

impl Pod<'_> {
    fn run(&self) -> Action {
        if !self.initialized() {
            // Before all else: the sidecars that are stopped for it must hold nothing up.
            if let Some(ending) = self.failed_init() {
                return self.wind_down(Action::Finish(ending));
            }
            let steps = self.plan.init.iter().find_map(|planned| self.init_step(planned));
            if let Some(action) = steps {
                return action;
            }
        }
        for planned in &self.plan.containers {
            match self.here(name(planned)) {
                None if self.is_done(planned) => {}
                None => return Action::Create(name(planned).to_owned()),
                Some(Stage::Created) => return Action::Start(name(planned).to_owned()),
                Some(_) => {}
            }
        }
        if self.plan.containers.iter().all(|planned| self.is_done(planned)) {
            return self.wind_down(Action::Finish(self.ending()));
        }
        Action::Wait
    }

    /// Once a main container is there the init containers have passed, whatever became of them.
    fn initialized(&self) -> bool {
        self.plan.containers.iter().any(|planned| self.here(name(planned)).is_some())
    }

    /// What is to be done before the next one may begin; `None`: it has passed.
    fn init_step(&self, planned: &Planned) -> Option<Action> {
        match self.here(name(planned)) {
            None => Some(Action::Create(name(planned).to_owned())),
            Some(Stage::Created) => Some(Action::Start(name(planned).to_owned())),
            Some(Stage::Running { started: true }) if planned.sidecar => None,
            Some(Stage::Exited { code: 0, .. }) if !planned.sidecar => None,
            Some(_) => Some(Action::Wait),
        }
    }

    /// An init container that has failed and isn't run again.
    fn failed_init(&self) -> Option<Ending> {
        self.plan.init.iter().filter(|planned| !planned.sidecar).find_map(|planned| {
            match self.here(name(planned)) {
                Some(Stage::Exited { code, killed })
                    if code != 0 && !self.plan.health.restarts(name(planned), code, killed) =>
                {
                    let message =
                        format!("init container \"{}\" exited with {code}", name(planned));
                    Some(Ending { succeeded: false, reason: String::new(), message })
                }
                _ => None,
            }
        })
    }

    /// Main containers (and an init container) all at once, then the sidecars one by one from
    /// the last, then `then`.
    fn wind_down(&self, then: Action) -> Action {
        let workers: Vec<&Planned> = self.plan.all().filter(|planned| !planned.sidecar).collect();
        if workers.iter().any(|planned| self.is_alive(planned)) {
            // All of them: what waits for its next start is not to have one.
            let here = workers.iter().filter(|planned| self.here(name(planned)).is_some());
            return Action::Stop(here.map(|planned| name(planned).to_owned()).collect());
        }
        let sidecars = self.plan.init.iter().filter(|planned| planned.sidecar);
        match sidecars.rev().find(|planned| self.is_alive(planned)) {
            Some(last) => Action::Stop(vec![name(last).to_owned()]),
            None => then,
        }
    }

    /// Whether a sandbox would have anything to run.
    fn has_more_to_do(&self) -> bool {
        let untouched = self.seen.containers.is_empty();
        self.plan.containers.iter().any(|planned| match self.seen.containers.get(name(planned)) {
            Some(Seen { stage: Stage::Exited { code, killed }, .. }) => {
                self.plan.health.restarts(name(planned), *code, *killed)
            }
            // Cut off, or never reached: with policy Never a pod that was lost has failed.
            _ => untouched || self.plan.health.restarts(name(planned), 255, false),
        })
    }

    /// It has ended for good, here or in a sandbox that was lost.
    fn is_done(&self, planned: &Planned) -> bool {
        match self.seen.containers.get(name(planned)) {
            Some(Seen { stage: Stage::Exited { code, killed }, .. }) => {
                !self.plan.health.restarts(name(planned), *code, *killed)
            }
            _ => false,
        }
    }

    fn ending(&self) -> Ending {
        let failed = self.plan.containers.iter().any(|planned| {
            let seen = self.seen.containers.get(name(planned));
            !matches!(seen, Some(Seen { stage: Stage::Exited { code: 0, .. }, .. }))
        });
        Ending { succeeded: !failed, reason: String::new(), message: String::new() }
    }

    fn is_alive(&self, planned: &Planned) -> bool {
        matches!(self.here(name(planned)), Some(Stage::Starting | Stage::Running { .. }))
    }

    fn here(&self, name: &str) -> Option<Stage> {
        self.seen.containers.get(name).filter(|seen| seen.here).map(|seen| seen.stage)
    }
}

fn name(planned: &Planned) -> &str {
    &planned.config.name
}

#[cfg(test)]
mod tests;
