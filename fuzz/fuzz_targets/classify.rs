//! Any bytes as an Ethernet frame: the kernel's own classification.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat_common::frame::classify(&data);
});
