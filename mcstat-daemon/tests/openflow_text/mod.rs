//! Flows and groups in the words of `ovs-ofctl --no-names`, so that its output can be the oracle of the decoder.
//!
//! What the decoder does not know by design is written `unknown(…)` here and in [`expected`], which rewrites that text.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use mcstat::proto::openflow::{Action, Field, FlowDesc, GroupDesc, GroupKind};

/// Flow lines of `ovs-ofctl dump-flows`, without heading and leading space.
pub(crate) fn expected(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("cookie="))
        .map(|line| {
            let line = between(line, "dl_src=", ",", "unknown(8000/4)");
            let line = between(&line, "controller(", ")", "unknown(nx 37");
            line.replace("output:NXM_NX_REG1[]", "unknown(nx 15)")
        })
        .collect()
}

/// Replaces what stands from `start` to before `end`.
fn between(line: &str, start: &str, end: &str, by: &str) -> String {
    let Some((before, rest)) = line.split_once(start) else {
        return line.to_owned();
    };
    let (_, after) = rest.split_once(end).expect("an end");
    format!("{before}{by}{end}{after}")
}

/// One flow as a line of `ovs-ofctl dump-flows`.
pub(crate) fn flow(flow: &FlowDesc) -> String {
    let stats = &flow.stats;
    let duration = stats.duration.expect("a duration");
    let fraction = match duration.subsec_nanos() {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos => format!(".{nanos:09}"),
    };
    let mut fields = fields(&flow.fields);
    if flow.priority != 0x8000 {
        fields.insert(0, format!("priority={}", flow.priority));
    }
    let matched = fields.join(",");
    format!(
        "cookie={:#x}, duration={}{fraction}s, table={}, n_packets={}, n_bytes={}, idle_age={}, {matched}{}actions={}",
        flow.cookie,
        duration.as_secs(),
        flow.table,
        stats.packets.expect("packets"),
        stats.bytes.expect("bytes"),
        stats.idle.expect("an idle time").as_secs(),
        if matched.is_empty() { "" } else { " " },
        actions(&flow.actions, flow.goto_table),
    )
}

/// One group as a line of `ovs-ofctl dump-groups`.
pub(crate) fn group(group: &GroupDesc) -> String {
    assert_eq!(group.kind, GroupKind::All, "the only kind written here");
    let mut line = format!("group_id={},type=all", group.id);
    for bucket in &group.buckets {
        line += &format!(
            ",bucket=bucket_id:{},actions={}",
            bucket.id,
            actions(&bucket.actions, None)
        );
    }
    line
}

/// `ovs-ofctl` has an order of its own, and folds Ethernet type and IP protocol into names.
fn fields(fields: &[Field]) -> Vec<String> {
    let mut ordered: Vec<(u8, String)> = Vec::new();
    let protocol = fields.iter().find_map(|field| match field {
        Field::IpProto(protocol) => Some(*protocol),
        _ => None,
    });
    let named = match protocol {
        Some(1) => Some("icmp"),
        Some(6) => Some("tcp"),
        Some(17) => Some("udp"),
        _ => None,
    };
    for field in fields {
        ordered.push(match field {
            Field::ConjunctionId(id) => (0, format!("conj_id={id}")),
            Field::EthType(0x0800) => (1, named.unwrap_or("ip").to_owned()),
            Field::EthType(0x0806) => (1, "arp".to_owned()),
            Field::EthType(0x86dd) => (1, "ipv6".to_owned()),
            Field::EthType(other) => (1, format!("dl_type={other:#06x}")),
            Field::Register { number, value, mask } => {
                (2, format!("reg{number}={}{}", hex(*value), register_mask(*mask)))
            }
            Field::TunnelDst { address, mask } => (3, format!("tun_dst={address}{}", prefix(*mask))),
            Field::InPort(port) => (4, format!("in_port={}", port_name(*port))),
            Field::Unknown(unknown) => (5, format!("unknown({:04x}/{})", unknown.class, unknown.field)),
            Field::Ipv4Src { address, mask } => (6, format!("nw_src={address}{}", prefix(*mask))),
            Field::Ipv4Dst { address, mask } => (7, format!("nw_dst={address}{}", prefix(*mask))),
            Field::IpProto(_) if named.is_some() => continue,
            Field::IpProto(protocol) => (8, format!("nw_proto={protocol}")),
        });
    }
    ordered.sort_by_key(|(rank, _)| *rank);
    ordered.into_iter().map(|(_, text)| text).collect()
}

fn actions(actions: &[Action], goto_table: Option<u8>) -> String {
    let mut words: Vec<String> = actions.iter().map(action).collect();
    words.extend(goto_table.map(|table| format!("goto_table:{table}")));
    if words.is_empty() {
        return "drop".to_owned();
    }
    words.join(",")
}

fn action(action: &Action) -> String {
    match action {
        Action::Output { port } if *port < 0xffff_ff00 => format!("output:{port}"),
        Action::Output { port } => port_name(*port),
        Action::Group { id } => format!("group:{id}"),
        Action::SetField(Field::Register { number, value, mask }) => {
            format!("set_field:{}{}->reg{number}", hex(*value), register_mask(*mask))
        }
        Action::SetField(Field::TunnelDst { address, mask }) => {
            format!("set_field:{address}{}->tun_dst", prefix(*mask))
        }
        Action::SetField(Field::Unknown(field)) => format!("set_field:unknown({:04x}/{})", field.class, field.field),
        Action::SetField(other) => format!("set_field:{other:?}"),
        Action::Resubmit { in_port: 0xfff8, table } => format!("resubmit(,{table})"),
        Action::Resubmit { in_port, table: 0xff } => format!("resubmit:{in_port}"),
        Action::Resubmit { in_port, table } => format!("resubmit({in_port},{table})"),
        Action::Conjunction { id, clause, clauses } => format!("conjunction({id},{}/{clauses})", clause + 1),
        Action::Unknown { kind, .. } => format!("unknown({kind})"),
        Action::UnknownExperimenter {
            experimenter: 0x2320,
            subtype,
            ..
        } => format!("unknown(nx {subtype})"),
        Action::UnknownExperimenter { experimenter, .. } => format!("unknown({experimenter:#x})"),
    }
}

/// C's `%#x`, which writes 0 without a prefix.
fn hex(value: u32) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("{value:#x}")
    }
}

fn register_mask(mask: u32) -> String {
    if mask == u32::MAX {
        String::new()
    } else {
        format!("/{mask:#x}")
    }
}

fn prefix(mask: std::net::Ipv4Addr) -> String {
    let bits = mask.to_bits();
    match bits.leading_ones() {
        32 => String::new(),
        ones if bits.count_ones() == ones => format!("/{ones}"),
        _ => format!("/{mask}"),
    }
}

fn port_name(port: u32) -> String {
    match port {
        0xffff_fff8 => "IN_PORT".to_owned(),
        0xffff_fffa => "NORMAL".to_owned(),
        0xffff_fffd => "CONTROLLER".to_owned(),
        0xffff_fffe => "LOCAL".to_owned(),
        port => port.to_string(),
    }
}
