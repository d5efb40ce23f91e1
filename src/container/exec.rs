//! Running a command in a container and waiting for it: ExecSync and exec probes.
//!
//! What a command starts can't outlive its time limit, whatever it does to escape. The runtime
//! puts each command in a cgroup of its own below the container's; an agent, which is in such a
//! one with all it executes, has a subreaper for each. `scratch` is the first of these ways,
//! `agent` and `waiter` are the second, and an [`Executor`] takes the one that is cheaper.

mod agent;
mod executor;
mod frame;
mod inside;
mod scratch;
mod streams;
mod waiter;

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{Error, Place};
use crate::meter::{self, System};
use crate::oci::Runtime;

pub use agent::Program;
pub use executor::{Executor, Rest};
pub(super) use scratch::Scratch;
pub use scratch::end_leftovers;
pub(super) use streams::Wanted;

use streams::{Ends, collect};

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

/// Has the runtime run `command` as the container's own user, in its environment. `limit`: `None`
/// is none. Dropping the future kills the command and its descendants.
pub async fn run(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    limit: Option<Duration>,
) -> Result<Output, Error> {
    check(place, command)?;
    by_runtime(runtime, place, command, Deadline::new(limit)).await
}

fn check(place: &Place, command: &[String]) -> Result<(), Error> {
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::Invalid(format!("no command was given to run in {}", place.id)));
    }
    Ok(())
}

async fn by_runtime(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    deadline: Deadline,
) -> Result<Output, Error> {
    let work = by_runtime_unmeasured(runtime, place, command, deadline);
    meter::timed(System::Oci, &runtime.name, "exec", work).await
}

async fn by_runtime_unmeasured(
    runtime: &Runtime,
    place: &Place,
    command: &[String],
    deadline: Deadline,
) -> Result<Output, Error> {
    let mut scratch = Scratch::new(runtime, place)?;
    let (mut child, ends) = scratch.start(runtime, place, command, None, Wanted::OUTPUTS)?;
    let Some((status, mut output)) = attend(ends, scratch.ended(&mut child), deadline.at()).await
    else {
        scratch.kill(&mut child).await;
        return Err(deadline.passed(place, command));
    };
    let failed = |why| Error::exec(place, command, why);
    let status = status.map_err(|error| failed(error.to_string()))?;
    output.exit_code = scratch.finished(status).map_err(failed)?;
    Ok(output)
}

/// Until when a command may run.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<(Duration, Instant)>);

impl Deadline {
    /// `limit` from now.
    fn new(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| (limit, Instant::now() + limit)))
    }

    fn at(self) -> Option<Instant> {
        self.0.map(|(_, at)| at)
    }

    /// The error of a command that was not in time.
    fn passed(self, place: &Place, command: &[String]) -> Error {
        let limit = self.0.map(|(limit, _)| limit).unwrap_or_default();
        let command = command.first().cloned().unwrap_or_default();
        Error::ExecTimeout { id: place.id.clone(), command, limit }
    }
}

/// Waits for a command's end, reading what it writes, and then for the end of that, for a
/// while. `None`: it was not in time.
async fn attend<T>(
    ends: Ends,
    ended: impl Future<Output = T>,
    deadline: Option<Instant>,
) -> Option<(T, Output)> {
    let mut output = Output::default();
    let ended = {
        let outputs = async {
            tokio::join!(
                collect(ends.stdout, &mut output.stdout),
                collect(ends.stderr, &mut output.stderr)
            )
        };
        tokio::pin!(outputs, ended);
        let mut drained = false;
        let status = async {
            loop {
                tokio::select! {
                    status = &mut ended => break status,
                    _ = &mut outputs, if !drained => drained = true,
                }
            }
        };
        let status = match deadline {
            Some(deadline) => timeout_at(deadline, status).await.ok()?,
            None => status.await,
        };
        if !drained {
            // Errors only when the time is up, and then the answer is due.
            drop(timeout(LINGER, &mut outputs).await);
        }
        status
    };
    Some((ended, output))
}

/// From a status in wait(2)'s form.
fn exit_code(status: i32) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let status = std::process::ExitStatus::from_raw(status);
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
