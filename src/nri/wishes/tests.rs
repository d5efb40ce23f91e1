use super::*;
use crate::nri::api::{KeyValue, LinuxMemory, Mount, OptionalInt64};

fn env(list: &[(&str, &str)]) -> ContainerAdjustment {
    let variable =
        |(key, value): &(&str, &str)| KeyValue { key: (*key).into(), value: (*value).into() };
    ContainerAdjustment { env: list.iter().map(variable).collect(), ..Default::default() }
}

fn told(wishes: &Wishes) -> Vec<String> {
    wishes.adjust.env.iter().map(|v| format!("{}={}", v.key, v.value)).collect()
}

fn memory(id: &str, limit: i64) -> ContainerUpdate {
    let memory = LinuxMemory { limit: Some(OptionalInt64 { value: limit }), ..Default::default() };
    let resources = LinuxResources { memory: Some(memory), ..Default::default() };
    ContainerUpdate {
        container_id: id.into(),
        linux: Some(LinuxContainerUpdate { resources: Some(resources) }),
        ignore_failure: false,
    }
}

#[test]
fn two_plugins_that_set_the_same_are_both_named() {
    let mut wishes = Wishes::making("c");
    wishes.add_adjustment(env(&[("A", "1"), ("B", "1")]), "00-one").unwrap();
    wishes.add_adjustment(env(&[("C", "2")]), "10-two").unwrap();
    let error = wishes.add_adjustment(env(&[("B", "2")]), "10-two").unwrap_err().to_string();
    for part in ["00-one", "10-two", "Env \"B\"", "container c"] {
        assert!(error.contains(part), "{error}");
    }
    // The same by the same is no conflict, and the last counts.
    wishes.add_adjustment(env(&[("A", "3")]), "00-one").unwrap();
    assert_eq!(told(&wishes), ["B=1", "C=2", "A=3"]);
}

#[test]
fn what_is_taken_away_first_may_be_set_by_another() {
    let mut wishes = Wishes::making("c");
    wishes.add_adjustment(env(&[("A", "1"), ("B", "1")]), "00-one").unwrap();
    wishes.add_adjustment(env(&[("A", "2"), ("-A", ""), ("-B", "")]), "10-two").unwrap();
    assert_eq!(told(&wishes), ["-B=", "A=2"]);
    // What is gone can be set by anyone, and has no mark any more.
    wishes.add_adjustment(env(&[("B", "3")]), "20-three").unwrap();
    assert_eq!(told(&wishes), ["A=2", "B=3"]);
    let mut container = Container { env: vec!["B=0".into(), "Z=0".into()], ..Default::default() };
    container = wishes.show(&container);
    assert_eq!(container.env, ["Z=0", "A=2", "B=3"]);
}

#[test]
fn a_mark_takes_away_what_the_container_had() {
    let mount = |to: &str, from: &str| Mount {
        destination: to.into(),
        source: from.into(),
        ..Default::default()
    };
    let container = Container {
        mounts: vec![mount("/a", "x"), mount("/b", "x")],
        annotations: [("k".into(), "v".into()), ("l".into(), "v".into())].into(),
        ..Default::default()
    };
    let mut wishes = Wishes::making("c");
    let asked = ContainerAdjustment {
        mounts: vec![mount("-/a", ""), mount("/b", "y")],
        annotations: [("-k".into(), String::new()), ("l".into(), "w".into())].into(),
        ..Default::default()
    };
    wishes.add_adjustment(asked, "00-one").unwrap();
    let shown = wishes.show(&container);
    assert_eq!(shown.mounts, [mount("/b", "y")]);
    assert_eq!(shown.annotations, [("l".to_owned(), "w".to_owned())].into());
}

#[test]
fn arguments_are_one_plugins_unless_another_begins_with_an_empty_one() {
    let args = |list: &[&str]| ContainerAdjustment {
        args: list.iter().map(|&arg| arg.to_owned()).collect(),
        ..Default::default()
    };
    let mut wishes = Wishes::making("c");
    wishes.add_adjustment(args(&["a", "b"]), "00-one").unwrap();
    wishes.add_adjustment(args(&["c"]), "10-two").unwrap_err();
    wishes.add_adjustment(args(&["", "c"]), "10-two").unwrap();
    assert_eq!(wishes.adjust.args, ["c"]);
}

#[test]
fn updates_are_merged_and_one_that_may_fail_is_left_out_whole() {
    let mut wishes = Wishes::making("c");
    wishes.add_updates(vec![memory("other", 1)], "00-one").unwrap();
    wishes.add_updates(vec![memory("other", 2)], "10-two").unwrap_err();
    let may_fail = ContainerUpdate { ignore_failure: true, ..memory("other", 2) };
    wishes.add_updates(vec![may_fail], "10-two").unwrap();
    assert_eq!(wishes.updates(), [memory("other", 1)]);
    let error = wishes.add_updates(vec![memory("c", 1)], "10-two").unwrap_err();
    assert!(error.to_string().contains("being made"), "{error}");
}

#[test]
fn a_clients_update_may_be_changed() {
    let asked = |limit| memory("c", limit).linux.unwrap().resources.unwrap();
    let mut wishes = Wishes::updating("c", asked(1));
    wishes.add_updates(vec![memory("c", 2), memory("d", 3)], "00-one").unwrap();
    assert_eq!(wishes.update_of("c"), Some(&asked(2)));
    assert_eq!(wishes.take_update("c"), Some(asked(2)));
    assert_eq!(wishes.updates(), [memory("d", 3)]);
}
