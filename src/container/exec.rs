//! Running a command in a container and waiting for it: ExecSync and exec probes.
//!
//! Every command gets a cgroup of its own below the container's, so that at its time limit
//! the command goes with all its descendants, whatever they did to escape it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::{LinuxIdMapping, Process};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Error, Place};
use crate::meter::{self, System};
use crate::oci::{self, Exec, Runtime};
use crate::sys::{cgroup, process};

/// What is kept of each of a command's two outputs, in bytes; more is read and dropped. Both
/// together stay below the 16 MiB that CRI clients accept in a message.
pub const MAX_OUTPUT: usize = 7 * 1024 * 1024;

/// How long a child that outlives the command may keep an output open before the answer is
/// given without what it may yet write.
const LINGER: Duration = Duration::from_millis(500);

/// Scratch directories and sub-cgroups are named by this and a random number.
const PREFIX: &str = "exec-";

/// In a scratch directory: the command's pid.
const PID_FILE: &str = "pid";

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// 128 + signal for one that was killed.
    pub exit_code: i32,
    /// At most `MAX_OUTPUT`.
    pub stdout: Vec<u8>,
    /// At most `MAX_OUTPUT`.
    pub stderr: Vec<u8>,
}

/// Runs `command` as the container's own user, in its environment. `limit`: `None` is none.
/// Dropping the future kills the command and its descendants.
pub async fn run(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    limit: Option<Duration>,
) -> Result<Output, Error> {
    let work = run_unmeasured(runtime, place, command, limit);
    meter::timed(System::Oci, &runtime.name, "exec", work).await
}

async fn run_unmeasured(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    limit: Option<Duration>,
) -> Result<Output, Error> {
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::Invalid(format!("no command was given to run in {}", place.id)));
    }
    let failed = |why| Error::exec(place, command, why);
    let deadline = limit.map(|limit| Instant::now() + limit);

    let mut scratch = Scratch::new(runtime, place)?;
    let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
    let (mut child, ends) = scratch.start(runtime, place, command, None, wanted)?;
    let mut output = Output::default();
    let Ends { stdout, stderr, .. } = ends;

    let ended = {
        let outputs = async {
            tokio::join!(collect(stdout, &mut output.stdout), collect(stderr, &mut output.stderr))
        };
        tokio::pin!(outputs);
        let mut drained = false;
        let status = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut outputs, if !drained => drained = true,
                }
            }
        };
        let status = match deadline {
            Some(deadline) => timeout_at(deadline, status).await.ok(),
            None => Some(status.await),
        };
        if status.is_some() {
            // It has been reaped: its number may become another's.
            scratch.group = None;
        }
        if status.is_some() && !drained {
            // Errors only when the time is up, and then the answer is due.
            drop(timeout(LINGER, &mut outputs).await);
        }
        status
    };
    let Some(status) = ended else {
        scratch.kill(&mut child).await;
        let limit = limit.unwrap_or_default();
        let name = command[0].clone();
        return Err(Error::ExecTimeout { id: place.id.clone(), command: name, limit });
    };
    let status = status.map_err(|error| failed(error.to_string()))?;
    output.exit_code = scratch.finished(status).map_err(failed)?;
    Ok(output)
}

/// Ends what a daemon that is gone was executing in a container: nobody waits for it any
/// more. What a command that had ended left in the background is not touched. Blocks.
pub fn end_leftovers(place: &Place) {
    let Ok(entries) = std::fs::read_dir(&place.bundle) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(PREFIX) {
            Traces { bundle: place.bundle.clone(), cgroup: place.cgroup.clone(), name }.end();
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The container's process as config.json has it, and who on the host is root of its user
/// namespace, where it has one.
fn read_process(place: &Place) -> Result<(Process, Option<(u32, u32)>), Error> {
    let lacking = || Error::Invalid(format!("{} has no process", place.config_file().display()));
    let spec = place.spec()?;
    let root = |mappings: &Option<Vec<LinuxIdMapping>>| {
        let mapping = mappings.as_ref()?.iter().find(|mapping| mapping.container_id() == 0)?;
        Some(mapping.host_id())
    };
    let owner = spec
        .linux()
        .as_ref()
        .and_then(|linux| root(linux.uid_mappings()).zip(root(linux.gid_mappings())));
    Ok((spec.process().clone().ok_or_else(lacking)?, owner))
}

/// Which streams a command is to have as pipes; the others are /dev/null.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// The ends of a command's pipes that stay here.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: Option<pipe::Receiver>,
    pub(super) stderr: Option<pipe::Receiver>,
}

/// Makes them, for `owner`: a pipe of the host's root can't be opened by its path in /dev by
/// anyone in a user namespace.
fn pipes(wanted: Wanted, owner: Option<(u32, u32)>) -> io::Result<([Stdio; 3], Ends)> {
    let pipe = || {
        let (reader, writer) = io::pipe()?;
        if let Some((user, group)) = owner {
            // Both ends are one inode's.
            std::os::unix::fs::fchown(&writer, Some(user), Some(group))?;
        }
        Ok::<_, io::Error>((reader, writer))
    };
    let output = |wanted: bool| {
        if !wanted {
            return Ok::<_, io::Error>((Stdio::null(), None));
        }
        let (reader, writer) = pipe()?;
        Ok((writer.into(), Some(pipe::Receiver::from_owned_fd(reader.into())?)))
    };
    let mut ends = Ends::default();
    let mut stdin = Stdio::null();
    if wanted.stdin {
        let (reader, writer) = pipe()?;
        stdin = reader.into();
        ends.stdin = Some(pipe::Sender::from_owned_fd(writer.into())?);
    }
    let (stdout, ours) = output(wanted.stdout)?;
    ends.stdout = ours;
    let (stderr, ours) = output(wanted.stderr)?;
    ends.stderr = ours;
    Ok(([stdin, stdout, stderr], ends))
}

/// Reads to the end, keeping at most `MAX_OUTPUT`. A read error ends it like an end of file:
/// what was read counts.
async fn collect(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = MAX_OUTPUT - into.len();
        into.extend_from_slice(&chunk[..read.min(room)]);
    }
}

/// What there is of one command outside the container: a directory of its own in the bundle,
/// from before its cgroup is made until nobody waits for the command any more.
#[derive(Clone)]
struct Traces {
    bundle: PathBuf,
    cgroup: String,
    name: String,
}

impl Traces {
    fn dir(&self) -> PathBuf {
        self.bundle.join(&self.name)
    }

    /// Ends the command and its descendants, and removes every trace. Blocks.
    fn end(&self) {
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
        let pid = std::fs::read_to_string(self.dir().join(PID_FILE)).ok();
        let Some(pid) = pid.and_then(|text| text.trim().parse().ok()) else { return false };
        // The number of one that has ended may be another's by now.
        if !cgroup::processes(&self.cgroup).is_ok_and(|inside| inside.contains(&pid)) {
            return false;
        }
        kill(&process::family(pid), &self.cgroup);
        true
    }

    fn delete_dir(&self) {
        let dir = self.dir();
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "cannot delete");
        }
    }

    /// Removes the empty cgroups of all of the container's commands that are over: this one's,
    /// and those of earlier ones that had left something running. Blocks.
    fn sweep(&self) {
        let over = |name: &str| name.starts_with(PREFIX) && !self.bundle.join(name).exists();
        if let Err(error) = cgroup::remove_empty_subs(&self.cgroup, over) {
            tracing::debug!(cgroup = self.cgroup, %error, "cannot sweep the cgroups of commands");
        }
    }
}

/// A command under way. Dropped early, it kills what runs.
pub(super) struct Scratch {
    traces: Traces,
    pub(super) dir: PathBuf,
    /// What the runtime takes for its cgroup; `None`: this runtime has no such thing.
    sub_cgroup: Option<String>,
    /// The process group of the keeper and the runtime.
    group: Option<i32>,
    over: bool,
}

impl Scratch {
    pub(super) fn new(runtime: &Runtime, place: &Place) -> Result<Self, Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(random));
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
    pub(super) fn start(
        &mut self,
        runtime: &Runtime,
        place: &Place,
        command: &[String],
        console: Option<&Path>,
        wanted: Wanted,
    ) -> Result<(Child, Ends), Error> {
        let (of_container, owner) = read_process(place)?;
        let ([stdin, stdout, stderr], ends) = pipes(wanted, owner)
            .map_err(Error::io("cannot make the pipes of a command in", &place.bundle))?;
        let spec = Exec {
            container: place.id.as_str(),
            command,
            process: &of_container,
            console_socket: console,
            sub_cgroup: self.sub_cgroup.as_deref(),
            pid_file: &self.dir.join(PID_FILE),
        };
        let child = runtime
            .exec(&spec, &self.dir)?
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            // With the runtime that it has started: one group to kill.
            .process_group(0)
            .spawn()
            .map_err(Error::io("cannot start the runtime for a command in", &place.bundle))?;
        self.group = child.id().and_then(|pid| i32::try_from(pid).ok());
        Ok((child, ends))
    }

    /// Ends the command and its descendants, and waits for that.
    async fn kill(mut self, child: &mut Child) {
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
    pub(super) fn finished(mut self, status: ExitStatus) -> Result<i32, String> {
        let failure = if status.success() { None } else { oci::exec_failure(&self.dir) };
        self.over = true;
        self.traces.delete_dir();
        let traces = self.traces.clone();
        tokio::task::spawn_blocking(move || traces.sweep());
        failure.map_or_else(|| Ok(exit_code(status)), Err)
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
