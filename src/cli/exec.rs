//! Commands in containers, and containers' own streams: `exec` and `attach`.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::proto::cri::{AttachRequest, ExecRequest, ExecSyncRequest};
use crate::proto::haled::Pod;

use super::client::{self, Address};
use super::options::{AttachArgs, ExecArgs, Target};
use super::output::{complain, print, print_error};
use super::session::detach::{Keys, Watch};
use super::session::terminal::{self, Raw};
use super::session::{Ended, From, Input, PIECE, PIECES};
use super::{Failure, Outcome, names, pods, session};

/// As shells, podman and docker have it: there is no such command, and it can't be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// `halectl exec`: the command's output and exit code are ours.
pub(super) async fn exec(address: &Address, namespace: &str, args: ExecArgs) -> Outcome {
    let container_id = find(address, namespace, &args.target).await?;
    let cmd = args.command;
    let mut runtime = client::runtime(address).await?;
    if let Some(timeout) = args.timeout {
        let request = ExecSyncRequest { container_id, cmd, timeout: timeout.into() };
        let answer = runtime.exec_sync(request).await?.into_inner();
        print(&answer.stdout)?;
        print_error(&answer.stderr)?;
        return Ok(ExitCode::from(code(answer.exit_code)));
    }
    let tty = has_terminal(args.tty, args.stdin);
    let stdin = args.stdin;
    let request = ExecRequest { container_id, cmd, tty, stdin, stdout: true, stderr: !tty };
    let url = runtime.exec(request).await?.into_inner().url;
    Ok(outcome(converse(&url, stdin, tty, None).await?))
}

/// The id of the running container that is meant, which is told where it was chosen among several.
async fn find(address: &Address, namespace: &str, target: &Target) -> Result<String, Failure> {
    let pod = pods::one(address, namespace, &target.pod).await?;
    let container = names::running(&pod, target.container.as_deref()).map_err(Failure::Message)?;
    tell_choice(&pod, &container.name, target.container.is_some());
    Ok(container.id.clone())
}

/// `halectl attach`: the streams of the container's own process.
pub(super) async fn attach(address: &Address, namespace: &str, args: AttachArgs) -> Outcome {
    let container_id = find(address, namespace, &args.target).await?;
    let mut runtime = client::runtime(address).await?;
    let mut tty = has_terminal(args.tty, args.stdin);
    let request = |tty| AttachRequest {
        container_id: container_id.clone(),
        stdin: args.stdin,
        tty,
        stdout: true,
        stderr: !tty,
    };
    let url = match runtime.attach(request(tty)).await {
        Err(status) if tty && status.code() == tonic::Code::InvalidArgument => {
            complain(&format!("{}: going on without it", status.message()));
            tty = false;
            runtime.attach(request(tty)).await?
        }
        answer => answer?,
    };
    let keys = (args.stdin && tty).then_some(args.detach_keys);
    if keys.is_some() {
        complain("attached; if there is no prompt, press enter");
    }
    Ok(outcome(converse(&url.into_inner().url, args.stdin, tty, keys).await?))
}

/// Of several containers, the one that was not named is told.
fn tell_choice(pod: &Pod, chosen: &str, named: bool) {
    if !named && pod.containers.len() > 1 {
        let names: Vec<_> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        complain(&format!("defaulted to container \"{chosen}\" out of: {}", names.join(", ")));
    }
}

/// Whether the command is to have a terminal: ours.
fn has_terminal(wanted: bool, stdin: bool) -> bool {
    let missing = wanted && stdin && !terminal::is_one();
    if missing {
        complain("standard input is no terminal: going on without one");
    }
    wanted && !missing
}

/// How a conversation ended.
enum Over {
    /// By the command's end, with what came last on its standard error.
    Session(Ended, Bytes),
    /// By the keys for it.
    Detached,
    /// By this signal's number, while the terminal was raw.
    Signal(i32),
}

fn outcome(over: Over) -> ExitCode {
    match over {
        Over::Session(Ended::Exited(exit), _) => ExitCode::from(code(exit)),
        Over::Session(Ended::Failed(why), told) => {
            // Without a terminal the runtime's own words may have come as the command's.
            let told = String::from_utf8_lossy(&told);
            let told = told.lines().last().unwrap_or_default();
            if told.is_empty() || !why.ends_with(told) {
                complain(&why);
            }
            ExitCode::from(failure_code(&why))
        }
        Over::Detached => {
            complain("detached; the container runs on");
            ExitCode::SUCCESS
        }
        Over::Signal(number) => ExitCode::from(code(128 + number)),
    }
}

/// The session, our own streams joined to it. The terminal is raw meanwhile.
async fn converse(
    url: &str,
    stdin: bool,
    tty: bool,
    detach: Option<Keys>,
) -> Result<Over, Failure> {
    let raw = (stdin && tty)
        .then(Raw::enter)
        .transpose()
        .map_err(|error| Failure::Message(format!("cannot set the terminal: {error}")))?;
    let (detached, mut is_detached) = mpsc::channel(1);
    let input = Input {
        stdin: stdin.then(|| typed(detach.map(Watch::new), detached)),
        sizes: tty.then(sizes).transpose()?,
    };
    let mut last = Bytes::new();
    let running = session::run(url, input, async |from, piece: Bytes| match from {
        From::Stdout => print(piece),
        From::Stderr => {
            last = piece;
            print_error(&last)
        }
    });
    let over = tokio::select! {
        ended = running => Over::Session(ended?, last),
        Some(()) = is_detached.recv() => Over::Detached,
        // In raw mode keys make no signals, but others may send some.
        number = signalled(), if raw.is_some() => Over::Signal(number?),
    };
    if raw.is_some() && !matches!(over, Over::Session(..)) {
        // The prompt of the shell begins on a line of its own.
        std::io::stdout().write_all(b"\r\n").ok();
    }
    Ok(over)
}

/// What is typed, or piped in, to its end. The thread that reads it ends with the process.
fn typed(mut watch: Option<Watch>, detached: mpsc::Sender<()>) -> mpsc::Receiver<Bytes> {
    let (pieces, typed) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        loop {
            // What can't be read has ended.
            let Ok(read @ 1..) = std::io::stdin().lock().read(&mut piece) else { return };
            let (passed, over) = match &mut watch {
                Some(watch) => watch.feed(&piece[..read]),
                None => (piece[..read].to_vec(), false),
            };
            if !passed.is_empty() && pieces.blocking_send(passed.into()).is_err() {
                return;
            }
            if over {
                // Whoever would hear it has ended already, otherwise.
                detached.blocking_send(()).ok();
                return;
            }
        }
    });
    typed
}

/// The terminal's size now and whenever it changes.
fn sizes() -> Result<mpsc::Receiver<(u16, u16)>, Failure> {
    let failed = |error| Failure::Message(format!("cannot watch the terminal's size: {error}"));
    let mut changes = signal(SignalKind::window_change()).map_err(failed)?;
    let (sender, sizes) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            if let Some(size) = terminal::size()
                && sender.send(size).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(sizes)
}

/// The first signal that would end the process and leave the terminal raw.
async fn signalled() -> Result<i32, Failure> {
    let failed = |error| Failure::Message(format!("cannot wait for signals: {error}"));
    let listen = |kind| signal(kind).map_err(failed);
    let mut hangup = listen(SignalKind::hangup())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let kind = tokio::select! {
        _ = hangup.recv() => SignalKind::hangup(),
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = quit.recv() => SignalKind::quit(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    Ok(kind.as_raw_value())
}

/// A process's exit code is a byte; what doesn't fit must at least not look like success.
fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// By the words of the OCI runtime, which has no better way to say it.
fn failure_code(why: &str) -> u8 {
    let says = |words: &[&str]| words.iter().any(|words| why.contains(words));
    if says(&[
        "executable file not found",
        "no such file or directory",
        "No such file or directory",
    ]) {
        NOT_FOUND
    } else if says(&[
        "permission denied",
        "Permission denied",
        "exec format error",
        "is a directory",
    ]) {
        NOT_RUNNABLE
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_no_byte_is_not_success() {
        assert_eq!([0, 1, 137, 255, 256, -1].map(code), [0, 1, 137, 255, 255, 255]);
    }

    #[test]
    fn what_can_not_be_run_has_the_codes_of_a_shell() {
        let of = |words: &str| failure_code(&format!("exec: \"x\": {words}"));
        assert_eq!(of("executable file not found in $PATH"), 127);
        assert_eq!(of("stat x: no such file or directory"), 127);
        assert_eq!(of("permission denied"), 126);
        assert_eq!(of("exec format error"), 126);
        assert_eq!(of("something else"), 1);
    }
}
