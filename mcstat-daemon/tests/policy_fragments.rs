//! A rule with a UDP port and datagrams larger than the MTU: the switch takes the ports of every fragment for 0, the first
//! one's too (ovs-ofctl(8), set-frags, `normal`), and mcstat judges as it does.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod policy_bed_lab;

use std::net::IpAddr;

use mcstat_bed::{
    Bed,
    pipeline::Verdict,
    traffic::{Count, PORT},
};
use policy_bed_lab::{Agent, DENIED, SENDER, frames, pod, policy, send_ten};
use serde_json::Value;

/// Ten datagrams of 4,000 bytes: three fragments each, of 1,514, 1,514 and 1,082 bytes.
fn send_ten_large(bed: &Bed) {
    let sender = bed.pod(SENDER).unwrap().send(IpAddr::V4(DENIED), 10, 50, 4_000);
    assert_eq!(sender.wait().unwrap(), 10);
}

const FRAGMENTS: Count = Count::new(30, 10 * (1_514 + 1_514 + 1_082));

/// A node with one rule that drops what the Pod sends to the group, by this match of ports in the policy.
fn policies(ports: &str) -> String {
    let rules =
        format!("egress: [{{name: drop, action: Drop, ports: [{ports}], to: [{{ipBlock: {{cidr: {DENIED}/32}}}}]}}]");
    pod(SENDER) + &policy("by-port", SENDER, &rules)
}

/// Both ledgers say the same, and find nothing missing.
fn agrees(agent: &Agent<'_>) {
    let told = || {
        let discrepancies = agent.pod(SENDER)?["status"]["ledgers"]["discrepancies"].clone();
        Some((agent.condition(SENDER, "LedgersAgree")?, discrepancies))
    };
    let agree = Some(("True Agree".to_owned(), Value::Null));
    agent.holds("the ledgers agree", told, &agree);
}

#[test]
fn a_rule_with_a_port_matches_no_fragment() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    let (pipeline, cidr) = (bed.pipeline(), format!("{DENIED}/32"));
    pipeline
        .add_egress_rule_for_udp(1, &[SENDER], &cidr, Some(PORT), Verdict::Drop)
        .unwrap();
    let agent = Agent::start(&bed, &policies(&format!("{{protocol: UDP, port: {PORT}}}")));
    assert_eq!(agent.condition(SENDER, "PolicyKnown").as_deref(), Some("True Enforced"));
    send_ten(&bed, SENDER, DENIED);
    send_ten_large(&bed);
    let by_switch = || (pipeline.rule(1).unwrap(), pipeline.outbound(SENDER).unwrap());
    agent.holds("the switch", by_switch, &(Some(frames(10)), Some(FRAGMENTS)));
    agent.holds("the Pod", || agent.numbers(SENDER), &Some([0, 30, 10, 0]));
    let rule = Some(vec![("drop".to_owned(), frames(10), 0)]);
    agent.holds("the rule", || agent.data("by-port"), &rule);
    agrees(&agent);
}

#[test]
fn a_rule_on_udp_without_a_port_matches_every_fragment() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    let (pipeline, cidr) = (bed.pipeline(), format!("{DENIED}/32"));
    pipeline
        .add_egress_rule_for_udp(1, &[SENDER], &cidr, None, Verdict::Drop)
        .unwrap();
    let agent = Agent::start(&bed, &policies("{protocol: UDP}"));
    send_ten(&bed, SENDER, DENIED);
    send_ten_large(&bed);
    let all = Count::new(40, 1_420 + FRAGMENTS.bytes);
    let by_switch = || (pipeline.rule(1).unwrap(), pipeline.outbound(SENDER).unwrap());
    agent.holds("the switch", by_switch, &(Some(all), Some(Count::default())));
    agent.holds("the Pod", || agent.numbers(SENDER), &Some([0, 0, 40, 0]));
    agent.holds(
        "the rule",
        || agent.data("by-port"),
        &Some(vec![("drop".to_owned(), all, 0)]),
    );
    agrees(&agent);
}
