//! What a WebSocket client sends once it is connected.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| haled::stream::fuzz_websocket(data));
