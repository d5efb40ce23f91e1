//! What a CNI plugin prints, and what is in a configuration's file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| haled::network::fuzz(text));
