//! hosts.toml of a registry's mirrors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| haled::image::fuzz::hosts(text));
