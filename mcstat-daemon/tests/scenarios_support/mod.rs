//! What a scenario says besides JSON: policies, and IGMP and MLD messages as readable lines, made into whole packets and
//! decoded again: what a scenario says went through the codecs. `scenarios/README` has the grammar. A line that says
//! something unknown is an error, never skipped.

pub(crate) mod policy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mcstat::{
    ledger::snapshot::{ControlEvent, Direction},
    proto::{
        control::{decode, encode_igmp, encode_mld},
        igmp::{IgmpMessage, IgmpQuery},
        mld::{MldMessage, MldQuery},
        wire::{QueryTail, Record, RecordKind, Report},
    },
};

type Result<T> = std::result::Result<T, String>;

/// The event that one line tells.
pub(crate) fn event(line: &str) -> Result<ControlEvent> {
    let words = words(line)?;
    let [at, port, direction, rest @ ..] = words.as_slice() else {
        return Err("not TIME PORT in|out …".to_owned());
    };
    let direction = match *direction {
        "out" => Direction::Outbound,
        "in" => Direction::Inbound,
        other => return Err(format!("{other} is neither in nor out")),
    };
    let mut options = Options::of(rest)?;
    let mut packet = match options.words.clone().as_slice() {
        ["raw", hex] => bytes(hex)?,
        [source, kind, arguments @ ..] => packet(source, kind, arguments, &mut options)?,
        _ => return Err("not SOURCE KIND … and not raw HEX".to_owned()),
    };
    if options.flag("bad-checksum") {
        spoil_checksum(&mut packet);
    }
    let original_length = packet.len() as u32;
    if let Some(cut) = options.number("cut")? {
        packet.truncate(cut as usize);
    }
    options.all_used()?;
    Ok(ControlEvent {
        port: parse(port)?,
        direction,
        at: parse(at)?,
        original_length,
        message: decode(&packet, original_length),
    })
}

/// Bytes 2 and 3 behind the IP headers.
fn spoil_checksum(packet: &mut [u8]) {
    let headers = match packet.first().copied().unwrap_or_default() {
        first @ 0x40..0x50 => usize::from(first & 0x0f) * 4,
        _ if packet.get(6) == Some(&0) => 48,
        _ => 40,
    };
    if let Some(byte) = packet.get_mut(headers + 2) {
        *byte ^= 0xff;
    }
}

/// Words of a line: white space separates them outside of parentheses.
fn words(line: &str) -> Result<Vec<&str>> {
    let (mut words, mut begin, mut depth) = (Vec::new(), 0, 0usize);
    for (index, letter) in line.char_indices().chain([(line.len(), ' ')]) {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("a ) without its (")?,
            ' ' if depth == 0 => {
                if begin < index {
                    words.push(&line[begin..index]);
                }
                begin = index + 1;
            }
            _ => {}
        }
    }
    if depth == 0 {
        Ok(words)
    } else {
        Err("a ( without its )".to_owned())
    }
}

/// The words that are no options, and the options; each must be asked for.
struct Options<'a> {
    words: Vec<&'a str>,
    options: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    fn of(rest: &[&'a str]) -> Result<Self> {
        let (options, words): (Vec<&str>, _) = rest.iter().copied().partition(|word| {
            let flag = matches!(*word, "no-alert" | "bad-checksum" | "suppress");
            flag || word.contains('=') && !word.contains('(')
        });
        let split = |word: &'a str| {
            word.split_once('=')
                .map_or((word, None), |(key, value)| (key, Some(value)))
        };
        Ok(Self {
            words,
            options: options.into_iter().map(split).collect(),
        })
    }

    fn take(&mut self, key: &str) -> Option<Option<&'a str>> {
        let index = self.options.iter().position(|(known, _)| *known == key)?;
        Some(self.options.remove(index).1)
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some()
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        self.take(key).flatten()
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>> {
        self.text(key).map(parse).transpose()
    }

    fn or<T: std::str::FromStr>(&mut self, key: &str, default: T) -> Result<T> {
        self.text(key).map_or(Ok(default), parse)
    }

    fn all_used(&self) -> Result<()> {
        match self.options.first() {
            Some((key, _)) => Err(format!("{key} means nothing here")),
            None => Ok(()),
        }
    }
}

fn packet(source: &str, kind: &str, arguments: &[&str], options: &mut Options<'_>) -> Result<Vec<u8>> {
    let ttl = options.or("ttl", 1u8)?;
    match parse::<IpAddr>(source)? {
        IpAddr::V4(source) => {
            let (message, usual) = igmp(kind, arguments, options)?;
            let to = options.or("to", usual)?;
            let alert = !options.flag("no-alert") && !kind.starts_with("igmpv1");
            encode_igmp(source, to, ttl, alert, &message).map_err(|error| error.to_string())
        }
        IpAddr::V6(source) => {
            let (message, usual) = mld(kind, arguments, options)?;
            let to = options.or("to", usual)?;
            let alert = !options.flag("no-alert");
            encode_mld(source, to, ttl, alert, &message).map_err(|error| error.to_string())
        }
    }
}

/// An IGMP message and where it is sent.
fn igmp(kind: &str, arguments: &[&str], options: &mut Options<'_>) -> Result<(IgmpMessage, Ipv4Addr)> {
    let everybody = Ipv4Addr::new(224, 0, 0, 1);
    Ok(match (kind, arguments) {
        ("igmpv1-query" | "igmpv2-query" | "igmpv3-query", []) => {
            let group = options.or("group", Ipv4Addr::UNSPECIFIED)?;
            let code = match kind {
                "igmpv1-query" => 0,
                _ => options.or("max", 100u8)?,
            };
            let query = IgmpQuery {
                max_response_code: code,
                group,
                tail: (kind == "igmpv3-query").then(|| tail(options)).transpose()?,
            };
            let to = if group.is_unspecified() { everybody } else { group };
            (IgmpMessage::Query(query), to)
        }
        ("igmpv1-report", [group]) => (IgmpMessage::V1Report { group: parse(group)? }, parse(group)?),
        ("igmpv2-report", [group]) => (IgmpMessage::V2Report { group: parse(group)? }, parse(group)?),
        ("igmpv2-leave", [group]) => {
            let message = IgmpMessage::V2Leave { group: parse(group)? };
            (message, Ipv4Addr::new(224, 0, 0, 2))
        }
        ("igmpv3-report", records) => {
            let report = report(records, |group: Ipv4Addr, n| {
                Ipv4Addr::from(u32::from(group).wrapping_add(n))
            })?;
            (IgmpMessage::V3Report(report), Ipv4Addr::new(224, 0, 0, 22))
        }
        ("igmp-other", [kind]) => (IgmpMessage::Other { kind: parse(kind)? }, everybody),
        _ => return Err(format!("{kind} {arguments:?} is no IGMP message")),
    })
}

/// An MLD message and where it is sent.
fn mld(kind: &str, arguments: &[&str], options: &mut Options<'_>) -> Result<(MldMessage, Ipv6Addr)> {
    let link = |last| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last);
    Ok(match (kind, arguments) {
        ("mldv1-query" | "mldv2-query", []) => {
            let group = options.or("group", Ipv6Addr::UNSPECIFIED)?;
            let query = MldQuery {
                max_response_code: options.or("max", 10_000u16)?,
                group,
                tail: (kind == "mldv2-query").then(|| tail(options)).transpose()?,
            };
            let to = if group.is_unspecified() { link(1) } else { group };
            (MldMessage::Query(query), to)
        }
        ("mldv1-report", [group]) => (MldMessage::V1Report { group: parse(group)? }, parse(group)?),
        ("mldv1-done", [group]) => (MldMessage::V1Done { group: parse(group)? }, link(2)),
        ("mldv2-report", records) => {
            let next = |group: Ipv6Addr, n: u32| Ipv6Addr::from(u128::from(group).wrapping_add(n.into()));
            (MldMessage::V2Report(report(records, next)?), link(0x16))
        }
        _ => return Err(format!("{kind} {arguments:?} is no MLD message")),
    })
}

fn tail<A: std::str::FromStr>(options: &mut Options<'_>) -> Result<QueryTail<A>> {
    let sources = options.text("sources").unwrap_or_default();
    Ok(QueryTail {
        suppress: options.flag("suppress"),
        robustness: options.or("qrv", 2)?,
        interval_code: options.or("qqic", 125)?,
        sources: list(sources)?,
        missing: 0,
    })
}

fn report<A: std::str::FromStr + Copy>(records: &[&str], next: impl Fn(A, u32) -> A) -> Result<Report<A>> {
    let mut all = Vec::new();
    for text in records {
        let (first, times) = record::<A>(text)?;
        all.extend((0..times).map(|n| Record {
            group: next(first.group, n),
            ..first.clone()
        }));
    }
    Ok(Report {
        records: all,
        missing: 0,
    })
}

/// `KIND(GROUP)`, `KIND(GROUP xTIMES)`, `KIND(GROUP; SOURCE,…)`, `KIND(GROUP; SOURCE,…; aux=WORDS)`.
fn record<A: std::str::FromStr>(text: &str) -> Result<(Record<A>, u32)> {
    let inner = text.strip_suffix(')').and_then(|text| text.split_once('('));
    let (kind, inner) = inner.ok_or_else(|| format!("{text} is no record"))?;
    let mut parts = inner.split(';').map(str::trim);
    let group = parts.next().unwrap_or_default();
    let (group, times) = group.split_once(" x").unwrap_or((group, "1"));
    let sources = list(parts.next().unwrap_or_default())?;
    let aux_words = match parts.next().map(|aux| aux.strip_prefix("aux=").ok_or(aux)) {
        Some(Ok(aux)) => parse(aux)?,
        Some(Err(aux)) => return Err(format!("{aux} is not aux=WORDS")),
        None => 0,
    };
    let kind = match kind {
        "IS_IN" => RecordKind::ModeIsInclude,
        "IS_EX" => RecordKind::ModeIsExclude,
        "TO_IN" => RecordKind::ChangeToInclude,
        "TO_EX" => RecordKind::ChangeToExclude,
        "ALLOW" => RecordKind::AllowNewSources,
        "BLOCK" => RecordKind::BlockOldSources,
        other => match other.strip_prefix("TYPE") {
            Some(number) => RecordKind::from(parse::<u8>(number)?),
            None => return Err(format!("{other} is no kind of record")),
        },
    };
    let record = Record {
        kind,
        group: parse(group)?,
        sources,
        aux_words,
    };
    Ok((record, parse(times)?))
}

fn list<A: std::str::FromStr>(text: &str) -> Result<Vec<A>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(parse).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits
            .chunks_exact(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect()),
        _ => Err(format!("{hex} is not hexadecimal")),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    let wanted = std::any::type_name::<T>().rsplit(':').next().unwrap_or_default();
    text.parse().map_err(|_| format!("{text} is no {wanted}"))
}
