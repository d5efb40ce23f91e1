//! A manifest's text → plans. Pure: nothing is looked up, every mistake is collected.
//!
//! A file for each part of a Pod. A field that isn't supported is a mistake that names it.

mod cluster;
mod container;
mod env;
#[cfg(test)]
mod every_field;
mod files;
mod hooks;
mod locate;
mod pod;
mod resources;
mod schema;
mod security;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Located, Manifest, PodPlan};
use crate::health::fields::{Field, Mistake, Mistakes, Object, kinds};
use files::Sources;
use locate::Places;
pub use schema::EXPLAINED;

/// Documents in one manifest.
const MAX_DOCUMENTS: usize = 256;
/// The longest name of a container, volume or port, in bytes: a DNS label.
const MAX_LABEL: usize = 63;
/// The longest of a pod, ConfigMap or Secret: a DNS subdomain.
const MAX_SUBDOMAIN: usize = 253;

/// Reads every document of a manifest: Pods, and the ConfigMaps and Secrets they use; also as
/// the items of a List. Nothing is given where anything is wrong.
pub fn parse(text: &str) -> Result<Manifest, Errors> {
    // As in YAML 1.2: a container may be named `n` or `on`.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let documents = match serde_saphyr::from_multiple_with_options::<Value>(text, options) {
        Ok(documents) => documents,
        Err(error) => {
            let at = error.location();
            let (line, column) = at.map_or((0, 0), |at| (at.line(), at.column()));
            let what = error.to_string();
            let mistake = Mistake { path: String::new(), what };
            return Err(Errors(vec![Located { line, column, mistake }]));
        }
    };
    let mut mistakes = Mistakes::default();
    let documents = opened(documents, &mut mistakes);
    let pods = all(&documents, &mut mistakes);
    if mistakes.0.is_empty() {
        return Ok(Manifest { pods, warnings: warnings(&documents) });
    }
    let places = Places::of(text);
    let mut located: Vec<Located> =
        mistakes.0.into_iter().map(|mistake| places.locate(mistake)).collect();
    located.sort_by_key(|located| (located.line, located.column));
    Err(Errors(located))
}

/// A document and its path.
type Document = (String, Value);

/// Every document, those of Lists too, without what a server notes.
fn opened(values: Vec<Value>, mistakes: &mut Mistakes) -> Vec<Document> {
    let values: Vec<Value> = values.into_iter().filter(|value| !value.is_null()).collect();
    let only = values.len() == 1;
    let mut documents = Vec::new();
    for (at, mut value) in values.into_iter().enumerate() {
        let path = document_path(at, only);
        if value.get("kind").and_then(Value::as_str) != Some("List") {
            documents.push((path, value));
            continue;
        }
        let items = below(&path, "items");
        match value.get_mut("items").map(Value::take) {
            Some(Value::Array(list)) => {
                let numbered = list.into_iter().enumerate();
                documents.extend(numbered.map(|(at, item)| (format!("{items}[{at}]"), item)));
            }
            _ => mistakes.add(items, "a list is wanted"),
        }
    }
    for (_, document) in &mut documents {
        cluster::strip(document);
    }
    documents
}

fn all(documents: &[Document], mistakes: &mut Mistakes) -> Vec<PodPlan> {
    if documents.len() > MAX_DOCUMENTS {
        let count = documents.len();
        mistakes.add("", format!("{count} documents: {MAX_DOCUMENTS} are allowed"));
        return Vec::new();
    }
    let mut sources = Sources::default();
    let mut pods = Vec::new();
    for (path, document) in documents {
        let Some(object) = Object::new(path, document, mistakes) else { continue };
        let kinds = ["Pod", "ConfigMap", "Secret"];
        if object.get("kind").is_none() {
            mistakes.add(object.path.clone(), "field \"kind\" is missing");
            continue;
        }
        let kind = object.one_of("kind", &kinds, mistakes);
        match (kind, object.required("apiVersion", mistakes).as_deref()) {
            // Its fields are another kind's.
            (None, _) => {}
            (_, Some(version)) if version != "v1" => {
                mistakes
                    .add(object.at("apiVersion"), format!("is \"{version}\": \"v1\" is allowed"));
            }
            (Some("Pod"), _) => pods.push((object, document)),
            (Some(kind), _) => sources.read(&object, kind == "Secret", mistakes),
        }
    }
    if pods.is_empty() && mistakes.0.is_empty() {
        mistakes.add("", "there is no Pod in it");
    }
    let plans: Vec<PodPlan> = pods
        .iter()
        .filter_map(|(object, document)| pod::pod(object, document, &sources, mistakes))
        .collect();
    twice(&plans, mistakes);
    plans
}

/// What was left out of the pods.
fn warnings(documents: &[Document]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (_, document) in documents {
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for volume in cluster::token_volumes(document) {
            warnings.push(format!(
                "pod \"{name}\": volume \"{volume}\" and its mounts are left out: there is no API \
                 server here, and no token for one"
            ));
        }
    }
    warnings
}

/// Two documents that name the same pod.
fn twice(plans: &[PodPlan], mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for plan in plans {
        let (namespace, name) = (&plan.sandbox.namespace, &plan.sandbox.name);
        if !seen.insert((namespace, name)) {
            mistakes.add("", format!("pod \"{name}\" of namespace \"{namespace}\" is there twice"));
        }
    }
}

/// One document needs no number.
fn document_path(at: usize, only: bool) -> String {
    if only { String::new() } else { format!("document[{at}]") }
}

/// The path of a field.
fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A DNS label (RFC 1123).
fn label(object: &Object<'_>, field: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = object.required(field, mistakes)?;
    let good = is_label(&text);
    if !good {
        let what = format!(
            "{text:?}: at most {MAX_LABEL} lower-case letters, digits and - are allowed, and no - at either end"
        );
        mistakes.add(object.at(field), what);
    }
    good.then_some(text)
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    text.len() <= MAX_LABEL
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// A DNS subdomain (RFC 1123): labels with dots between.
fn subdomain(object: &Object<'_>, field: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = object.required(field, mistakes)?;
    let good = text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_label);
    if !good {
        let what = format!(
            "{text:?}: at most {MAX_SUBDOMAIN} lower-case letters, digits, - and . are allowed, and each part begins and ends with a letter or a digit"
        );
        mistakes.add(object.at(field), what);
    }
    good.then_some(text)
}

/// The one of a table's kinds that an object has, and what is in it. `later`: those that haled
/// doesn't know yet.
fn exactly_one<'o>(
    object: &'o Object<'_>,
    fields: &'static [Field],
    later: &[&str],
    mistakes: &mut Mistakes,
) -> Option<(&'static str, Object<'o>)> {
    let kinds = kinds(fields);
    let there = kinds.iter().copied().filter(|kind| object.get(kind).is_some());
    let there: Vec<&'static str> = there.collect();
    if let [kind] = there[..] {
        return Some((kind, object.object(kind, mistakes)?));
    }
    // One of another kind has been told already.
    if !there.is_empty() || !later.iter().any(|kind| object.get(kind).is_some()) {
        let what = format!("exactly one of {} is wanted", kinds.join(", "));
        mistakes.add(object.path.clone(), what);
    }
    None
}

/// The objects of a list.
fn objects<'a>(object: &Object<'a>, field: &str, mistakes: &mut Mistakes) -> Vec<Object<'a>> {
    let values = object.list(field, mistakes);
    values.into_iter().filter_map(|(path, value)| Object::new(path, value, mistakes)).collect()
}

/// An absolute path without `..`.
fn absolute(object: &Object<'_>, field: &str, mistakes: &mut Mistakes) -> Option<String> {
    let path = object.required(field, mistakes)?;
    let good =
        path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0');
    if !good {
        mistakes.add(object.at(field), format!("{path:?}: an absolute path without .. is wanted"));
    }
    good.then_some(path)
}
