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
    let mut command = Options::command();
    command.build();
    pages(&command, NAME, dir)
        .map_err(|error| Failure::Message(format!("cannot write to {}: {error}", dir.display())))?;
    Ok(ExitCode::SUCCESS)
}

/// A page for a command, and one for each below it.
fn pages(command: &clap::Command, name: &str, dir: &Path) -> std::io::Result<()> {
    let below: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    let page_of = |sub: &&clap::Command| format!("{name}-{}(1)", sub.get_name());
    let others = match name.strip_suffix(&format!("-{}", command.get_name())) {
        Some(above) => format!("{above}(1)"),
        None => below.iter().map(page_of).collect::<Vec<_>>().join(", "),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page)?;
    // What it calls EXTRA is what all manuals call EXAMPLES.
    let page = String::from_utf8_lossy(&page).replace(".SH EXTRA\n", ".SH EXAMPLES\n");
    let ends = ".SH \"EXIT STATUS\"\n0; 1 for a failure; 2 for a command line that isn't understood; 3 where wait or \
                health have a bad answer; exec's and attach's own, with 126 and 127 for what can't be run.\n";
    std::fs::write(
        dir.join(format!("{name}.1")),
        format!("{page}{ends}.SH \"SEE ALSO\"\n{others}\n"),
    )?;
    below.into_iter().try_for_each(|sub| pages(sub, &format!("{name}-{}", sub.get_name()), dir))
}
