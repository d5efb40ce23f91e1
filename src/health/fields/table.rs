//! Fields with what people are told of them: the one table that a parser goes by and that
//! `halectl explain` shows.

use std::fmt::Write as _;

use super::{Mistakes, Object, nearest};

/// A field that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// What it is for, in a sentence or two.
    pub about: &'static str,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string, and what there is without it.
    Text(&'static str),
    /// A string that must be there.
    Needed,
    /// True or false; false without it.
    Flag,
    /// A list of strings.
    Texts,
    /// Strings by name.
    Map,
    /// A whole number from the first to the second; the third is the default.
    Number(u64, u64, Option<u64>),
    /// One of these words; the first is the default.
    Word(&'static [&'static str]),
    /// An object of these fields.
    Object(&'static [Field]),
    /// A list of such objects.
    Objects(&'static [Field]),
    /// Something else; in words, what is allowed.
    Other(&'static str),
}

impl Field {
    /// One field of a table.
    pub const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, about }
    }

    /// The fields below it.
    pub fn below(&self) -> &'static [Field] {
        match self.shape {
            Shape::Object(fields) | Shape::Objects(fields) => fields,
            _ => &[],
        }
    }

    /// What it holds, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self.shape {
            Shape::Text(_) | Shape::Needed | Shape::Word(_) => "string",
            Shape::Flag => "boolean",
            Shape::Texts => "list of strings",
            Shape::Map => "map of strings",
            Shape::Number(..) => "integer",
            Shape::Object(_) => "object",
            Shape::Objects(_) => "list of objects",
            Shape::Other(_) => "",
        }
    }

    /// What it may be; empty: anything of its kind.
    pub fn allowed(&self) -> String {
        match self.shape {
            Shape::Needed => "must be there".to_owned(),
            Shape::Number(least, most, _) => format!("{least} to {most}"),
            Shape::Word(words) => words.join(", "),
            Shape::Other(allowed) => allowed.to_owned(),
            _ => String::new(),
        }
    }

    /// What there is without it; empty: nothing.
    pub fn default(&self) -> String {
        match self.shape {
            Shape::Text(default) => default.to_owned(),
            Shape::Flag => "false".to_owned(),
            Shape::Number(_, _, Some(default)) => default.to_string(),
            Shape::Word([first, ..]) => (*first).to_owned(),
            _ => String::new(),
        }
    }
}

/// The field of a table, by name. Names are written in the code: one that isn't there is a
/// slip that a test of its parser shows.
fn of(fields: &[Field], name: &str) -> Field {
    let found = fields.iter().find(|field| field.name == name);
    *found.unwrap_or_else(|| panic!("the table has no field {name}"))
}

/// The words that a field may be.
pub fn words(fields: &'static [Field], name: &str) -> &'static [&'static str] {
    match of(fields, name).shape {
        Shape::Word(words) => words,
        _ => &[],
    }
}

/// The default of a number; 0: it has none.
pub fn default_number(fields: &[Field], name: &str) -> u64 {
    match of(fields, name).shape {
        Shape::Number(_, _, Some(default)) => default,
        _ => 0,
    }
}

impl Object<'_> {
    /// Every field must be one of the table; those of `later` are refused as not supported yet.
    pub fn known(&self, fields: &[Field], later: &[&str], mistakes: &mut Mistakes) {
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        self.only(&names, later, mistakes);
    }

    /// A number of the table, within its bounds.
    pub fn number(&self, fields: &[Field], name: &str, mistakes: &mut Mistakes) -> Option<u64> {
        match of(fields, name).shape {
            Shape::Number(least, most, _) => self.integer(name, least..=most, mistakes),
            _ => None,
        }
    }
}

/// The field at a path, `pod.spec.containers`; or why there is none.
pub fn find(roots: &'static [Field], path: &str) -> Result<&'static Field, String> {
    let (mut fields, mut found, mut so_far) = (roots, None, String::new());
    for name in path.split('.') {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let names = fields.iter().map(|field| field.name);
            let mut told = match so_far.as_str() {
                "" => format!("there is no \"{name}\" to explain"),
                above => format!("{above} has no field \"{name}\" that haled takes"),
            };
            match nearest(name, names.clone()) {
                Some(near) => write!(told, "; did you mean \"{near}\"?"),
                None if fields.is_empty() => Ok(()),
                None => write!(told, "; there are {}", names.collect::<Vec<_>>().join(", ")),
            }
            .map_err(|error| error.to_string())?;
            return Err(told);
        };
        if !so_far.is_empty() {
            so_far.push('.');
        }
        so_far.push_str(name);
        (fields, found) = (field.below(), Some(field));
    }
    found.ok_or_else(|| "the path is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: &[Field] = &[Field::new("port", Shape::Number(1, 9, Some(3)), "A port.")];
    const ROOTS: &[Field] = &[
        Field::new("pod", Shape::Object(INNER), "A pod."),
        Field::new("mode", Shape::Word(&["A", "B"]), "A mode."),
    ];

    #[test]
    fn a_field_is_found_and_says_what_it_takes() {
        let port = find(ROOTS, "pod.port").unwrap();
        assert_eq!(
            (port.kind(), port.allowed(), port.default()),
            ("integer", "1 to 9".into(), "3".into())
        );
        let mode = find(ROOTS, "mode").unwrap();
        assert_eq!((mode.allowed(), mode.default()), ("A, B".into(), "A".into()));
        for (path, told) in [
            ("", "there is no \"\" to explain; there are pod, mode"),
            ("podd", "there is no \"podd\" to explain; did you mean \"pod\"?"),
            ("pod.prot", "pod has no field \"prot\" that haled takes; did you mean \"port\"?"),
            ("pod.port.x", "pod.port has no field \"x\" that haled takes"),
        ] {
            assert_eq!(find(ROOTS, path).unwrap_err(), told);
        }
    }

    #[test]
    fn numbers_are_bounded_by_the_table() {
        let value = serde_json::json!({"port": 10, "x": 1});
        let mut mistakes = Mistakes::default();
        let object = Object::new("p", &value, &mut mistakes).unwrap();
        object.known(INNER, &[], &mut mistakes);
        assert_eq!(object.number(INNER, "port", &mut mistakes), None);
        let told: Vec<String> = mistakes.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "p: unknown field \"x\"; allowed are port",
                "p.port: is 10: whole numbers from 1 to 9 are allowed"
            ]
        );
    }
}
