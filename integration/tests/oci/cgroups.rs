//! cgroups of this machine.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haled::sys::cgroup;

use super::rig::Cgroup;
use crate::daemon::PATIENCE;

/// A process that is reaped whatever happens.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// Waits for its end, which must come by SIGKILL.
    fn assert_killed(&mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(self.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The lines of /proc/PID/cgroup that don't name this path, the root's own hierarchies aside.
fn elsewhere(pid: i32, path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().filter(|line| !line.ends_with(path)).map(str::to_owned).collect()
}

#[test]
fn a_cgroup_is_made_joined_killed_and_removed() {
    let group = Cgroup::new();
    let path = format!("{}/pod/container", group.0);
    cgroup::create(&path).unwrap();
    cgroup::create(&path).unwrap();
    let mut sleeper = Sleeper::new();
    cgroup::join(&path, sleeper.pid()).unwrap();
    assert_eq!(elsewhere(sleeper.pid(), &path), Vec::<String>::new());
    // Seen from above too.
    assert_eq!(cgroup::processes(&path).unwrap(), [sleeper.pid()]);
    assert_eq!(cgroup::processes(&group.0).unwrap(), [sleeper.pid()]);
    assert!(cgroup::oom_events(&path).exists());

    cgroup::kill(&group.0).unwrap();
    sleeper.assert_killed();
    assert_eq!(cgroup::processes(&group.0).unwrap(), Vec::<i32>::new());
    cgroup::remove(&group.0).unwrap();
    assert!(!cgroup::oom_events(&path).exists());
}

#[test]
fn what_isnt_there_is_no_error_to_empty_or_remove_but_to_join() {
    let group = Cgroup::new();
    cgroup::kill(&group.0).unwrap();
    cgroup::remove(&group.0).unwrap();
    cgroup::kill_sub(&group.0, "x").unwrap();
    cgroup::remove_sub(&group.0, "x").unwrap();
    assert_eq!(cgroup::processes(&group.0).unwrap(), Vec::<i32>::new());
    let own = i32::try_from(std::process::id()).unwrap();
    let error = cgroup::join(&group.0, own).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&group.0), "{error}");
    assert_eq!(cgroup::create_sub(&group.0, "x").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_busy_cgroup_isnt_removed_and_says_so() {
    let group = Cgroup::new();
    cgroup::create(&group.0).unwrap();
    let sleeper = Sleeper::new();
    cgroup::join(&group.0, sleeper.pid()).unwrap();
    let error = cgroup::remove(&group.0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
    drop(sleeper);
    cgroup::remove(&group.0).unwrap();
}

#[test]
fn a_whole_tree_of_processes_that_forks_is_killed() {
    let group = Cgroup::new();
    cgroup::create(&group.0).unwrap();
    let mut shell = Command::new("sh");
    // Each round leaves a process behind; it goes on until it is killed.
    shell.args(["-c", "read go; while :; do sleep 600 & sleep 0.01; done"]);
    let mut shell = Sleeper(shell.stdin(Stdio::piped()).spawn().unwrap());
    cgroup::join(&group.0, shell.pid()).unwrap();
    std::io::Write::write_all(&mut shell.0.stdin.take().unwrap(), b"go\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while cgroup::processes(&group.0).unwrap().len() < 20 {
        assert!(Instant::now() < deadline, "the shell doesn't fork");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Its own limit may be too short for so many where a processor is emulated.
    while let Err(error) = cgroup::kill(&group.0) {
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(Instant::now() < deadline, "{error}");
    }
    shell.assert_killed();
    assert_eq!(cgroup::processes(&group.0).unwrap(), Vec::<i32>::new());
}

#[test]
fn frozen_processes_are_killed() {
    let group = Cgroup::new();
    cgroup::create(&group.0).unwrap();
    let mut sleeper = Sleeper::new();
    cgroup::join(&group.0, sleeper.pid()).unwrap();
    let (controller, file, word) = match cgroup::version() {
        cgroup::Version::V1 => ("freezer", "freezer.state", "FROZEN"),
        cgroup::Version::V2 => ("", "cgroup.freeze", "1"),
    };
    let directory = cgroup::directory(controller, &group.0).unwrap();
    std::fs::write(directory.join(file), word).unwrap();
    cgroup::kill(&group.0).unwrap();
    sleeper.assert_killed();
}

#[test]
fn a_sub_cgroup_is_emptied_without_its_parent() {
    let group = Cgroup::new();
    cgroup::create(&group.0).unwrap();
    let argument = cgroup::create_sub(&group.0, "exec-1").unwrap();
    let controller = argument
        .split_once(':')
        .map_or("pids", |(controllers, _)| controllers.split(',').next().unwrap());
    let directory = cgroup::directory(controller, &format!("{}/exec-1", group.0)).unwrap();
    let (mut inside, beside) = (Sleeper::new(), Sleeper::new());
    cgroup::join(&group.0, beside.pid()).unwrap();
    join_directory(&directory, inside.pid());
    assert_eq!(cgroup::processes_sub(&group.0, "exec-1").unwrap(), [inside.pid()]);

    cgroup::kill_sub(&group.0, "exec-1").unwrap();
    inside.assert_killed();
    cgroup::remove_sub(&group.0, "exec-1").unwrap();
    assert!(!directory.exists());
    assert_eq!(cgroup::processes(&group.0).unwrap(), [beside.pid()]);
}

fn join_directory(directory: &Path, pid: i32) {
    std::fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
}
