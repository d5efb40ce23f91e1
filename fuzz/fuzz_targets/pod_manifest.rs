//! Pod manifests.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = haled::manifest::parse(text) {
        assert!(!errors.0.is_empty());
        assert!(!errors.of_file("pod.yaml").is_empty());
    }
});
