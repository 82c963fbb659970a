//! Reports judged in the kernel, record by record, whatever a tenant puts into them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use std::net::Ipv4Addr;

use mcstat::{
    ledger::{
        snapshot::ReportVerdicts,
        verdict::{Action, Transport},
    },
    proto::{
        control::{self, Body},
        igmp::IgmpMessage,
        mld::MldMessage,
    },
};
use mcstat_common::policy::{SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3};
use policy_lab::{
    DROP_ONE, ENFORCED, Lab,
    messages::{Record, mld2, short, short_to, v3, v3_claiming, v3_to},
    policy_of,
};
use support::{Bpffs, in_netns, veth::Veth};

/// Records, and how many of them are denied, as user space decodes the message and judges it by the tables; `None`: it
/// does not take the message.
fn in_user_space(lab: &Lab, frame: &[u8]) -> Option<(u64, u64)> {
    let packet = &frame[14..];
    let message = control::decode(packet, packet.len() as u32).ok()?;
    let (space, groups): (u8, Vec<Ipv4Addr>) = match message.body {
        Body::Igmp(IgmpMessage::V1Report { group }) => (SPACE_REPORT_V1, vec![group]),
        Body::Igmp(IgmpMessage::V2Report { group }) => (SPACE_REPORT_V2, vec![group]),
        Body::Igmp(IgmpMessage::V3Report(report)) => {
            let groups = report.records.iter().map(|record| record.group);
            (SPACE_REPORT_V3, groups.collect())
        }
        Body::Mld(MldMessage::V2Report(report)) => return Some((report.records.len() as u64, 0)),
        Body::Igmp(IgmpMessage::V2Leave { .. }) => return Some((1, 0)),
        other => panic!("{other:?}"),
    };
    if !message.envelope.destination.is_multicast() {
        return Some((groups.len() as u64, 0));
    }
    let verdicts = groups
        .iter()
        .map(|group| lab.tables.judge(&lab.pod, space, *group, Transport::Other));
    let denied = verdicts.filter(|verdict| verdict.action == Action::Drop).count();
    Some((groups.len() as u64, denied as u64))
}

/// K9: what a tenant may put into a report.
#[test]
fn hostile_reports_are_judged_record_by_record_and_within_bounds() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of(
            "k9",
            5,
            "{name: deny, action: Drop, protocols: [{igmp: {igmpType: 0x22, groupAddress: 239.1.1.1}}]}, \
             {name: pass, action: Allow, protocols: [{igmp: {igmpType: 0x22, groupAddress: 239.1.1.2}}]}, \
             {name: any, action: Drop, protocols: [{igmp: {igmpType: 0x16}}]}",
        ));
        lab.enforce(ENFORCED);
        let (bad, good, other) = ([239, 1, 1, 1], [239, 1, 1, 2], [239, 9, 9, 9]);
        let join = |group: [u8; 4]| Record::join(group);
        let with = |kind, group: [u8; 4], sources, auxiliary| Record {
            kind,
            group: group.into(),
            sources,
            auxiliary,
        };
        let many: Vec<_> = (0..183).map(|at| join(if at % 3 == 0 { bad } else { other })).collect();
        // Frame; records and denied ones; those of `deny`, `pass` and `any`.
        let cases: Vec<(&str, Vec<u8>, [u64; 5])> = vec![
            ("183 records", v3(&many), [183, 61, 61, 0, 0]),
            ("no record, 8 bytes", v3(&[]), [0, 0, 0, 0, 0]),
            ("two claimed, few there", v3_claiming(2, &[]), [0; 5]),
            (
                "65,535 claimed, few there",
                v3_claiming(65_535, &[join(bad), join(good)]),
                [2, 1, 1, 1, 0],
            ),
            (
                "one claimed, two there",
                v3_claiming(1, &[join(good), join(bad)]),
                [1, 0, 0, 1, 0],
            ),
            ("auxiliary data", v3(&[with(4, good, 0, 3), join(bad)]), [2, 1, 1, 1, 0]),
            (
                "sources",
                v3(&[with(1, good, 5, 0), with(6, bad, 2, 1)]),
                [2, 1, 1, 1, 0],
            ),
            ("unicast group", v3(&[join([10, 0, 0, 1]), join(bad)]), [2, 1, 1, 0, 0]),
            (
                "unicast group, v2",
                short_to([224, 0, 0, 2].into(), 0x16, [10, 0, 0, 1].into()),
                [1, 1, 0, 0, 1],
            ),
            (
                "v2, to a unicast address",
                short_to([10, 0, 0, 5].into(), 0x16, bad.into()),
                [1, 0, 0, 0, 0],
            ),
            (
                "v3, to a unicast address",
                v3_to([10, 0, 0, 5].into(), &[join(bad), join(good)]),
                [2, 0, 0, 0, 0],
            ),
            (
                "duplicates",
                v3(&[join(bad), join(bad), join(good), join(bad)]),
                [4, 3, 3, 1, 0],
            ),
            ("leave in v3", v3(&[with(3, bad, 0, 0)]), [1, 1, 1, 0, 0]),
            ("v2 report", short(0x16, bad.into()), [1, 1, 0, 0, 1]),
            ("v2 leave", short(0x17, bad.into()), [1, 0, 0, 0, 0]),
            ("v1 report", short(0x12, bad.into()), [1, 0, 0, 0, 0]),
            (
                "MLDv2, three claimed, few there",
                mld2(3, &["ff05::1".parse().unwrap(), "ff05::2".parse().unwrap()]),
                [2, 0, 0, 0, 0],
            ),
        ];
        for (what, frame, [records, denied, deny, pass, any]) in cases {
            let (before, port_before) = (lab.rules(), lab.reading().outbound);
            lab.send(&frame, 1);
            let port = lab.reading().outbound;
            let reports = ReportVerdicts {
                records: port_before.reports.records + records,
                dropped_messages: port_before.reports.dropped_messages + u64::from(denied > 0),
                dropped_records: port_before.reports.dropped_records + denied,
                ..port_before.reports
            };
            assert_eq!(port.reports, reports, "{what}");
            // A message that claims more than it holds is none to user space: nobody becomes a member by it.
            let believed = (!what.ends_with("claimed, few there")).then_some((records, denied));
            assert_eq!(in_user_space(&lab, &frame), believed, "{what}: in user space");
            let wanted = [("deny", deny), ("pass", pass), ("any", any)];
            for (rule, records) in wanted {
                let old = before.iter().find(|old| &*old.row.id.name == rule).unwrap();
                let new = lab.rule(rule);
                let grown = [
                    new.records - old.records,
                    new.messages - old.messages,
                    new.message_bytes - old.message_bytes,
                ];
                let once = u64::from(records > 0);
                assert_eq!(grown, [records, once, once * frame.len() as u64], "{what}: {rule}");
            }
        }
        // A record that is cut off is none: sources beyond the end.
        let mut cut = v3(&[join(good), with(4, bad, 4, 0)]);
        cut.truncate(cut.len() - 4);
        let length = cut.len() - 14;
        cut[16..18].copy_from_slice(&(length as u16).to_be_bytes());
        let before = lab.reading().outbound.reports.records;
        lab.send(&cut, 1);
        assert_eq!(lab.reading().outbound.reports.records, before + 1);
    });
}

/// Reports that BPF_PROG_TEST_RUN cannot hold, over a veth: all records of a jumbo frame, and no more than are walked.
#[test]
fn long_reports_are_walked_up_to_a_bound() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        let veth = Veth::new("mch0");
        for name in [&veth.host, &veth.pod] {
            support::ip(&format!("link set {name} mtu 16000"));
        }
        let mut port = veth.port("a");
        port.pod.namespace = "mkt".into();
        let entry = support::enter(&lab.kernel, &port);
        lab.kernel.programs.attach(&entry).unwrap();
        lab.set(policy_of("p", 5, DROP_ONE));
        let bad = Record::join([239, 1, 1, 1]);
        for (records, walked) in [(1100, 1100), (1500, 1200)] {
            let before = lab.reading().outbound.reports;
            veth.pod_socket().send(&v3(&vec![bad.clone(); records]));
            let after = lab.reading().outbound.reports;
            assert_eq!(after.records - before.records, walked, "{records} records");
            assert_eq!(after.would_drop_records - before.would_drop_records, walked);
            assert_eq!(after.would_drop_messages - before.would_drop_messages, 1);
        }
    });
}
