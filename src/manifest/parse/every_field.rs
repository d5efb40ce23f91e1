//! That a manifest with every field, the guide's list of fields, and what `halectl explain`
//! says of each, have just what the parser takes. The parser itself says what that is: by what
//! it asks of each object, and by what it makes of a manifest with one field changed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schema::{CONFIG_MAP, POD as POD_FIELDS, SECRET};
use super::{all, opened, parse};
use crate::health::fields::{ASKED, Field, Mistakes, Shape, listed as listed_words};
use crate::manifest::PodPlan;

const POD: &str = include_str!("../../../integration/pods/every-field.yaml");
const GUIDE: &str = include_str!("../../../docs/guide.md");

/// Where an object stands, whichever it is of its kind: `container.probe.exec`.
fn place(path: &str) -> String {
    let documents = [
        ("document[0]", "ConfigMap"),
        ("document[1]", "Secret"),
        ("document[2].", ""),
        ("document[2]", "Pod"),
    ];
    let mut place = path.to_owned();
    for (document, kind) in documents {
        place = place.replace(document, kind);
    }
    let number = |c: char| c == '[' || c == ']' || c.is_ascii_digit();
    place.retain(|c| !number(c));
    for (one, all) in [
        ("spec.initContainers", "container"),
        ("spec.containers", "container"),
        ("container.startupProbe", "probe"),
        ("container.livenessProbe", "probe"),
        ("container.readinessProbe", "probe"),
        ("container.lifecycle.postStart", "hook"),
        ("container.lifecycle.preStop", "hook"),
    ] {
        place = place.replace(one, all);
    }
    // They are one and the same on both levels.
    let shared = ["securityContext.seccompProfile", "securityContext.seLinuxOptions"];
    let shared = shared.into_iter().find(|shared| place.ends_with(shared));
    shared.map_or(place, str::to_owned)
}

/// The fields that may be there, and those that are.
fn asked() -> (BTreeSet<String>, BTreeSet<String>) {
    ASKED.take();
    let manifest = parse(POD).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(manifest.pods.len(), 1);
    let (mut may, mut are) = (BTreeSet::new(), BTreeSet::new());
    for asked in ASKED.take() {
        let place = place(&asked.path);
        may.extend(asked.may.iter().map(|name| format!("{place}.{name}")));
        are.extend(asked.has.iter().map(|name| format!("{place}.{name}")));
    }
    (may, are)
}

#[test]
fn the_pod_with_every_field_has_every_field() {
    let (may, are) = asked();
    assert!(may.contains("probe.httpGet.httpHeaders.name"), "nothing was noted");
    let missing: Vec<&String> = may.difference(&are).collect();
    assert!(missing.is_empty(), "not in integration/pods/every-field.yaml: {missing:#?}");
}

/// The table's rows: `| spec | hostname, dnsConfig (nameservers, searches) |`.
fn listed() -> BTreeSet<String> {
    let table =
        GUIDE.split_once("| of | fields |\n|---|---|\n").expect("the guide has the table").1;
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut listed = BTreeSet::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (of, fields) = (cells.next().unwrap(), cells.next().unwrap());
        let mut within = vec![of.to_owned()];
        let mut last = String::new();
        for part in fields.split_inclusive(['(', ')', ',']) {
            let name = part.trim_matches([' ', '(', ')', ',']);
            if !name.is_empty() {
                last = format!("{}.{name}", place(within.last().unwrap()));
                listed.insert(last.clone());
            }
            if part.ends_with('(') {
                within.push(last.clone());
            } else if part.ends_with(')') {
                within.pop();
            }
        }
        assert_eq!(within.len(), 1, "brackets don't match: {row}");
    }
    listed
}

#[test]
fn the_guide_lists_every_field_and_no_other() {
    let (may, _) = asked();
    let listed = listed();
    let missing: Vec<&String> = may.difference(&listed).collect();
    let extra: Vec<&String> = listed.difference(&may).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/guide.md lacks {missing:#?} and has {extra:#?}"
    );
}

/// A field that the manifest has, and where.
struct Place {
    pointer: String,
    field: Field,
}

/// Every field of the manifest with what the table says of it.
fn places(documents: &[Value]) -> Vec<Place> {
    let mut places = Vec::new();
    for (at, fields) in [CONFIG_MAP, SECRET, POD_FIELDS].into_iter().enumerate() {
        walk(&documents[at], fields, &format!("/{at}"), &mut places);
    }
    places
}

fn walk(value: &Value, fields: &'static [Field], above: &str, places: &mut Vec<Place>) {
    for (name, value) in value.as_object().expect(above) {
        let pointer = format!("{above}/{name}");
        let field = fields.iter().find(|field| field.name == name);
        let field = *field.unwrap_or_else(|| panic!("explain knows nothing of {pointer}"));
        match field.shape {
            Shape::Object(below) => walk(value, below, &pointer, places),
            Shape::Objects(below) => {
                for (at, value) in value.as_array().expect(above).iter().enumerate() {
                    walk(value, below, &format!("{pointer}/{at}"), places);
                }
            }
            _ => {}
        }
        places.push(Place { pointer, field });
    }
}

/// What the parser makes of the manifest with this instead; `None`: without it.
fn with(documents: &[Value], pointer: &str, value: Option<Value>) -> Result<Vec<PodPlan>, String> {
    let mut documents = Value::Array(documents.to_vec());
    let (above, name) = pointer.rsplit_once('/').unwrap();
    let object = documents.pointer_mut(above).and_then(Value::as_object_mut).unwrap();
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
    let mut mistakes = Mistakes::default();
    let documents = opened(documents.as_array().unwrap().clone(), &mut mistakes);
    let mut plans = all(&documents, &mut mistakes);
    if !mistakes.0.is_empty() {
        let told: Vec<String> = mistakes.0.iter().map(ToString::to_string).collect();
        return Err(told.join("\n"));
    }
    // The text differs, of course.
    for plan in &mut plans {
        plan.document = Value::Null;
    }
    Ok(plans)
}

/// Values that a field can't have.
fn wrong(field: &Field) -> Vec<Value> {
    let beyond = |least: u64, most: u64| {
        let below = least.checked_sub(1);
        [Some(most + 1), below].into_iter().flatten().map(Value::from).collect::<Vec<_>>()
    };
    match field.shape {
        Shape::Text(_) | Shape::Other(_) => vec![json!({"x": "y"}), json!(["x"])],
        Shape::Flag(_) => vec![json!("yes"), json!(1)],
        Shape::Number(least, most, _) => [beyond(least, most), vec![json!("x")]].concat(),
        Shape::Numbers(least, most) => {
            let list = |value: Value| json!([value]);
            beyond(least, most).into_iter().map(list).chain([json!(1)]).collect()
        }
        Shape::Quantity(..) => vec![json!("lots"), json!([])],
        Shape::Word(..) => vec![json!("nonsense"), json!(1)],
        Shape::Texts => vec![json!("x"), json!([{}])],
        Shape::Map => vec![json!("x"), json!({"x": {}})],
        Shape::Object(_) => vec![json!("x"), json!([])],
        Shape::Objects(_) => vec![json!("x"), json!(["x"])],
    }
}

/// The default, where it is a value.
fn default(field: &Field) -> Option<Value> {
    match field.shape {
        Shape::Flag(default) => default.parse().ok().map(Value::Bool),
        Shape::Number(_, _, default) => default.map(Value::from),
        Shape::Word(words, default) if words.contains(&default) => Some(json!(default)),
        Shape::Quantity(_, default) if !default.is_empty() => Some(json!(default)),
        _ => None,
    }
}

#[test]
fn what_is_explained_of_a_field_is_what_the_parser_does() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(POD).unwrap();
    let places = places(&documents);
    assert!(places.len() > 300, "only {} fields were looked at", places.len());
    let mut faults = Vec::new();
    for Place { pointer, field } in &places {
        let mut fault = |what: String| faults.push(format!("{pointer}: {what}"));
        if field.needed && with(&documents, pointer, None).is_ok() {
            fault("need not be there".to_owned());
        }
        // Text that means nothing may be anything.
        let idle = field.about == "Not looked at." && !matches!(field.shape, Shape::Flag(_));
        for value in wrong(field).into_iter().filter(|_| !idle) {
            let is_text = value.is_string();
            match (with(&documents, pointer, Some(value.clone())), field.shape) {
                (Ok(_), _) => fault(format!("{value} is taken")),
                (Err(told), Shape::Word(words, _)) if is_text => {
                    if !told.contains(&listed_words(words)) {
                        fault(format!("{value} is answered by {told}"));
                    }
                }
                (Err(_), _) => {}
            }
        }
        if let Some(default) = default(field) {
            let given = with(&documents, pointer, Some(default)).ok();
            // What needs another value of this field is wrong either way.
            if given != with(&documents, pointer, None).ok() {
                fault("is something else without it".to_owned());
            }
        }
        let Shape::Word(words, _) = field.shape else { continue };
        for word in words {
            let told = with(&documents, pointer, Some(json!(word))).err().unwrap_or_default();
            if told.contains(&format!("is \"{word}\"")) {
                fault(told);
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
