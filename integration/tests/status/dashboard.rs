//! The dashboard in docs: every series and label that its queries name is one that haled has.

use std::collections::BTreeSet;

use serde_json::Value;

/// Words of the query language, and labels that Prometheus itself adds.
const OTHERS: [&str; 14] = [
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "instance",
    "label_values",
    "le",
    "on",
    "or",
    "rate",
    "sum",
    "topk",
    "without",
];

/// Every name in the queries is a series, a label of one, or the language's.
pub(super) fn asks_only_for_what_is_there(metrics: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 15, "{queries:?}");
    let known = known(metrics);
    for query in queries {
        for name in names(&query) {
            assert!(known.contains(name.as_str()), "haled has no {name}, asked for by {query}");
        }
    }
}

/// The expressions of panels and variables.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => queries.push(text.clone()),
                    Value::String(text) if key == "query" && text.contains('(') => {
                        queries.push(text.clone());
                    }
                    _ => collect(value, queries),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

/// Names of series and labels in the text that haled gives.
fn known(metrics: &str) -> BTreeSet<&str> {
    let mut known = BTreeSet::from(OTHERS);
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        known.insert(name);
        let labels = rest.split(['{', ',']).filter_map(|part| part.split_once("=\""));
        known.extend(labels.map(|(label, _)| label));
    }
    known
}

/// What an expression names, without text in quotes, ranges and numbers.
fn names(query: &str) -> Vec<String> {
    let unquoted: String = query.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let without_ranges: String =
        unquoted.split('[').map(|part| part.rsplit(']').next().unwrap()).collect();
    let words = without_ranges.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_name_that_is_not_there_is_found() {
    let found = names("sum by (le) (rate(haled_x_bucket{state=\"gone\"}[$__rate_interval])) > 0");
    assert_eq!(found, ["sum", "by", "le", "rate", "haled_x_bucket", "state"]);
    let known = known("# HELP a b\nhaled_x_bucket{le=\"1\",state=\"a\"} 1\nplain 2\n");
    assert!(["haled_x_bucket", "plain", "state"].iter().all(|name| known.contains(name)));
    assert!(!known.contains("haled_y"));
}
