//! A pod's annotations: each line is a key, and after the first `=` its value.
#![no_main]

use std::collections::BTreeMap;

use haled::health::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let pair = |line: &str| Some(line.split_once('=')?).map(|(a, b)| (a.to_owned(), b.to_owned()));
    // Values are JSON, in which a line's end can stand as a space.
    let annotations: BTreeMap<String, String> = text.lines().filter_map(pair).collect();
    if let Err(error) = Policy::from_annotations(&annotations) {
        assert!(annotations.contains_key(&error.key) && !error.why.is_empty());
    }
    drop(haled::network::check_annotations(&annotations));
});
