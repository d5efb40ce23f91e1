//! What there is of a command outside its container, and its end with all its descendants.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::{Error, Place};
use super::inside::Inside;
use super::streams::{Ends, Wanted, pipes};
use super::{LINGER, agent, exit_code};
use crate::oci::{self, Exec, Runtime};
use crate::sys::{cgroup, process};

/// Scratch directories and sub-cgroups of commands are named by this and a random number.
const COMMAND: &str = "exec-";
/// Those of agents.
pub(super) const AGENT: &str = "agent-";

/// In a scratch directory: the command's pid.
const PID_FILE: &str = "pid";

/// What there is of one command, or of an agent, outside the container: a directory of its own in
/// the bundle, from before its cgroup is made until nobody waits for it any more.
#[derive(Debug, Clone)]
pub(super) struct Traces {
    pub(super) bundle: PathBuf,
    pub(super) cgroup: String,
    pub(super) name: String,
}

impl Traces {
    fn dir(&self) -> PathBuf {
        self.bundle.join(&self.name)
    }

    /// Ends the command and its descendants, and removes every trace. Blocks.
    pub(super) fn end(&self) {
        self.kill_family();
        let (cgroup, name) = (&self.cgroup, &self.name);
        let ended = cgroup::kill_sub(cgroup, name).and_then(|()| cgroup::remove_sub(cgroup, name));
        if let Err(error) = ended {
            tracing::warn!(cgroup, name, %error, "cannot end a command");
        }
        self.delete_dir();
    }

    /// Kills the command and all below it, also where no cgroup holds them together. Gives
    /// whether it runs. Blocks.
    fn kill_family(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        // The number of one that has ended may be another's by now.
        if !cgroup::processes(&self.cgroup).is_ok_and(|inside| inside.contains(&pid)) {
            return false;
        }
        kill(&process::family(pid), &self.cgroup);
        true
    }

    /// As the runtime has written it.
    pub(super) fn pid(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.dir().join(PID_FILE)).ok()?;
        text.trim().parse().ok()
    }

    /// The command is over, and what it has left running may go on. Blocks.
    pub(super) fn close(&self) {
        self.delete_dir();
        self.sweep();
    }

    fn delete_dir(&self) {
        let dir = self.dir();
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "cannot delete");
            }
            _ => {}
        }
    }

    /// Removes the empty cgroups of all of the container's commands that are over: this one's,
    /// and those of earlier ones that had left something running. Blocks.
    fn sweep(&self) {
        let ours = |name: &str| name.starts_with(COMMAND) || name.starts_with(AGENT);
        let over = |name: &str| ours(name) && !self.bundle.join(name).exists();
        if let Err(error) = cgroup::remove_empty_subs(&self.cgroup, over) {
            tracing::debug!(cgroup = self.cgroup, %error, "cannot sweep the cgroups of commands");
        }
    }
}

/// Ends what a daemon that is gone was executing in a container: nobody waits for it any
/// more. What a command that had ended left in the background is not touched. Blocks.
pub fn end_leftovers(place: &Place) {
    let Ok(entries) = std::fs::read_dir(&place.bundle) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let of_command = name.starts_with(COMMAND);
        if of_command || name.starts_with(AGENT) {
            let (bundle, cgroup) = (place.bundle.clone(), place.cgroup.clone());
            let traces = Traces { bundle, cgroup, name };
            if of_command { traces.end() } else { agent::end_leftover(&traces) }
        }
    }
}

/// A command, or an agent, that the runtime starts. Dropped early, it kills what runs.
pub(in super::super) struct Scratch {
    traces: Traces,
    pub(in super::super) dir: PathBuf,
    /// What the runtime takes for its cgroup; `None`: this runtime has no such thing.
    sub_cgroup: Option<String>,
    /// The process group of the keeper and the runtime.
    group: Option<i32>,
    over: bool,
}

impl Scratch {
    pub(in super::super) fn new(runtime: &Runtime, place: &Place) -> Result<Self, Error> {
        Self::named(COMMAND, runtime, place)
    }

    pub(super) fn named(prefix: &str, runtime: &Runtime, place: &Place) -> Result<Self, Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        let name = format!("{prefix}{:016x}", u64::from_le_bytes(random));
        let traces = Traces { bundle: place.bundle.clone(), cgroup: place.cgroup.clone(), name };
        let dir = traces.dir();
        std::fs::create_dir(&dir).map_err(Error::io("cannot make", &dir))?;
        let mut scratch = Self { traces, dir, sub_cgroup: None, group: None, over: false };
        if runtime.takes_sub_cgroup() {
            let made = cgroup::create_sub(&place.cgroup, &scratch.traces.name);
            let made =
                made.map_err(Error::io("cannot make a cgroup below", place.cgroup.as_ref()))?;
            scratch.sub_cgroup = Some(made);
        }
        Ok(scratch)
    }

    /// Starts the command with the runtime, as the container's own user, in its environment.
    /// `console`: where its terminal goes; `wanted`: which of its streams are pipes.
    pub(in super::super) fn start(
        &mut self,
        runtime: &Runtime,
        place: &Place,
        command: &[String],
        console: Option<&Path>,
        wanted: Wanted,
    ) -> Result<(Child, Ends), Error> {
        let inside = Inside::read(place)?;
        // The runtime gives the user what root of the container owns.
        let ([stdin, stdout, stderr], ends) = pipes(wanted, inside.root)
            .map_err(Error::io("cannot make the pipes of a command in", &place.bundle))?;
        let stdio = |stream: Option<OwnedFd>| stream.map_or_else(Stdio::null, Stdio::from);
        let mut started = self.prepare(runtime, place, command, console, &inside, 0)?;
        started.stdin(stdio(stdin)).stdout(stdio(stdout)).stderr(stdio(stderr));
        Ok((self.spawn(place, started)?, ends))
    }

    /// The runtime's command line, for [`Scratch::spawn`]. It hands descriptors 3 to
    /// 2 + `descriptors` on.
    pub(super) fn prepare(
        &self,
        runtime: &Runtime,
        place: &Place,
        command: &[String],
        console: Option<&Path>,
        inside: &Inside,
        descriptors: u32,
    ) -> Result<Command, Error> {
        let spec = Exec {
            container: place.id.as_str(),
            command,
            process: &inside.process,
            console_socket: console,
            sub_cgroup: self.sub_cgroup.as_deref(),
            pid_file: &self.dir.join(PID_FILE),
        };
        Ok(runtime.exec_with_descriptors(&spec, &self.dir, descriptors)?)
    }

    pub(super) fn spawn(&mut self, place: &Place, mut command: Command) -> Result<Child, Error> {
        let child = command
            // With the runtime that it has started: one group to kill.
            .process_group(0)
            .spawn()
            .map_err(Error::io("cannot start the runtime for a command in", &place.bundle))?;
        self.group = child.id().and_then(|pid| i32::try_from(pid).ok());
        Ok(child)
    }

    /// Waits for the command.
    pub(super) async fn ended(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let status = child.wait().await;
        // It has been reaped: its number may become another's.
        self.group = None;
        status
    }

    /// From now on nothing of it ends with this. Gives its traces, and whether it has a cgroup
    /// of its own.
    pub(super) fn let_go(mut self) -> (Traces, bool) {
        self.over = true;
        (self.traces.clone(), self.sub_cgroup.is_some())
    }

    /// Ends the command and its descendants, and waits for that.
    pub(super) async fn kill(mut self, child: &mut Child) {
        self.over = true;
        // A command that runs goes before its keeper, which then reaps it and ends: an orphan
        // would be left to the machine's init, and where that is a container's, for ever.
        let traces = self.traces.clone();
        let killed = tokio::task::spawn_blocking(move || traces.kill_family()).await;
        let reaped = killed.is_ok_and(|runs| runs) && timeout(LINGER, child.wait()).await.is_ok();
        if !reaped {
            // Else the runtime first: it must not start what is killed next.
            self.kill_group();
            drop(timeout(LINGER, child.wait()).await);
        }
        let traces = self.traces.clone();
        if tokio::task::spawn_blocking(move || traces.end()).await.is_err() {
            let cgroup = &self.traces.cgroup;
            tracing::error!(cgroup, "the task that ends a timed-out command panicked");
        }
    }

    /// The command ended by itself: what it started in the background may go on. Gives its exit
    /// code or, where the runtime ended before there was a command, the runtime's words.
    pub(in super::super) fn finished(mut self, status: ExitStatus) -> Result<i32, String> {
        let failure = if status.success() { None } else { oci::exec_failure(&self.dir) };
        self.over = true;
        self.traces.delete_dir();
        let traces = self.traces.clone();
        tokio::task::spawn_blocking(move || traces.sweep());
        failure.map_or_else(|| Ok(exit_code(status.into_raw())), Err)
    }

    /// Kills the keeper, the runtime and what it has started. Where no cgroup holds that
    /// together, this is what finds it: the runtime writes no pid before the command runs.
    fn kill_group(&self) {
        let Some(group) = self.group else { return };
        // Seen before the group goes: then nothing is its descendant any more.
        let family = process::family(group);
        if let Err(error) = process::signal_child(-group, libc::SIGKILL) {
            let cgroup = &self.traces.cgroup;
            tracing::warn!(cgroup, %error, "cannot kill a timed-out command");
        }
        kill(&family, &self.traces.cgroup);
    }
}

fn kill(family: &[OwnedFd], cgroup: &str) {
    for member in family {
        if let Err(error) = process::signal(member, libc::SIGKILL) {
            tracing::warn!(cgroup, %error, "cannot kill a command");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.over {
            self.kill_group();
            let traces = self.traces.clone();
            std::thread::spawn(move || traces.end());
        }
    }
}
