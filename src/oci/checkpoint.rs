//! Writing a container's processes down: `pause`, `checkpoint` and `resume`, which runc and crun
//! have CRIU do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::Error;
use super::runtime::{Runtime, check_id, log_tail};

/// How long freezing and thawing may take.
const PAUSE_LIMIT: Duration = Duration::from_secs(30);
/// On cgroup v1 the kernel freezes the processes that it meets, and new ones may come up behind
/// it. runc gives up after some rounds, on a busy machine within milliseconds.
const BUSY: &str = "unable to freeze";
/// How often freezing is tried then, and how long is waited between two tries.
const FREEZE_TRIES: u32 = 50;
const FREEZE_PAUSE: Duration = Duration::from_millis(20);
/// CRIU's own log, in the directory for its work.
pub const DUMP_LOG: &str = "dump.log";
/// The same of a restore.
pub const RESTORE_LOG: &str = "restore.log";
/// An annotation that gives runc and crun a file of further options for CRIU.
pub const CRIU_CONFIG_ANNOTATION: &str = "org.criu.config";

impl Runtime {
    /// `pause`: nothing of the container runs until [`Runtime::resume`].
    pub async fn pause(&self, container: &str) -> Result<(), Error> {
        for _ in 1..FREEZE_TRIES {
            match self.simple("pause", container).await {
                Err(Error::Runtime { message, .. }) if message.contains(BUSY) => {
                    tokio::time::sleep(FREEZE_PAUSE).await;
                }
                other => return other,
            }
        }
        self.simple("pause", container).await
    }

    /// `resume`.
    pub async fn resume(&self, container: &str) -> Result<(), Error> {
        self.simple("resume", container).await
    }

    async fn simple(&self, verb: &'static str, container: &str) -> Result<(), Error> {
        check_id(container)?;
        let mut command = Command::new(&self.path);
        command.args(self.global_args()).args([verb, container]);
        self.run(command, verb, container, PAUSE_LIMIT).await.map(drop)
    }

    /// `checkpoint --leave-running`: CRIU's images of the processes go to `images`, its log and
    /// statistics to `work`; both are directories that exist. Over the limit the runtime is
    /// killed; CRIU then lets go of the processes by itself, as killing it would ruin them.
    pub async fn checkpoint(
        &self,
        container: &str,
        images: &Path,
        work: &Path,
        limit: Duration,
    ) -> Result<(), Error> {
        check_id(container)?;
        let mut command = Command::new(&self.path);
        command.args(self.global_args()).args(["checkpoint", "--leave-running"]);
        // Connections to clients and probes would else be refused.
        command.args(["--tcp-established", "--file-locks"]);
        command.arg("--image-path").arg(images).arg("--work-path").arg(work).arg(container);
        match self.run(command, "checkpoint", container, limit).await {
            Err(Error::Runtime { runtime, command, container, message }) => {
                let message = criu_words(&work.join(DUMP_LOG)).unwrap_or(message);
                Err(Error::Runtime { runtime, command, container, message })
            }
            other => other.map(drop),
        }
    }
}

/// CRIU's executable, where the OCI runtime will look for it: in PATH.
pub fn criu() -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH")?;
    let runs = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(runs)
}

/// What CRIU's log gives as the reason of a failure: the first error, from which the rest
/// follows.
pub fn criu_words(log: &Path) -> Option<String> {
    first_error(&log_tail(log)?)
}

fn first_error(log: &str) -> Option<String> {
    // It goes on without a higher limit of open files.
    let mut errors =
        log.lines().filter(|line| line.contains("Error (") && !line.contains("rlimit"));
    // (00.188986) Error (criu/files-reg.c:1790): Can't lookup mount
    let (_, words) = errors.next()?.split_once("): ")?;
    Some(format!("criu: {}", words.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_reason() {
        let log = "(00.041949) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                   (00.149000) Something else\n\
                   (00.149092) Error (criu/files-reg.c:1790): Can't lookup mount=27 for fd=1\n\
                   (00.241541) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        assert_eq!(first_error(log).unwrap(), "criu: Can't lookup mount=27 for fd=1");
        assert_eq!(first_error("(00.1) fine\n"), None);
        assert_eq!(first_error(""), None);
    }
}
