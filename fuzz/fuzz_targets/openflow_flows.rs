//! Any bytes as the flows of one part of a reply.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::openflow::decode_flows(data, &mut Vec::new());
});
