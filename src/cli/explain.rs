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

/// `halectl explain`.
pub(super) async fn explain(address: &Address, args: ExplainArgs) -> Outcome {
    let field = field(address, &args.path).await?;
    print(text(&args.path, &field, args.recursive))?;
    Ok(ExitCode::SUCCESS)
}

/// A field with all that are below it.
pub(super) async fn field(address: &Address, path: &str) -> Result<Field, Failure> {
    let request = ExplainRequest { path: path.to_owned() };
    let answer = client::haled(address).await?.explain(request).await?.into_inner();
    answer.field.ok_or_else(|| Failure::Message(format!("haled explains nothing of {path}")))
}

/// The field in full, and those below it.
fn text(path: &str, field: &Field, recursive: bool) -> String {
    let mut text = String::new();
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
    let (about, deeper) = (&field.about, indent + INDENT);
    writeln!(text, "{:indent$}{name}{kind}{limits}\n{:deeper$}{about}", "", "")
        .expect("a String takes every write");
}
