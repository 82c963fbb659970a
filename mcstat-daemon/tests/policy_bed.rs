//! Policies from a directory against a switch that has the same rules: Antrea's own test of multicast statistics (A1 to A3:
//! its names, groups and numbers), what is told where nobody enforces, and changes while the agent runs or does not.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod policy_bed_lab;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use mcstat_bed::{
    Bed, Options,
    pipeline::{Verdict, query::Query},
    traffic::{Count, recv::Receiver},
};
use policy_bed_lab::{ALLOWED, Agent, DENIED, SENDER, frames, pod, policy, send_ten};
use serde_json::json;

fn receive(bed: &Bed, pod: &str, groups: &[Ipv4Addr]) -> Receiver {
    let groups: Vec<IpAddr> = groups.iter().map(|group| IpAddr::V4(*group)).collect();
    bed.pod(pod).unwrap().receive(&groups).unwrap()
}

fn data_rules(allowed: Ipv4Addr, denied: Ipv4Addr) -> String {
    format!(
        "egress: [{{name: allow-multicast-traffic, action: Allow, to: [{{ipBlock: {{cidr: {allowed}/32}}}}]}}, \
         {{name: drop-multicast-traffic, action: Drop, to: [{{ipBlock: {{cidr: {denied}/32}}}}]}}]"
    )
}

fn report_rules(allowed: Ipv4Addr, denied: Ipv4Addr) -> String {
    format!(
        "egress: [{{name: allow-igmp-report, action: Allow, protocols: [{{igmp: {{groupAddress: {allowed}}}}}]}}, \
         {{name: drop-igmp-report, action: Drop, protocols: [{{igmp: {{groupAddress: {denied}}}}}]}}]"
    )
}

const QUERY_RULE: &str = "ingress: [{name: allow-igmp-query, action: Allow, protocols: [{igmp: {igmpType: 0x11, groupAddress: 224.0.0.1}}]}]";

/// The two rules of a policy on data: each decided on ten packets.
fn ten_and_ten() -> Option<Vec<(String, Count, u64)>> {
    Some(vec![
        ("allow-multicast-traffic".to_owned(), frames(10), 0),
        ("drop-multicast-traffic".to_owned(), frames(10), 0),
    ])
}

fn a1() -> String {
    pod(SENDER) + &policy("anp1-multicast", SENDER, &data_rules(ALLOWED, DENIED))
}

/// The switch has what antrea-agent makes of [`a1`].
fn enforce_a1(bed: &Bed) {
    let (pipeline, cidr) = (bed.pipeline(), |group: Ipv4Addr| format!("{group}/32"));
    pipeline
        .add_egress_rule(1, &[SENDER], &cidr(ALLOWED), Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &[SENDER], &cidr(DENIED), Verdict::Drop)
        .unwrap();
}

#[test]
fn a1_data_is_dropped_by_a_rule() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    enforce_a1(&bed);
    let agent = Agent::start(&bed, &a1());
    assert_eq!(agent.condition(SENDER, "PolicyKnown").as_deref(), Some("True Enforced"));
    for group in [ALLOWED, DENIED] {
        send_ten(&bed, SENDER, group);
    }
    agent.holds("A1: the Pod", || agent.numbers(SENDER), &Some([0, 10, 10, 0]));
    agent.holds("A1: the rules", || agent.data("anp1-multicast"), &ten_and_ten());
    assert_eq!(
        [1, 2].map(|rule| bed.pipeline().rule(rule).unwrap()),
        [Some(frames(10)); 2],
        "so says the switch"
    );
    let agrees = || agent.condition(SENDER, "LedgersAgree");
    agent.holds("the ledgers agree", agrees, &Some("True Agree".to_owned()));
}

/// The same policies where the bridge has no tables for them.
#[test]
fn without_an_enforcer_nothing_is_dropped() {
    let options = Options {
        policies: false,
        ..Options::default()
    };
    let bed = Bed::with(options, &[("e2e", SENDER)]).unwrap();
    let agent = Agent::start(&bed, &a1());
    assert_eq!(
        agent.condition(SENDER, "PolicyKnown").as_deref(),
        Some("True NotEnforced")
    );
    for group in [ALLOWED, DENIED] {
        send_ten(&bed, SENDER, group);
    }
    agent.holds("the Pod", || agent.numbers(SENDER), &Some([0, 20, 0, 10]));
    let rules = vec![
        ("allow-multicast-traffic".to_owned(), frames(10), 0),
        ("drop-multicast-traffic".to_owned(), frames(0), 10),
    ];
    agent.holds("the rules", || agent.data("anp1-multicast"), &Some(rules));
}

#[test]
fn a2_a_denied_report_makes_no_member() {
    let receiver = "test2-receiver-1";
    let [denied, allowed] = [2, 3].map(|last| Ipv4Addr::new(225, 20, 3, last));
    let bed = Bed::up(&[("e2e", receiver)]).unwrap();
    let policies = pod(receiver) + &policy("anp1-igmp", receiver, &report_rules(allowed, denied));
    let agent = Agent::start(&bed, &policies);
    let _receiver = receive(&bed, receiver, &[denied, allowed]);
    bed.pipeline().set_group(allowed, &[receiver]).unwrap();
    let groups = BTreeMap::from([(allowed.to_string(), vec![receiver.to_owned()])]);
    // A group that is listed without Pods is as good as none.
    let members = || {
        let mut groups = agent.groups()?;
        groups.retain(|_, pods| !pods.is_empty());
        Some(groups)
    };
    let decided = || {
        let rules = agent.rules("anp1-igmp")?;
        let counted = rules.values().all(|rule| rule["records"].as_u64() > Some(0));
        Some((rules.into_keys().collect::<Vec<_>>(), counted))
    };
    let both = ["allow-igmp-report", "drop-igmp-report"].map(str::to_owned).to_vec();
    agent.holds("A2: the rules", decided, &Some((both, true)));
    agent.holds("A2: the groups", members, &Some(groups));
    assert_eq!(agent.numbers(receiver), Some([0, 0, 0, 0]), "IGMP is no data");
    let pod = agent.pod(receiver).unwrap();
    assert!(
        pod["status"]["igmp"]["dropped"]["messages"].as_u64() > Some(0),
        "{pod:#}"
    );
}

#[test]
fn a3_data_reports_and_queries_together() {
    let pods = [
        "test3-sender-1",
        "test3-sender-2",
        "test3-receiver-1",
        "test3-receiver-2",
    ];
    let [first, second, one, other] = pods;
    let [two, three] = [2, 3].map(|last| Ipv4Addr::new(225, 20, 1, last));
    let bed = Bed::up(&pods.map(|pod| ("e2e", pod))).unwrap();
    let pipeline = bed.pipeline();
    pipeline
        .add_egress_rule(1, &[first], "225.20.1.3/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &[first], "225.20.1.2/32", Verdict::Drop)
        .unwrap();
    pipeline.add_query_rule(3, &[one], Verdict::Allow).unwrap();
    let policies = [
        pods.map(pod).concat(),
        policy("anp1-mixed", first, &data_rules(three, two)),
        policy("anp2-mixed", one, &report_rules(two, three)),
        policy("anp3-mixed", one, QUERY_RULE),
    ];
    let agent = Agent::start(&bed, &policies.concat());
    // As antrea-agent makes groups of the reports: the denied one is none.
    pipeline.set_group(two, &[one, other]).unwrap();
    pipeline.set_group(three, &[other]).unwrap();
    let _receivers = [one, other].map(|pod| receive(&bed, pod, &[two, three]));
    for _ in 0..3 {
        pipeline.query(Query::V3(10)).unwrap();
    }
    for sender in [first, second] {
        for group in [two, three] {
            send_ten(&bed, sender, group);
        }
    }
    let numbers = || pods.map(|pod| agent.numbers(pod));
    let expected = [[0, 10, 10, 0], [0, 20, 0, 0], [10, 0, 0, 0], [30, 0, 0, 0]].map(Some);
    agent.holds("A3: the Pods", numbers, &expected);
    agent.holds("A3: the rules on data", || agent.data("anp1-mixed"), &ten_and_ten());
    assert_eq!(
        [1, 2].map(|rule| pipeline.rule(rule).unwrap()),
        [Some(frames(10)); 2],
        "so says the switch"
    );
    let names = |policy| agent.rules(policy).map(|rules| rules.into_keys().collect::<Vec<_>>());
    assert_eq!(names("anp3-mixed"), Some(vec!["allow-igmp-query".to_owned()]));
    let query = pipeline.rule(3).unwrap().unwrap();
    assert_eq!(query, Count::new(3, 3 * 46), "three queries to one Pod, by the switch");
    agent.holds(
        "A3: the queries",
        || agent.data("anp3-mixed"),
        &Some(vec![("allow-igmp-query".to_owned(), query, 0)]),
    );
    let rule = agent.rules("anp3-mixed").unwrap()["allow-igmp-query"].clone();
    assert_eq!(
        (&rule["records"], &rule["switch"]["match"]),
        (&json!(3), &json!("unique"))
    );
    let both = ["allow-igmp-report", "drop-igmp-report"].map(str::to_owned).to_vec();
    assert_eq!(names("anp2-mixed"), Some(both));
    let groups = BTreeMap::from([
        (two.to_string(), vec![one.to_owned(), other.to_owned()]),
        (three.to_string(), vec![other.to_owned()]),
    ]);
    agent.holds("A3: the groups", || agent.groups(), &Some(groups));
}

/// A rule keeps its totals however it changes and over an agent's end, and a policy what its rules counted that are gone; the
/// policy that comes back is another one.
#[test]
fn totals_outlive_changes_and_agents() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    enforce_a1(&bed);
    let mut agent = Agent::start(&bed, &a1());
    send_ten(&bed, SENDER, DENIED);
    let expect = |agent: &Agent<'_>, what: &str, pod: [u64; 4], [allow, drop]: [u64; 2]| {
        let rules = vec![
            ("allow-multicast-traffic".to_owned(), frames(allow), 0),
            ("drop-multicast-traffic".to_owned(), frames(drop), 0),
        ];
        agent.holds(
            what,
            || (agent.numbers(SENDER), agent.data("anp1-multicast")),
            &(Some(pod), Some(rules)),
        );
    };
    expect(&agent, "ten are dropped", [0, 0, 10, 0], [0, 10]);

    agent.node.kill();
    send_ten(&bed, SENDER, DENIED);
    send_ten(&bed, SENDER, ALLOWED);
    agent.run();
    expect(&agent, "they were judged without an agent", [0, 10, 20, 0], [10, 20]);

    // The allowed group is the denied one now, and the other way round; the switch is told first.
    for rule in [1, 2] {
        bed.pipeline().remove_rule(rule).unwrap();
    }
    let swapped = pod(SENDER) + &policy("anp1-multicast", SENDER, &data_rules(DENIED, ALLOWED));
    agent.replace(&swapped);
    let rule_of = |group: Ipv4Addr| {
        let pod = agent.pod(SENDER)?;
        let groups = pod["status"]["groups"].as_array()?;
        let row = groups.iter().find(|row| row["group"] == *group.to_string())?;
        Some(row["outbound"]["rule"]["rule"].as_str()?.to_owned())
    };
    agent.holds(
        "the new policy holds",
        || rule_of(ALLOWED),
        &Some("drop-multicast-traffic".to_owned()),
    );
    send_ten(&bed, SENDER, ALLOWED);
    expect(&agent, "the other group is dropped", [0, 10, 30, 0], [10, 30]);

    let judged = |what, reason: &str| {
        let known = || agent.condition(SENDER, "PolicyKnown");
        agent.holds(what, known, &Some(format!("True {reason}")));
    };
    let unicast = "egress: [{name: unicast, action: Allow, to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]";
    agent.replace(&(pod(SENDER) + &policy("anp1-multicast", SENDER, unicast)));
    judged("the policy is about unicast alone", "NoRules");
    expect(&agent, "it has counted multicast", [0, 10, 30, 0], [10, 30]);
    agent.replace(&swapped);
    judged("it is about multicast again", "Enforced");
    send_ten(&bed, SENDER, ALLOWED);
    expect(&agent, "the numbers go on", [0, 10, 40, 0], [10, 40]);

    agent.replace(&pod(SENDER));
    agent.holds("no policy", || agent.rules("anp1-multicast"), &None);
    agent.replace(&a1());
    expect(
        &agent,
        "the policy that came back counts from zero",
        [0, 10, 40, 0],
        [0, 0],
    );
}

/// While the switch is away, and while it is back and has no flows yet, what it enforced last holds: also for an agent that
/// starts meanwhile.
#[test]
fn what_was_enforced_last_holds_while_the_switch_is_away() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    let mut agent = Agent::start(&bed, &a1());
    let dropped = |agent: &Agent<'_>, what: &str, packets| {
        send_ten(&bed, SENDER, DENIED);
        agent.holds(what, || agent.numbers(SENDER), &Some([0, 0, packets, 0]));
    };
    dropped(&agent, "ten are dropped", 10);
    bed.ovs.kill_vswitchd();
    let away = || {
        agent
            .condition(SENDER, "LedgersAgree")
            .is_some_and(|told| told.ends_with("Away"))
    };
    agent.eventually("the switch is away", away);
    dropped(&agent, "twenty, without a switch", 20);
    agent.node.kill();
    agent.run();
    dropped(&agent, "thirty, for an agent that never saw the switch", 30);
    bed.ovs.start_vswitchd().unwrap();
    let back = || {
        agent
            .condition(SENDER, "LedgersAgree")
            .is_some_and(|told| !told.ends_with("Away"))
    };
    agent.eventually("the switch is back", back);
    dropped(&agent, "forty, while it is not programmed", 40);
    bed.pipeline().install(2).unwrap();
    dropped(&agent, "fifty", 50);
}

/// What is not judged as it is written is told with every Pod of the node, and goes when it is mended.
#[test]
fn what_is_not_judged_as_written_is_told() {
    let bed = Bed::up(&[("e2e", SENDER)]).unwrap();
    let unknown_tier = policy(
        "late",
        SENDER,
        &format!("tier: none-such, {}", data_rules(ALLOWED, DENIED)),
    );
    let agent = Agent::start(&bed, &(pod(SENDER) + &unknown_tier));
    let message = || {
        let pod = agent.pod(SENDER)?;
        let conditions = pod["status"]["conditions"].as_array()?;
        let known = conditions.iter().find(|condition| condition["type"] == "PolicyKnown")?;
        // Absent where there is nothing to say.
        Some(known["message"].as_str().unwrap_or_default().to_owned())
    };
    let left_out = "no rule for multicast applies to the Pod; NetworkPolicy e2e/late: tier none-such does not exist; the policy \
                    is not judged";
    assert_eq!(message().as_deref(), Some(left_out));
    let tier =
        "{apiVersion: crd.antrea.io/v1beta1, kind: Tier, metadata: {name: none-such}, spec: {priority: 5}}\n---\n";
    agent.replace(&(pod(SENDER) + tier + &unknown_tier));
    agent.holds("the tier is there", message, &Some(String::new()));
    // A document that cannot be used leaves what the file said before.
    agent.replace("{apiVersion: crd.antrea.io/v1beta1, kind: Tier, metadata: {name: x}, spec: {}}");
    let file = agent.policies.path().join("policies.yaml");
    let bad = format!(
        "{}, document 1, line 1: spec: missing field `priority`; the file's last good state holds",
        file.display()
    );
    agent.holds("the bad document is named", message, &Some(bad));
    assert_eq!(agent.condition(SENDER, "PolicyKnown").as_deref(), Some("True Enforced"));
}

/// A Pod that comes is compiled before its veth is attached: no packet of it is counted unjudged.
#[test]
fn a_new_pod_is_judged_from_its_first_packet_on() {
    let mut bed = Bed::up(&[("e2e", "other")]).unwrap();
    let Agent { node, policies, .. } = Agent::start(&bed, &a1());
    bed.add_pod("e2e", SENDER).unwrap();
    let sender = bed.pod(SENDER).unwrap().send(IpAddr::V4(DENIED), 100_000, 500, 100);
    let agent = Agent {
        bed: &bed,
        node,
        policies,
    };
    let some_dropped = || agent.numbers(SENDER).is_some_and(|[.., dropped, _]| dropped > 0);
    agent.eventually("packets of the new Pod are counted", some_dropped);
    let sent = sender.stop().unwrap();
    let [inbound, admitted, dropped, would_drop] = agent.numbers(SENDER).unwrap();
    assert_eq!([inbound, admitted, would_drop], [0; 3]);
    assert!(dropped <= sent, "{dropped} of {sent}");
}
