//! Selectors of labels and of fields, in kubectl's grammar. Pure.

use std::collections::HashMap;
use std::str::FromStr;

use serde_json::Value;

use super::path::{Path, by_commas};

/// What a pod's labels must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    /// One of the values, or with `false` none of them; a label that is missing is none.
    In(String, Vec<String>, bool),
    /// The label is there, or with `false` is not.
    Exists(String, bool),
}

impl Selector {
    pub(super) fn matches(&self, labels: &HashMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values, wanted) => {
                labels.get(key).is_some_and(|value| values.contains(value)) == *wanted
            }
            Requirement::Exists(key, wanted) => labels.contains_key(key) == *wanted,
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let requirements: Vec<_> =
            parts(text)?.into_iter().map(requirement).collect::<Result<_, _>>()?;
        if requirements.is_empty() {
            return Err("it is empty: app=web, for one".to_owned());
        }
        Ok(Self(requirements))
    }
}

/// What stands between the commas that are outside of parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("there is a \"{c}\" too many in it")),
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a \")\" is missing in it".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect())
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some((head, values)) = part.split_once('(') {
        let values =
            values.strip_suffix(')').ok_or_else(|| format!("\"{part}\" ends in no \")\""))?;
        let mut words = head.split_whitespace();
        let (key, word) = (words.next(), words.next());
        let wanted = match (word, words.next()) {
            (Some("in"), None) => true,
            (Some("notin"), None) => false,
            _ => return Err(format!("\"{part}\": KEY in (A,B) or KEY notin (A,B) is wanted")),
        };
        let values = values.split(',').map(|value| word_of(value, true));
        return Ok(Requirement::In(
            word_of(key.unwrap_or_default(), false)?,
            values.collect::<Result<_, _>>()?,
            wanted,
        ));
    }
    for (sign, wanted) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(sign) {
            return Ok(Requirement::In(word_of(key, false)?, vec![word_of(value, true)?], wanted));
        }
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Exists(word_of(key, false)?, false)),
        None => Ok(Requirement::Exists(word_of(part, false)?, true)),
    }
}

/// A label's name or value; only a value may be empty.
fn word_of(text: &str, may_be_empty: bool) -> Result<String, String> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.chars().all(good) && (may_be_empty || !text.is_empty()) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no label: letters, digits, - _ . / are allowed"))
    }
}

/// `status.phase=Running,metadata.name!=web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldSelector(Vec<(Path, bool, String)>);

impl FieldSelector {
    pub(super) fn matches(&self, value: &Value) -> bool {
        self.0.iter().all(|(path, wanted, text)| (path.text(value) == *text) == *wanted)
    }
}

impl FromStr for FieldSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let requirement = |part: &str| {
            for (sign, wanted) in [("!=", false), ("==", true), ("=", true)] {
                if let Some((path, value)) = part.split_once(sign) {
                    return Ok((path.trim().parse()?, wanted, value.trim().to_owned()));
                }
            }
            Err(format!("\"{part}\": status.phase=Running would be one, or !="))
        };
        by_commas(text).into_iter().map(requirement).collect::<Result<_, String>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let labels = [("app", "web"), ("tier", "front"), ("empty", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        selector.parse::<Selector>().unwrap().matches(&HashMap::from(labels))
    }

    #[test]
    fn the_grammar_is_kubectls() {
        for yes in [
            "app=web",
            "app==web",
            "app = web, tier=front",
            "app!=db",
            "other!=x",
            "app in (db, web)",
            "app notin (db)",
            "other notin (a,b)",
            "app",
            "!other",
            "empty=",
            "app in (web),tier in (front,back),!x",
            "app=web,",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["app=db", "app!=web", "app in (db)", "app notin (web)", "other", "!app", "x=1"] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            ",",
            "=",
            "app=a b",
            "app in web",
            "app in (a",
            "a)",
            "a in in (b)",
            "!",
            "a=((b)",
            "app > 3",
        ] {
            bad.parse::<Selector>().expect_err(bad);
        }
    }

    #[test]
    fn fields_are_places_in_the_object() {
        let pod = serde_json::json!({"metadata": {"name": "web"}, "status": {"count": 7}});
        let fits = |text: &str| text.parse::<FieldSelector>().unwrap().matches(&pod);
        assert!(fits("metadata.name=web,status.count==7") && fits("spec.x="));
        assert!(!fits("metadata.name!=web") && !fits("status.count=8"));
        "name".parse::<FieldSelector>().unwrap_err();
    }
}
