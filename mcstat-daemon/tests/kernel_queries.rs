//! What the switch counted for rules on IGMP queries, beside their names in the maps: as long as the rule lives, and no longer.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use mcstat::{
    agent::bpf::{Kernel, policy},
    ledger::{
        Decided, Queried,
        snapshot::{RuleFlow, RuleReading},
        switch::Verdict,
        verdict::Object,
    },
};
use policy_lab::{Lab, objects};
use support::{Bpffs, in_netns, read_all};

fn query_rule(action: &str) -> Vec<Object> {
    objects(&format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: q}}, \
         spec: {{priority: 5, appliedTo: [{{podSelector: {{}}}}], ingress: [\
         {{name: query, action: {action}, protocols: [{{igmp: {{igmpType: 0x11}}}}]}}]}}}}"
    ))
}

/// So many more of 46 bytes, by a flow that has counted `packets`.
fn queried(rule: &RuleReading, more: u64, verdict: Verdict, packets: u64) -> Queried {
    Queried {
        slot: rule.row.slot,
        id: rule.row.id.clone(),
        start: rule.start,
        more: Decided {
            messages: more,
            bytes: more * 46,
            records: more,
        },
        flow: RuleFlow {
            conjunction: 7,
            verdict,
            packets,
            bytes: packets * 46,
        },
    }
}

fn write(kernel: &Kernel, queried: Queried) {
    policy::write_queried(&kernel.maps, std::iter::once(queried));
}

/// Messages, bytes, records, and the flow's verdict and packets.
type Told = ([u64; 3], Option<(Verdict, u64)>);

fn told(rule: &RuleReading) -> Told {
    let flow = rule.flow.map(|flow| {
        assert_eq!((flow.conjunction, flow.bytes), (7, flow.packets * 46));
        (flow.verdict, flow.packets)
    });
    ([rule.messages, rule.message_bytes, rule.records], flow)
}

fn sum(packets: u64, flow: (Verdict, u64)) -> Told {
    ([packets, packets * 46, packets], Some(flow))
}

#[test]
fn what_the_switch_counted_lives_as_long_as_the_rule() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let options = bpffs.options();
        let mut lab = Lab::new(&options);
        lab.set(query_rule("Drop"));
        let first = lab.rule("query");
        assert_eq!(told(&first), ([0; 3], None));
        write(&lab.kernel, queried(&first, 2, Verdict::Drop, 9));
        write(&lab.kernel, queried(&first, 3, Verdict::Drop, 12));
        assert_eq!(told(&lab.rule("query")), sum(5, (Verdict::Drop, 12)));
        lab.set(query_rule("Allow"));
        assert_eq!(
            told(&lab.rule("query")),
            sum(5, (Verdict::Drop, 12)),
            "a rule that changes"
        );
        write(&lab.kernel, queried(&first, 0, Verdict::Allow, 1));
        drop(lab);

        let mut lab = Lab::new(&options);
        assert_eq!(told(&lab.rule("query")), sum(5, (Verdict::Allow, 1)), "another process");
        lab.set(query_rule("Allow"));
        let last = lab.set([]);
        assert_eq!(last.iter().map(told).collect::<Vec<_>>(), [sum(5, (Verdict::Allow, 1))]);
        write(&lab.kernel, queried(&first, 4, Verdict::Allow, 5));
        assert_eq!(lab.rules(), [], "too late: the rule is gone");
        lab.set(query_rule("Drop"));
        let mut again = lab.rule("query");
        assert_eq!((told(&again), again.row.slot), (([0; 3], None), first.row.slot));
        assert!(again.start > first.start, "another life in the same place");
        write(&lab.kernel, queried(&first, 4, Verdict::Drop, 5));
        assert_eq!(told(&lab.rule("query")), ([0; 3], None), "of the life before");
        write(&lab.kernel, queried(&again, 1, Verdict::Drop, 6));
        again = lab.rule("query");
        assert_eq!(told(&again), sum(1, (Verdict::Drop, 6)));
        drop(lab);

        let mut newer = bpffs.options();
        newer.abi += 1;
        let kernel = Kernel::open_and_upgrade(&newer, support::agents_hook(), &[options.abi]).unwrap();
        assert_eq!(read_all(&kernel).rules, [again.clone()], "another ABI");
        write(&kernel, queried(&again, 1, Verdict::Drop, 7));
        assert_eq!(told(&read_all(&kernel).rules[0]), sum(2, (Verdict::Drop, 7)));
    });
}
