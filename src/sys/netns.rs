//! Doing something inside another network namespace (network_namespaces(7)).

use std::io;
use std::path::Path;

/// Runs `f` on a thread that has entered the namespace at `path`, and ends with it.
/// Blocks: call it where blocking is allowed. A socket made inside stays inside.
pub fn within<T: Send>(_path: &Path, _f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    todo!()
}
