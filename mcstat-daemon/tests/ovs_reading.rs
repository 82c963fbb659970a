//! The reader of flows and groups against a real Open vSwitch; `ovs-ofctl`'s own text is the oracle.
#![allow(clippy::unwrap_used, reason = "tests")]

mod openflow_text;
mod pods_lab;
mod switch_lab;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use mcstat::{
    agent::ovs::{Ovs, OvsError, Reading, State},
    ledger::switch::{FlowCount, Switch as Meaning, Table, Verdict},
    proto::openflow::{Action, Field, FlowDesc},
};
use pods_lab::sh;
use switch_lab::{Switch, kill, pipeline};

/// How long a test waits for what must come. Only a broken program uses it up.
const PATIENCE: Duration = Duration::from_secs(30);

fn switch(tag: &str) -> Switch {
    let switch = Switch::new(tag);
    switch.vsctl("set bridge br-int protocols=OpenFlow10,OpenFlow15");
    switch
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test());
}

fn reader(switch: &Switch) -> Ovs {
    Ovs::new(switch.run_dir(), "br-int")
}

/// Reads until there is a reading as wanted.
async fn read_until(ovs: &mut Ovs, what: &str, wanted: impl Fn(&Reading) -> bool) -> Reading {
    let start = Instant::now();
    loop {
        let last = ovs.read().await;
        match last {
            Ok(reading) if wanted(&reading) => return reading,
            other => assert!(start.elapsed() < PATIENCE, "never: {what}; last: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn numbers<K: Copy>(counts: Option<&BTreeMap<K, FlowCount>>) -> Vec<(K, u64, u64)> {
    let counts = counts.expect("the table is there");
    counts
        .iter()
        .map(|(key, count)| (*key, count.packets, count.bytes))
        .collect()
}

/// Without what depends on when it was asked for.
fn timeless(line: &str) -> String {
    let words = line
        .split(", ")
        .filter(|word| !word.starts_with("duration=") && !word.starts_with("idle_age="));
    words.collect::<Vec<&str>>().join(", ")
}

#[test]
fn a_reading_is_what_ovs_ofctl_prints_and_what_was_sent() {
    let switch = switch("f");
    pipeline::name(&switch, 32);
    pipeline::program(&switch, 32);
    // Allowed, dropped by rule 3, met by no rule, and to a group without members.
    pipeline::send(&switch, 10, "10.10.0.11", "239.1.1.1", 5);
    pipeline::send(&switch, 10, "10.10.0.11", "239.9.9.9", 3);
    pipeline::send(&switch, 11, "10.10.0.12", "239.1.1.2", 4);
    pipeline::send(&switch, 12, "10.10.0.13", "239.7.7.7", 2);
    run(async || {
        let before = Instant::now();
        let mut ovs = reader(&switch);
        assert_eq!(ovs.state(), State::New);
        let reading = ovs.read().await.unwrap();
        assert!(before <= reading.before && reading.before <= reading.after && reading.after <= Instant::now());
        assert!(reading.connection == 1 && reading.groups.is_ok());
        assert!(matches!(ovs.state(), State::Connected { .. }));

        for (number, table) in (32..).zip(Table::ALL) {
            let printed = switch.ofctl("--no-names dump-flows", &format!("table={number}"));
            let mut expected: Vec<String> = openflow_text::expected(&printed)
                .iter()
                .map(|line| timeless(line))
                .collect();
            let flows = reading.description.tables[&table].iter();
            let mut shown: Vec<String> = flows.map(|flow| timeless(&openflow_text::flow(flow))).collect();
            // The switch has no order of its own.
            expected.sort();
            shown.sort();
            assert_eq!(shown, expected, "{table:?}");
            assert!(shown.len() > 1);
        }
        let printed = switch.ofctl("--no-names dump-groups", "");
        let mut expected: Vec<&str> = printed.lines().skip(1).map(str::trim_start).collect();
        let mut shown: Vec<String> = reading.description.groups.iter().map(openflow_text::group).collect();
        expected.sort_unstable();
        shown.sort();
        assert_eq!(shown, expected);

        let meaning = Meaning::new(&reading.description);
        let address = |last| Ipv4Addr::new(10, 10, 0, last);
        let sent = [(address(11), 5, 710), (address(12), 4, 568), (address(13), 2, 284)];
        assert_eq!(numbers(meaning.outbound.as_ref()), sent);
        // Pod b is a member of the group that it sends to: the switch counts its own copies.
        let received = [(10, 4, 568), (11, 9, 1278), (12, 5, 710)];
        assert_eq!(numbers(meaning.inbound.as_ref()), received);
        let rules = [((3, Verdict::Drop), 3, 426), ((4, Verdict::Allow), 5, 710)];
        assert_eq!(numbers(meaning.egress.as_ref()), rules);
        assert_eq!(numbers(meaning.ingress.as_ref()), [((5, Verdict::Drop), 0, 0)]);
        assert!(meaning.unknown.is_empty(), "{:?}", meaning.unknown);
        let verdicts: Vec<_> = meaning
            .egress_rules
            .iter()
            .map(|rule| (rule.id, rule.verdict))
            .collect();
        assert_eq!(verdicts, [(3, Some(Verdict::Drop)), (4, Some(Verdict::Allow))]);
        let ports: Vec<(u32, usize)> = meaning
            .groups_by_port()
            .iter()
            .map(|(port, groups)| (*port, groups.len()))
            .collect();
        assert_eq!(ports, [(2, 1), (10, 1), (11, 2), (12, 1)]);
        let remote = meaning.groups[1].members.as_ref().unwrap()[2].tunnel_dst;
        assert_eq!(remote, Some(Ipv4Addr::new(172, 18, 0, 3)));

        // Programmed once more as by an agent that restarted: counters stay, cookies tell the new round.
        pipeline::program_again(&switch, 32, 2);
        let again = Meaning::new(&ovs.read().await.unwrap().description);
        assert_eq!(numbers(again.outbound.as_ref()), sent);
        let cookies: Vec<u64> = again.outbound.unwrap().values().map(|count| count.cookie).collect();
        assert_eq!(cookies, [0x2_0500_0000_0000; 3]);
    });
}

/// Names are read again on every connection: the numbers may be others.
#[test]
fn tables_are_known_by_name_whatever_their_numbers() {
    let switch = switch("n");
    run(async || {
        let mut ovs = reader(&switch);
        let reading = ovs.read().await.unwrap();
        assert!(reading.description.tables.is_empty() && !Meaning::new(&reading.description).has_metrics());

        for first in [3, 60] {
            pipeline::name(&switch, first);
            switch.ofctl("del-flows", "");
            switch.ofctl("del-groups", "");
            pipeline::program(&switch, first);
            pipeline::send(&switch, 10, "10.10.0.11", "239.1.1.2", usize::from(first));
            let count = u64::from(first);
            let reading = reader(&switch).read().await.unwrap();
            let numbers = numbers(Meaning::new(&reading.description).outbound.as_ref());
            assert_eq!(numbers[0], (Ipv4Addr::new(10, 10, 0, 11), count, 142 * count));
            let table = reading.description.tables[&Table::EgressPodMetric][0].table;
            assert_eq!(table, first + 2);
        }
    });
}

/// The agent of a node goes on while its switch is killed, away, and back: empty, then programmed.
#[test]
fn a_switch_that_was_killed_is_read_again() {
    let mut switch = switch("k");
    pipeline::name(&switch, 32);
    pipeline::program(&switch, 32);
    pipeline::send(&switch, 10, "10.10.0.11", "239.1.1.1", 2);
    let outbound = |reading: &Reading| numbers(Meaning::new(&reading.description).outbound.as_ref());
    let sent = |count| vec![(Ipv4Addr::new(10, 10, 0, 11), count, 142 * count)];
    run(async || {
        let mut ovs = reader(&switch);
        let reading = ovs.read().await.unwrap();
        assert_eq!(outbound(&reading)[..1], sent(2));

        kill(&mut switch.switch);
        let error = ovs.read().await.unwrap_err();
        assert!(matches!(error, OvsError::Closed | OvsError::Io(_)), "{error}");
        let State::Away { since, retry_at } = ovs.state() else {
            panic!("{:?}", ovs.state())
        };
        assert_eq!(retry_at - since, Duration::from_secs(1));
        // Its socket is still there, with nobody behind it.
        let refused = loop {
            match ovs.read().await.unwrap_err() {
                OvsError::Away { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                error => break error,
            }
        };
        assert!(matches!(refused, OvsError::Connect { .. }), "{refused}");

        switch.start_switch();
        let back = read_until(&mut ovs, "the switch is back", |_| true).await;
        assert_eq!(back.connection, 2);
        // The names came with the database, the flows are gone.
        switch.vsctl("set bridge br-int external_ids:restarted=1");
        let empty = read_until(&mut ovs, "its tables", |reading| reading.description.tables.len() == 7).await;
        assert!(outbound(&empty).is_empty());
        pipeline::program(&switch, 32);
        pipeline::send(&switch, 10, "10.10.0.11", "239.1.1.1", 1);
        let reading = ovs.read().await.unwrap();
        assert_eq!(outbound(&reading)[..1], sent(1));
        assert!(matches!(ovs.state(), State::Connected { .. }));
    });
}

/// Open vSwitch 3.1 describes a group of more than 64 KiB with wrong lengths, and dies when all groups are asked for at
/// once. Here it lives, and only that group is unknown.
#[test]
fn a_group_too_large_to_be_described_costs_itself_alone() {
    let switch = switch("g");
    pipeline::name(&switch, 32);
    pipeline::program(&switch, 32);
    let buckets = |ids: std::ops::Range<u32>| -> String {
        let actions = "set_field:0x200000/0x600000->reg0,set_field:9->reg1,resubmit(,36)";
        ids.map(|id| format!(",bucket=bucket_id:{id},actions={actions}"))
            .collect()
    };
    switch.ofctl_with("add-groups", &format!("group_id=200,type=all{}\n", buckets(1..701)));
    switch.ofctl(
        "add-flow",
        "'cookie=0x1050000000000,table=35,priority=200,ip,nw_dst=239.1.1.200,actions=group:200'",
    );
    run(async || {
        let mut ovs = reader(&switch);
        let members = |reading: &Reading| -> Vec<Option<usize>> {
            let groups = Meaning::new(&reading.description).groups;
            groups
                .iter()
                .map(|group| group.members.as_ref().map(Vec::len))
                .collect()
        };
        let reading = ovs.read().await.unwrap();
        assert!(reading.groups.is_ok());
        assert_eq!(members(&reading), [Some(3), Some(3), Some(700)]);

        let more = buckets(701..1181);
        switch.ofctl(
            "insert-buckets",
            &format!("'group_id=200,command_bucket_id=last{more}'"),
        );
        let broken = ovs.read().await.unwrap();
        assert!(
            matches!(broken.groups, Err(OvsError::Session(_))),
            "{:?}",
            broken.groups
        );
        assert_eq!(members(&broken), [Some(3), Some(3), None]);
        pipeline::send(&switch, 10, "10.10.0.11", "239.1.1.1", 1);
        let others = read_until(&mut ovs, "the other groups", |reading| reading.groups.is_ok()).await;
        assert_eq!(members(&others), [Some(3), Some(3), None]);
        // The counters' connection was never lost.
        assert_eq!(others.connection, 1);
        let outbound = Meaning::new(&others.description).outbound;
        assert_eq!(numbers(outbound.as_ref())[0].1, 1);
    });
}

/// A stopped process closes nothing.
#[test]
fn a_switch_that_hangs_is_given_up_and_taken_up_again() {
    let switch = switch("h");
    pipeline::name(&switch, 32);
    run(async || {
        let mut ovs = reader(&switch);
        ovs.read().await.unwrap();
        let pid = switch.switch.as_ref().expect("it was started").id();
        sh(&format!("kill -STOP {pid}"));
        let error = ovs.read().await.unwrap_err();
        sh(&format!("kill -CONT {pid}"));
        assert!(matches!(error, OvsError::Silent), "{error}");
        let back = read_until(&mut ovs, "an answer", |_| true).await;
        assert_eq!((back.connection, back.description.tables.len()), (2, 7));
    });
}

/// A reading that is dropped halfway must not leave its replies to the next one.
#[test]
fn a_dropped_reading_costs_the_connection_and_nothing_else() {
    let switch = switch("d");
    pipeline::name(&switch, 32);
    pipeline::program(&switch, 32);
    run(async || {
        let mut ovs = reader(&switch);
        ovs.read().await.unwrap();
        // It has asked, and the answer cannot come yet.
        let pid = switch.switch.as_ref().expect("it was started").id();
        sh(&format!("kill -STOP {pid}"));
        let dropped = ovs.read().now_or_never();
        sh(&format!("kill -CONT {pid}"));
        assert!(dropped.is_none(), "{dropped:?}");
        let reading = ovs.read().await.unwrap();
        assert_eq!((reading.connection, reading.description.tables.len()), (2, 7));
    });
}

#[test]
fn a_bridge_that_lacks_a_version_says_so() {
    let switch = switch("v");
    run(async || {
        for (protocols, missing) in [
            ("OpenFlow10,OpenFlow13", "OpenFlow 1.5"),
            ("OpenFlow15", "OpenFlow 1.0"),
        ] {
            switch.vsctl(&format!("set bridge br-int protocols={protocols}"));
            let error = reader(&switch).read().await.unwrap_err();
            let expected = format!("the switch does not speak {missing} here; the bridge's protocols must contain it");
            assert_eq!(error.to_string(), expected);
        }
        let error = Ovs::new(switch.run_dir(), "br-none")
            .read()
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("connecting to ") && error.contains("br-none.mgmt failed: No such file"),
            "{error}"
        );
    });
}

/// Whoever programs with whatever: towards 1.5 a load into a register is always the same action.
#[test]
fn loads_of_every_age_are_set_field() {
    let switch = switch("l");
    pipeline::name(&switch, 32);
    let socket = switch.path("br-int.mgmt");
    for (version, actions) in [
        ("OpenFlow10", "load:0x9->NXM_NX_REG1[],load:1->NXM_NX_REG0[21..22]"),
        ("OpenFlow15", "load:0x9->NXM_NX_REG1[],load:1->NXM_NX_REG0[21..22]"),
        ("OpenFlow10", "set_field:9->reg1,set_field:0x200000/0x600000->reg0"),
        ("OpenFlow15", "set_field:9->reg1,set_field:0x200000/0x600000->reg0"),
    ] {
        sh(&format!(
            "ovs-ofctl -O {version} add-flow {} 'table=35,priority=1,actions={actions}'",
            socket.display()
        ));
        run(async || {
            let reading = reader(&switch).read().await.unwrap();
            let flows: &[FlowDesc] = &reading.description.tables[&Table::Routing];
            let set = |number, value, mask| Action::SetField(Field::Register { number, value, mask });
            let expected = [set(1, 9, u32::MAX), set(0, 0x20_0000, 0x60_0000)];
            assert_eq!(flows[0].actions, expected, "{version} {actions}");
        });
    }
}
