//! Any bytes as an IP packet from the ring buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::control::decode(data, data.len() as u32);
});
