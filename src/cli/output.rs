//! Writing to stdout and stderr, where a reader that has gone is nothing to make a noise about.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use super::Failure;

/// Writes bytes to stdout, and sees to it that they are out.
pub(super) fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Message(format!("cannot write the answer: {error}")),
    })
}

/// Writes bytes to stderr as they are: a command's own.
pub(super) fn print_error(bytes: &[u8]) -> Result<(), Failure> {
    io::stderr().lock().write_all(bytes).map_err(|_| Failure::ReaderGone)
}

/// `halectl: …` on stderr, a line each.
pub(super) fn complain(message: &str) {
    let mut out = io::stderr().lock();
    for line in message.lines() {
        // There is nowhere left to tell that stderr is closed.
        writeln!(out, "halectl: {line}").ok();
    }
}

/// A command line that isn't understood, in our name; or the help that was asked for.
pub(super) fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let text = error.render();
    let text = if colours(io::stderr().is_terminal()) {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    // Nobody is left to be told that stderr is closed.
    io::stderr().lock().write_all(text.replacen("error:", "halectl:", 1).as_bytes()).ok();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Whether there are colours: on a terminal that has them, and not where NO_COLOR says so
/// (no-color.org: set and not empty).
pub(super) fn colours(terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !refused && !is_dumb()
}

/// Whether the terminal, if there is one, takes lines of text and nothing else.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Text from a container or a registry, fit for a terminal: control characters are shown, not
/// obeyed.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// As `plain`, and in one line.
pub(super) fn line(text: &str) -> String {
    plain(text.trim_end()).replace('\n', " / ").replace('\t', " ")
}
