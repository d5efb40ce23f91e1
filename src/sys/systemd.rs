//! systemd, where it keeps the cgroup tree: slices, and scopes that it is asked for.
//!
//! Its cgroups are its own to make, limit and remove; below a scope that was asked for with
//! `Delegate=` everything is the asker's. See <https://systemd.io/CGROUP_DELEGATION>.

mod bus;
mod slice;
mod wire;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

pub use slice::Slice;

use bus::Bus;
use wire::{Body, Message, Value};

/// How long systemd may take to do what it has said it would.
const JOB_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(1);
/// The interface of its manager.
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// What systemd answers about a unit that it doesn't know.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A scope to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `NAME.scope`.
    pub unit: String,
    /// For people.
    pub description: String,
    /// What it is in. systemd makes it, and those above it, where they aren't there.
    pub slice: Slice,
    /// A service that at shutdown ends before the scope does.
    pub outlives: &'static str,
}

impl Scope {
    /// Has systemd make it with a process in it, and waits until it is. The controllers are
    /// handed on to what is made below it, and no limit of systemd's own is on it. Blocks.
    ///
    /// Its unit is gone, whatever became of it, when its last process is.
    pub fn start(&self, pid: i32) -> io::Result<()> {
        let pid_number = u32::try_from(pid).map_err(io::Error::other)?;
        let properties = [
            ("Description", Value::Text(&self.description)),
            ("Slice", Value::Text(self.slice.name())),
            ("PIDs", Value::Numbers(&[pid_number])),
            ("Delegate", Value::Flag(true)),
            // Else it would be 15 % of the machine's (DefaultTasksMax=).
            ("TasksMax", Value::Number(u64::MAX)),
            ("Before", Value::Texts(&[self.outlives])),
            // A failed unit would otherwise stay until someone resets it.
            ("CollectMode", Value::Text("inactive-or-failed")),
        ];
        let body = Body::new().text(&self.unit).text("fail").properties(&properties).empty();
        let started = Bus::connect()?.call(MANAGER, "StartTransientUnit", &body);
        started.map_err(|error| undone(&format!("start {}", self.unit), &error))?;
        let cgroup = self.cgroup();
        wait(|| is_in(pid, &cgroup))
            .map_err(|error| undone(&format!("put process {pid} into {cgroup}"), &error))
    }

    /// Has systemd stop it, with what may still run in it, and waits until its unit and its
    /// cgroup are gone. Gone already is no error. Blocks.
    pub fn stop(&self) -> io::Result<()> {
        let mut bus = Bus::connect()?;
        let stopped = bus.call(MANAGER, "StopUnit", &Body::new().text(&self.unit).text("replace"));
        let unit = Body::new().text(&self.unit);
        let gone = |answer: io::Result<Message>| match answer {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        };
        gone(stopped)
            .and_then(|was_gone| {
                if was_gone { Ok(()) } else { wait(|| gone(bus.call(MANAGER, "GetUnit", &unit))) }
            })
            .map_err(|error| undone(&format!("stop {}", self.unit), &error))
    }

    /// Its cgroup's path from the hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("{}/{}", self.slice.cgroup(), self.unit)
    }
}

/// systemd's version, as it gives it. Blocks.
pub fn version() -> io::Result<String> {
    let body = Body::new().text(MANAGER).text("Version");
    let answer = Bus::connect()?.call("org.freedesktop.DBus.Properties", "Get", &body)?;
    answer.text_in_variant()
}

fn undone(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("systemd did not {what}: {error}"))
}

fn wait(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + JOB_LIMIT;
    while !done()? {
        if Instant::now() >= end {
            let why = format!("it took the job and {} s passed", JOB_LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether systemd has put a process into a cgroup: on v1, in its own hierarchy.
fn is_in(pid: i32, cgroup: &str) -> io::Result<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(memberships(&text).any(|path| path == cgroup))
}

/// The paths in /proc/PID/cgroup (cgroups(7)) that are systemd's doing.
fn memberships(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_where_systemds_hierarchy_has_it() {
        let v2 = "0::/system.slice/x.scope\n";
        let v1 = "4:memory:/elsewhere\n1:name=systemd:/system.slice/x.scope\n";
        for text in [v2, v1] {
            assert_eq!(memberships(text).collect::<Vec<_>>(), ["/system.slice/x.scope"]);
        }
        assert_eq!(memberships("nonsense\n1:2\n").count(), 0);
    }
}
