//! What is made of the command line's own description: completions and manual pages.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Shells};

use super::options::{Options, Shell};
use super::output::print;
use super::{Failure, Outcome};

/// Tells halectl that a shell calls it to complete a line.
const VARIABLE: &str = "COMPLETE";
const NAME: &str = "halectl";

/// Completes a line and ends the process, where a shell calls for that.
pub(super) fn complete() {
    CompleteEnv::with_factory(Options::command).var(VARIABLE).complete();
}

/// `halectl completion`.
pub(super) fn completion(shell: Shell) -> Outcome {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let mut script = Vec::new();
    // By its name: where it is may change, the script stays.
    let written = match shells.completer(name) {
        Some(shell) => shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script),
        None => Err(std::io::Error::other("nothing is known of it")),
    };
    written.map_err(|error| Failure::Message(format!("{name}: {error}")))?;
    print(script)?;
    Ok(ExitCode::SUCCESS)
}

/// `halectl man`.
pub(super) fn man(dir: &Path) -> Outcome {
    clap_mangen::generate_to(Options::command(), dir)
        .map_err(|error| Failure::Message(format!("cannot write to {}: {error}", dir.display())))?;
    Ok(ExitCode::SUCCESS)
}
