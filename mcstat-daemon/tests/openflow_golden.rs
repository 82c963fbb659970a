//! The OpenFlow codec against recorded exchanges (`tests/golden/openflow/README.md` says how they were made): what
//! `ovs-ofctl` printed for the same bytes is the oracle.
#![allow(clippy::unwrap_used, reason = "tests")]

mod openflow_text;

use std::fs;

use bytes::{Bytes, BytesMut};
use mcstat::proto::openflow::{
    Answer, DecodeError, FlowDesc, GroupDesc, GroupId, Message, Outgoing, Reply, Request, Session, SessionError,
    TableEntry, Version, decode_flows, decode_groups, decode_tables, next_message,
};
use openflow_text as text;

/// Recordings of flows, and the table asked for.
const FLOWS: [(&str, u8); 10] = [
    ("flow-dump-of15-table32", 32),
    ("flow-dump-of15-table33", 33),
    ("flow-dump-of15-table34", 34),
    ("flow-dump-of15-table35", 35),
    ("flow-dump-of15-table36", 36),
    ("flow-dump-of15-table37", 37),
    ("flow-dump-of15-table38", 38),
    ("flow-dump-of15-table39", 39),
    ("flow-dump-of15-all", 255),
    ("flow-dump-of15-multipart", 255),
];

/// Any group: the recording is of all of them, which nothing here can ask for.
fn group() -> Request {
    Request::Group(GroupId::new(101).unwrap())
}

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/openflow/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn golden_text(name: &str) -> String {
    String::from_utf8(golden(&format!("{name}.txt"))).unwrap()
}

fn messages(name: &str) -> Vec<Message> {
    let mut input = BytesMut::from(golden(name).as_slice());
    let mut messages = Vec::new();
    while let Some(message) = next_message(&mut input).unwrap() {
        messages.push(message);
    }
    assert!(input.is_empty(), "{name} ends in the middle of a message");
    messages
}

/// A session of `version` that was greeted and has asked for `request` with xid 2, as `ovs-ofctl` numbers it.
fn asked(request: Request) -> Session {
    let mut output = BytesMut::new();
    let mut session = Session::start(request.version(), &mut output);
    let hello = &golden("hello-of15.s2c.bin")[..16];
    let answer = session.receive(&mut BytesMut::from(hello), &mut output);
    assert_eq!(answer, Ok(None));
    assert!(session.ready());
    session.request(request, &mut output).unwrap();
    session
}

/// The echo that closes the answer.
fn echo(request: Request) -> [u8; 8] {
    [request.version().wire(), 3, 0, 8, 0, 0, 0, 3]
}

/// The one answer in a recording, received in pieces of `step` bytes.
fn answer(name: &str, request: Request, step: usize) -> Answer {
    let (mut session, mut input, mut output) = (asked(request), BytesMut::new(), BytesMut::new());
    for piece in golden(&format!("{name}.s2c.bin")).chunks(step) {
        input.extend_from_slice(piece);
        assert_eq!(session.receive(&mut input, &mut output), Ok(None), "{name}");
    }
    input.extend_from_slice(&echo(request));
    let answer = session.receive(&mut input, &mut output).unwrap().expect(name);
    assert_eq!(session.waiting(), 0);
    assert!(input.is_empty() && output.is_empty());
    answer
}

fn flows(name: &str, table: u8, step: usize) -> Vec<FlowDesc> {
    match answer(name, Request::Flows { table }, step).result {
        Ok(Reply::Flows(flows)) => flows,
        other => panic!("{name}: {other:?}"),
    }
}

fn groups(step: usize) -> Vec<GroupDesc> {
    match answer("group-desc-of15", group(), step).result {
        Ok(Reply::Groups(groups)) => groups,
        other => panic!("{other:?}"),
    }
}

fn tables(step: usize) -> Vec<TableEntry> {
    match answer("tables-of10", Request::Tables, step).result {
        Ok(Reply::Tables(tables)) => tables,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flow_is_what_ovs_ofctl_printed() {
    for (name, table) in FLOWS {
        let flows = flows(name, table, usize::MAX);
        let shown: Vec<String> = flows.iter().map(text::flow).collect();
        assert_eq!(shown, text::expected(&golden_text(name)), "{name}");
    }
    assert_eq!(flows("flow-dump-of15-multipart", 255, usize::MAX).len(), 1054);
}

#[test]
fn every_group_is_what_ovs_ofctl_printed() {
    let shown: Vec<String> = groups(usize::MAX).iter().map(text::group).collect();
    let printed = golden_text("group-desc-of15");
    let expected: Vec<&str> = printed.lines().skip(1).map(str::trim_start).collect();
    assert_eq!(shown, expected);
}

#[test]
fn every_table_has_the_name_that_ovs_ofctl_printed() {
    let tables = tables(usize::MAX);
    let ids: Vec<u8> = tables.iter().map(|table| table.id).collect();
    assert_eq!(ids, (0..254).collect::<Vec<u8>>());
    let printed = golden_text("tables-of10");
    let mut expected: Vec<(u8, &str)> = Vec::new();
    for line in printed.lines() {
        if let Some((id, name)) = line
            .trim()
            .strip_prefix("table ")
            .and_then(|rest| rest.split_once(" (\""))
        {
            expected.push((id.parse().unwrap(), name.strip_suffix("\"):").unwrap()));
        }
    }
    assert_eq!(expected.len(), 14, "the recording has 14 named tables");
    let named: Vec<(u8, &str)> = tables
        .iter()
        .filter(|table| !table.name.is_empty())
        .map(|table| (table.id, table.name.as_str()))
        .collect();
    assert_eq!(named, expected);
}

#[test]
fn requests_are_the_bytes_that_ovs_ofctl_sent() {
    let mut recorded: Vec<(String, Request)> = FLOWS
        .iter()
        .map(|(name, table)| ((*name).to_owned(), Request::Flows { table: *table }))
        .collect();
    recorded.push(("tables-of10".to_owned(), Request::Tables));
    for (name, request) in recorded {
        let mut output = BytesMut::new();
        Outgoing::Hello(request.version()).encode(1, &mut output);
        Outgoing::Request(request).encode(2, &mut output);
        assert_eq!(output, golden(&format!("{name}.c2s.bin")), "{name}");
    }
    // Of all groups in the recording, of one here.
    let mut output = BytesMut::new();
    Outgoing::Hello(Version::V15).encode(1, &mut output);
    Outgoing::Request(group()).encode(2, &mut output);
    let mut recorded = golden("group-desc-of15.c2s.bin");
    assert_eq!(recorded[32..36], [0xff, 0xff, 0xff, 0xfc]);
    recorded[32..36].copy_from_slice(&[0, 0, 0, 101]);
    assert_eq!(output, recorded);
    let mut output = BytesMut::new();
    Outgoing::Hello(Version::V15).encode(1, &mut output);
    Outgoing::EchoRequest(Version::V15).encode(0, &mut output);
    assert_eq!(output, golden("hello-of15.c2s.bin"));
}

/// Wildcards among the numbers of groups: OFPG_ALL and OFPG_ANY (OpenFlow 1.5 §7.3.4.3).
#[test]
fn all_groups_at_once_cannot_be_asked_for() {
    for wildcard in [0xffff_fffc, 0xffff_ffff, 0xffff_ff01] {
        assert_eq!(GroupId::new(wildcard), None);
    }
    assert_eq!(GroupId::new(0xffff_ff00).map(GroupId::number), Some(0xffff_ff00));
}

/// Nothing that a session sends is of another type: the types are those of OpenFlow 1.0 §5.1 and 1.5 §7.1.
#[test]
fn a_session_sends_greetings_echoes_and_multipart_requests_only() {
    let mut output = BytesMut::new();
    for version in [Version::V10, Version::V15] {
        let mut session = Session::start(version, &mut output);
        for request in [Request::Tables, group(), Request::Flows { table: 255 }] {
            let wanted = if request.version() == version {
                Ok(())
            } else {
                Err(SessionError::CannotAsk(version))
            };
            assert_eq!(session.request(request, &mut output), wanted);
        }
    }
    let mut sent = Vec::new();
    while let Some(message) = next_message(&mut output).unwrap() {
        let kind = message.body.first_chunk::<2>().map(|kind| u16::from_be_bytes(*kind));
        sent.push((message.version, message.kind, kind));
    }
    let bitmap = Some(1);
    let expected = [
        (1, 0, None),
        (1, 16, Some(3)),
        (1, 2, None),
        (6, 0, bitmap),
        (6, 18, Some(7)),
        (6, 2, None),
        (6, 18, Some(1)),
        (6, 2, None),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn a_stream_may_arrive_in_any_pieces() {
    for step in [1, 7, 4096] {
        for (name, table) in FLOWS {
            assert_eq!(
                flows(name, table, step),
                flows(name, table, usize::MAX),
                "{name} by {step}"
            );
        }
        assert_eq!(groups(step), groups(usize::MAX));
        assert_eq!(tables(step), tables(usize::MAX));
    }
}

#[test]
fn the_bitmap_decides_on_the_version_and_errors_end_the_greeting() {
    // The bridge allows 1.0 and 1.5: its HELLO always has version 6 and the bitmap 0x42.
    for version in [Version::V10, Version::V15] {
        let mut session = Session::start(version, &mut BytesMut::new());
        let mut input = BytesMut::from(&golden("hello-of15.s2c.bin")[..16]);
        assert_eq!(session.receive(&mut input, &mut BytesMut::new()), Ok(None));
        assert!(session.ready() && input.is_empty());
    }
    let mut hello = golden("hello-of15.s2c.bin");
    hello[15] = 0x02;
    let mut session = Session::start(Version::V15, &mut BytesMut::new());
    let refused = session.receive(&mut BytesMut::from(&hello[..]), &mut BytesMut::new());
    assert_eq!(refused, Err(SessionError::Version(Version::V15)));

    // What the switch says to a client that speaks 1.3 alone.
    let error = &golden("hello-of13.s2c.bin")[16..];
    let mut session = Session::start(Version::V15, &mut BytesMut::new());
    let refused = session.receive(&mut BytesMut::from(error), &mut BytesMut::new());
    let reason = "We support versions 0x01, 0x06, you support version 0x04, no common versions.".to_owned();
    assert_eq!(refused, Err(SessionError::Refused { reason }));
}

/// A recording of a client that asked for packet-ins: six messages of two types that nobody here waits for.
#[test]
fn what_nobody_asked_for_is_stepped_over() {
    let mut session = asked(group());
    let mut input = BytesMut::from(&golden("packetin-igmp-of15.s2c.bin")[..]);
    input.extend_from_slice(&golden("group-desc-of15.s2c.bin"));
    input.extend_from_slice(&echo(group()));
    let mut output = BytesMut::new();
    let answer = session.receive(&mut input, &mut output).unwrap().unwrap();
    assert_eq!(answer.result, Ok(Reply::Groups(groups(usize::MAX))));
    assert!(output.is_empty());
}

/// The entries of a reply's body, each of which begins with its length.
fn entries(part: &Bytes) -> Vec<&[u8]> {
    let (mut rest, mut entries) = (&part[8..], Vec::new());
    while let Some(length) = rest.first_chunk::<2>() {
        let (entry, others) = rest.split_at(u16::from_be_bytes(*length).into());
        entries.push(entry);
        rest = others;
    }
    entries
}

#[test]
fn an_entry_cut_anywhere_is_too_short() {
    let too_short = |result: Result<(), DecodeError>| matches!(result, Err(error) if error.reason() == "too_short");
    let mut cuts = 0;
    for (name, _) in FLOWS {
        for part in messages(&format!("{name}.s2c.bin")).iter().skip(1) {
            for entry in entries(&part.body) {
                for cut in 1..entry.len() {
                    assert!(
                        too_short(decode_flows(&entry[..cut], &mut Vec::new())),
                        "{name} at {cut}"
                    );
                    cuts += 1;
                }
            }
        }
    }
    for entry in entries(&messages("group-desc-of15.s2c.bin")[1].body) {
        for cut in 1..entry.len() {
            assert!(
                too_short(decode_groups(&entry[..cut], &mut Vec::new())),
                "group at {cut}"
            );
            cuts += 1;
        }
    }
    let tables = &messages("tables-of10.s2c.bin")[1].body[4..];
    for cut in 1..64 {
        assert!(
            too_short(decode_tables(&tables[..cut], &mut Vec::new())),
            "table at {cut}"
        );
    }
    assert!(cuts > 100_000, "every byte of the recordings: {cuts}");
}

/// A length that lies about itself: whatever comes out, nothing is read past the end and no flow is made of less than
/// its fixed part.
#[test]
fn every_word_of_every_entry_may_be_wrong() {
    let mut wrong = 0;
    let mut decode = |entry: &[u8], at: usize, value: u16, group: bool| {
        let mut bytes = entry.to_vec();
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        let (mut flows, mut groups) = (Vec::new(), Vec::new());
        let result = if group {
            decode_groups(&bytes, &mut groups)
        } else {
            decode_flows(&bytes, &mut flows)
        };
        assert!(flows.len() * 24 <= bytes.len() && groups.len() * 16 <= bytes.len());
        wrong += usize::from(result.is_err());
    };
    let names = FLOWS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.ends_with("multipart"));
    for name in names.chain(["group-desc-of15"]) {
        let messages = messages(&format!("{name}.s2c.bin"));
        for entry in entries(&messages[1].body) {
            for at in 0..entry.len() - 1 {
                for value in [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 0x7fff, 0x8000, 0xffff] {
                    decode(entry, at, value, name.starts_with("group"));
                }
            }
        }
    }
    assert!(wrong > 10_000, "most of them must be errors: {wrong}");
}
