//! The decoders against tshark, on frames that scapy made: what is it, of which version, for which groups, records and
//! sources, is its checksum right, is it malformed or cut.
//!
//! Every difference that is not an error of ours stands in [`TOLERANCES`] with its reason; one that is no longer met
//! fails the test, as does a difference that is not listed. Needs tshark and python3-scapy; without them it fails.
#![allow(clippy::unwrap_used, reason = "tests")]

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use oracle::{
    Reading,
    capture::{self, Frame},
    fault, ours, tshark,
};

/// A difference that stands.
struct Tolerance {
    name: &'static str,
    /// Why tshark says something else, and why ours is what it should be.
    reason: &'static str,
    /// The parts of a reading that may differ.
    parts: &'static [&'static str],
    /// Whether it is this difference, by frame, our reading and tshark's.
    applies: fn(&Frame, &Reading, &Reading) -> bool,
}

const TOLERANCES: &[Tolerance] = &[
    Tolerance {
        name: "checksum over 8 bytes",
        reason: "tshark sums the first 8 bytes of an IGMPv1 or v2 message; RFC 2236 §2.3 the whole IP payload, however long",
        parts: &["checksum"],
        applies: |frame, ours, theirs| {
            let short = [
                "IGMPv1 query",
                "IGMPv2 query",
                "IGMPv1 report",
                "IGMPv2 report",
                "IGMPv2 leave",
            ];
            message_length(frame) > 8 && short.contains(&says(theirs, "message")) && says(ours, "checksum") != "Bad"
        },
    },
    Tolerance {
        name: "queries of no version",
        reason: "tshark takes an IGMP query of 9 to 11 bytes for v1 or v2, an MLD query of 25 to 27 for v1; RFC 9776 §7.1 and \
                 RFC 9777 §8.1 say that such a query must be ignored",
        parts: &["message", "group", "max response"],
        applies: |_, ours, theirs| {
            let pair = (says(ours, "message"), says(theirs, "message"));
            matches!(
                pair,
                ("IGMPv0 query", "IGMPv1 query" | "IGMPv2 query") | ("MLDv0 query", "MLDv1 query")
            )
        },
    },
    Tolerance {
        name: "MLDv2 records to the end",
        reason: "tshark reads records as long as there are bytes and does not look at their number; RFC 9777 §5.2.11: what is \
                 behind the last record is ignored, and a number that the message does not hold makes it malformed",
        parts: &["fault", "records"],
        applies: |_, ours, theirs| {
            let number = |reading: &Reading| says(reading, "records declared").parse::<usize>().unwrap_or(0);
            let shown = |reading: &Reading| match says(reading, "records") {
                "" => 0,
                records => records.split("; ").count(),
            };
            says(theirs, "message") == "MLDv2 report"
                && match ours.get("records") {
                    // Bytes behind the last record, which tshark takes for more of them.
                    Some(records) => shown(ours) == number(ours) && says(theirs, "records").starts_with(records),
                    // Fewer than the number says, which tshark does not miss.
                    None => says(ours, "fault") == fault::MALFORMED && shown(theirs) < number(theirs),
                }
        },
    },
    Tolerance {
        name: "broken options",
        reason: "a receiver drops the packet, tshark stops there; we read on, and say that it has no router alert",
        parts: &[
            "fault",
            "message",
            "router alert",
            "checksum",
            "group",
            "max response",
            "suppress",
            "robustness",
            "interval",
            "interval code",
            "sources declared",
            "sources",
            "records declared",
            "records",
        ],
        applies: |frame, ours, theirs| {
            frame.twist == "broken_option"
                && says(theirs, "fault") == fault::MALFORMED
                && says(ours, "router alert") != "true"
        },
    },
    Tolerance {
        name: "bodies of other types",
        reason: "we name them and verify the checksum of the whole message; what the body says is not ours to judge. tshark \
                 judges it where it knows the type, and elsewhere neither looks at the checksum nor misses cut bytes",
        parts: &["fault", "checksum"],
        applies: |_, ours, theirs| {
            let other = |reading: &Reading| says(reading, "message").starts_with("IGMP 0x");
            other(ours) || !ours.contains_key("message") && other(theirs)
        },
    },
    Tolerance {
        name: "nothing behind the IP header",
        reason: "tshark shows no IGMP then, and nothing wrong either",
        parts: &["fault"],
        applies: |frame, ours, theirs| {
            says(ours, "fault") == fault::MALFORMED && !theirs.contains_key("message") && message_length(frame) == 0
        },
    },
    Tolerance {
        name: "too short and cut",
        reason: "a message too short for its type whose capture is cut too: tshark names the first, we the second",
        parts: &["fault"],
        applies: |frame, ours, theirs| {
            says(ours, "fault") == fault::CUT
                && says(theirs, "fault") == fault::MALFORMED
                && frame.kind.contains("-of-under-")
        },
    },
    Tolerance {
        name: "cut behind what it reads",
        reason: "tshark misses cut bytes only where it wants to read them: not behind the 8 or 24 bytes of a query of no \
                 version. And it takes the version of an MLD query from the bytes captured, where only the bytes sent can tell",
        parts: &["fault"],
        applies: |_, ours, theirs| {
            let query = ["IGMPv1 query", "IGMPv2 query", "MLDv1 query"];
            says(ours, "fault") == fault::CUT
                && says(theirs, "fault") == fault::NONE
                && query.contains(&says(theirs, "message"))
        },
    },
];

/// The value of a part; empty where the reading does not say it.
fn says<'a>(reading: &'a Reading, part: &str) -> &'a str {
    reading.get(part).map_or("", String::as_str)
}

/// Length of the message by the IP header, of frames with a whole IPv4 header; 0 for others.
fn message_length(frame: &Frame) -> usize {
    match frame.ip() {
        [first, _, high, low, ..] if first >> 4 == 4 => {
            usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(usize::from(first & 15) * 4)
        }
        _ => 0,
    }
}

/// The parts in which two readings differ. Where we read no message there is nothing but the reason to compare.
fn differences<'a>(ours: &Reading, theirs: &'a Reading) -> Vec<&'a str> {
    let mut parts: BTreeSet<&'static str> = ours.keys().copied().collect();
    if ours.contains_key("message") {
        parts.extend(theirs.keys().copied());
    }
    parts
        .into_iter()
        .filter(|part| ours.get(part) != theirs.get(part))
        .collect()
}

#[test]
fn decoders_agree_with_tshark() {
    let directory = tempfile::tempdir().unwrap();
    let (frames, path) = capture::generate(directory.path(), 1);
    let theirs = tshark::read(&path, directory.path());
    assert_eq!(frames.len(), theirs.len(), "tshark reads every frame");

    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let mut alike = Vec::new();
    let mut wrong = Vec::new();
    for (number, (frame, theirs)) in frames.iter().zip(&theirs).enumerate() {
        let ours = ours::read(frame);
        let lists_lie = ["more_records", "more_sources", "aux_beyond"].contains(&frame.twist.as_str());
        assert!(
            !lists_lie || says(&ours, "fault") == fault::MALFORMED,
            "{ours:?}: {frame:?}"
        );
        let parts = differences(&ours, theirs);
        for part in &parts {
            let tolerance = TOLERANCES
                .iter()
                .find(|tolerance| tolerance.parts.contains(part) && (tolerance.applies)(frame, &ours, theirs));
            match tolerance {
                Some(tolerance) => *used.entry(tolerance.name).or_default() += 1,
                None => wrong.push(format!(
                    "frame {} ({} {}): {part} is {:?}, tshark says {:?}\n  ours   {ours:?}\n  tshark {theirs:?}",
                    number + 1,
                    frame.kind,
                    frame.twist,
                    ours.get(part),
                    theirs.get(part)
                )),
            }
        }
        if parts.is_empty() {
            alike.push(ours);
        }
    }
    println!(
        "{} frames, {} alike in every part; differences tolerated: {used:#?}",
        frames.len(),
        alike.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differences, the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    for tolerance in TOLERANCES {
        let Tolerance { name, reason, .. } = tolerance;
        assert!(
            used.contains_key(name),
            "the tolerance `{name}` is met by no frame any more: {reason}"
        );
    }
    covers_every_kind(&alike);
}

/// At least 2,000 frames alike in every part, and among them every message, record type, checksum and fault.
fn covers_every_kind(alike: &[Reading]) {
    assert!(alike.len() >= 2000, "{} frames alike", alike.len());
    let seen = |part: &str, value: &str| {
        let of = |reading: &&Reading| reading.get(part).is_some_and(|text| text == value);
        alike.iter().filter(of).count()
    };
    let messages = [
        "IGMPv1 query",
        "IGMPv2 query",
        "IGMPv3 query",
        "IGMPv1 report",
        "IGMPv2 report",
        "IGMPv2 leave",
        "IGMPv3 report",
        "IGMP 0x13",
        "IGMP 0x14",
        "IGMP 0x1e",
        "IGMP 0x1f",
        "IGMP 0xff",
        "MLDv1 query",
        "MLDv2 query",
        "MLDv1 report",
        "MLDv1 done",
        "MLDv2 report",
    ];
    for message in messages {
        assert!(seen("message", message) > 0, "no {message}");
    }
    for checksum in ["Good", "Bad", "Unknown"] {
        assert!(seen("checksum", checksum) > 50, "no checksum {checksum}");
    }
    for fault in [fault::NONE, fault::MALFORMED, fault::CUT, fault::FRAGMENT] {
        assert!(seen("fault", fault) > 100, "no fault {fault}");
    }
    let records = || {
        alike
            .iter()
            .filter_map(|reading| reading.get("records"))
            .flat_map(|records| records.split("; "))
    };
    for kind in [1, 2, 3, 4, 5, 6, 9] {
        let start = format!("{kind} ");
        assert!(
            records().any(|record| record.starts_with(&start)),
            "no record of type {kind}"
        );
    }
    for dot in ['.', ':'] {
        let with_data = |record: &str| record.ends_with("aux 3") && record.contains(dot);
        assert!(
            records().any(with_data),
            "no auxiliary data behind a group with `{dot}`"
        );
    }
    assert!(seen("records declared", "183") > 0, "no report of 183 records");
}
