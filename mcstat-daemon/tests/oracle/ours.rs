//! What mcstat reads in the frames: the classifier of the eBPF programs and the decoder of the agent, as one reading.

use mcstat::proto::{
    control::{Body, ControlMessage, decode},
    igmp::IgmpMessage,
    mld::MldMessage,
    wire::{Address, DecodeError, QueryTail, Report},
};
use mcstat_common::frame::{Class, Kind, Malformed, classify};

use super::{Reading, capture::Frame, fault, name, record};

/// Reads one frame. Panics where classifier and decoder contradict each other: that is a mistake whatever tshark says.
pub fn read(frame: &Frame) -> Reading {
    let sent = frame.sent.saturating_sub(frame.ip_offset().unwrap_or(frame.sent));
    let decoded = decode(frame.ip(), sent as u32);
    agree(frame, &decoded);
    match decoded {
        Ok(message) => whole(&message),
        Err(error) => Reading::from([("fault", of_error(&error, frame).to_owned())]),
    }
}

fn of_error(error: &DecodeError, frame: &Frame) -> &'static str {
    match error {
        DecodeError::Fragment { .. } => fault::FRAGMENT,
        DecodeError::TooShort { .. } if frame.bytes.len() < frame.sent => fault::CUT,
        _ => fault::MALFORMED,
    }
}

/// The classifier sees a frame first: what it calls malformed the decoder must refuse, and what it counts under a type
/// the decoder must read as that type.
fn agree(frame: &Frame, decoded: &Result<ControlMessage, DecodeError>) {
    let class = classify(&frame);
    let fits = match (class, decoded) {
        (Class::Control(control), decoded) => {
            assert_eq!(Some(control.ip_offset), frame.ip_offset(), "{frame:?}");
            match decoded {
                Ok(message) => control.kind == kind(&message.body),
                // Record and source counts are for the decoder alone.
                Err(DecodeError::TooShort { .. }) => true,
                Err(DecodeError::Fragment { .. }) => true,
                Err(_) => false,
            }
        }
        (Class::Malformed(_), Err(_)) => true,
        // 25 to 27 bytes are no version's: the classifier has no counter for such a query, the decoder says `Other`.
        (Class::Malformed(Malformed::BadLength), Ok(message)) => {
            matches!(message.body, Body::Mld(MldMessage::Other { .. }))
        }
        (Class::Malformed(_), Ok(_)) => false,
        // Behind the end of the capture: the programs read it from the skb, the decoder has to do without.
        (Class::Unreachable, _) => frame.bytes.len() < frame.sent,
        // MLD to a unicast address without a hop-by-hop header, a later fragment: not ours to count as control.
        (Class::Foreign | Class::Data(_), _) => {
            frame.twist == "other_destination" || matches!(decoded, Err(DecodeError::Fragment { .. }))
        }
        (Class::NeighbourDiscovery, _) => false,
    };
    assert!(
        fits,
        "the classifier says {class:?}, the decoder {decoded:?}: {frame:?}"
    );
}

fn kind(body: &Body) -> Kind {
    match body {
        Body::Igmp(IgmpMessage::Query(query)) => match query.version() {
            1 => Kind::Igmpv1Query,
            2 => Kind::Igmpv2Query,
            _ => Kind::Igmpv3Query,
        },
        Body::Igmp(IgmpMessage::V1Report { .. }) => Kind::Igmpv1Report,
        Body::Igmp(IgmpMessage::V2Report { .. }) => Kind::Igmpv2Report,
        Body::Igmp(IgmpMessage::V2Leave { .. }) => Kind::Igmpv2Leave,
        Body::Igmp(IgmpMessage::V3Report(_)) => Kind::Igmpv3Report,
        Body::Igmp(IgmpMessage::Other { .. }) => Kind::IgmpOther,
        Body::Mld(MldMessage::Query(query)) if query.version() == 1 => Kind::Mldv1Query,
        Body::Mld(MldMessage::Query(_) | MldMessage::Other { .. }) => Kind::Mldv2Query,
        Body::Mld(MldMessage::V1Report { .. }) => Kind::Mldv1Report,
        Body::Mld(MldMessage::V1Done { .. }) => Kind::Mldv1Done,
        Body::Mld(MldMessage::V2Report(_)) => Kind::Mldv2Report,
    }
}

fn whole(message: &ControlMessage) -> Reading {
    let envelope = &message.envelope;
    let mut reading = Reading::from([
        ("fault", if message.cut { fault::CUT } else { fault::NONE }.to_owned()),
        ("source", envelope.source.to_string()),
        ("destination", envelope.destination.to_string()),
        ("ttl", envelope.ttl.to_string()),
        ("router alert", envelope.router_alert.to_string()),
        ("checksum", format!("{:?}", message.checksum)),
    ]);
    match &message.body {
        Body::Igmp(body) => igmp(body, &mut reading),
        Body::Mld(body) => mld(body, &mut reading),
    }
    reading
}

fn igmp(message: &IgmpMessage, reading: &mut Reading) {
    let (kind, version) = match message {
        IgmpMessage::Query(query) => {
            reading.insert("group", query.group.to_string());
            // tshark shows none for IGMPv1, which has no such field.
            if query.version() > 1 {
                reading.insert("max response", query.max_response().as_millis().to_string());
            }
            tail(query.tail.as_ref(), reading);
            (0x11, query.version())
        }
        IgmpMessage::V1Report { group } | IgmpMessage::V2Report { group } | IgmpMessage::V2Leave { group } => {
            reading.insert("group", group.to_string());
            let kind = match message {
                IgmpMessage::V1Report { .. } => 0x12,
                IgmpMessage::V2Report { .. } => 0x16,
                _ => 0x17,
            };
            (kind, 0)
        }
        IgmpMessage::V3Report(body) => {
            report(body, reading);
            (0x22, 3)
        }
        IgmpMessage::Other { kind } => (*kind, 0),
    };
    reading.insert("message", name(true, kind, version));
}

fn mld(message: &MldMessage, reading: &mut Reading) {
    let (kind, version) = match message {
        MldMessage::Query(query) => {
            reading.insert("group", query.group.to_string());
            reading.insert("max response", query.max_response().as_millis().to_string());
            tail(query.tail.as_ref(), reading);
            (130, query.version())
        }
        MldMessage::V1Report { group } => {
            reading.insert("group", group.to_string());
            (131, 1)
        }
        MldMessage::V1Done { group } => {
            reading.insert("group", group.to_string());
            (132, 1)
        }
        MldMessage::V2Report(body) => {
            report(body, reading);
            (143, 2)
        }
        MldMessage::Other { kind } => (*kind, 0),
    };
    reading.insert("message", name(false, kind, version));
}

fn tail<A: Address + std::fmt::Display>(tail: Option<&QueryTail<A>>, reading: &mut Reading) {
    let Some(tail) = tail else {
        return;
    };
    reading.insert("suppress", u8::from(tail.suppress).to_string());
    reading.insert("robustness", tail.robustness.to_string());
    if A::LENGTH == 4 {
        reading.insert("interval code", tail.interval_code.to_string());
    } else {
        reading.insert("interval", tail.query_interval().as_secs().to_string());
    }
    let declared = tail.sources.len() + usize::from(tail.missing);
    reading.insert("sources declared", declared.to_string());
    reading.insert("sources", strings(&tail.sources).join(","));
}

fn report<A: Address + std::fmt::Display>(report: &Report<A>, reading: &mut Reading) {
    let records = report.records.iter().map(|entry| {
        record(
            entry.kind.into(),
            &entry.group.to_string(),
            &strings(&entry.sources),
            entry.aux_words,
        )
    });
    let records: Vec<String> = records.collect();
    let declared = records.len() + usize::from(report.missing);
    reading.insert("records declared", declared.to_string());
    reading.insert("records", records.join("; "));
}

fn strings<A: ToString>(addresses: &[A]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
