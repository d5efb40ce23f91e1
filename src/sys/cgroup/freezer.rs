//! Frozen cgroups (cgroups(7), freezer).

use std::fs;
use std::io;

use super::{Version, directory, version};

/// Has everything in a cgroup go on that was frozen. Gives whether it was. No such cgroup:
/// no error.
pub fn thaw(cgroup: &str) -> io::Result<bool> {
    let (file, go_on): (_, &[u8]) = match version() {
        Version::V1 => ("freezer.state", b"THAWED"),
        Version::V2 => ("cgroup.freeze", b"0"),
    };
    let Some(path) = directory("freezer", cgroup).map(|dir| dir.join(file)) else {
        return Ok(false);
    };
    let state = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let frozen = !matches!(state.trim(), "THAWED" | "0");
    if frozen {
        fs::write(&path, go_on)?;
    }
    Ok(frozen)
}
