use proptest::prelude::*;

use super::*;
use crate::health::RestartPolicy;

fn plan(spec: &str) -> PodPlan {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    super::super::parse(&text).unwrap().pods.remove(0)
}

fn seen(sandbox: Sandbox, all: &[(&str, Stage)]) -> Observed {
    let seen =
        all.iter().map(|(name, stage)| ((*name).to_owned(), Seen { here: true, stage: *stage }));
    Observed { sandbox, containers: seen.collect() }
}

const RUNS: Stage = Stage::Running { started: true };
const DONE: Stage = Stage::Exited { code: 0, killed: false };
const FAILED: Stage = Stage::Exited { code: 1, killed: false };

fn create(name: &str) -> Action {
    Action::Create(name.to_owned())
}

#[test]
fn init_containers_go_one_after_another_and_then_the_main_ones() {
    let plan = plan(
        "{initContainers: [{name: i, image: x}, {name: s, image: x, restartPolicy: Always}], containers: [{name: m, image: x}, {name: o, image: x}]}",
    );
    let ready = |all: &[(&str, Stage)]| next(&plan, &seen(Sandbox::Ready, all), &Wish::Run);
    assert_eq!(next(&plan, &seen(Sandbox::None, &[]), &Wish::Run), Action::RunSandbox);
    assert_eq!(ready(&[]), create("i"));
    assert_eq!(ready(&[("i", Stage::Created)]), Action::Start("i".into()));
    assert_eq!(ready(&[("i", RUNS)]), Action::Wait);
    // Its driver runs it again.
    assert_eq!(ready(&[("i", FAILED)]), Action::Wait);
    assert_eq!(ready(&[("i", DONE)]), create("s"));
    assert_eq!(ready(&[("i", DONE), ("s", Stage::Running { started: false })]), Action::Wait);
    assert_eq!(ready(&[("i", DONE), ("s", RUNS)]), create("m"));
    assert_eq!(ready(&[("i", DONE), ("s", RUNS), ("m", RUNS)]), create("o"));
    // A sidecar that fails later holds nothing up.
    assert_eq!(ready(&[("i", DONE), ("s", FAILED), ("m", RUNS)]), create("o"));
}

#[test]
fn a_failed_init_container_fails_a_pod_that_restarts_nothing() {
    let plan = plan(
        "{restartPolicy: Never, initContainers: [{name: s, image: x, restartPolicy: Always}, {name: i, image: x}], containers: [{name: m, image: x}]}",
    );
    let stop = next(&plan, &seen(Sandbox::Ready, &[("s", RUNS), ("i", FAILED)]), &Wish::Run);
    assert_eq!(stop, Action::Stop(vec!["s".into()]));
    let end = next(&plan, &seen(Sandbox::Ready, &[("s", DONE), ("i", FAILED)]), &Wish::Run);
    // It is the init container that counts, not the sidecar that was stopped.
    assert!(matches!(end, Action::Finish(Ending { succeeded: false, .. })), "{end:?}");
}

#[test]
fn a_lost_sandbox_begins_again_unless_the_pod_is_over() {
    let spec = |policy: &str| {
        plan(&format!("{{restartPolicy: {policy}, containers: [{{name: m, image: x}}]}}"))
    };
    let lost = |policy: &str, stage| {
        next(&spec(policy), &seen(Sandbox::Lost, &[("m", stage)]), &Wish::Run)
    };
    assert_eq!(lost("Always", DONE), Action::DropSandbox);
    assert_eq!(lost("OnFailure", FAILED), Action::DropSandbox);
    assert!(matches!(lost("OnFailure", DONE), Action::Finish(Ending { succeeded: true, .. })));
    assert!(matches!(lost("Never", FAILED), Action::Finish(Ending { succeeded: false, .. })));
    let down = seen(Sandbox::Stopped, &[("m", FAILED)]);
    assert_eq!(next(&spec("Always"), &down, &Wish::Run), Action::RunSandbox);
    // In the new sandbox: what is over stays over, the rest begins again.
    let mut old = seen(Sandbox::Ready, &[("m", FAILED)]);
    old.containers.get_mut("m").unwrap().here = false;
    assert_eq!(next(&spec("Always"), &old, &Wish::Run), create("m"));
}

#[test]
fn a_deadline_ends_a_pod_and_a_deletion_removes_it() {
    let plan = plan("{activeDeadlineSeconds: 5, containers: [{name: m, image: x}]}");
    let runs = seen(Sandbox::Ready, &[("m", RUNS)]);
    let ended = seen(Sandbox::Ready, &[("m", FAILED)]);
    for wish in [Wish::End(Ending::expired()), Wish::Delete] {
        assert_eq!(next(&plan, &runs, &wish), Action::Stop(vec!["m".into()]));
    }
    assert!(
        matches!(next(&plan, &ended, &Wish::End(Ending::expired())), Action::Finish(end) if end.reason == "DeadlineExceeded")
    );
    assert_eq!(next(&plan, &ended, &Wish::Delete), Action::Remove);
    assert_eq!(next(&plan, &seen(Sandbox::None, &[]), &Wish::Delete), Action::Remove);
}

/// A pod of any shape, in a world where anything may happen between two looks.
#[derive(Debug, Clone)]
struct World {
    plan: PodPlan,
    seen: Observed,
    /// Stopped by the plan: the driver doesn't run it again.
    stopped: Vec<String>,
    /// Names in the order of their first start, and of being stopped.
    started: Vec<String>,
}

fn world() -> impl Strategy<Value = World> {
    let init = prop::collection::vec(any::<bool>(), 0..5);
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    (init, 1usize..4, policy).prop_map(|(init, mains, policy)| {
        let init: Vec<String> = init
            .iter()
            .enumerate()
            .map(|(at, sidecar)| {
                let stays = if *sidecar { ", restartPolicy: Always" } else { "" };
                format!("{{name: i{at}, image: x{stays}}}")
            })
            .collect();
        let mains: Vec<String> =
            (0..mains).map(|at| format!("{{name: m{at}, image: x}}")).collect();
        let plan = plan(&format!(
            "{{restartPolicy: {policy}, initContainers: [{}], containers: [{}]}}",
            init.join(", "),
            mains.join(", ")
        ));
        let seen = seen(Sandbox::None, &[]);
        World { plan, seen, stopped: Vec::new(), started: Vec::new() }
    })
}

impl World {
    fn stage(&self, name: &str) -> Option<Stage> {
        self.seen.containers.get(name).filter(|seen| seen.here).map(|seen| seen.stage)
    }

    fn set(&mut self, name: &str, stage: Stage) {
        self.seen.containers.insert(name.to_owned(), Seen { here: true, stage });
    }

    /// What a driver and a kernel may do to one container.
    fn happen(&mut self, at: usize, what: u8) {
        let names: Vec<String> =
            self.plan.all().map(|planned| planned.config.name.clone()).collect();
        let name = &names[at % names.len()];
        let stopped = self.stopped.contains(name);
        let stage = match self.stage(name) {
            Some(Stage::Starting | Stage::Running { started: false }) => RUNS,
            Some(Stage::Running { .. }) if what < 128 => DONE,
            Some(Stage::Running { .. }) => Stage::Exited { code: i32::from(what), killed: false },
            Some(Stage::Exited { code, .. })
                if !stopped && self.plan.health.restarts(name, code, false) =>
            {
                Stage::Starting
            }
            _ => return,
        };
        self.set(name, stage);
    }

    /// Checks an action against the rules, and does it.
    fn act(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::RunSandbox => {
                self.seen.sandbox = Sandbox::Ready;
                self.seen.containers.values_mut().for_each(|seen| seen.here = false);
                self.started.clear();
            }
            Action::DropSandbox => self.seen.sandbox = Sandbox::Stopped,
            Action::Create(name) => {
                prop_assert!(self.stage(name).is_none(), "{name} is there");
                let before = self.plan.init.iter().take_while(|init| init.config.name != *name);
                for init in before {
                    let passed = match self.stage(&init.config.name) {
                        Some(Stage::Running { started }) => init.sidecar && started,
                        Some(DONE) => !init.sidecar,
                        _ => false,
                    };
                    // A later failure of a sidecar doesn't hold up the other main containers.
                    let later = self.started.iter().any(|name| name.starts_with('m'));
                    prop_assert!(passed || later, "{name} before {}", init.config.name);
                }
                self.started.push(name.clone());
                self.set(name, Stage::Created);
            }
            Action::Start(name) => self.set(name, Stage::Running { started: false }),
            Action::Stop(names) => {
                for name in names {
                    let planned = self.plan.find(name).unwrap();
                    if planned.sidecar {
                        prop_assert_eq!(names.len(), 1);
                        let alive = |planned: &&Planned| {
                            matches!(
                                self.stage(&planned.config.name),
                                Some(Stage::Running { .. } | Stage::Starting)
                            )
                        };
                        let last = self.plan.init.iter().rfind(|init| init.sidecar && alive(init));
                        prop_assert_eq!(&last.unwrap().config.name, name);
                        let worker =
                            self.plan.all().find(|planned| !planned.sidecar && alive(planned));
                        prop_assert!(worker.is_none(), "{name} before a worker");
                    }
                    if matches!(self.stage(name), Some(Stage::Running { .. } | Stage::Starting)) {
                        self.set(name, Stage::Exited { code: 143, killed: false });
                    }
                    self.stopped.push(name.clone());
                }
            }
            Action::Wait | Action::Finish(_) | Action::Remove => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_order_is_kept(
        mut world in world(),
        happens in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..40), 0..120),
        delete in any::<bool>(),
    ) {
        let mut over = false;
        for (at, what, loss) in happens {
            let action = next(&world.plan, &world.seen, &Wish::Run);
            if matches!(action, Action::Finish(_)) {
                over = true;
                break;
            }
            world.act(&action)?;
            if loss == 0 && world.seen.sandbox == Sandbox::Ready {
                world.seen.sandbox = Sandbox::Lost;
                let names: Vec<String> = world.seen.containers.keys().cloned().collect();
                for name in names {
                    if !matches!(world.stage(&name), None | Some(Stage::Exited { .. })) {
                        world.set(&name, Stage::Exited { code: 255, killed: false });
                    }
                }
            } else {
                world.happen(at, what);
            }
        }
        // It always comes to an end when it is told to.
        let wish = if delete { Wish::Delete } else { Wish::End(Ending::expired()) };
        for _ in 0..64 {
            let action = next(&world.plan, &world.seen, &wish);
            if matches!(action, Action::Finish(_) | Action::Remove) {
                let alive = world.seen.sandbox == Sandbox::Ready
                    && world.plan.all().any(|planned| {
                        matches!(world.stage(&planned.config.name), Some(Stage::Running { .. } | Stage::Starting))
                    });
                prop_assert!(!alive, "it ends while something runs");
                return Ok(());
            }
            prop_assert!(!over || action != Action::Wait);
            world.act(&action)?;
        }
        prop_assert!(false, "it never ends: {:?}", world.seen);
    }

    /// Left alone in a kind world a pod that isn't to be restarted is over, and well.
    #[test]
    fn a_pod_whose_containers_pass_succeeds(mut world in world()) {
        world.plan.health.restart = RestartPolicy::Never;
        for round in 0..400 {
            let action = next(&world.plan, &world.seen, &Wish::Run);
            if let Action::Finish(ending) = action {
                prop_assert!(ending.succeeded);
                return Ok(());
            }
            world.act(&action)?;
            let at = round % world.plan.all().count();
            let planned = world.plan.all().nth(at).unwrap();
            let starts = world.stage(&planned.config.name) == Some(Stage::Running { started: false });
            if !planned.sidecar || starts {
                world.happen(at, 0);
            }
        }
        prop_assert!(false, "it is never over: {:?}", world.seen);
    }
}
