//! What tshark reads in the frames: one call for the whole capture, by named fields.

use std::{collections::HashMap, path::Path};

use super::{Reading, fault, name, record, run};

const FIELDS: &[&str] = &[
    "_ws.short",
    "_ws.malformed",
    "ip.bogus_header_length",
    "ip.bogus_ip_length",
    "ip.bogus_ip_version",
    "ipv6.bogus_ipv6_version",
    "ipv6.plen_exceeds_framing",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.opt.ra",
    "ip.flags.mf",
    "ip.frag_offset",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hlim",
    "ipv6.opt.router_alert",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.offset",
    "igmp.type",
    "igmp.version",
    "igmp.checksum.status",
    "igmp.max_resp",
    "igmp.maddr",
    "igmp.saddr",
    "igmp.num_src",
    "igmp.num_grp_recs",
    "igmp.record_type",
    "igmp.aux_data_len",
    "igmp.s",
    "igmp.qrv",
    "igmp.qqic",
    "dvmrp.type",
    "dvmrp.checksum.status",
    "pim.igmp_type",
    "pim.cksum.status",
    "rgmp.type",
    "rgmp.checksum.status",
    "mrdisc.type",
    "mrdisc.checksum.status",
    "igap.type",
    "igap.checksum.status",
    "icmpv6.type",
    "icmpv6.checksum.status",
    "icmpv6.mld.maximum_response_code",
    "icmpv6.mld.maximum_response_delay",
    "icmpv6.mld.multicast_address",
    "icmpv6.mld.flag.s",
    "icmpv6.mld.flag.qrv",
    "icmpv6.mld.qqi",
    "icmpv6.mld.nb_sources",
    "icmpv6.mld.source_address",
    "icmpv6.mldr.nb_mcast_records",
    "icmpv6.mldr.mar.record_type",
    "icmpv6.mldr.mar.aux_data_len",
    "icmpv6.mldr.mar.nb_sources",
    "icmpv6.mldr.mar.multicast_address",
    "icmpv6.mldr.mar.source_address",
];

/// Reads the whole capture: one reading for each frame, in order.
pub fn read(capture: &str, directory: &Path) -> Vec<Reading> {
    let mut arguments = vec!["-n", "-r", capture, "-T", "json"];
    for field in FIELDS {
        arguments.extend(["-e", field]);
    }
    let text = run("tshark", &arguments, directory);
    let packets: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON from tshark");
    let layers = packets.into_iter().map(|mut packet| {
        let layers = packet["_source"]["layers"].take();
        Layers(serde_json::from_value(layers).unwrap_or_default())
    });
    layers.map(|layers| layers.reading()).collect()
}

/// The fields of one frame; a field that occurs several times has several values, in the order of the frame.
struct Layers(HashMap<String, Vec<String>>);

impl Layers {
    fn all(&self, field: &str) -> &[String] {
        assert!(FIELDS.contains(&field), "{field} is not asked for");
        self.0.get(field).map_or(&[], Vec::as_slice)
    }

    fn has(&self, field: &str) -> bool {
        !self.all(field).is_empty()
    }

    fn first(&self, field: &str) -> Option<&String> {
        self.all(field).first()
    }

    fn number<N: TryFrom<u64>>(&self, field: &str) -> Option<N> {
        let number = parse(self.first(field)?);
        Some(N::try_from(number).ok().expect("a number in its range"))
    }

    fn fault(&self) -> &'static str {
        let malformed = [
            "_ws.malformed",
            "ip.bogus_header_length",
            "ip.bogus_ip_length",
            "ip.bogus_ip_version",
            "ipv6.bogus_ipv6_version",
            "ipv6.plen_exceeds_framing",
        ];
        let fragment = [
            "ip.flags.mf",
            "ip.frag_offset",
            "ipv6.fraghdr.more",
            "ipv6.fraghdr.offset",
        ];
        if malformed.into_iter().any(|field| self.has(field)) {
            fault::MALFORMED
        } else if self.has("_ws.short") {
            fault::CUT
        } else if fragment
            .into_iter()
            .any(|field| self.number::<u32>(field).unwrap_or(0) != 0)
        {
            fault::FRAGMENT
        } else {
            fault::NONE
        }
    }

    fn reading(&self) -> Reading {
        let mut reading = Reading::from([("fault", self.fault().to_owned())]);
        let mut put = |key: &'static str, value: Option<String>| {
            if let Some(value) = value {
                reading.insert(key, value);
            }
        };
        let either = |v4: &str, v6: &str| self.first(v4).or(self.first(v6)).cloned();
        put("source", either("ip.src", "ipv6.src"));
        put("destination", either("ip.dst", "ipv6.dst"));
        put("ttl", either("ip.ttl", "ipv6.hlim"));
        let alert = self.has("ip.opt.ra") || self.has("ipv6.opt.router_alert");
        put("router alert", Some(alert.to_string()));
        let Some((igmp, kind)) = self.kind() else {
            return reading;
        };
        put("message", Some(name(igmp, kind, self.version(igmp))));
        put("checksum", self.checksum(igmp));
        put("group", self.group(igmp, kind));
        put("max response", self.max_response_ms(igmp, kind));
        self.query(igmp, kind, &mut put);
        self.report(igmp, &mut put);
        reading
    }

    /// Whether it is IGMP, and the type, by whichever of its dissectors took it.
    fn kind(&self) -> Option<(bool, u8)> {
        if let Some(kind) = self.number("icmpv6.type") {
            return Some((false, kind));
        }
        let fields = ["igmp.type", "dvmrp.type", "rgmp.type", "mrdisc.type", "igap.type"];
        let kind = fields.into_iter().find_map(|field| self.number(field));
        // "PIM (0x14)": the one that is shown as text.
        let pim = || self.has("pim.igmp_type").then_some(0x14);
        kind.or_else(pim).map(|kind| (true, kind))
    }

    fn version(&self, igmp: bool) -> u8 {
        match igmp {
            true => self.number("igmp.version").unwrap_or(0),
            // tshark names the field of the one version code, of the other delay.
            false if self.has("icmpv6.mld.maximum_response_code") => 2,
            false => 1,
        }
    }

    fn checksum(&self, igmp: bool) -> Option<String> {
        let igmp_fields = [
            "igmp.checksum.status",
            "dvmrp.checksum.status",
            "pim.cksum.status",
            "rgmp.checksum.status",
            "mrdisc.checksum.status",
            "igap.checksum.status",
        ];
        let status = match igmp {
            true => igmp_fields.into_iter().find_map(|field| self.number::<u8>(field)),
            false => self.number("icmpv6.checksum.status"),
        };
        let text = match status? {
            0 => "Bad",
            1 => "Good",
            2 => "Unknown",
            status => panic!("checksum status {status}"),
        };
        Some(text.to_owned())
    }

    /// The group of everything but a report with records, which has many.
    fn group(&self, igmp: bool, kind: u8) -> Option<String> {
        match (igmp, kind) {
            (true, 0x11 | 0x12 | 0x16 | 0x17) => self.first("igmp.maddr").cloned(),
            (false, 130..=132) => self.first("icmpv6.mld.multicast_address").cloned(),
            _ => None,
        }
    }

    /// tshark decodes the floating-point codes itself.
    fn max_response_ms(&self, igmp: bool, kind: u8) -> Option<String> {
        let milliseconds: u64 = match (igmp, kind) {
            (true, 0x11) => self.number::<u64>("igmp.max_resp")? * 100,
            (false, 130) => self
                .number("icmpv6.mld.maximum_response_code")
                .or(self.number("icmpv6.mld.maximum_response_delay"))?,
            _ => return None,
        };
        Some(milliseconds.to_string())
    }

    fn query(&self, igmp: bool, kind: u8, put: &mut impl FnMut(&'static str, Option<String>)) {
        let [suppress, robustness, interval, count, sources] = match (igmp, kind) {
            (true, 0x11) => ["igmp.s", "igmp.qrv", "igmp.qqic", "igmp.num_src", "igmp.saddr"],
            (false, 130) => [
                "icmpv6.mld.flag.s",
                "icmpv6.mld.flag.qrv",
                "icmpv6.mld.qqi",
                "icmpv6.mld.nb_sources",
                "icmpv6.mld.source_address",
            ],
            _ => return,
        };
        put("suppress", self.number::<u8>(suppress).map(|flag| flag.to_string()));
        put(
            "robustness",
            self.number::<u8>(robustness).map(|value| value.to_string()),
        );
        // The code as it stands, in MLD the seconds that it means: tshark shows the one here and the other there.
        put(
            if igmp { "interval code" } else { "interval" },
            self.number::<u32>(interval).map(|value| value.to_string()),
        );
        put(
            "sources declared",
            self.number::<u16>(count).map(|value| value.to_string()),
        );
        put("sources", self.has(count).then(|| self.all(sources).join(",")));
    }

    fn report(&self, igmp: bool, put: &mut impl FnMut(&'static str, Option<String>)) {
        let [declared, kinds, aux, counts, groups, sources] = match igmp {
            true => [
                "igmp.num_grp_recs",
                "igmp.record_type",
                "igmp.aux_data_len",
                "igmp.num_src",
                "igmp.maddr",
                "igmp.saddr",
            ],
            false => [
                "icmpv6.mldr.nb_mcast_records",
                "icmpv6.mldr.mar.record_type",
                "icmpv6.mldr.mar.aux_data_len",
                "icmpv6.mldr.mar.nb_sources",
                "icmpv6.mldr.mar.multicast_address",
                "icmpv6.mldr.mar.source_address",
            ],
        };
        let Some(number) = self.number::<u16>(declared) else {
            return;
        };
        put("records declared", Some(number.to_string()));
        // The lists are flat; the counts say which source belongs where. What is not whole is left out.
        let mut rest = self.all(sources);
        let mut records = Vec::new();
        for (index, kind) in self.all(kinds).iter().enumerate() {
            let part = (
                self.all(aux).get(index),
                self.all(counts).get(index),
                self.all(groups).get(index),
            );
            let (Some(aux), Some(count), Some(group)) = part else {
                break;
            };
            let Some((own, after)) = rest.split_at_checked(parse(count) as usize) else {
                break;
            };
            rest = after;
            records.push(record(parse(kind) as u8, group, own, parse(aux) as u8));
        }
        put("records", Some(records.join("; ")));
    }
}

/// tshark prints numbers in decimal or, some fields, in hexadecimal.
fn parse(text: &str) -> u64 {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|error| panic!("{text}: {error}"))
}
