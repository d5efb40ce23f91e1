//! What a monitor has to say about itself.

use std::fmt::Arguments;
use std::io::Write as _;

/// Writes a line to standard error, the pod's `monitor.log`. What can't be written is
/// dropped: `eprintln!` would panic, and a full disk must not end a pod.
pub fn complain(what: Arguments<'_>) {
    let line = format!("haled-monitor: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}
