//! That a manifest with every field, and the guide's list of fields, have just what the parser
//! takes. The parser itself says what that is: by what it asks of each object.

use std::collections::BTreeSet;

use super::parse;
use crate::health::fields::ASKED;

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
    // It is one and the same on both levels.
    let profile = "securityContext.seccompProfile";
    if place.ends_with(profile) { profile.to_owned() } else { place }
}

/// The fields that may be there, and those that are.
fn asked() -> (BTreeSet<String>, BTreeSet<String>) {
    ASKED.take();
    let plans = parse(POD).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plans.len(), 1);
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
