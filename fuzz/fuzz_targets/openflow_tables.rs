//! Any bytes as the tables of one part of a reply.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::openflow::decode_tables(data, &mut Vec::new());
});
