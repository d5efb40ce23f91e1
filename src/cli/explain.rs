//! `halectl explain`: the fields that haled takes, as its parser knows them.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::proto::haled::{ExplainRequest, Field};

use super::client::{self, Address};
use super::options::ExplainArgs;
use super::output::print;
use super::{Failure, Outcome};

/// How far what is below is set in.
const INDENT: usize = 2;
/// The columns that lines are kept in, where their words allow.
const WIDTH: usize = 96;

/// `halectl explain`.
pub(super) async fn explain(address: &Address, args: ExplainArgs) -> Outcome {
    let path = args.path.unwrap_or_default();
    let field = field(address, &path).await?;
    print(text(&path, &field, args.recursive))?;
    Ok(ExitCode::SUCCESS)
}

/// A field with all that are below it; of the empty path, all that can be explained.
pub(super) async fn field(address: &Address, path: &str) -> Result<Field, Failure> {
    let request = ExplainRequest { path: path.to_owned() };
    let answer = client::haled(address).await?.explain(request).await?.into_inner();
    answer.field.ok_or_else(|| Failure::Message(format!("haled explains nothing of {path}")))
}

/// The field in full, and those below it.
fn text(path: &str, field: &Field, recursive: bool) -> String {
    let mut text = String::new();
    if path.is_empty() {
        below(&mut text, field, 0, recursive);
        return text;
    }
    one(&mut text, path, field, 0);
    if !field.fields.is_empty() {
        text.push_str("\nFIELDS\n");
        below(&mut text, field, INDENT, recursive);
    }
    text
}

fn below(text: &mut String, field: &Field, indent: usize, recursive: bool) {
    for field in &field.fields {
        one(text, &field.name, field, indent);
        if recursive {
            below(text, field, indent + INDENT, recursive);
        }
    }
}

/// `periodSeconds  <integer>  1 to 9; default 10`, and what it is for below it.
fn one(text: &mut String, name: &str, field: &Field, indent: usize) {
    let kind = if field.kind.is_empty() { String::new() } else { format!("  <{}>", field.kind) };
    let limits = match (field.allowed.as_str(), field.default.as_str()) {
        ("", "") => String::new(),
        (allowed, "") => format!("  {allowed}"),
        ("", default) => format!("  default {default}"),
        (allowed, default) => format!("  {allowed}; default {default}"),
    };
    let head = format!("{name}{kind}{limits}");
    wrap(text, &head, indent, indent + 2 * INDENT);
    wrap(text, &field.about, indent + INDENT, indent + INDENT);
}

/// A paragraph, set in: its first line, and those that follow. Only single spaces are broken.
fn wrap(text: &mut String, paragraph: &str, first: usize, rest: usize) {
    let mut line = " ".repeat(first);
    for (at, word) in paragraph.split(' ').enumerate() {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if at > 0 && !word.is_empty() && !fits {
            writeln!(text, "{}", line.trim_end()).expect("a String takes every write");
            line = " ".repeat(rest);
        } else if at > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(text, "{line}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_and_short_ones_left() {
        let words = |count: usize| vec!["word"; count].join(" ");
        let field = Field {
            name: "a".into(),
            kind: "string".into(),
            allowed: words(30),
            about: words(30),
            ..Field::default()
        };
        let text = text("a", &field, false);
        let [head, more, about, end] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        assert!(head.starts_with("a  <string>  word word") && more.starts_with("    word"));
        assert!(about.starts_with("  word") && end.starts_with("  word"));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 60);
    }
}
