//! Any bytes as an MLD message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mcstat::proto::mld::decode(data, data.len());
});
