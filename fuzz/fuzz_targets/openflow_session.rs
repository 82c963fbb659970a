//! Any bytes as what a switch sends to a session that waits for flows and groups, in two pieces.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mcstat::proto::openflow::{GroupId, Request, Session, Version};

fuzz_target!(|data: (usize, &[u8])| {
    let (cut, stream) = data;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut session = Session::start(Version::V15, &mut output);
    let _ = session.request(Request::Flows { table: 255 }, &mut output);
    let _ = session.request(GroupId::new(1).map_or(Request::Tables, Request::Group), &mut output);
    let (first, second) = stream.split_at(cut.min(stream.len()));
    for piece in [first, second] {
        input.extend_from_slice(piece);
        while let Ok(Some(_)) = session.receive(&mut input, &mut output) {}
    }
});
