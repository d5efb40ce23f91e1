//! Findings for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::checks::USER;
use super::{Finding, State};

#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    /// The worst of them.
    state: State,
    checks: &'a [Finding],
}

fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

/// One JSON object.
pub(super) fn json(findings: &[Finding]) -> Result<String, String> {
    let version = env!("CARGO_PKG_VERSION");
    let report = Report { version, state: worst(findings), checks: findings };
    let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

/// A line each, the remedy on one below it, and a last one that sums up.
pub(super) fn text(findings: &[Finding], colours: bool) -> String {
    let name_width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { name, state, found, remedy } in findings {
        let (word, colour) = match state {
            State::Ok => ("ok", "32"),
            State::Note => ("note", "33"),
            State::Problem => ("problem", "1;31"),
        };
        let word = format!("{word:<7}");
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
        let found = plain(found);
        writeln!(text, "{word}  {name:<name_width$}  {found}").expect("a String takes every write");
        if let Some(remedy) = remedy {
            let (space, remedy) = (" ".repeat(7 + 2 + name_width + 2), plain(remedy));
            writeln!(text, "{space}→ {remedy}").expect("a String takes every write");
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let notes = match count(State::Note) {
        0 => String::new(),
        1 => ", 1 note".to_owned(),
        notes => format!(", {notes} notes"),
    };
    let sum = match count(State::Problem) {
        0 if findings.iter().any(|finding| finding.name == USER) => {
            format!("Nothing that can be seen without root stops pods{notes}.")
        }
        0 => format!("Pods can run on this machine{notes}."),
        1 => format!("1 problem that stops pods{notes}."),
        problems => format!("{problems} problems that stop pods{notes}."),
    };
    text + "\n" + &sum + "\n"
}

/// In one line, and nothing in it that a terminal would obey.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => " / ".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.trim_end().chars().map(shown).collect()
}
