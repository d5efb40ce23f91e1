//! Commands through an agent, with real runc: they are to be what the runtime would have made
//! of them. A link to runc named youki stands for the runtimes that know no sub-cgroups.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use haled::container::exec::{self, Executor, Output, Program};
use haled::container::{Error, Place};
use haled::oci::Runtime;
use haled::oci::model::{Profile, UserRequest};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::commands::{cut_off, processes, runtimes, shell, sleeper, traces, until};
use super::rig::{Rig, Wanted, random};

fn program() -> Arc<Program> {
    let file = crate::daemon::helper_dir().join("haled-agent");
    Arc::new(Program::load(&file).unwrap())
}

/// With an agent in the container, as it is after the second of two commands.
async fn with_agent(runtime: &Runtime, place: &Place) -> Arc<Executor> {
    let executor =
        Arc::new(Executor::new(Some(program()), Arc::new(runtime.clone()), place.clone()));
    for _ in 0..2 {
        assert_eq!(out(&executor, "echo there").await, "there\n");
    }
    settled(place).await;
    executor
}

async fn run(executor: &Executor, text: &str) -> Output {
    executor.run(&shell(text), None).await.unwrap()
}

async fn out(executor: &Executor, text: &str) -> String {
    let output = run(executor, text).await;
    assert_eq!(output.exit_code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A waiter tells the end of its command and then ends itself.
async fn settled(place: &Place) {
    until("there is an agent and no waiter", || agents(place).len() == 1).await;
}

/// The agent and its waiters.
fn agents(place: &Place) -> Vec<i32> {
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    processes(place).into_iter().filter(|pid| name(*pid) == "haled-agent\n").collect()
}

/// The process of the container that is `sleep TIME`.
fn sleeping(place: &Place, time: &str) -> Option<i32> {
    let words = format!("sleep\0{time}\0");
    let is_it =
        |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|of| of == words.as_bytes());
    processes(place).into_iter().find(|pid| is_it(*pid))
}

fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").map_or('-', |(_, rest)| rest.chars().next().unwrap())
}

fn kill(pid: i32) {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn place_of(rig: &mut Rig, wanted: &Wanted) -> Place {
    let id = haled::id::ContainerId::try_from(random().repeat(8)).unwrap();
    rig.id = id.to_string();
    rig.start(wanted);
    Place { id, bundle: rig.path("bundle"), cgroup: rig.cgroup_path() }
}

/// All of a process that it has by inheritance.
const SELF: &str = "grep -Ev '^(Pid|Tgid|NSpid|NStgid|NSsid|NSpgid|PPid|SigQ|Vm|Rss|Hugetlb|voluntary|nonvol)' /proc/self/status
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/attr/current /proc/self/mountinfo
    env; pwd; umask; id; ls /proc/self/fd
    for fd in 0 1 2; do stat -L -c '%F %u %a' /proc/self/fd/$fd; readlink /proc/self/fd/$fd; done
    readlink /proc/self/ns/*; cat /proc/self/cgroup; cat /proc/self/timerslack_ns
    echo through the path >/dev/stdout; echo and this >/dev/stderr";

/// Without what is another's name for the same thing.
fn likened(text: &str) -> String {
    let number = |text: &str, mark: &str| -> String {
        let mut parts = text.split(mark);
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |all, part| {
            all + mark + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
        })
    };
    let text = text.replace("agent-", "exec-");
    number(&number(&text, "exec-"), "pipe:[")
}

#[tokio::test]
async fn a_command_through_an_agent_is_as_one_by_the_runtime() {
    let root = Wanted::shell("sleep 600");
    let mut app = Wanted::shell("sleep 600");
    app.image_user = "app".to_owned();
    app.security.user = UserRequest { supplemental_groups: vec![7], ..UserRequest::default() };
    app.security.capabilities.ambient = vec!["NET_RAW".to_owned()];
    app.security.no_new_privs = true;
    app.security.seccomp = Profile::RuntimeDefault;
    app.working_dir = "/data".to_owned();
    app.image_env = vec!["A=of the image".to_owned(), "EMPTY=".to_owned()];
    app.resources.oom_score_adj = 900;
    let mut privileged = Wanted::shell("sleep 600");
    privileged.security.privileged = true;
    privileged.working_dir = "/home/app".to_owned();
    for wanted in [root, app, privileged] {
        let mut rig = Rig::new();
        let place = place_of(&mut rig, &wanted);
        let executor = with_agent(&rig.runtime, &place).await;
        // The parent of a runtime's command is outside.
        let parent = "grep PPid /proc/self/status; grep PPid /proc/$$/status";
        let by_runtime =
            |text: &str| exec_by_runtime(rig.runtime.clone(), place.clone(), shell(text));
        let (theirs, ours) = (by_runtime(parent).await, run(&executor, parent).await);
        assert!(String::from_utf8_lossy(&theirs.stdout).contains("PPid:\t0\n"));
        assert!(!String::from_utf8_lossy(&ours.stdout).contains("PPid:\t0\n"));

        let (theirs, ours) = (by_runtime(SELF).await, run(&executor, SELF).await);
        let (theirs, ours) = [theirs, ours]
            .map(|output| {
                let text = [output.stdout, output.stderr].concat();
                (output.exit_code, likened(&String::from_utf8_lossy(&text)))
            })
            .into();
        assert!(
            theirs.1.contains("CapEff:") && theirs.1.contains("through the path"),
            "{theirs:?}"
        );
        assert_eq!(ours.0, theirs.0);
        for (ours, theirs) in ours.1.lines().zip(theirs.1.lines()) {
            assert_eq!(ours, theirs, "of user {:?}", wanted.image_user);
        }
        assert_eq!(ours, theirs);
    }
}

async fn exec_by_runtime(runtime: Runtime, place: Place, command: Vec<String>) -> Output {
    exec::run(&runtime, &place, &command, None).await.unwrap()
}

#[tokio::test]
async fn a_command_alone_has_no_agent() {
    let (rig, place) = sleeper();
    let executor = Executor::new(Some(program()), Arc::new(rig.runtime.clone()), place.clone());
    assert_eq!(out(&executor, "echo one").await, "one\n");
    assert_eq!(agents(&place), [0; 0]);
}

#[tokio::test]
async fn ends_outputs_and_errors_are_the_runtimes() {
    let (rig, place) = sleeper();
    let executor = with_agent(&rig.runtime, &place).await;
    let script = place.bundle.join("rootfs/tmp/script");
    fs::write(&script, "echo no interpreter").unwrap();
    std::process::Command::new("chmod").arg("755").arg(&script).status().unwrap();
    let plain = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for command in [
        shell("echo out; echo err >&2; exit 7"),
        shell("kill -TERM $$"),
        shell("kill -KILL $$"),
        shell("head -c 300000 /dev/zero; head -c 70000 /dev/zero >&2"),
        shell("cat; echo and nothing to read"),
        plain(&["echo", "", "two  words", "\u{e9}\n"]),
        plain(&["/bin/echo", "by its path"]),
        plain(&["no-such-program"]),
        plain(&["/no/such/program"]),
        plain(&["/tmp"]),
        plain(&["tmp"]),
        plain(&["/etc/passwd"]),
        plain(&["/tmp/script"]),
        plain(&["bin/echo", "from the working directory"]),
        plain(&["echo", &"x".repeat(100_000)]),
        vec!["echo".to_owned(); 1500],
    ] {
        let theirs = exec::run(&rig.runtime, &place, &command, None).await;
        let ours = executor.run(&command, None).await;
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => assert!(ours == theirs, "{:?}", &command[..1]),
            (Err(ours), Err(theirs)) => assert_eq!(ours.to_string(), theirs.to_string()),
            (ours, theirs) => panic!("{ours:?}, and by the runtime {theirs:?}"),
        }
    }
    settled(&place).await;
}

#[tokio::test]
async fn many_commands_at_once_have_their_own_outputs() {
    let (rig, place) = sleeper();
    let before = processes(&place).len();
    let executor =
        Arc::new(Executor::new(Some(program()), Arc::new(rig.runtime.clone()), place.clone()));
    let commands = (0..40).map(|number| {
        let executor = executor.clone();
        tokio::spawn(async move {
            let output = run(&executor, &format!("echo {number}; exit {number}")).await;
            assert_eq!(output.exit_code, number);
            assert_eq!(output.stdout, format!("{number}\n").as_bytes());
        })
    });
    for command in commands.collect::<Vec<_>>() {
        command.await.unwrap();
    }
    settled(&place).await;
    until("nothing else is left", || processes(&place).len() == before + 1).await;
}

#[tokio::test]
async fn nothing_that_a_command_started_outlives_its_limit() {
    let (rig, place) = sleeper();
    // Sessions of their own, orphans, and one that forks as fast as it can.
    let stubborn = shell(
        "setsid sleep 601 & (setsid sleep 602 &) ; trap '' TERM HUP
         f() { (sleep 0; f) & } ; f
         sleep 603",
    );
    for runtime in runtimes(&rig) {
        let executor = with_agent(&runtime, &place).await;
        let before = processes(&place);
        let limit = Some(Duration::from_secs(1));
        let error = executor.run(&stubborn, limit).await.unwrap_err();
        assert!(matches!(error, Error::ExecTimeout { .. }), "{error}");
        assert_eq!(processes(&place), before, "the agent is there, and nothing else");

        cut_off(executor.run(&stubborn, None), &place, before.len()).await;
        until("a dropped command is gone", || processes(&place) == before).await;
        assert_eq!(out(&executor, "echo on").await, "on\n");
        executor.dismiss();
        until("the agent and its traces are gone", || traces(&place) == 0).await;
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_goes_on_and_no_zombie_stays() {
    let (rig, place) = sleeper();
    let executor = with_agent(&rig.runtime, &place).await;
    let before = processes(&place);
    run(&executor, "sleep 604 >/dev/null 2>&1 & (sleep 0.2 >/dev/null 2>&1 &) ; exit 3").await;
    until("one of them has ended and is no zombie", || processes(&place).len() == before.len() + 1)
        .await;
    let limit = Some(Duration::from_millis(300));
    executor.run(&shell("sleep 605"), limit).await.unwrap_err();
    let left: Vec<_> = processes(&place).into_iter().filter(|pid| !before.contains(pid)).collect();
    assert_eq!(left.len(), 1, "another's limit is none of its business");
    assert_eq!(state(left[0]), 'S');
    // Also without an agent.
    let rest = executor.rest().await;
    assert_eq!(agents(&place), [0; 0]);
    assert_eq!(state(left[0]), 'S');
    assert_eq!(out(&executor, "echo by the runtime").await, "by the runtime\n");
    assert_eq!(agents(&place), [0; 0]);
    drop(rest);
    assert_eq!(out(&executor, "echo by an agent").await, "by an agent\n");
    settled(&place).await;
    kill(left[0]);
    executor.dismiss();
    until("only the container is left", || processes(&place).len() == before.len() - 1).await;
    // What could not be removed then is with the next.
    exec_by_runtime(rig.runtime.clone(), place.clone(), shell("true")).await;
    until("no trace is left", || traces(&place) == 0).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_is_an_error_for_what_ran_and_for_nothing_else() {
    let (rig, place) = sleeper();
    for runtime in runtimes(&rig) {
        let executor = with_agent(&runtime, &place).await;
        // The waiter goes, and what it should have waited for.
        let killer = shell("setsid sleep 606 & kill -KILL $PPID; sleep 607");
        let error = executor.run(&killer, None).await.unwrap_err().to_string();
        assert!(error.contains("killed the process of haled beside it"), "{error}");
        until("nothing is left", || processes(&place).len() == 1).await;
        assert_eq!(out(&executor, "echo on").await, "on\n");

        settled(&place).await;
        let agent = agents(&place)[0];
        kill(agent);
        assert_eq!(out(&executor, "echo and on").await, "and on\n");
        assert_eq!(out(&executor, "echo and on").await, "and on\n");
        settled(&place).await;
        assert_ne!(agents(&place)[0], agent);
        executor.dismiss();
        until("no trace is left", || traces(&place) == 0).await;
    }
}

#[tokio::test]
async fn a_command_that_signals_all_it_sees_tells_its_end() {
    let mut rig = Rig::new();
    let place = place_of(&mut rig, &Wanted::shell("sleep 600"));
    let executor = with_agent(&rig.runtime, &place).await;
    let agent = agents(&place);
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1", "ALRM", "PIPE"] {
        let output = run(&executor, &format!("kill -{signal} -1; exit 4")).await;
        assert_eq!(output.exit_code, 4, "{signal}");
    }
    settled(&place).await;
    assert_eq!(agents(&place), agent);
}

#[tokio::test]
async fn a_command_that_ends_its_container_is_killed_with_it() {
    for through_agent in [false, true] {
        let mut rig = Rig::new();
        let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
        let place = place_of(&mut rig, &Wanted::shell(script));
        let command = shell("echo last words; kill -TERM 1; sleep 600");
        let output = if through_agent {
            with_agent(&rig.runtime, &place).await.run(&command, None).await
        } else {
            exec::run(&rig.runtime, &place, &command, None).await
        };
        let output = output.unwrap();
        assert_eq!((output.exit_code, output.stdout.as_slice()), (137, &b"last words\n"[..]));
    }
}

#[test]
fn what_a_lost_daemons_agent_was_executing_ends_and_the_rest_goes_on() {
    let (rig, place) = sleeper();
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for runtime in runtimes(&rig) {
        let lost = single();
        let executor = lost.block_on(async {
            let executor = with_agent(&runtime, &place).await;
            run(&executor, "sleep 608 >/dev/null 2>&1 &").await;
            executor
        });
        let command = shell("setsid sleep 609 & sleep 610");
        let mut running = Box::pin(executor.run(&command, None));
        let runs = || ["609", "610"].iter().all(|time| sleeping(&place, time).is_some());
        lost.block_on(async {
            tokio::select! {
                _ = &mut running => panic!("it ended by itself"),
                () = until("it runs", runs) => {}
            }
        });
        // Gone without a word, as by SIGKILL: nothing is polled or dropped any more.
        executor.dismiss();
        std::mem::forget(running);
        std::mem::forget(lost);

        exec::end_leftovers(&place);
        single().block_on(async {
            // Only the container, and what an ended command had left.
            until("the rest is gone", || processes(&place).len() == 2).await;
            kill(sleeping(&place, "608").expect("it goes on"));
            until("it has ended", || processes(&place).len() == 1).await;
            exec::run(&runtime, &place, &shell("true"), None).await.unwrap();
            until("no trace is left", || traces(&place) == 0).await;
        });
    }
}

#[tokio::test]
async fn an_agent_that_cant_begin_is_not_needed() {
    let (rig, place) = sleeper();
    // It can be executed, and ends at once.
    let program = Arc::new(Program::load("/bin/true".as_ref()).unwrap());
    let executor = Executor::new(Some(program), Arc::new(rig.runtime.clone()), place.clone());
    for _ in 0..4 {
        assert_eq!(out(&executor, "echo on").await, "on\n");
    }
    let nonsense = rig.path("nonsense");
    fs::write(&nonsense, "no program").unwrap();
    let program = Arc::new(Program::load(&nonsense).unwrap());
    let executor = Executor::new(Some(program), Arc::new(rig.runtime.clone()), place.clone());
    for _ in 0..4 {
        assert_eq!(out(&executor, "echo on").await, "on\n");
    }
    until("no trace is left", || traces(&place) == 0).await;
}

#[tokio::test]
async fn a_limit_of_processes_is_told_as_by_the_runtime() {
    let mut rig = Rig::new();
    let mut wanted = Wanted::shell("sleep 600");
    wanted.resources.pids_limit = Some(20);
    let place = place_of(&mut rig, &wanted);
    let executor = with_agent(&rig.runtime, &place).await;
    let fill = "i=0; while [ $i -lt 40 ]; do sleep 611 >/dev/null 2>&1 & i=$((i+1)); done; wait";
    let limit = Some(Duration::from_secs(2));
    executor.run(&shell(fill), limit).await.map(drop).unwrap_or_default();
    assert_eq!(out(&executor, "echo on").await, "on\n");
}
