//! TOML tables with the line of everything in them.
//!
//! A [`Section`] is asked for the keys it may have; what it has beyond those is a mistake,
//! told with the nearest key that was asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Bytes, CgroupDriver};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// From 1; `None`: nowhere in particular.
    pub(super) line: Option<usize>,
    /// The key, what was found, what is allowed.
    pub(super) what: String,
}

/// What the reading of one file has found so far.
pub(super) struct Reading<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
    lines: RefCell<BTreeMap<String, usize>>,
    asked: RefCell<Vec<String>>,
    shown: RefCell<Vec<Shown>>,
}

/// A key as it is in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// `runtime.`, or nothing.
    pub(super) table: String,
    pub(super) key: &'static str,
    /// As TOML; `None`: it is not set.
    pub(super) value: Option<String>,
}

impl<'t> Reading<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let (mistakes, lines, asked, shown) = Default::default();
        Self { text, mistakes, lines, asked, shown }
    }

    pub(super) fn note(&self, at: Option<usize>, what: String) {
        let line = at.map(|offset| self.line(offset));
        self.mistakes.borrow_mut().push(Mistake { line, what });
    }

    /// Notes what is wrong with the value of a key, at the line where the file has it.
    pub(super) fn note_key(&self, key: &str, what: &str) {
        let line = self.lines.borrow().get(key).copied();
        self.mistakes.borrow_mut().push(Mistake { line, what: format!("{key}: {what}") });
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.borrow().contains_key(key)
    }

    /// In the file's order.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }

    /// Every key asked for, as `section.key`.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// Every key asked for and what its value is now, in order.
    pub(super) fn into_shown(self) -> Vec<Shown> {
        self.shown.into_inner()
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
    }
}

/// One table of the file, or its absence.
pub(super) struct Section<'r, 't> {
    reading: &'r Reading<'t>,
    table: Option<&'r DeTable<'t>>,
    /// "" or "runtime.".
    prefix: String,
    known: Vec<&'static str>,
}

impl<'r, 't> Section<'r, 't> {
    pub(super) fn top(reading: &'r Reading<'t>, table: &'r DeTable<'t>) -> Self {
        Self { reading, table: Some(table), prefix: String::new(), known: Vec::new() }
    }

    /// Puts the key's value into `target`, where the file has one of the right type.
    pub(super) fn set<T: FromToml>(&mut self, key: &'static str, target: &mut T) {
        let name = format!("{}{key}", self.prefix);
        self.reading.asked.borrow_mut().push(name.clone());
        if let Some(value) = self.get(key) {
            match T::from_toml(value.get_ref()) {
                Ok(value) => *target = value,
                Err(why) => {
                    self.reading.note(Some(value.span().start), format!("{name}: {why}"));
                }
            }
        }
        let (table, value) = (self.prefix.clone(), target.to_toml());
        self.reading.shown.borrow_mut().push(Shown { table, key, value });
    }

    /// The table of this name, empty where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r, 't> {
        let prefix = format!("{}{key}.", self.prefix);
        let value = self.get(key);
        self.child(prefix, value)
    }

    /// The tables in the table of this name, by their own names.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(String, Section<'r, 't>)> {
        let all = self.section(key);
        let Some(table) = all.table else { return Vec::new() };
        let child = |(name, value): (&'r Spanned<_>, &'r Spanned<DeValue<'t>>)| {
            let name: &std::borrow::Cow<'t, str> = name.get_ref();
            (name.to_string(), all.child(format!("{}{name}.", all.prefix), Some(value)))
        };
        table.iter().map(child).collect()
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name = key.get_ref();
            if !self.known.contains(&name.as_ref()) {
                let meant = match nearest(name, self.known.iter().copied()) {
                    Some(near) => format!(", did you mean \"{near}\"?"),
                    None => format!(": there are {}", list(&self.known)),
                };
                let what = format!("unknown key \"{}{name}\"{meant}", self.prefix);
                self.reading.note(Some(key.span().start), what);
            }
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        self.known.push(key);
        let (at, value) = self.table?.get_key_value(key)?;
        let name = format!("{}{key}", self.prefix);
        self.reading.lines.borrow_mut().insert(name, self.reading.line(at.span().start));
        Some(value)
    }

    fn child(&self, prefix: String, value: Option<&'r Spanned<DeValue<'t>>>) -> Section<'r, 't> {
        let table = match value.map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Table(table))) => Some(table),
            Some((value, other)) => {
                let name = prefix.trim_end_matches('.');
                let what = format!("{name}: found {}, a table [{name}] is needed", found(other));
                self.reading.note(Some(value.span().start), what);
                None
            }
            None => None,
        };
        Section { reading: self.reading, table, prefix, known: Vec::new() }
    }
}

/// What a key can hold.
pub(super) trait FromToml: Sized {
    /// Or what was found and what is needed.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
    /// What `from_toml` would read as this; `None`: the key left out.
    fn to_toml(&self) -> Option<String>;
}

impl FromToml for String {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| needs(value, "text in quotes"))
    }

    fn to_toml(&self) -> Option<String> {
        Some(toml::Value::from(self.as_str()).to_string())
    }
}

impl FromToml for PathBuf {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(Self::from).ok_or_else(|| needs(value, "a path in quotes"))
    }

    fn to_toml(&self) -> Option<String> {
        Some(toml::Value::from(self.to_string_lossy().as_ref()).to_string())
    }
}

impl FromToml for Option<PathBuf> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        PathBuf::from_toml(value).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref()?.to_toml()
    }
}

impl FromToml for Option<String> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        String::from_toml(value).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref()?.to_toml()
    }
}

impl FromToml for CgroupDriver {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("auto") => Ok(Self::Auto),
            Some("cgroupfs") => Ok(Self::Cgroupfs),
            Some("systemd") => Ok(Self::Systemd),
            _ => Err(needs(value, "\"auto\", \"cgroupfs\" or \"systemd\"")),
        }
    }

    fn to_toml(&self) -> Option<String> {
        let name = match self {
            Self::Auto => "auto",
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        };
        Some(format!("\"{name}\""))
    }
}

impl FromToml for Vec<PathBuf> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| needs(value, "a list of paths"))?;
        list.iter().map(|path| PathBuf::from_toml(path.get_ref())).collect()
    }

    fn to_toml(&self) -> Option<String> {
        Some(listed(self))
    }
}

impl FromToml for Vec<String> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| needs(value, "a list of texts"))?;
        list.iter().map(|text| String::from_toml(text.get_ref())).collect()
    }

    fn to_toml(&self) -> Option<String> {
        Some(listed(self))
    }
}

fn listed<T: FromToml>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().filter_map(FromToml::to_toml).collect();
    format!("[{}]", items.join(", "))
}

impl FromToml for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| needs(value, "true or false"))
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl FromToml for usize {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let number = value
            .as_integer()
            .and_then(|integer| Self::from_str_radix(integer.as_str(), integer.radix()).ok());
        number.ok_or_else(|| needs(value, "a whole number from 0"))
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl FromToml for Duration {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let needed = "a time with its unit in quotes, such as \"10s\" or \"5m\"";
        let text = value.as_str().ok_or_else(|| needs(value, needed))?;
        duration(text).ok_or_else(|| needs(value, needed))
    }

    fn to_toml(&self) -> Option<String> {
        let millis = self.as_millis();
        let (number, unit) = match millis {
            0 => (0, "s"),
            _ if millis.is_multiple_of(3_600_000) => (millis / 3_600_000, "h"),
            _ if millis.is_multiple_of(60_000) => (millis / 60_000, "m"),
            _ if millis.is_multiple_of(1000) => (millis / 1000, "s"),
            _ => (millis, "ms"),
        };
        Some(format!("\"{number}{unit}\""))
    }
}

impl FromToml for Bytes {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let needed = "a size with its unit in quotes, such as \"10MiB\"";
        let text = value.as_str().ok_or_else(|| needs(value, needed))?;
        bytes(text).map(Self).ok_or_else(|| needs(value, needed))
    }

    fn to_toml(&self) -> Option<String> {
        let (number, unit) = match self.0 {
            bytes if bytes % (1 << 30) == 0 => (bytes >> 30, "GiB"),
            bytes if bytes % (1 << 20) == 0 => (bytes >> 20, "MiB"),
            bytes => (bytes >> 10, "KiB"),
        };
        Some(format!("\"{number}{unit}\""))
    }
}

/// `512KiB`, `10MiB`, `1GiB`: a whole number and its unit.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let unit: u64 = match text[digits..].trim_start() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// `1h30m`, `10s`, `500ms`: whole numbers, each with its unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        sum = sum.checked_add(unit)?;
        rest = &rest[end..];
    }
    Some(sum)
}

/// The candidate that was probably meant: as near as one edit in three letters.
pub(super) fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    all.map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

fn list(names: &[&str]) -> String {
    let mut names: Vec<_> = names.to_vec();
    names.sort_unstable();
    names.join(", ")
}

fn needs(value: &DeValue<'_>, needed: &str) -> String {
    format!("found {}, {needed} is needed", found(value))
}

/// A value in words, short.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.chars().take(40).collect::<String>()),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
