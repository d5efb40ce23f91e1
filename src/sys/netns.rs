//! Doing something inside another network namespace (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `f` on a thread that has entered the namespace at `path`, and ends with it.
/// Blocks: call it where blocking is allowed. A socket made inside stays inside.
pub fn within<T: Send>(path: &Path, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    // A thread of its own, so that no other work ever runs in the wrong namespace.
    std::thread::scope(|scope| {
        let entered =
            std::thread::Builder::new().name("in-netns".to_owned()).spawn_scoped(scope, || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                f()
            })?;
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread in it panicked")))
    })
}
