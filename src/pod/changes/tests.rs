use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::container::Place;
use crate::container::config::ContainerConfig;
use crate::container::exec::Executor;
use crate::container::state::{Ended, Init};
use crate::oci::Runtime;
use crate::oci::model::{PidMode, Resources, Security};
use crate::pod::config::SandboxConfig;
use crate::pod::record::Origin;
use crate::pod::view::ContainerView;

fn ready() -> Phase {
    Phase::Ready { pause_pid: 1, network: None }
}

fn running() -> State {
    State::Running(Init { pid: 1, start_ticks: 1, started_at: 1 })
}

fn exited(started_at: i64) -> State {
    State::Exited(Ended {
        code: 0,
        started_at,
        finished_at: 2,
        reason: String::new(),
        message: String::new(),
    })
}

fn container_id(digit: u8) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn container((digit, state): &(u8, State)) -> Arc<ContainerView> {
    let id = container_id(*digit);
    let config = ContainerConfig {
        name: digit.to_string(),
        attempt: 0,
        image: String::new(),
        user_image: String::new(),
        command: vec![],
        args: vec![],
        working_dir: String::new(),
        env: vec![],
        mounts: vec![],
        devices: vec![],
        cdi_devices: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: PathBuf::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        pid_mode: PidMode::Container,
        security: Security::default(),
        resources: Resources::default(),
        checkpoint: None,
        stop_signal: None,
    };
    let place = Place::new(&id, Path::new("/pod"), "/parent");
    Arc::new(ContainerView {
        executor: Arc::new(Executor::new(None, Arc::new(no_runtime()), place.clone())),
        place,
        id,
        sandbox: "f".repeat(64).parse().unwrap(),
        config: Arc::new(config),
        image_id: String::new(),
        image_name: String::new(),
        image_ref: String::new(),
        user: None,
        stop_signal: String::new(),
        created_at: 0,
        state: state.clone(),
        health: None,
        health_message: String::new(),
        ready: false,
        probes: vec![],
        past: false,
        log_path: PathBuf::new(),
    })
}

fn no_runtime() -> Runtime {
    Runtime {
        name: String::new(),
        path: PathBuf::new(),
        root: PathBuf::new(),
        keeper: PathBuf::new(),
        settings: crate::oci::RuntimeSettings::default(),
    }
}

fn view(phase: Phase, containers: &[(u8, State)]) -> PodView {
    let path = PathBuf::new;
    PodView {
        id: "f".repeat(64).parse().unwrap(),
        config: Arc::new(SandboxConfig::default()),
        origin: Origin::Cri,
        policy: None,
        created_at: 0,
        phase,
        dir: path(),
        runtime: Arc::new(no_runtime()),
        containers: containers.iter().map(container).collect(),
        waiting: vec![],
        histories: std::collections::BTreeMap::new(),
    }
}

fn fresh() -> Told {
    Told::until(&view(Phase::Starting, &[]), &Phase::Starting)
}

/// First digits of the ids: enough to tell them apart.
fn steps(told: &mut Told, view: &PodView, gone: bool) -> Vec<(Kind, String)> {
    told.changes(view, gone).into_iter().map(|(kind, id)| (kind, id[..1].to_owned())).collect()
}

#[test]
fn a_whole_life_is_told_step_by_step() {
    use Kind::{Created, Deleted, Started, Stopped};
    let mut told = fresh();
    let stopping = Phase::Stopping { network: None, then_remove: true };
    let views: [(_, _, &[(Kind, &str)]); 8] = [
        (view(ready(), &[]), false, &[(Created, "f"), (Started, "f")]),
        (view(ready(), &[(1, State::Created)]), false, &[(Created, "1")]),
        (view(ready(), &[(1, State::Starting)]), false, &[]),
        (view(ready(), &[(1, running())]), false, &[(Started, "1")]),
        (view(stopping.clone(), &[(1, running())]), false, &[]),
        (view(stopping, &[(1, exited(1))]), false, &[(Stopped, "1")]),
        (view(Phase::Stopped, &[(1, exited(1))]), false, &[(Stopped, "f")]),
        (view(Phase::Stopped, &[]), true, &[(Deleted, "1"), (Deleted, "f")]),
    ];
    for (view, gone, expected) in views {
        let expected: Vec<_> = expected.iter().map(|(kind, id)| (*kind, (*id).into())).collect();
        assert_eq!(steps(&mut told, &view, gone), expected);
    }
}

#[test]
fn what_happened_between_two_views_is_not_skipped() {
    use Kind::{Created, Deleted, Started, Stopped};
    let mut told = fresh();
    let both = view(ready(), &[(1, exited(1)), (2, exited(0)), (3, State::Created)]);
    let kinds: Vec<_> = steps(&mut told, &both, false).into_iter().skip(2).collect();
    let step = |kind, id: &str| (kind, id.to_owned());
    let first = [step(Created, "1"), step(Started, "1"), step(Stopped, "1")];
    let rest = [step(Created, "2"), step(Stopped, "2"), step(Created, "3")];
    assert_eq!(kinds, [first, rest].concat(), "2 never ran");
    let gone = steps(&mut told, &view(ready(), &[]), false);
    assert_eq!(gone, [step(Deleted, "1"), step(Deleted, "2"), step(Deleted, "3")]);
}

#[test]
fn a_sandbox_that_was_never_ready_is_not_told_of() {
    let mut told = fresh();
    let stopping = Phase::Stopping { network: None, then_remove: true };
    assert_eq!(steps(&mut told, &view(stopping, &[]), false), []);
    assert_eq!(steps(&mut told, &view(Phase::Stopped, &[]), false), []);
    assert_eq!(steps(&mut told, &view(Phase::Stopped, &[]), true), []);
}

#[test]
fn what_changed_while_nobody_was_there_is_told_afterwards() {
    let before = view(ready(), &[(1, running())]);
    let mut told = Told::until(&before, &before.phase);
    let why = "gone".to_owned();
    let after = view(Phase::Lost { network: None, why }, &[(1, exited(1))]);
    let step = |id: &str| (Kind::Stopped, id.to_owned());
    assert_eq!(steps(&mut told, &after, false), [step("1"), step("f")]);
}

fn change(id: &str) -> Change {
    Change { at: 0, kind: Kind::Created, id: id.into(), pod: Arc::new(view(ready(), &[])) }
}

#[tokio::test]
async fn what_nobody_heard_is_told_to_all_who_come_soon() {
    let start = Instant::now();
    let changes = Changes::new(start);
    changes.tell(change("early"), start);
    let (missed, mut first) = changes.listen(start).unwrap();
    assert_eq!(missed[0].id, "early");
    changes.tell(change("later"), start);
    assert_eq!(first.recv().await.unwrap().id, "later");
    let ids = |missed: Vec<Change>| missed.into_iter().map(|each| each.id).collect::<Vec<_>>();
    assert_eq!(ids(changes.listen(start + CATCH_UP).unwrap().0), ["early"]);
    assert!(changes.listen(start + CATCH_UP + Duration::from_secs(1)).unwrap().0.is_empty());
    changes.close();
    assert!(first.recv().await.is_err() && changes.listen(start).is_none());
}

#[test]
fn pictures_share_the_containers_that_have_not_changed() {
    let before = view(ready(), &[(1, running()), (2, running())]);
    let same = ContainerView::clone(&before.containers[0]);
    assert!(Arc::ptr_eq(&before.same_or_new(same), &before.containers[0]));
    let mut changed = ContainerView::clone(&before.containers[1]);
    changed.state = exited(1);
    assert_eq!(before.same_or_new(changed).state, exited(1));
}

#[test]
fn what_nobody_will_be_told_of_is_not_kept() {
    let start = Instant::now();
    let changes = Changes::new(start);
    let kept = || changes.lock().missed.len();
    changes.tell(change("early"), start + CATCH_UP);
    assert_eq!(kept(), 1);
    changes.tell(change("late"), start + CATCH_UP + Duration::from_secs(1));
    assert_eq!(kept(), 0, "a listener that comes now is told of nothing that was");
}

proptest! {
    /// However views follow one another: each id's changes come in order, none twice.
    #[test]
    fn no_change_is_told_twice_or_out_of_order(
        seen in prop::collection::vec(prop::collection::vec((0_u8..4, 0_u8..4), 0..4), 0..12),
    ) {
        let mut told = fresh();
        let mut stages: BTreeMap<u8, u8> = BTreeMap::new();
        let mut heard: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
        for one in seen {
            for (id, stage) in one {
                let old = stages.entry(id).or_default();
                *old = stage.max(*old);
            }
            let state = |stage: u8| match stage {
                0 => State::Created,
                1 => State::Starting,
                2 => running(),
                _ => exited(1),
            };
            let containers: Vec<_> = stages.iter().map(|(id, stage)| (*id, state(*stage))).collect();
            for (kind, id) in told.changes(&view(ready(), &containers), false) {
                heard.entry(id).or_default().push(kind);
            }
        }
        for (id, kinds) in heard {
            let whole = [Kind::Created, Kind::Started, Kind::Stopped];
            prop_assert_eq!(&kinds[..], &whole[..kinds.len()], "{}", id);
        }
    }
}

#[test]
fn what_was_lost_before_it_began_is_told_as_deleted_once() {
    let mut told = Told::until(&view(ready(), &[(1, running())]), &ready());
    told.lost(container_id(2));
    let now = view(ready(), &[(1, running())]);
    assert_eq!(steps(&mut told, &now, false), [(Kind::Deleted, "2".to_owned())]);
    assert_eq!(steps(&mut told, &now, false), []);
}
