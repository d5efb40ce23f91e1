//! The sandbox: its pause process, and its namespaces pinned to files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::birth;
use super::complaint::complain;
use super::connection::Asker;
use super::run_dir::remove_file;
use super::wire::{Process, SandboxSpec};
use crate::sys::{mount, process};

/// How long pause may take to end on SIGTERM before SIGKILL.
const TERM_LIMIT: Duration = Duration::from_secs(1);

/// ```text
/// None ─Sandbox▶ Running ─Shutdown▶ Ending ─reaped▶ Ended
///   └─Shutdown▶ Ended ◀──reaped──────┘(pause died: the sandbox is lost)
/// ```
#[derive(Debug, Default)]
pub(super) enum State {
    /// Not asked for yet.
    #[default]
    None,
    /// Pause holds the namespaces.
    Running { spec: Box<SandboxSpec>, pause: Process },
    /// Pause was told to end.
    Ending { pause: Process, kill_at: Instant, killed: bool },
    /// Pause is gone.
    Ended,
}

/// The pod's sandbox.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    pub(super) state: State,
    /// Bound files to undo.
    pins: Vec<PathBuf>,
    /// Who asked for the shutdown.
    pub(super) askers: Vec<Asker>,
}

impl Sandbox {
    /// Makes it; the same again gives what is there.
    pub(super) fn make(&mut self, spec: SandboxSpec) -> Result<Process, String> {
        match &self.state {
            State::None => {}
            State::Running { spec: there, pause } if **there == spec => return Ok(*pause),
            State::Running { .. } => {
                return Err("the sandbox is there already, made to another specification".into());
            }
            State::Ending { .. } | State::Ended => {
                return Err("the sandbox's pause process has ended; a sandbox is made once".into());
            }
        }
        let pause = birth::give(&spec)?;
        if let Err(error) = self.pin(&spec, pause.pid) {
            self.unpin();
            if let Some(cause) = birth::stillborn(&spec, pause.pid) {
                return Err(cause);
            }
            birth::bury(pause.pid);
            return Err(error);
        }
        self.state = State::Running { spec: Box::new(spec), pause };
        Ok(pause)
    }

    /// The pause process, while it lives.
    pub(super) fn pause(&self) -> Option<Process> {
        match &self.state {
            State::Running { pause, .. } | State::Ending { pause, .. } => Some(*pause),
            State::None | State::Ended => None,
        }
    }

    /// Tells pause to end.
    pub(super) fn end(&mut self, now: Instant) -> std::io::Result<()> {
        match self.state {
            State::Running { pause, .. } => {
                process::signal_child(pause.pid, libc::SIGTERM)?;
                self.state = State::Ending { pause, kill_at: now + TERM_LIMIT, killed: false };
            }
            State::None => self.state = State::Ended,
            State::Ending { .. } | State::Ended => {}
        }
        Ok(())
    }

    /// When [`Self::check`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ending { kill_at, killed: false, .. } => Some(kill_at),
            _ => None,
        }
    }

    /// Kills a pause process that was told to end and hasn't.
    pub(super) fn check(&mut self, now: Instant) -> std::io::Result<()> {
        if let State::Ending { pause, kill_at, killed } = &mut self.state
            && !*killed
            && now >= *kill_at
        {
            *killed = true;
            process::signal_child(pause.pid, libc::SIGKILL)?;
        }
        Ok(())
    }

    /// Releases the namespaces' files. A failure is reported and leaves the rest undone.
    pub(super) fn unpin(&mut self) {
        for pin in self.pins.drain(..) {
            if let Err(error) = mount::detach(&pin).and_then(|()| remove_file(&pin)) {
                complain(format_args!("cannot release {}: {error}", pin.display()));
            }
        }
    }

    fn pin(&mut self, spec: &SandboxSpec, pid: i32) -> Result<(), String> {
        let kinds = [
            ("user", spec.userns.is_some()),
            ("net", spec.network),
            ("ipc", spec.ipc),
            ("uts", spec.uts),
            ("pid", spec.pid),
        ];
        for kind in kinds.into_iter().filter_map(|(kind, new)| new.then_some(kind)) {
            let target = spec.pins.join(kind);
            self.pins.push(target.clone());
            pin_one(&spec.pins, &target, Path::new(&format!("/proc/{pid}/ns/{kind}"))).map_err(
                |error| format!("cannot pin the {kind} namespace to {}: {error}", target.display()),
            )?;
        }
        Ok(())
    }
}

fn pin_one(directory: &Path, target: &Path, namespace: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // A pin that an earlier monitor left is of a namespace nobody has any more.
    mount::detach(target)?;
    File::create(target)?;
    mount::bind(namespace, target)
}
