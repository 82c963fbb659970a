//! Any bytes as a stream of JSON texts from an OVSDB server.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mcstat::proto::ovsdb::Framer;

fuzz_target!(|data: &[u8]| {
    let mut framer = Framer::new(1 << 16);
    let mut input = BytesMut::from(data);
    while let Ok(Some(_)) = framer.next_message(&mut input) {}
});
