//! Places in an object, in the part of kubectl's JSONPath that people use. Pure.
//!
//! `.a.b`, `['a']`, `[0]`, `[-1]`, `[*]` and `[?(@.type=="Ready")]`. What else JSONPath has is
//! refused by name.

mod template;

use std::cmp::Ordering;
use std::str::FromStr;

use serde_json::Value;

pub(super) use template::{CustomColumns, Template};

/// A place, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    /// Below 0 it counts from the end.
    Item(i64),
    Every,
    /// Those items whose value there is this one.
    Where(Path, String),
}

/// `{.status.phase}=Running`, and without a value: any is meant.
pub(super) fn with_value(text: &str) -> Result<(Path, Option<String>), String> {
    let (path, value) = match outside_quotes(text, '=') {
        Some(at) => (&text[..at], Some(text[at + 1..].to_owned())),
        None => (text, None),
    };
    Ok((path.parse()?, value))
}

impl Path {
    /// Whether this value is there, or any.
    pub(super) fn has(&self, value: &Value, wanted: Option<&str>) -> bool {
        self.of(value).into_iter().any(|there| wanted.is_none_or(|wanted| text(there) == wanted))
    }

    /// Every value there.
    pub(super) fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0
            .iter()
            .fold(vec![value], |at, step| at.into_iter().flat_map(|at| step.of(at)).collect())
    }

    /// What is there as text, several with spaces between them.
    pub(super) fn text(&self, value: &Value) -> String {
        self.of(value).into_iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// The order of two objects by what they have there; what has nothing is first.
    pub(super) fn order(&self, one: &Value, other: &Value) -> Ordering {
        match (self.of(one).first(), self.of(other).first()) {
            (Some(Value::Number(one)), Some(Value::Number(other))) => {
                one.as_f64().unwrap_or(0.0).total_cmp(&other.as_f64().unwrap_or(0.0))
            }
            (Some(one), Some(other)) => text(one).cmp(&text(other)),
            (one, other) => one.is_some().cmp(&other.is_some()),
        }
    }
}

impl Step {
    fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Item(at), Value::Array(items)) => {
                let from_end = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
                let at = match at {
                    ..0 => items.len().checked_sub(from_end),
                    _ => Some(from_end),
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Every, Value::Object(fields)) => fields.values().collect(),
            (Self::Where(path, wanted), Value::Array(items)) => {
                items.iter().filter(|item| path.text(item) == *wanted).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl FromStr for Path {
    type Err = String;

    /// With braces or not, with a first dot or not.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'));
        let bare = bare.ok_or_else(|| format!("\"{text}\": a }} is missing"))?.trim();
        let mut rest = bare.strip_prefix(['$', '@']).unwrap_or(bare);
        let mut steps = Vec::new();
        if [".", "$", "@"].contains(&bare) {
            return Ok(Self(steps));
        }
        while !rest.is_empty() {
            if rest.starts_with("..") {
                return Err(format!("\"{text}\": .. is not understood: name every field"));
            }
            let dotted = rest.strip_prefix('.');
            rest = match (dotted.unwrap_or(rest).strip_prefix('['), dotted) {
                (Some(inner), _) => {
                    let end = outside_quotes(inner, ']')
                        .ok_or_else(|| format!("\"{text}\": a ] is missing"))?;
                    steps.push(bracket(&inner[..end]).map_err(|why| format!("\"{text}\": {why}"))?);
                    &inner[end + 1..]
                }
                (None, None) if !steps.is_empty() => {
                    return Err(format!("\"{text}\": a . is missing before \"{rest}\""));
                }
                (None, _) => {
                    let (name, after) = name(dotted.unwrap_or(rest));
                    if name.is_empty() {
                        return Err(format!("\"{text}\": a field's name is missing"));
                    }
                    steps.push(if name == "*" { Step::Every } else { Step::Field(name) });
                    after
                }
            };
        }
        if steps.is_empty() {
            return Err("a path is wanted: {.status.podIP}, for one".to_owned());
        }
        Ok(Self(steps))
    }
}

/// A field's name, and what comes after it. A backslash takes a dot into the name.
fn name(text: &str) -> (String, &str) {
    let (mut name, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, &text[at..]),
            c => {
                escaped = false;
                name.push(c);
            }
        }
    }
    (name, "")
}

/// What stands between [ and ].
fn bracket(text: &str) -> Result<Step, String> {
    let inner = text.trim();
    if inner == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = unquoted(inner) {
        return Ok(Step::Field(name));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (path, wanted) = condition
            .split_once("==")
            .ok_or_else(|| format!("of conditions only == is understood: [{inner}]"))?;
        let wanted = wanted.trim();
        let wanted = unquoted(wanted).unwrap_or_else(|| wanted.to_owned());
        return Ok(Step::Where(path.trim().parse()?, wanted));
    }
    inner.parse().map(Step::Item).map_err(|_| {
        format!("[{inner}] is not understood: [0], [*], ['NAME'] and [?(@.NAME==\"VALUE\")] are")
    })
}

/// The text in quotes, with its escapes.
fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let inner = text.get(1..)?.strip_suffix(quote)?;
    let (mut plain, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        match (escaped, c) {
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (true, 'n') => plain.push('\n'),
            (true, 't') => plain.push('\t'),
            (true, 'r') => plain.push('\r'),
            (_, c) => plain.push(c),
        }
        escaped = false;
    }
    Some(plain)
}

/// Where a character first stands outside of quotes and of brackets.
fn outside_quotes(text: &str, wanted: char) -> Option<usize> {
    let (mut quote, mut escaped, mut depth) = (None, false, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c == wanted && depth == 0 => return Some(at),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What stands between the commas that are outside of quotes and brackets.
pub(super) fn by_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = outside_quotes(rest, ',') {
        parts.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_ordered_by_what_they_have_there() {
        let order = |path: &str, one: Value, other: Value| {
            path.parse::<Path>().unwrap().order(&one, &other)
        };
        assert_eq!(order(".a", json!({"a": 9}), json!({"a": 10})), Ordering::Less);
        assert_eq!(order("{.a}", json!({"a": "b"}), json!({"a": "a"})), Ordering::Greater);
        assert_eq!(order(".a", json!({}), json!({"a": 1})), Ordering::Less);
        assert_eq!(order(".a", json!({}), json!({})), Ordering::Equal);
    }
}
