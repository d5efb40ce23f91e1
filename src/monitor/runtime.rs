//! Calls of the OCI runtime: children with a time limit, whose end the reaper reports.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stdio::Ends;
use super::wire::{Restore, StartSpec};
use crate::sys::clone::program;
use crate::sys::process::signal_child;

/// How long `delete --force` may take: it waits for the kernel to end the processes.
pub(super) const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// What is read of the end of a runtime's log, in bytes.
const MAX_LOG: u64 = 64 * 1024;

/// The longest message taken from a runtime, in bytes.
const MAX_MESSAGE: usize = 4 * 1024;

/// A runtime at work.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pid: i32,
    /// When it is killed.
    pub(super) deadline: Instant,
    /// It was.
    pub(super) overdue: bool,
}

impl Call {
    fn spawn(command: &mut Command, oom_score_adj: i32, limit: Duration) -> io::Result<Self> {
        let child = program(command, oom_score_adj)?;
        let deadline = Instant::now() + limit;
        Ok(Self { pid: child.id() as i32, deadline, overdue: false })
    }

    /// Kills it, and what it has started in its process group, when its time is over.
    pub(super) fn check(&mut self, now: Instant) -> io::Result<()> {
        if self.overdue || now < self.deadline {
            return Ok(());
        }
        self.overdue = true;
        signal_child(-self.pid, libc::SIGKILL)
    }
}

/// The files of one call.
pub(super) struct Files {
    pub(super) pid: PathBuf,
    pub(super) log: PathBuf,
    pub(super) console: Option<String>,
}

/// `run --detach`: creates and starts the container, and ends when its init runs; or
/// `restore --detach`, where its processes go on from what was checkpointed.
pub(super) fn run(
    spec: &StartSpec,
    files: &Files,
    ends: Ends,
    limit: Duration,
    oom_score_adj: i32,
) -> io::Result<Call> {
    let mut command = command(spec, &files.log);
    match &spec.restore {
        None => command.arg("run"),
        Some(Restore { images, work }) => command
            .args(["restore", "--tcp-established", "--file-locks"])
            .arg("--image-path")
            .arg(images)
            .arg("--work-path")
            .arg(work),
    };
    command.args(["--detach", "--bundle"]).arg(&spec.bundle);
    command.arg("--pid-file").arg(&files.pid);
    if let Some(console) = &files.console {
        command.arg("--console-socket").arg(console);
    }
    command.arg(&spec.container);
    command.stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
    Call::spawn(&mut command, spec.oom_score_adj.unwrap_or(oom_score_adj), limit).map_err(|error| {
        let runtime = spec.runtime.display();
        io::Error::new(error.kind(), format!("cannot run the OCI runtime {runtime}: {error}"))
    })
}

/// `delete --force`: ends and removes what is there of the container.
pub(super) fn delete(spec: &StartSpec, log: &Path, oom_score_adj: i32) -> io::Result<Call> {
    let mut command = command(spec, log);
    command.args(["delete", "--force"]).arg(&spec.container);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Call::spawn(&mut command, oom_score_adj, DELETE_LIMIT)
}

fn command(spec: &StartSpec, log: &Path) -> Command {
    let mut command = Command::new(&spec.runtime);
    command.args(&spec.runtime_args);
    command.arg("--log").arg(log).args(["--log-format", "json"]);
    command
}

/// The last error in a runtime's JSON log.
pub(super) fn last_error(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG))).ok()?;
    let mut text = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut text).ok()?;
    last_message(&String::from_utf8_lossy(&text))
}

fn last_message(log: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        msg: String,
    }
    let message = log.lines().rev().find_map(|line| {
        let line: Line = serde_json::from_str(line).ok()?;
        matches!(line.level.as_str(), "error" | "fatal" | "panic").then_some(line.msg)
    })?;
    Some(shortened(message))
}

/// A message for people, of a bounded length.
pub(super) fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_found_among_other_lines() {
        let log = concat!(
            r#"{"level":"warning","msg":"something old","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"first","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"exec: \"/nope\": no such file","time":"t"}"#,
            "\n",
            r#"{"level":"info","msg":"later","time":"t"}"#,
            "\nno json\n{\"level\":\"error\",\"msg\":\"cut of"
        );
        assert_eq!(last_message(log).unwrap(), "exec: \"/nope\": no such file");
        assert_eq!(last_message("plain text\n"), None);
        assert_eq!(last_message(""), None);
    }

    #[test]
    fn a_message_has_a_bound() {
        let long = shortened("ü".repeat(MAX_MESSAGE));
        assert!(long.len() <= MAX_MESSAGE + '…'.len_utf8());
        assert!(long.ends_with('…'));
        assert_eq!(shortened("short".into()), "short");
    }
}
