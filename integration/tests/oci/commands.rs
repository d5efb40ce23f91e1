//! Commands in a container, by `container::exec` with real runc. A link to runc named youki
//! stands for the runtimes that know no sub-cgroups.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use haled::container::{Error, Place, exec};
use haled::id::ContainerId;
use haled::oci::Runtime;
use haled::sys::cgroup;

use super::rig::{Rig, Wanted, random};

/// A test that waits longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn shell(text: &str) -> Vec<String> {
    ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
}

/// A container that sleeps, and how it is reached.
pub(super) fn sleeper() -> (Rig, Place) {
    let mut rig = Rig::new();
    let id = ContainerId::try_from(random().repeat(8)).unwrap();
    rig.id = id.to_string();
    rig.start(&Wanted::shell("sleep 600"));
    let place = Place { id, bundle: rig.path("bundle"), cgroup: rig.cgroup_path() };
    (rig, place)
}

/// With and without sub-cgroups.
pub(super) fn runtimes(rig: &Rig) -> [Runtime; 2] {
    let link = rig.path("youki");
    symlink(&rig.runtime.path, &link).unwrap();
    let without = Runtime { path: link, ..rig.runtime.clone() };
    assert!(rig.runtime.takes_sub_cgroup() && !without.takes_sub_cgroup());
    [rig.runtime.clone(), without]
}

/// Sub-cgroups and scratch directories of commands and agents.
pub(super) fn traces(place: &Place) -> usize {
    let controller = if cgroup::has_controller("pids") { "pids" } else { "cpu" };
    let subs = cgroup::directory(controller, &place.cgroup).unwrap();
    [subs, place.bundle.clone()]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            let name = name.to_string_lossy();
            name.starts_with("exec-") || name.starts_with("agent-")
        })
        .count()
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls a command until it and its child run, and drops it.
pub(super) async fn cut_off(run: impl Future, place: &Place, before: usize) {
    let started = until("the command runs", || processes(place).len() >= before + 2);
    tokio::select! {
        _ = run => panic!("it ended by itself"),
        () = started => {}
    }
}

pub(super) fn processes(place: &Place) -> Vec<i32> {
    cgroup::processes(&place.cgroup).unwrap()
}

#[tokio::test]
async fn a_command_that_is_not_waited_for_ends_with_its_children() {
    let (rig, place) = sleeper();
    let before = processes(&place);
    for runtime in runtimes(&rig) {
        let command = shell("sleep 601 & sleep 602");
        let limit = Some(Duration::from_secs(1));
        let error = exec::run(&runtime, &place, &command, limit).await.unwrap_err();
        assert!(matches!(error, Error::ExecTimeout { .. }), "{error}");
        // By a signal alone where there is no cgroup to wait for.
        until("a timed-out command is gone", || processes(&place) == before).await;

        cut_off(exec::run(&runtime, &place, &command, None), &place, before.len()).await;
        until("a dropped command is gone", || processes(&place) == before).await;
        until("so are its traces", || traces(&place) == 0).await;
    }
}

#[tokio::test]
async fn what_a_lost_daemon_was_executing_ends_with_its_children() {
    let (rig, place) = sleeper();
    let before = processes(&place);
    for runtime in runtimes(&rig) {
        let lost = {
            let place = place.clone();
            let command = shell("sleep 601 & sleep 602");
            tokio::spawn(async move { exec::run(&runtime, &place, &command, None).await })
        };
        // The runtime tells the pid last.
        until("the command runs", || {
            let entries = fs::read_dir(&place.bundle).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| path.join("pid")).any(|pid| pid.exists())
        })
        .await;
        let ended = place.clone();
        tokio::task::spawn_blocking(move || exec::end_leftovers(&ended)).await.unwrap();
        until("it is gone", || processes(&place) == before).await;
        assert_eq!(lost.await.unwrap().unwrap().exit_code, 137);
        assert_eq!(traces(&place), 0);
    }
}

#[tokio::test]
async fn a_number_that_went_to_a_stranger_is_not_killed() {
    let (_rig, place) = sleeper();
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let leftover = place.bundle.join("exec-0000000000000000");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("pid"), stranger.id().to_string()).unwrap();
    exec::end_leftovers(&place);
    assert!(!leftover.exists());
    assert!(stranger.try_wait().unwrap().is_none(), "a process outside the container was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn what_a_command_leaves_running_keeps_its_cgroup_until_it_has_ended() {
    let (rig, place) = sleeper();
    let before = processes(&place);
    let run = |text: &str| {
        let (command, runtime, place) = (shell(text), rig.runtime.clone(), place.clone());
        async move { exec::run(&runtime, &place, &command, None).await.unwrap() }
    };
    for _ in 0..3 {
        let output = run("sleep 603 >/dev/null 2>&1 & exit 3").await;
        assert_eq!(output.exit_code, 3);
    }
    // They outlive every attempt that is made at once.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    run("true").await;
    assert_eq!(processes(&place).len(), before.len() + 3, "they run on");
    until("only the cgroup of the last one goes", || traces(&place) == 3).await;
    for pid in processes(&place).iter().filter(|pid| !before.contains(pid)) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL)
            .unwrap();
    }
    until("they have ended", || processes(&place) == before).await;
    run("true").await;
    until("their cgroups went", || traces(&place) == 0).await;
}
