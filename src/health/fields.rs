//! Reading JSON objects that people wrote: every mistake with its path, what was found, what
//! is allowed and, where one is near, the name that was probably meant. Pure.

mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

pub use table::{Field, Shape, allowed, default_number, examples, find, kinds, listed};

/// The longest text that is made of mistakes, in bytes. It travels in an HTTP/2 header, where
/// a byte may become three, and clients take no more than 16 KiB of headers.
const MAX_TOLD: usize = 4096;
/// The longest text of one mistake, in bytes: names in it are as long as people wrote them.
const MAX_LINE: usize = 1024;
/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be offered for the other.
const NEAR: f64 = 0.84;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{what}", path, if path.is_empty() { "" } else { ": " })]
pub struct Mistake {
    /// `spec.containers[0].ports[1]`; empty: the whole.
    pub path: String,
    /// What was found, what is allowed.
    pub what: String,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// One more.
    pub fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        self.0.push(Mistake { path: path.into(), what: what.into() });
    }
}

/// Mistakes in one text, with `between` between them: as many as are of use, and how many more
/// there are.
pub fn told(mistakes: impl IntoIterator<Item = impl Display>, between: &str) -> String {
    let (mut text, mut left) = (String::new(), 0_usize);
    for mistake in mistakes {
        let line = mistake.to_string();
        let line = clipped(&line);
        if left > 0 || text.len() + line.len() > MAX_TOLD {
            left += 1;
            continue;
        }
        if !text.is_empty() {
            text += between;
        }
        text += &line;
    }
    if left > 0 {
        text.extend([between, "and ", &left.to_string(), " more mistakes"]);
    }
    text
}

/// A text that people wrote, in a length that is of use in a message.
pub fn clipped(line: &str) -> Cow<'_, str> {
    if line.len() <= MAX_LINE {
        return line.into();
    }
    let end = (0..=MAX_LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &line[..end]).into()
}

/// What was asked of an object that was read.
#[cfg(test)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// The fields that it may have.
    pub(crate) may: Vec<String>,
    /// Those that it has.
    pub(crate) has: Vec<String>,
}

#[cfg(test)]
thread_local! {
    /// Of each object that this thread has read, so that a test can say whether every field is
    /// used and documented.
    pub(crate) static ASKED: std::cell::RefCell<Vec<Asked>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// An object and where it stands.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    /// `spec.containers[0]`.
    pub path: String,
    fields: &'a Map<String, Value>,
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The name of `names` that was probably meant.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |other: &&str| {
        strsim::jaro_winkler(&name.to_ascii_lowercase(), &other.to_ascii_lowercase())
    };
    let near = names.into_iter().map(|other| (likeness(&other), other));
    let near = near.filter(|(likeness, _)| *likeness >= NEAR);
    near.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

impl<'a> Object<'a> {
    /// `None`, and a mistake, where the value is no object.
    pub fn new(path: impl Into<String>, value: &'a Value, mistakes: &mut Mistakes) -> Option<Self> {
        let path = path.into();
        match value {
            Value::Object(fields) => Some(Self { path, fields }),
            other => {
                mistakes.add(path, format!("an object is wanted, not {}", kind(other)));
                None
            }
        }
    }

    /// Every field must be one of `names`; those of `later` are refused as not supported yet.
    pub fn only(&self, names: &[&str], later: &[&str], mistakes: &mut Mistakes) {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| {
            asked.push(Asked {
                path: self.path.clone(),
                may: names.iter().map(|name| (*name).to_owned()).collect(),
                has: self.fields.keys().cloned().collect(),
            });
        });
        for name in self.fields.keys().map(String::as_str) {
            if names.contains(&name) {
                continue;
            }
            let what = if later.contains(&name) {
                format!("field \"{name}\" is not supported yet")
            } else {
                match nearest(name, names.iter().chain(later).copied()) {
                    Some(near) => format!("unknown field \"{name}\", did you mean \"{near}\"?"),
                    None => format!("unknown field \"{name}\"; allowed are {}", names.join(", ")),
                }
            };
            mistakes.add(self.path.clone(), what);
        }
    }

    /// Where a field stands.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field; `null` is as good as none, as in Kubernetes.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// An object below this one.
    pub fn object(&self, name: &str, mistakes: &mut Mistakes) -> Option<Object<'a>> {
        Object::new(self.at(name), self.get(name)?, mistakes)
    }

    /// A string.
    pub fn string(&self, name: &str, mistakes: &mut Mistakes) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => {
                mistakes.add(self.at(name), format!("a string is wanted, not {}", shown(other)));
                None
            }
        }
    }

    /// A string that must be there and not be empty.
    pub fn required(&self, name: &str, mistakes: &mut Mistakes) -> Option<String> {
        match self.get(name) {
            None => mistakes.add(self.path.clone(), format!("field \"{name}\" is missing")),
            Some(Value::String(text)) if text.is_empty() => mistakes.add(self.at(name), "is empty"),
            Some(_) => return self.string(name, mistakes),
        }
        None
    }

    /// A word of a list.
    pub fn one_of<'w>(
        &self,
        name: &str,
        words: &[&'w str],
        mistakes: &mut Mistakes,
    ) -> Option<&'w str> {
        let text = self.string(name, mistakes)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let meant = nearest(&text, words.iter().copied());
            let meant = meant.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            let are = if words.len() == 1 { "is" } else { "are" };
            let what = format!("is \"{text}\": {} {are} allowed{meant}", listed(words));
            mistakes.add(self.at(name), what);
        }
        found
    }

    /// A boolean.
    pub fn boolean(&self, name: &str, mistakes: &mut Mistakes) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(value) => Some(*value),
            other => {
                mistakes
                    .add(self.at(name), format!("true or false is wanted, not {}", shown(other)));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(
        &self,
        name: &str,
        allowed: RangeInclusive<u64>,
        mistakes: &mut Mistakes,
    ) -> Option<u64> {
        match whole(self.get(name)?, &allowed) {
            Ok(number) => Some(number),
            Err(what) => {
                mistakes.add(self.at(name), what);
                None
            }
        }
    }

    /// The values of a list, each with its path.
    pub fn list(&self, name: &str, mistakes: &mut Mistakes) -> Vec<(String, &'a Value)> {
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                let path = self.at(name);
                let numbered = values.iter().enumerate();
                numbered.map(|(at, value)| (format!("{path}[{at}]"), value)).collect()
            }
            Some(other) => {
                mistakes.add(self.at(name), format!("a list is wanted, not {}", shown(other)));
                Vec::new()
            }
        }
    }

    /// A list of strings.
    pub fn strings(&self, name: &str, mistakes: &mut Mistakes) -> Vec<String> {
        let mut strings = Vec::new();
        for (path, value) in self.list(name, mistakes) {
            match value {
                Value::String(text) => strings.push(text.clone()),
                other => mistakes.add(path, format!("a string is wanted, not {}", shown(other))),
            }
        }
        strings
    }

    /// An object of strings: labels, annotations.
    pub fn string_map(&self, name: &str, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        let Some(object) = self.object(name, mistakes) else { return map };
        for key in object.fields.keys() {
            if let Some(value) = object.string(key, mistakes) {
                map.insert(key.clone(), value);
            }
        }
        map
    }
}

/// A whole number within bounds, or what is wrong with it.
fn whole(value: &Value, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    value.as_u64().filter(|number| allowed.contains(number)).ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        format!("is {}: whole numbers from {least} to {most} are allowed", shown(value))
    })
}

/// A scalar as it was written; of the others, only what it is.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 64 => format!("{text:?}"),
        other => kind(other).to_owned(),
    }
}
