//! The pause process's birth: from clone to exec, inside its new namespaces.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::complaint::complain;
use super::sysctl::{self, Own};
use super::wire::{Process, SandboxSpec};
use crate::sys::birthplace::Birthplace;
use crate::sys::{clone, fds, loopback, oom, process, wait};

/// How long it may take until exec has succeeded.
const LIMIT: Duration = Duration::from_secs(10);

/// What the child says at most about its failure, in bytes.
const MAX_COMPLAINT: u64 = 4 * 1024;

/// The name pause has in ps(1).
const NAME: &str = "haled-pause";

/// Makes the namespaces and runs pause in them. On failure nothing is left.
pub(super) fn give(spec: &SandboxSpec) -> Result<Process, String> {
    let own = Own { network: spec.network, ipc: spec.ipc };
    let sysctls = spec
        .sysctls
        .iter()
        .map(|(name, value)| Ok((sysctl::file(name, own)?, value.as_str())))
        .collect::<Result<Vec<_>, String>>()?;
    let program = CString::new(spec.pause.as_os_str().as_bytes())
        .map_err(|_| format!("{} is no path", spec.pause.display()))?;
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
    let (go, mapped) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
    let cgroup = spec.cgroup.as_ref().map(Birthplace::open).transpose();
    let cgroup = cgroup.map_err(|error| error.to_string())?.flatten();
    let child = || {
        let complaint = match live(spec, &sysctls, &program, go) {
            Err(complaint) => complaint,
            Ok(never) => match never {},
        };
        // Should the parent be gone, there's nobody to tell.
        let told = File::from(writer).write_all(complaint.as_bytes());
        if told.is_ok() { 1 } else { 2 }
    };
    // The closure owns the writing end: here it is closed once the child has its copy.
    let pid =
        clone::into(flags(spec), cgroup.as_ref().map(File::as_fd), child).map_err(|error| {
            format!("cannot make the sandbox's namespaces with pause in its cgroup: {error}")
        })?;
    let born = map_users(spec, pid, mapped).and_then(|()| listen(reader, spec, pid));
    let born = born.and_then(|()| {
        let start_ticks = process::start_ticks(pid)
            .map_err(|error| format!("the pause process has ended already: {error}"))?;
        Ok(Process { pid, start_ticks })
    });
    if born.is_err() {
        bury(pid);
    }
    born
}

/// Kills a pause process and reaps it, unless it has been reaped already: its number may be
/// another's by then.
pub(super) fn bury(pid: i32) {
    if !process::parent(pid).is_ok_and(|parent| parent == std::process::id() as i32) {
        return;
    }
    if let Err(error) = process::signal_child(pid, libc::SIGKILL) {
        complain(format_args!("cannot kill the pause process {pid}: {error}"));
        return;
    }
    // After SIGKILL an end is certain; it is the reaper's should it not be quick.
    let until = Instant::now() + LIMIT;
    while matches!(wait::reap(pid), Ok(None)) && process::start_ticks(pid).is_ok() {
        if Instant::now() > until {
            complain(format_args!("the killed pause process {pid} doesn't end"));
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What only the parent may do for a child in a new user namespace.
fn map_users(spec: &SandboxSpec, pid: i32, mapped: OwnedFd) -> Result<(), String> {
    let Some(maps) = &spec.userns else { return Ok(()) };
    maps.write(pid)
        .map_err(|error| format!("cannot map the ids of the sandbox's user namespace: {error}"))?;
    oom::set_clamped(pid, spec.oom_score_adj)
        .map_err(|error| format!("cannot set oom_score_adj of pause: {error}"))?;
    File::from(mapped)
        .write_all(&[1])
        .map_err(|error| format!("the pause process has ended already: {error}"))
}

fn flags(spec: &SandboxSpec) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWUSER, spec.userns.is_some());
    flags.set(CloneFlags::CLONE_NEWNET, spec.network);
    flags.set(CloneFlags::CLONE_NEWIPC, spec.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.uts);
    flags.set(CloneFlags::CLONE_NEWPID, spec.pid);
    flags
}

/// The child's whole life in this program.
fn live(
    spec: &SandboxSpec,
    sysctls: &[(std::path::PathBuf, &str)],
    program: &CString,
    go: OwnedFd,
) -> Result<Infallible, String> {
    let said = |what: &str, error: io::Error| format!("{what}: {error}");
    rustix::process::setsid().map_err(|error| said("setsid", error.into()))?;
    clone::reset_signals().map_err(|error| said("cannot reset signals", error))?;
    if spec.network {
        loopback::up().map_err(|error| said("cannot bring the loopback interface up", error))?;
    }
    if spec.uts && !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(|error| {
            said(&format!("cannot set hostname {:?}", spec.hostname), error.into())
        })?;
    }
    for (file, value) in sysctls {
        set(file, value).map_err(|error| {
            said(&format!("cannot write {value:?} to {}", file.display()), error)
        })?;
    }
    if spec.userns.is_none() {
        oom::set_own_clamped(spec.oom_score_adj)
            .map_err(|error| said("cannot set oom_score_adj", error))?;
    }
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| said("/dev/null", error))?;
    for standard in [unistd::dup2_stdin, unistd::dup2_stdout, unistd::dup2_stderr] {
        standard(&null).map_err(|error| said("dup2", error.into()))?;
    }
    // Late, as from here on it has the pod's weight, which may be little on a busy machine; and
    // while it may write there.
    if let Some(cgroup) = &spec.cgroup {
        cgroup.enter().map_err(|error| error.to_string())?;
    }
    if spec.userns.is_some() {
        become_root(go).map_err(|error| said("cannot become root of the user namespace", error))?;
    }
    fds::close_from_on_exec(3).map_err(|error| said("close_range", error))?;
    // The kernel drops what a PID namespace's init has no handler for, unless it is blocked:
    // so that a shutdown at once isn't lost, they are blocked before pause blocks them itself.
    let held: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
    held.thread_set_mask().map_err(|error| said("cannot block signals", error.into()))?;
    let (name, pause) = (CString::new(NAME).map_err(|_| NAME.to_owned())?, spec.pause.display());
    let mut what = format!("cannot execute {pause}");
    if !spec.label.is_empty() {
        let label = &spec.label;
        process::label_next(label).map_err(|error| {
            said(&format!("cannot give pause the SELinux label {label}"), error)
        })?;
        what = format!("{what} as {label}, which the policy must allow");
    }
    unistd::execve(program, &[name.as_c_str()], &[] as &[&std::ffi::CStr])
        .map_err(|error| said(&what, error.into()))
}

/// Waits until ids are mapped and takes those of the new namespace's root. Before, this child
/// still has the ids of the host's root, which may write every parameter of its namespaces.
fn become_root(go: OwnedFd) -> io::Result<()> {
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    // This child has a writing end, too: no end of file tells that the parent is gone.
    if poll(&mut [PollFd::new(&go, PollFlags::IN)], Some(&limit))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    File::from(go).read_exact(&mut [0])?;
    let (user, group) = (unistd::Uid::from_raw(0), unistd::Gid::from_raw(0));
    unistd::setgroups(&[])?;
    unistd::setresgid(group, group, group)?;
    Ok(unistd::setresuid(user, user, user)?)
}

/// Writes a parameter, which must be there: nothing is created.
fn set(file: &std::path::Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(file)?.write_all(value.as_bytes())
}

/// Waits until exec has closed the pipe, or the child has said why it never will.
fn listen(reader: OwnedFd, spec: &SandboxSpec, pid: i32) -> Result<(), String> {
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::new(&reader, PollFlags::IN)];
    match poll(&mut fds, Some(&limit)) {
        Ok(0) => {
            let (pause, seconds) = (spec.pause.display(), LIMIT.as_secs());
            return Err(format!("{pause} was not executed within {seconds} s"));
        }
        Ok(_) => {}
        Err(error) => return Err(format!("poll: {error}")),
    }
    let mut complaint = String::new();
    File::from(reader)
        .take(MAX_COMPLAINT)
        .read_to_string(&mut complaint)
        .map_err(|error| format!("cannot read from the pause process: {error}"))?;
    if !complaint.is_empty() {
        return Err(complaint);
    }
    stillborn(spec, pid).map_or(Ok(()), Err)
}

/// What to say of a pause process that has ended without being asked; `None`: it lives.
pub(super) fn stillborn(spec: &SandboxSpec, pid: i32) -> Option<String> {
    // Who ends loses its namespaces a moment before it can be reaped.
    let ends = || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_err();
    let until = Instant::now() + LIMIT;
    loop {
        match wait::reap(pid) {
            Ok(None) if ends() && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(None) => return None,
            Ok(Some(ended)) => {
                let pause = spec.pause.display();
                let code = ended.code;
                return Some(format!(
                    "{pause} ended at once, with code {code}: is it haled-pause?"
                ));
            }
            Err(error) => return Some(format!("cannot wait for the pause process: {error}")),
        }
    }
}
