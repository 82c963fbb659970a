//! Any bytes as an IGMP message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::igmp::decode(data, data.len());
});
