//! `haled doctor`: what this machine offers to pods and what it lacks, each with its remedy.
//!
//! `facts` looks at the machine and changes nothing on it. `checks` judges what was seen, purely,
//! with `programs` and `limits`.
//! `report` writes it down. Nothing here mends anything: the remedies are the operator's to run.

mod checks;
mod facts;
mod limits;
mod programs;
mod report;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::config::Config;
use facts::Facts;

/// What `haled doctor` may be told.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  haled doctor\n  haled doctor --output json | jq '.checks[] | select(.state != \"ok\")'\n\n\
                  Exit code 0: pods can run; 1: something stops them; 2: wrong usage."
)]
pub struct Options {
    /// How to write it down
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How good or bad a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Pods run, but something that some of them want is not to be had.
    Note,
    /// It stops pods.
    Problem,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    name: String,
    state: State,
    found: String,
    /// A command, or a few words where no command helps. Always there unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Ok, found: found.into(), remedy: None }
    }

    fn note(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Note, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }

    fn problem(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Problem, remedy: Some(remedy.into()), ..Self::ok(name, found) }
    }
}

/// Examines this machine for a daemon of these settings, and prints what was found: 0 where pods
/// can run, else 1. Settings that can't be read are a finding too: the defaults then stand in.
pub fn run(options: &Options, settled: Result<Config, String>) -> ExitCode {
    match examine(options, settled) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("haled: {error}");
            ExitCode::FAILURE
        }
    }
}

fn examine(options: &Options, settled: Result<Config, String>) -> Result<bool, String> {
    let (config, mistake) = match settled {
        Ok(config) => (config, None),
        Err(mistake) => (Config::default(), Some(mistake)),
    };
    let facts = Facts::read(&config, mistake)?;
    let findings = checks::all(&facts);
    let mut out = std::io::stdout().lock();
    let text = match options.output {
        Output::Json => report::json(&findings)?,
        Output::Text => report::text(&findings, has_colours(out.is_terminal())),
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone is nothing to make a noise about.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write: {error}"))
        }
        _ => Ok(findings.iter().all(|finding| finding.state != State::Problem)),
    }
}

/// On a terminal only, and not where NO_COLOR says so (no-color.org: set and not empty).
fn has_colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
