//! One IGMP or MLD message again and again: counted and held back by the port's event rate; counted and handed up.
//!
//! Without policies: records are walked and counted, and no rule is asked. Handing up is measured over as many messages as half the ring buffer holds, which is emptied after
//! each round, so that nobody is woken and nothing is lost.

use mcstat::{
    agent::bpf::ring,
    proto::{
        control::{encode_igmp, encode_mld},
        igmp::IgmpMessage,
        mld::MldMessage,
        wire::{Record, RecordKind, Report},
    },
};

use crate::{
    Scale,
    objects::{Subjects, ns_per_packet},
    stats::{Series, interleave, last_cpu},
    support::{self, Bpffs, frames, in_netns},
};

/// Half of a ring buffer of 1 MiB, by the largest record that is measured.
const HANDED: u32 = 300;

fn reports() -> Vec<(&'static str, Vec<u8>)> {
    let host = "10.0.0.2".parse().unwrap();
    let group = |n: u8| [239, 1, 2, n].into();
    let version_3 = |records: u8| {
        let record = |n| Record {
            kind: RecordKind::ModeIsExclude,
            group: group(n),
            sources: Vec::new(),
            aux_words: 0,
        };
        let report = Report {
            records: (0..records).map(record).collect(),
            missing: 0,
        };
        let message = IgmpMessage::V3Report(report);
        frames::frame4(&encode_igmp(host, [224, 0, 0, 22].into(), 1, true, &message).unwrap())
    };
    let version_2 = IgmpMessage::V2Report { group: group(3) };
    let record = Record {
        kind: RecordKind::ModeIsExclude,
        group: "ff0e::1:3".parse().unwrap(),
        sources: Vec::new(),
        aux_words: 0,
    };
    let mld = MldMessage::V2Report(Report {
        records: vec![record],
        missing: 0,
    });
    let mld = encode_mld("fe80::2".parse().unwrap(), "ff02::16".parse().unwrap(), 1, true, &mld).unwrap();
    vec![
        (
            "IGMPv2 report",
            frames::frame4(&encode_igmp(host, group(3), 1, true, &version_2).unwrap()),
        ),
        ("IGMPv3 report, 1 record", version_3(1)),
        ("IGMPv3 report, 16 records", version_3(16)),
        ("IGMPv3 report, 183 records", version_3(183)),
        ("MLDv2 report, 1 record", frames::frame6(&mld)),
    ]
}

/// Measures and prints goal 4 without policies.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        println!(
            "\n## One control message again and again (ns of CPU a message above an empty program, min–med–max)\n"
        );
        println!("| message | empty again: Δ | held back: Δ | counted and handed up | **handed up: Δ** |");
        println!("|---|---:|---:|---:|---:|");
        let held_back = measure(scale.rounds, scale.repeat, (1, 1));
        let handed = measure(scale.rounds.max(41), HANDED, (100_000, 1_000_000));
        for (((name, _), held_back), handed) in reports().iter().zip(held_back).zip(handed) {
            let [empty, again, counted] = &held_back[..] else {
                unreachable!()
            };
            let [base, _, up] = &handed[..] else { unreachable!() };
            println!(
                "| {name} | {:+.1} | {:+.1} | {} | **{:+.1}** |",
                again.above(empty),
                counted.above(empty),
                up.spread(1),
                up.above(base),
            );
        }
    });
}

/// Empty, empty again and mcstat for each report; every message must have been counted, and handed up or held back.
fn measure(rounds: usize, repeat: u32, events: (u32, u32)) -> Vec<Vec<Series>> {
    let bpffs = Bpffs::new();
    let mut subjects = Subjects::open_with(&bpffs, events);
    support::enter(&subjects.kernel, &support::pod_port("hot", "lo", 1, &["10.0.0.2"]));
    let programs = ["bench_empty", "bench_empty_b", "mcstat_outbound"].map(|name| subjects.program(name));
    let mut handed = 0;
    let series = reports()
        .iter()
        .map(|(_, frame)| {
            interleave(rounds, programs.len(), |program| {
                let took = ns_per_packet(&programs[program], frame, repeat);
                handed += ring::drain(&mut subjects.kernel.ring).len() as u64;
                took
            })
        })
        .collect();
    let sent = rounds as u64 * u64::from(repeat);
    let outbound = support::reading(&subjects.kernel, "hot").outbound;
    let counted = outbound.control;
    let (one, three) = (counted.igmpv2_report, counted.igmpv3_report);
    assert_eq!(
        (one, three, counted.mldv2_report),
        (sent, 3 * sent, sent),
        "messages by type"
    );
    assert_eq!(handed + outbound.events_limited, 5 * sent, "handed up and held back");
    series
}
