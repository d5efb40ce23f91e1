//! cgroup v1, v2 and hybrid hierarchies, by the cgroupfs driver (cgroups(7)).

use std::io;
use std::path::PathBuf;

/// Whether controllers are on v1 hierarchies (hybrid too) or on the unified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// v1, or hybrid with its controllers on v1.
    V1,
    /// v2 alone.
    V2,
}

/// The machine's.
pub fn version() -> Version {
    todo!()
}

/// Makes a cgroup (`/kubepods/pod1/id`) in every hierarchy, its controllers enabled on v2.
pub fn create(_path: &str) -> io::Result<()> {
    todo!()
}

/// Makes one child of an existing cgroup that holds processes without limits of its own:
/// in v1 in the `pids` hierarchy alone. Gives what `runc exec --cgroup` takes for it.
pub fn create_sub(_path: &str, _name: &str) -> io::Result<String> {
    todo!()
}

/// Puts a process in, in every hierarchy.
pub fn join(_path: &str, _pid: i32) -> io::Result<()> {
    todo!()
}

/// The processes in it and below it.
pub fn processes(_path: &str) -> io::Result<Vec<i32>> {
    todo!()
}

/// SIGKILL to all in it and below it, until none is left or 5 s have passed. Blocks.
pub fn kill(_path: &str) -> io::Result<()> {
    todo!()
}

/// Removes it and what is below it, in every hierarchy. Gone already is no error.
pub fn remove(_path: &str) -> io::Result<()> {
    todo!()
}

/// The file whose `oom_kill` line counts the OOM killer's victims.
pub fn oom_events(_path: &str) -> PathBuf {
    todo!()
}
