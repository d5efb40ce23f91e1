//! Fields with what people are told of them: the one table that a parser goes by and that
//! `halectl explain` shows.

use std::fmt::Write as _;

use super::{Mistakes, Object, nearest, whole};

/// A field that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether it must be there.
    pub needed: bool,
    /// What it is for, in a sentence or two.
    pub about: &'static str,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string, and what there is without it.
    Text(&'static str),
    /// True or false, and what it is without it.
    Flag(&'static str),
    /// A list of strings.
    Texts,
    /// Strings by name.
    Map,
    /// A whole number from the first to the second; the third is the default.
    Number(u64, u64, Option<u64>),
    /// A list of whole numbers from the first to the second.
    Numbers(u64, u64),
    /// An amount, as a string or a number: some examples, and what there is without it.
    Quantity(&'static str, &'static str),
    /// One of these words, and what there is without it.
    Word(&'static [&'static str], &'static str),
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
        Self { name, shape, needed: false, about }
    }

    /// One that must be there.
    pub const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, needed: true, about }
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
            Shape::Text(_) | Shape::Word(..) => "string",
            Shape::Flag(_) => "boolean",
            Shape::Texts => "list of strings",
            Shape::Map => "map of strings",
            Shape::Number(..) => "integer",
            Shape::Numbers(..) => "list of integers",
            Shape::Quantity(..) => "quantity",
            Shape::Object(_) => "object",
            Shape::Objects(_) => "list of objects",
            Shape::Other(_) => "",
        }
    }

    /// What it may be, and whether it must be there; empty: anything of its kind, or nothing.
    pub fn allowed(&self) -> String {
        let allowed = match self.shape {
            Shape::Number(least, most, _) | Shape::Numbers(least, most) => {
                format!("{least} to {most}")
            }
            Shape::Quantity(examples, _) => format!("such as {examples}"),
            Shape::Word(words, _) => listed(words),
            Shape::Other(allowed) => allowed.to_owned(),
            _ => String::new(),
        };
        match (self.needed, allowed.is_empty()) {
            (false, _) => allowed,
            (true, true) => "must be there".to_owned(),
            (true, false) => format!("must be there; {allowed}"),
        }
    }

    /// What there is without it; empty: nothing.
    pub fn default(&self) -> String {
        match self.shape {
            Shape::Text(default)
            | Shape::Flag(default)
            | Shape::Quantity(_, default)
            | Shape::Word(_, default) => default.to_owned(),
            Shape::Number(_, _, Some(default)) => default.to_string(),
            _ => String::new(),
        }
    }
}

/// Words with commas between them; an empty one goes without saying.
pub fn listed(words: &[&str]) -> String {
    words.iter().copied().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The field of a table, by name. Names are written in the code: one that isn't there is a
/// slip that a test of its parser shows.
fn of(fields: &[Field], name: &str) -> Field {
    let found = fields.iter().find(|field| field.name == name);
    *found.unwrap_or_else(|| panic!("the table has no field {name}"))
}

/// Examples of an amount.
pub fn examples(fields: &[Field], name: &str) -> &'static str {
    match of(fields, name).shape {
        Shape::Quantity(examples, _) => examples,
        _ => "",
    }
}

/// What may be said in a field that takes something else.
pub fn allowed(fields: &[Field], name: &str) -> &'static str {
    match of(fields, name).shape {
        Shape::Other(allowed) => allowed,
        _ => "",
    }
}

/// The kinds of a table of which an object has one: its objects.
pub fn kinds(fields: &'static [Field]) -> Vec<&'static str> {
    let kinds = fields.iter().filter(|field| matches!(field.shape, Shape::Object(_)));
    kinds.map(|field| field.name).collect()
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

    /// One of the table's words.
    pub fn word(
        &self,
        fields: &'static [Field],
        name: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&'static str> {
        match of(fields, name).shape {
            Shape::Word(words, _) => self.one_of(name, words, mistakes),
            _ => None,
        }
    }

    /// A number of the table, within its bounds.
    pub fn number(&self, fields: &[Field], name: &str, mistakes: &mut Mistakes) -> Option<u64> {
        match of(fields, name).shape {
            Shape::Number(least, most, _) => self.integer(name, least..=most, mistakes),
            _ => None,
        }
    }

    /// The numbers of a list, each within the table's bounds.
    pub fn numbers(&self, fields: &[Field], name: &str, mistakes: &mut Mistakes) -> Vec<u64> {
        let Shape::Numbers(least, most) = of(fields, name).shape else { return Vec::new() };
        let mut numbers = Vec::new();
        for (path, value) in self.list(name, mistakes) {
            match whole(value, &(least..=most)) {
                Ok(number) => numbers.push(number),
                Err(what) => mistakes.add(path, what),
            }
        }
        numbers
    }
}

/// The field at a path, `pod.spec.containers`; or why there is none. The first name may be
/// kubectl's plural, in any case.
pub fn find(roots: &'static [Field], path: &str) -> Result<&'static Field, String> {
    let (mut fields, mut found, mut so_far) = (roots, None, String::new());
    for name in path.split('.') {
        let singular = name.to_ascii_lowercase();
        let singular = singular.strip_suffix('s').unwrap_or(&singular);
        let name = if so_far.is_empty() && roots.iter().any(|root| root.name == singular) {
            singular
        } else {
            name
        };
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
        Field::needed("mode", Shape::Word(&["", "A", "B"], "A"), "A mode."),
    ];

    #[test]
    fn a_field_is_found_and_says_what_it_takes() {
        let port = find(ROOTS, "pod.port").unwrap();
        assert_eq!(
            (port.kind(), port.allowed(), port.default()),
            ("integer", "1 to 9".into(), "3".into())
        );
        let mode = find(ROOTS, "mode").unwrap();
        assert_eq!((mode.allowed(), mode.default()), ("must be there; A, B".into(), "A".into()));
        assert_eq!(find(ROOTS, "Pods.port").unwrap(), port);
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
