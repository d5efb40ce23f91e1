//! Children: in new namespaces by clone3(2), or a program by fork and exec.
//!
//! A process that blocks signals to read them from a descriptor must not pass that on, so
//! both kinds of child can be given the ordinary signal state.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;

/// clone3's flag that the number in libc, which is an `int`, has no room for.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Starts a child in new namespaces that runs `run`, as fork(2) would, and gives its number.
/// The child ends with what `run` returns. `cgroup`: the directory of the cgroup of v2 that it
/// is born into; `None`: its parent's.
///
/// Refused when this process has more than one thread: the child would have the locks of
/// threads that it doesn't have.
pub fn into(
    namespaces: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
    run: impl FnOnce() -> i32,
) -> io::Result<i32> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("clone: only a process of one thread may do this"));
    }
    // SAFETY: it is made of numbers, for which 0 is "none".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // Their bits are those of an `int`: the highest is no sign.
    args.flags = u64::from(namespaces.bits().cast_unsigned());
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the pointer and the size are those of `args`. Without CLONE_VM the child has a
    // copy of this only thread, its stack and its memory, as after fork(2); no stack of its own
    // keeps the copied one.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
        0 => std::process::exit(run()),
        pid if pid > 0 => Ok(pid as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

/// In a child before its exec: no signal blocked, SIGPIPE as it is by default.
pub fn reset_signals() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    // SAFETY: SIG_DFL installs no handler.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Starts a program as leader of its own process group, with the ordinary signal state and
/// an oom_score_adj clamped to what the kernel allows. The caller reaps it.
///
/// Refused when this process has more than one thread, as in [`into`].
pub fn program(command: &mut Command, oom_score_adj: i32) -> io::Result<Child> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("clone: only a process of one thread may do this"));
    }
    command.process_group(0);
    let prepare = move || {
        reset_signals()?;
        super::oom::set_own_clamped(oom_score_adj)?;
        Ok(())
    };
    // SAFETY: this process has one thread, so no lock (the allocator's among them) can be
    // held by another one when it forks, and `prepare` may do ordinary things.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
