//! Running a command in a container and waiting for it: ExecSync and exec probes.
//!
//! Every command gets a cgroup of its own below the container's, so that at its time limit
//! the command goes with all its descendants, whatever they did to escape it.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Error, Place};
use crate::oci::{self, Exec, Runtime};
use crate::sys::cgroup;

/// What is kept of each of a command's two outputs, in bytes; more is read and dropped. Both
/// together stay below the 16 MiB that CRI clients accept in a message.
pub const MAX_OUTPUT: usize = 7 * 1024 * 1024;

/// How long a child that outlives the command may keep an output open before the answer is
/// given without what it may yet write.
const LINGER: Duration = Duration::from_millis(500);

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// 128 + signal for one that was killed.
    pub exit_code: i32,
    /// At most `MAX_OUTPUT`.
    pub stdout: Vec<u8>,
    /// At most `MAX_OUTPUT`.
    pub stderr: Vec<u8>,
}

/// Runs `command` as the container's own user, in its environment. `limit`: `None` is none.
/// Dropping the future kills the command and its descendants.
pub async fn run(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    limit: Option<Duration>,
) -> Result<Output, Error> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let name = command.first().cloned().unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Invalid(format!("no command was given to run in {}", place.id)));
    }
    let failed = |why: String| Error::Exec { id: place.id.clone(), command: name.clone(), why };
    let deadline = limit.map(|limit| Instant::now() + limit);

    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let scratch = Scratch::new(runtime, place, &format!("exec-{}-{serial}", std::process::id()))?;
    let process = read_process(place)?;
    let pid_file = scratch.dir.join("pid");
    let spec = Exec {
        container: place.id.as_str(),
        command,
        process: &process,
        tty: false,
        sub_cgroup: scratch.sub_cgroup.as_deref(),
        pid_file: &pid_file,
    };
    let mut child = runtime
        .exec(&spec, &scratch.dir)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut output = Output::default();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());

    let ended = {
        let outputs = async {
            tokio::join!(collect(stdout, &mut output.stdout), collect(stderr, &mut output.stderr))
        };
        tokio::pin!(outputs);
        let wait = async {
            let mut drained = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut outputs, if !drained => drained = true,
                }
            };
            if !drained {
                // Errors only when the time is up, and then the answer is due.
                drop(timeout(LINGER, &mut outputs).await);
            }
            status
        };
        match deadline {
            Some(deadline) => timeout_at(deadline, wait).await.ok(),
            None => Some(wait.await),
        }
    };
    let Some(status) = ended else {
        scratch.kill().await;
        let limit = limit.unwrap_or_default();
        return Err(Error::ExecTimeout { id: place.id.clone(), command: name, limit });
    };
    let status = status.map_err(|error| failed(error.to_string()))?;
    output.exit_code = exit_code(status);
    let failure = if status.success() { None } else { oci::exec_failure(&scratch.dir) };
    scratch.finished();
    // The runtime ended before there was a command: the words are the runtime's.
    failure.map_or(Ok(output), |why| Err(failed(why)))
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The container's process as config.json has it.
fn read_process(place: &Place) -> Result<oci_spec::runtime::Process, Error> {
    let path = place.bundle.join("config.json");
    let spec = oci_spec::runtime::Spec::load(&path).map_err(|error| Error::Io {
        doing: format!("cannot read {}", path.display()),
        source: std::io::Error::other(error),
    })?;
    spec.process()
        .clone()
        .ok_or_else(|| Error::Invalid(format!("{} has no process", path.display())))
}

/// Reads to the end, keeping at most `MAX_OUTPUT`. A read error ends it like an end of file:
/// what was read counts.
async fn collect(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = MAX_OUTPUT - into.len();
        into.extend_from_slice(&chunk[..read.min(room)]);
    }
}

/// The sub-cgroup and the files of one command. Dropped early, it kills what runs.
struct Scratch {
    dir: std::path::PathBuf,
    cgroup: String,
    name: String,
    /// What the runtime takes for it; `None`: this runtime has no such thing.
    sub_cgroup: Option<String>,
    over: bool,
}

impl Scratch {
    fn new(runtime: &Runtime, place: &Place, name: &str) -> Result<Self, Error> {
        let dir = place.bundle.join(name);
        std::fs::create_dir(&dir).map_err(Error::io("cannot make", &dir))?;
        let sub_cgroup = runtime
            .takes_sub_cgroup()
            .then(|| cgroup::create_sub(&place.cgroup, name))
            .transpose()
            .map_err(Error::io("cannot make a cgroup below", place.cgroup.as_ref()))?;
        let (cgroup, name) = (place.cgroup.clone(), name.to_owned());
        Ok(Self { dir, cgroup, name, sub_cgroup, over: false })
    }

    /// Ends the command and its descendants, and waits for it.
    async fn kill(mut self) {
        self.over = true;
        let (cgroup, name) = (self.cgroup.clone(), self.name.clone());
        let killed = tokio::task::spawn_blocking(move || end(&cgroup, &name)).await;
        if killed.is_err() {
            tracing::error!(
                cgroup = self.cgroup,
                "the task that ends a timed-out command panicked"
            );
        }
    }

    /// The command ended by itself: what it started in the background may go on.
    fn finished(mut self) {
        self.over = true;
        // Refused while a background process is in it; then it goes with the container.
        drop(cgroup::remove_sub(&self.cgroup, &self.name));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot delete");
        }
        if !self.over {
            let (cgroup, name) = (self.cgroup.clone(), self.name.clone());
            std::thread::spawn(move || end(&cgroup, &name));
        }
    }
}

fn end(cgroup: &str, name: &str) {
    let ended = cgroup::kill_sub(cgroup, name).and_then(|()| cgroup::remove_sub(cgroup, name));
    if let Err(error) = ended {
        tracing::warn!(cgroup, name, %error, "cannot end a timed-out command");
    }
}
