//! One a pod: parent and reaper of its processes. Started by haled, and outlives it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use haled::monitor::complaint::complain;
use haled::monitor::exec::keep;
use haled::monitor::serve::{Limits, serve};

const USAGE: &str = "usage: haled-monitor --dir DIR [--idle-seconds N] [--start-seconds N]\n\
    \x20      haled-monitor --exec PIDFILE SCORE RUNTIME ARGUMENT...\n\n\
    Started by haled for each pod. DIR is the pod's run directory. A monitor that has nothing\n\
    to look after and nobody to talk to ends after --idle-seconds (60); an OCI runtime that\n\
    has not started its container after --start-seconds (120) is killed.\n\n\
    With --exec it is the parent of one command: of the pid that RUNTIME writes to PIDFILE,\n\
    whose oom_score_adj is to be SCORE; \"-\" leaves it.\n";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == "--exec").is_some() {
        return exec(arguments);
    }
    let Some((dir, limits)) = options(arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(&dir, limits, tell_ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Exit codes are the command's own; 125 stands for what went wrong here.
fn exec(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut next = || arguments.next();
    let (Some(pid_file), Some(score), Some(runtime)) = (next(), next(), next()) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let score = match score.to_str() {
        Some("-") => Ok(None),
        Some(number) => number.parse::<i32>().map(Some).map_err(drop),
        None => Err(()),
    };
    let Ok(score) = score else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut command = Command::new(runtime);
    command.args(arguments);
    match keep(pid_file.as_ref(), command, score) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::from(125)
        }
    }
}

fn options(mut arguments: impl Iterator<Item = OsString>) -> Option<(PathBuf, Limits)> {
    let (mut dir, mut limits) = (None, Limits::default());
    while let Some(option) = arguments.next() {
        let value = arguments.next()?;
        let seconds = || value.to_str()?.parse().ok().filter(|n| *n > 0).map(Duration::from_secs);
        match option.to_str()? {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--idle-seconds" => limits.idle = seconds()?,
            "--start-seconds" => limits.start = seconds()?,
            _ => return None,
        }
    }
    Some((dir?, limits))
}

/// Whoever started this reads standard output until it ends: then the socket listens.
fn tell_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}
