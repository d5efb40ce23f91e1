//! Packets between the daemon and a monitor: what is understood is said again the same.
#![no_main]

use haled::monitor::wire::{Request, Say};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
    }
    if let Ok(said) = serde_json::from_slice::<Say>(data) {
        let again = serde_json::to_vec(&said).unwrap();
        assert_eq!(serde_json::from_slice::<Say>(&again).unwrap(), said);
    }
});
