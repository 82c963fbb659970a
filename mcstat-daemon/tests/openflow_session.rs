//! The OpenFlow session against messages made by hand and against arbitrary bytes: parts, xids, errors, limits.
#![allow(clippy::unwrap_used, reason = "tests")]

mod openflow_wire;

use std::fs;

use bytes::{BufMut as _, Bytes, BytesMut};
use mcstat::proto::openflow::{
    Answer, DecodeError, GroupId, MAX_REPLY_BYTES, Reply, Request, RequestError, Session, SessionError,
    UnknownInstruction, Version, decode_flows, decode_groups, decode_tables, next_message,
};
use openflow_wire::{bytes, echo, flow, hello, message, part};
use proptest::{collection::vec, prelude::*};

const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const ERROR: u8 = 1;
const MORE: u16 = 1;
const FLOWS: Request = Request::Flows { table: 9 };

fn group() -> Request {
    Request::Group(GroupId::new(101).unwrap())
}

/// A greeted session that waits for `requests`, whose xids are 2, 4, …; the odd ones are of echoes.
fn waiting(requests: &[Request]) -> Session {
    let mut output = BytesMut::new();
    let mut session = Session::start(Version::V15, &mut output);
    let nothing = session.receive(&mut BytesMut::from(&hello()[..]), &mut output);
    assert_eq!(nothing, Ok(None));
    for request in requests {
        session.request(*request, &mut output).unwrap();
    }
    session
}

/// Everything that comes out of a session for these messages, and what it sends.
fn receive(session: &mut Session, messages: &[Vec<u8>]) -> (Vec<Answer>, BytesMut) {
    let (mut input, mut output) = (BytesMut::from(&messages.concat()[..]), BytesMut::new());
    let mut answers = Vec::new();
    while let Some(answer) = session.receive(&mut input, &mut output).unwrap() {
        answers.push(answer);
    }
    (answers, output)
}

fn cookies(answer: &Answer) -> Vec<u64> {
    match &answer.result {
        Ok(Reply::Flows(flows)) => flows.iter().map(|flow| flow.cookie).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_are_brought_together_by_xid() {
    let mut session = waiting(&[FLOWS, FLOWS, group()]);
    let one = |cookie| flow(cookie, &[], &[]);
    let (answers, output) = receive(
        &mut session,
        &[
            part(4, 1, MORE, &[one(41), one(42)].concat()),
            part(2, 1, MORE, &one(21)),
            part(9, 1, 0, &one(91)), // nobody asked
            part(4, 1, MORE, &[]),
            part(6, 7, 0, &[]),
            part(4, 1, 0, &one(43)),
            part(4, 1, 0, &one(44)), // behind the last
            echo(6),
            echo(4),
            part(4, 1, 0, &one(45)), // answered already
            part(2, 1, 0, &[]),
            echo(2),
            echo(2),
        ],
    );
    assert!(output.is_empty());
    let kinds: Vec<Request> = answers.iter().map(|answer| answer.request).collect();
    assert_eq!(kinds, [group(), FLOWS, FLOWS]);
    assert_eq!(answers[0].result, Ok(Reply::Groups(Vec::new())));
    assert_eq!(cookies(&answers[1]), [41, 42, 43]);
    assert_eq!(cookies(&answers[2]), [21]);
    assert_eq!(session.waiting(), 0);
}

/// OFPET_BAD_REQUEST (1), OFPBRC_BAD_TABLE_ID (9): what OpenFlow 1.5 §7.5.4 has for a table that is not there.
#[test]
fn an_error_fails_the_request_that_it_names_and_no_other() {
    let mut session = waiting(&[FLOWS, group()]);
    let error = message(6, ERROR, 2, &[0, 1, 0, 9, 1, 2, 3, 4]);
    let stray = message(6, ERROR, 99, &[0, 1, 0, 9]);
    let (answers, _) = receive(&mut session, &[stray, error, echo(2), part(4, 7, 0, &[]), echo(4)]);
    let results: Vec<_> = answers.into_iter().map(|answer| answer.result).collect();
    let refused = RequestError::Refused { kind: 1, code: 9 };
    assert_eq!(results, [Err(refused), Ok(Reply::Groups(Vec::new()))]);
    assert_eq!(refused.to_string(), "the switch refused it with error type 1, code 9");
}

#[test]
fn a_reply_that_cannot_be_decoded_fails_alone_once_its_last_part_is_there() {
    let mut session = waiting(&[FLOWS, group()]);
    let good = flow(5, &[], &[]);
    let short = part(2, 1, MORE, &good[..good.len() - 1]);
    let (answers, _) = receive(
        &mut session,
        &[short, part(4, 7, 0, &[]), echo(4), part(2, 1, 0, &good), echo(2)],
    );
    let requests: Vec<Request> = answers.iter().map(|answer| answer.request).collect();
    assert_eq!(requests, [group(), FLOWS]);
    let Err(RequestError::Decode(error)) = answers[1].result else {
        panic!("{answers:?}")
    };
    let expected = DecodeError::TooShort {
        what: "a flow",
        need: good.len() - 2,
        have: good.len() - 3,
    };
    assert_eq!(error, expected);
    assert_eq!(error.reason(), "too_short");
}

#[test]
fn a_reply_of_another_kind_is_not_taken_for_the_answer() {
    let (answers, _) = receive(&mut waiting(&[FLOWS]), &[part(2, 7, 0, &[]), echo(2)]);
    let error = DecodeError::Unexpected {
        what: "type of a multipart reply",
        need: 1,
        have: 7,
    };
    assert_eq!(answers[0].result, Err(error.into()));
}

/// A header with nothing behind it may be a complete reply of nothing, or what a switch that lost its place made of one.
#[test]
fn an_answer_counts_only_when_its_echo_is_there() {
    let mut session = waiting(&[group(), FLOWS]);
    let (answers, _) = receive(
        &mut session,
        &[part(2, 7, 0, &[]), part(4, 1, MORE, &flow(1, &[], &[]))],
    );
    assert!(answers.is_empty());
    assert_eq!(session.waiting(), 2);
    let (answers, _) = receive(&mut session, &[echo(2), echo(4)]);
    let results: Vec<_> = answers.into_iter().map(|answer| answer.result).collect();
    assert_eq!(results, [Ok(Reply::Groups(Vec::new())), Err(RequestError::Unfinished)]);
}

/// What Open vSwitch 3.1.0 sends of a group with 1,180 buckets: 66,112 bytes whose header says 576. The next header is
/// in the middle of a bucket.
#[test]
fn a_message_that_is_longer_than_its_header_says_ends_the_session() {
    let bucket = bytes(
        "0038 0030 00000001 0019 0010 00010108 00200000 00600000 \
         0019 0010 00010204 00000001 00000000 ffff 0010 00002320 000e fff8 24 000000",
    );
    let mut input = BytesMut::from(&part(2, 7, MORE, &[])[..]);
    input.extend_from_slice(&bytes("06 13 0240 00000002 0007 0000 00000000"));
    input.extend_from_slice(&bytes("0230 00 00 00000001 0220 000000000000"));
    input.extend_from_slice(&bucket.repeat(1180));
    let mut session = waiting(&[group(), FLOWS]);
    let version = DecodeError::Unexpected {
        what: "version of a message",
        need: 6,
        have: 255,
    };
    let error = session.receive(&mut input, &mut BytesMut::new());
    assert_eq!(error, Err(SessionError::Frame(version)));
}

#[test]
fn an_echo_of_64_kib_is_answered_with_its_own_payload() {
    let payload: Vec<u8> = (0..65_527u32).map(|n| n as u8).collect();
    let mut session = waiting(&[]);
    let (answers, mut output) = receive(&mut session, &[message(6, ECHO_REQUEST, 0xabcd, &payload)]);
    assert!(answers.is_empty());
    let reply = next_message(&mut output).unwrap().unwrap();
    assert_eq!((reply.version, reply.kind, reply.xid), (6, ECHO_REPLY, 0xabcd));
    assert_eq!(reply.body, payload);
    assert!(output.is_empty());
}

/// The largest message there can be: 65,535 bytes, nearly all of them one instruction that nobody knows.
#[test]
fn a_reply_of_64_kib_is_decoded() {
    let mut instructions = vec![0x12, 0x34];
    instructions.put_u16(65_472);
    instructions.resize(65_472, 0xee);
    let entry = flow(7, &[], &instructions);
    let mut reply = part(2, 1, 0, &entry);
    assert_eq!(reply.len(), 65_528);
    let (answers, _) = receive(&mut waiting(&[FLOWS]), &[reply.clone(), echo(2)]);
    let Ok(Reply::Flows(flows)) = &answers[0].result else {
        panic!("{answers:?}")
    };
    let unknown = UnknownInstruction {
        kind: 0x1234,
        len: 65_472,
    };
    assert_eq!(flows[0].unknown, [unknown]);
    assert!(!flows[0].drops());

    // Seven bytes more are the largest length of all, and no flow.
    reply.extend_from_slice(&[0; 7]);
    reply[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
    let (answers, _) = receive(&mut waiting(&[FLOWS]), &[reply, echo(2)]);
    assert!(matches!(
        answers[0].result,
        Err(RequestError::Decode(DecodeError::BadLength { need: 24, have: 0, .. }))
    ));
}

#[test]
fn a_reply_without_end_is_given_up() {
    let mut session = waiting(&[FLOWS]);
    let mut output = BytesMut::new();
    let mut instructions = vec![0x12, 0x34];
    instructions.put_u16(65_472);
    instructions.resize(65_472, 0);
    let entry = flow(7, &[], &instructions);
    let more = part(2, 1, MORE, &entry);
    for _ in 0..=MAX_REPLY_BYTES / entry.len() {
        let nothing = session.receive(&mut BytesMut::from(&more[..]), &mut output);
        assert_eq!(nothing, Ok(None));
    }
    let (answers, _) = receive(&mut session, &[part(2, 1, 0, &entry), echo(2)]);
    let limit = MAX_REPLY_BYTES;
    assert_eq!(answers[0].result, Err(RequestError::TooLong { limit }));
}

#[test]
fn what_begins_with_anything_else_than_hello_is_no_switch() {
    let mut session = Session::start(Version::V15, &mut BytesMut::new());
    let mut input = BytesMut::from(&message(6, ECHO_REQUEST, 1, &[])[..]);
    let error = session.receive(&mut input, &mut BytesMut::new());
    assert_eq!(error, Err(SessionError::NoHello { kind: ECHO_REQUEST }));

    let mut input = BytesMut::from(&b"HT\0\x08P/1."[..]);
    let mut session = Session::start(Version::V15, &mut BytesMut::new());
    let error = session.receive(&mut input, &mut BytesMut::new());
    assert_eq!(error, Err(SessionError::NoHello { kind: b'T' }));

    // A header that claims less than itself: the position is lost for good.
    let mut input = BytesMut::from(&[6, 0, 0, 7, 0, 0, 0, 1, 9, 9][..]);
    let lost = DecodeError::BadLength {
        what: "a message",
        need: 8,
        have: 7,
    };
    for _ in 0..2 {
        let mut session = Session::start(Version::V15, &mut BytesMut::new());
        let error = session.receive(&mut input, &mut BytesMut::new());
        assert_eq!(error, Err(SessionError::Frame(lost)));
    }
    assert_eq!(
        lost.to_string(),
        "the length of a message is 7 where 8 is the least or the only one"
    );
}

/// Without a bitmap every version up to the header's is on offer (OpenFlow 1.5 §6.3.1); other elements do not matter.
#[test]
fn a_greeting_without_bitmap_offers_its_version() {
    let unknown = [0, 9, 0, 5, 1, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 2];
    for (version, header, elements, ready) in [
        (Version::V15, 6, &[][..], true),
        (Version::V15, 4, &[], false),
        (Version::V10, 4, &[], true),
        (Version::V10, 6, &unknown, true),
        (Version::V15, 6, &unknown, false),
    ] {
        let mut session = Session::start(version, &mut BytesMut::new());
        let hello = message(header, 0, 1, elements);
        let result = session.receive(&mut BytesMut::from(&hello[..]), &mut BytesMut::new());
        assert_eq!(result.is_ok(), ready, "{version} {header} {elements:?}");
        assert_eq!(session.ready(), ready);
    }
}

/// Recorded bytes of a switch, with some of them changed.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("flow-dump-of15-table32"),
        Just("flow-dump-of15-table35"),
        Just("flow-dump-of15-table38"),
        Just("group-desc-of15"),
    ];
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (name, changes).prop_map(|(name, changes)| {
        let path = format!("{}/tests/golden/openflow/{name}.s2c.bin", env!("CARGO_MANIFEST_DIR"));
        let mut bytes = fs::read(path).unwrap();
        bytes.extend(echo(2));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

/// What a session that waits for everything makes of a stream, received in pieces that end at `cuts`.
fn outcome(stream: &[u8], cuts: &[prop::sample::Index]) -> (Vec<Answer>, Option<SessionError>, Bytes) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    ends.extend([0, stream.len()]);
    ends.sort_unstable();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut session = waiting(&[Request::Flows { table: 255 }]);
    let mut answers = Vec::new();
    for piece in ends.windows(2) {
        input.extend_from_slice(&stream[piece[0]..piece[1]]);
        loop {
            match session.receive(&mut input, &mut output) {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => break,
                Err(error) => return (answers, Some(error), output.freeze()),
            }
        }
    }
    (answers, None, output.freeze())
}

proptest! {
    #[test]
    fn never_panics_and_does_not_depend_on_the_pieces(
        stream in prop_oneof![vec(any::<u8>(), 0..400), nearly_right()],
        cuts in vec(any::<prop::sample::Index>(), 0..5),
    ) {
        prop_assert_eq!(outcome(&stream, &cuts), outcome(&stream, &[]));
    }

    #[test]
    fn never_makes_more_than_the_bytes_allow(part in prop_oneof![
        vec(any::<u8>(), 0..400),
        nearly_right().prop_map(|stream| stream[32..].to_vec()),
    ]) {
        let (mut flows, mut groups, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        let _ = decode_flows(&part, &mut flows);
        let _ = decode_groups(&part, &mut groups);
        let _ = decode_tables(&part, &mut tables);
        let fields: usize = flows.iter().map(|flow| flow.fields.len() + flow.actions.len()).sum();
        prop_assert!(flows.len() * 24 + fields * 4 <= part.len());
        let buckets: usize = groups.iter().map(|group| group.buckets.len()).sum();
        prop_assert!(groups.len() * 16 + buckets * 8 <= part.len());
        prop_assert!(tables.len() * 64 <= part.len());
    }
}
