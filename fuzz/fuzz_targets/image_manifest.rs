//! An image's index, manifest and configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| haled::image::fuzz::manifest(data));
