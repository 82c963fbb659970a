//! Any text as a snooping table.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let _ = mcstat::proto::mdb::parse(data);
});
