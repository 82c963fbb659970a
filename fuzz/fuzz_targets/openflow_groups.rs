//! Any bytes as the groups of one part of a reply.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::openflow::decode_groups(data, &mut Vec::new());
});
