//! Against a recorded session (`tests/golden/ovsdb/README.md` says how it was made) and against arbitrary bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{store::InterfaceRow, *};

const RAW: &[u8] = include_bytes!("../../../tests/golden/ovsdb/monitor.s2c.bin");
const LINES: &str = include_str!("../../../tests/golden/ovsdb/monitor.s2c.json");

/// All messages in `stream`, received in pieces that end at `cuts`.
fn frames(stream: &[u8], cuts: &[usize], limit: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut cuts: Vec<usize> = cuts
        .iter()
        .map(|cut| cut % (stream.len() + 1))
        .chain([0, stream.len()])
        .collect();
    cuts.sort_unstable();
    let (mut framer, mut input, mut messages) = (Framer::new(limit), BytesMut::new(), Vec::new());
    for piece in cuts.windows(2) {
        input.extend_from_slice(&stream[piece[0]..piece[1]]);
        while let Some(message) = framer.next_message(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// The recording as if it had been made with this client's id and monitor name.
fn recording() -> Vec<String> {
    let ours = |line: &str| {
        line.replace(r#""mcmon""#, r#""mcstat""#)
            .replace(r#"{"id":1,"#, r#"{"id":"mcstat","#)
    };
    LINES.lines().map(ours).collect()
}

fn receive(session: &mut Session, text: &str) -> Result<bool, SessionError> {
    session.receive(&mut BytesMut::from(text), &mut BytesMut::new())
}

fn interface<'a>(store: &'a Store, name: &str) -> Option<&'a InterfaceRow> {
    let bridge = store.bridge("br-int")?;
    store
        .ports_of(bridge)
        .flat_map(|port| store.interfaces_of(port))
        .find(|row| row.name == name)
}

fn external_id<'a>(store: &'a Store, port: &str, key: &str) -> Option<&'a str> {
    let bridge = store.bridge("br-int")?;
    store
        .ports_of(bridge)
        .find(|row| row.name == port)?
        .external_ids
        .get(key)
        .map(String::as_str)
}

#[test]
fn the_recorded_stream_is_cut_where_its_lines_end() {
    let messages = frames(RAW, &[], MAX_MESSAGE_BYTES).unwrap();
    let texts: Vec<&str> = messages
        .iter()
        .map(|message| std::str::from_utf8(message).unwrap())
        .collect();
    assert_eq!(texts, LINES.lines().collect::<Vec<_>>());
    assert_eq!(texts.len(), 14);
}

#[test]
fn braces_and_quotes_in_strings_end_nothing() {
    let stream = br#" {"a":"}\"]\\"}
	{"b":["{",{"c":"\\"}]} "#;
    let messages = frames(stream, &[], 100).unwrap();
    assert_eq!(messages, [&br#"{"a":"}\"]\\"}"#[..], &br#"{"b":["{",{"c":"\\"}]}"#[..]]);
}

#[test]
fn a_message_may_have_exactly_the_limit() {
    let stream = br#"{"a":"12345"}"#;
    assert_eq!(frames(stream, &[], stream.len()).unwrap().len(), 1);
    assert_eq!(
        frames(stream, &[3], stream.len() - 1),
        Err(FrameError::TooLong {
            limit: stream.len() - 1
        })
    );
}

#[test]
fn a_stream_that_is_no_object_is_refused_for_good() {
    let (mut framer, mut input) = (Framer::new(100), BytesMut::from(&b"[1]{}"[..]));
    assert_eq!(
        framer.next_message(&mut input),
        Err(FrameError::NotAnObject { byte: b'[' })
    );
    let mut later = BytesMut::from(&b"{}"[..]);
    assert_eq!(
        framer.next_message(&mut later),
        Err(FrameError::NotAnObject { byte: b'[' })
    );
}

#[test]
fn the_monitor_request_asks_as_the_recorded_client_did() {
    let recorded = include_str!("../../../tests/golden/ovsdb/monitor.c2s.json")
        .lines()
        .nth(1)
        .unwrap();
    let Message::Request { method, params, .. } = Message::decode(recorded.as_bytes()).unwrap() else {
        panic!("no request: {recorded}")
    };
    let Message::Request {
        method: ours,
        params: our_params,
        ..
    } = monitor_request("mcmon")
    else {
        panic!("no request")
    };
    assert_eq!((ours, &our_params[..2]), (method, &params[..2]));
    for (table, column) in [("Port", "external_ids"), ("Bridge", "ports"), ("Interface", "ifindex")] {
        let listed = |params: &[Value]| {
            params[2][table][0]["columns"]
                .as_array()
                .unwrap()
                .contains(&json!(column))
        };
        assert!(listed(&params) && listed(&our_params), "{table} {column}");
    }
}

#[test]
fn every_kind_of_message_is_the_same_after_encoding_and_decoding() {
    let messages = [
        monitor_request("x"),
        Message::echo_reply(json!("echo"), vec![json!(1), json!("two")]),
        Message::Response {
            id: json!(3),
            result: Err(json!({"error": "unknown database"})),
        },
        Message::Notification {
            method: "update2".to_owned(),
            params: vec![json!("x"), json!({})],
        },
    ];
    let mut stream = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut stream));
    let decoded: Vec<Message> = frames(&stream, &[], 10_000)
        .unwrap()
        .iter()
        .map(|text| Message::decode(text).unwrap())
        .collect();
    assert_eq!(decoded, messages);
}

#[test]
fn the_recorded_session_ends_where_ovs_vsctl_saw_it_end() {
    let mut output = BytesMut::new();
    let mut session = Session::start(&mut output);
    assert_eq!(Message::decode(&output).unwrap(), monitor_request("mcstat"));
    let lines = recording();

    assert_eq!(receive(&mut session, &lines[0]), Ok(false));
    assert!(session.store().is_none(), "no reading before the monitor's answer");
    assert_eq!(receive(&mut session, &lines[1]), Ok(true));
    let store = session.store().unwrap();
    assert_eq!(store.bridge_names(), ["br-int"]);
    assert_eq!(store.bridge("br-int").unwrap().datapath_type, "netdev");
    assert_eq!(store.bridge("br-int").unwrap().ports.len(), 5);
    let pod = interface(store, "mc-c-62c3a0").unwrap();
    assert_eq!((pod.ofport, pod.ifindex, pod.kind.as_str()), (Some(12), Some(7), ""));
    assert_eq!(pod.mac_in_use.as_deref(), Some("72:07:c6:8a:64:d4"));
    assert_eq!(interface(store, "antrea-gw0").unwrap().kind, "internal");
    assert_eq!(external_id(store, "mc-b-e8c2dd", "ip-address"), Some("10.10.0.12"));

    // The port is added: at first without ofport and ifindex.
    assert_eq!(receive(&mut session, &lines[3]), Ok(false), "another monitor's update");
    assert_eq!(receive(&mut session, &lines[4]), Ok(true));
    let added = interface(session.store().unwrap(), "mc-tmp-aaaaaa").unwrap();
    assert_eq!((added.ofport, added.ifindex), (None, None));
    assert_eq!(receive(&mut session, &lines[5]), Ok(true));
    let added = interface(session.store().unwrap(), "mc-tmp-aaaaaa").unwrap();
    assert_eq!((added.ofport, added.ifindex), (Some(20), Some(9)));

    // Its address changes: one pair of the map, the others stay.
    let store = session.store().unwrap();
    assert_eq!(
        external_id(store, "mc-tmp-aaaaaa", "ip-address"),
        Some("10.10.0.20,fd00::20")
    );
    for line in &lines[6..=8] {
        receive(&mut session, line).unwrap();
    }
    let store = session.store().unwrap();
    assert_eq!(external_id(store, "mc-tmp-aaaaaa", "ip-address"), Some("10.10.0.21"));
    assert_eq!(external_id(store, "mc-tmp-aaaaaa", "container-id"), Some("deadbeef"));

    // And it is deleted.
    for line in &lines[9..] {
        receive(&mut session, line).unwrap();
    }
    let store = session.store().unwrap();
    assert_eq!(interface(store, "mc-tmp-aaaaaa"), None);
    assert_eq!(store.bridge("br-int").unwrap().ports.len(), 5);
}

#[test]
fn differences_toggle_sets_and_map_pairs_and_replace_single_values() {
    let mut store = Store::default();
    let uuid = |name: &str| json!(["uuid", name]);
    let row = json!({"initial": {"name": "p", "interfaces": ["set", [uuid("i1"), uuid("i2")]],
        "external_ids": ["map", [["gone", "1"], ["kept", "2"], ["changed", "3"]]]}});
    store
        .apply(
            &json!({"Port": {"p": row}, "Bridge": {"b": {"initial": {"name": "br0", "ports": uuid("p")}}},
            "Interface": {"i1": {"initial": {"name": "one", "ifindex": 4, "error": "broken"}},
                          "i2": {"initial": {"name": "two"}}, "i3": {"initial": {"name": "three"}}}}),
        )
        .unwrap();
    store
        .apply(
            &json!({"Port": {"p": {"modify": {"interfaces": ["set", [uuid("i2"), uuid("i3")]],
            "external_ids": ["map", [["gone", "1"], ["changed", "4"], ["new", "5"]]]}}},
            "Interface": {"i1": {"modify": {"error": ["set", []], "ifindex": 0, "ofport": -1}}}}),
        )
        .unwrap();
    let port = store.ports_of(store.bridge("br0").unwrap()).next().unwrap();
    let pairs: Vec<(&str, &str)> = port
        .external_ids
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(pairs, [("changed", "4"), ("kept", "2"), ("new", "5")]);
    let interfaces: Vec<&InterfaceRow> = store.interfaces_of(port).collect();
    assert_eq!(
        interfaces.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["one", "three"]
    );
    assert_eq!(
        (
            interfaces[0].error.as_deref(),
            interfaces[0].ifindex,
            interfaces[0].ofport
        ),
        (None, Some(0), Some(-1))
    );
}

#[test]
fn an_insert_of_a_known_row_begins_it_anew() {
    let mut store = Store::default();
    store
        .apply(&json!({"Bridge": {"b": {"insert": {"name": "br0", "datapath_type": "netdev"}}}}))
        .unwrap();
    store
        .apply(&json!({"Bridge": {"b": {"insert": {"name": "br1"}}}}))
        .unwrap();
    assert_eq!(store.bridge_names(), ["br1"]);
    assert_eq!(store.bridge("br1").unwrap().datapath_type, "");
}

#[test]
fn updates_that_contradict_the_rows_or_the_manual_are_refused() {
    let unknown = Err(DecodeError::UnknownRow { table: "Port" });
    assert_eq!(
        Store::default().apply(&json!({"Port": {"p": {"delete": null}}})),
        unknown
    );
    assert_eq!(Store::default().apply(&json!({"Port": {"p": {"modify": {}}}})), unknown);
    for wrong in [
        json!([]),
        json!({"Port": []}),
        json!({"Port": {"p": {}}}),
        json!({"Port": {"p": {"insert": {}, "delete": null}}}),
        json!({"Port": {"p": {"replace": {}}}}),
        json!({"Port": {"p": {"insert": []}}}),
        json!({"Port": {"p": {"insert": {"name": 1}}}}),
        json!({"Port": {"p": {"insert": {"interfaces": ["set", ["x"]]}}}}),
        json!({"Port": {"p": {"insert": {"interfaces": ["set", 1]}}}}),
        json!({"Port": {"p": {"insert": {"external_ids": ["map", [["a", "b", "c"]]]}}}}),
        json!({"Port": {"p": {"insert": {"external_ids": ["set", []]}}}}),
        json!({"Interface": {"i": {"insert": {"ofport": ["set", [1, 2]]}}}}),
        json!({"Interface": {"i": {"insert": {"ifindex": 1.5}}}}),
    ] {
        let error = Store::default().apply(&wrong).expect_err(&wrong.to_string());
        assert_eq!(error.reason(), "shape", "{wrong}");
    }
}

#[test]
fn an_echo_is_answered_with_its_own_params() {
    let mut session = Session::start(&mut BytesMut::new());
    let (mut input, mut output) = (
        BytesMut::from(r#"{"id":"echo","method":"echo","params":[7]}"#),
        BytesMut::new(),
    );
    assert_eq!(session.receive(&mut input, &mut output), Ok(false));
    let answer: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(answer, json!({"id": "echo", "result": [7], "error": null}));
}

#[test]
fn what_ends_a_session_says_why() {
    let begin = || Session::start(&mut BytesMut::new());
    let refused = receive(
        &mut begin(),
        r#"{"id":"mcstat","result":null,"error":"unknown method"}"#,
    )
    .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the ovsdb server refused monitor_cond: \"unknown method\"; \
         it needs Open vSwitch 2.6 or newer with an Open_vSwitch database"
    );
    let cancelled = r#"{"id":null,"method":"monitor_canceled","params":["mcstat"]}"#;
    assert_eq!(receive(&mut begin(), cancelled), Err(SessionError::Cancelled));
    let early = receive(&mut begin(), &recording()[4]).unwrap_err();
    assert_eq!(early.to_string(), "update2 is not after the answer to monitor_cond");
    assert_eq!(
        receive(&mut begin(), "{:}"),
        Err(DecodeError::Json { column: 2 }.into())
    );
}

proptest! {
    #[test]
    fn the_split_of_the_stream_changes_nothing(cuts in prop::collection::vec(any::<usize>(), 0..40)) {
        prop_assert_eq!(frames(RAW, &cuts, MAX_MESSAGE_BYTES), frames(RAW, &[], MAX_MESSAGE_BYTES));
    }

    #[test]
    fn no_bytes_make_a_session_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&br#"{}[]":,\0a"#[..])], 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        let whole = frames(&bytes, &[], 150);
        // A stream that ends in an error may have delivered its first messages before; the error is the same.
        prop_assert_eq!(frames(&bytes, &cuts, 150), whole);
        let mut session = Session::start(&mut BytesMut::new());
        let _ = session.receive(&mut BytesMut::from(&bytes[..]), &mut BytesMut::new());
    }

    #[test]
    fn no_damage_to_a_recorded_session_makes_it_panic(
        line in 0_usize..14, position in any::<usize>(), replacement in any::<u8>(), drop in 0_usize..40,
    ) {
        let mut lines: Vec<Vec<u8>> = recording().into_iter().map(String::into_bytes).collect();
        let damaged = &mut lines[line];
        let position = position % damaged.len();
        let end = (position + drop).min(damaged.len());
        damaged.splice(position..end, [replacement]);
        let mut session = Session::start(&mut BytesMut::new());
        for line in &lines {
            if session.receive(&mut BytesMut::from(&line[..]), &mut BytesMut::new()).is_err() {
                break;
            }
        }
    }
}
