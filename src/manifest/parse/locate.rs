//! Where each value of a manifest stands in its text.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::health::fields::Mistake;
use crate::manifest::Located;

/// Line and column, from 1, of every path: `spec.containers[0].image`.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, (u64, u64)>);

impl Places {
    /// One pass over the text. A text that can't be read has no places.
    pub(super) fn of(text: &str) -> Self {
        let mut places = Self::default();
        let Ok(documents) = serde_saphyr::from_multiple::<Spanned<Node>>(text) else {
            return places;
        };
        let documents: Vec<_> =
            documents.into_iter().filter(|node| !matches!(node.value, Node::Null)).collect();
        let one = documents.len() == 1;
        for (at, document) in documents.into_iter().enumerate() {
            places.add(&super::document_path(at, one), document);
        }
        places
    }

    fn add(&mut self, path: &str, node: Spanned<Node>) {
        self.0.insert(path.to_owned(), (node.referenced.line(), node.referenced.column()));
        match node.value {
            Node::Null | Node::Scalar => {}
            Node::List(items) => {
                for (at, item) in items.into_iter().enumerate() {
                    self.add(&format!("{path}[{at}]"), item);
                }
            }
            Node::Map(fields) => {
                for (key, value) in fields {
                    let below = super::below(path, &key.value);
                    self.add(&below, value);
                    // A field stands where its name does.
                    self.0.insert(below, (key.referenced.line(), key.referenced.column()));
                }
            }
        }
    }

    /// A mistake with its place: that of the field which the message names where it is there,
    /// else of the path, else of what is nearest above it.
    pub(super) fn locate(&self, mistake: Mistake) -> Located {
        let named = mistake.what.split('"').nth(1).map(|name| super::below(&mistake.path, name));
        let mut found = named.and_then(|path| self.0.get(&path));
        let mut path = mistake.path.as_str();
        while found.is_none() {
            found = self.0.get(path);
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => break,
                None => path = "",
            }
        }
        let (line, column) = found.copied().unwrap_or_default();
        Located { line, column, mistake }
    }
}

/// A value's shape.
enum Node {
    Null,
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}
