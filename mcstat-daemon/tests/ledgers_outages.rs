//! The switch, its database and its socket go away in traffic, and so does the agent: the veth's ledger never stops, no total
//! falls, the state is shown, and all of it heals by itself.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod ledgers_lab;

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use ledgers_lab::{Agent, receive, send};
use mcstat_bed::{Bed, traffic::send::Sender};
use serde_json::Value;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers that must never fall, and what is said of the two ledgers.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    sent: u64,
    totals: Vec<u64>,
    start: Value,
    agree: (String, String),
    causes: Vec<String>,
}

fn told(agent: &Agent<'_>, pod: &str) -> Option<Told> {
    let status = agent.pod(pod)?["status"].take();
    let conditions = status["conditions"].as_array()?;
    let agree = conditions
        .iter()
        .find(|condition| condition["type"] == "LedgersAgree")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (outbound, inbound) = (&status["outbound"], &status["inbound"]);
    // Absent counts as 0: while no switch has ever been read there is nothing to fall.
    let totals = [
        &outbound["sent"],
        &outbound["bytes"],
        &outbound["switchDropped"],
        &inbound["packets"],
        &inbound["bytes"],
        &inbound["dropped"],
    ];
    let found = status["ledgers"]["discrepancies"].as_array().into_iter().flatten();
    Some(Told {
        sent: outbound["sent"].as_u64()?,
        totals: totals.iter().map(|total| total.as_u64().unwrap_or(0)).collect(),
        start: status["startTime"].clone(),
        agree: (text(&agree["status"]), text(&agree["reason"])),
        causes: found.map(|found| text(&found["cause"])).collect(),
    })
}

/// Watches a Pod: every answer must have totals that are no less than those of the answer before.
struct Watch<'a> {
    agent: &'a Agent<'a>,
    last: Told,
}

impl<'a> Watch<'a> {
    fn begin(agent: &'a Agent<'a>) -> Self {
        let last = told(agent, "feed").unwrap();
        Self { agent, last }
    }

    fn look(&mut self) -> Told {
        let now = told(self.agent, "feed").expect("an agent that runs answers");
        let falls = now
            .totals
            .iter()
            .zip(&self.last.totals)
            .any(|(now, before)| now < before);
        assert!(!falls, "{now:?} after {:?}", self.last);
        assert_eq!(now.start, self.last.start);
        self.last = now.clone();
        now
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let now = self.look();
            if wanted(&now) {
                return now;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("never: {what}; {:?}; {}", self.last, self.agent.node.log());
    }

    /// The veth goes on: another hundred packets are counted.
    fn counts_on(&mut self, what: &str) {
        let before = self.look().sent;
        self.until(what, |now| now.sent >= before + 100);
    }
}

fn feed(bed: &Bed) -> Sender {
    bed.pod("feed").unwrap().send(GROUP.into(), 1_000_000, 200, 100)
}

fn agrees(told: &Told) -> bool {
    told.agree.0 == "True"
}

fn is(told: &Told, reason: &str) -> bool {
    told.agree == ("Unknown".to_owned(), reason.to_owned())
}

#[test]
fn switch_and_database_are_killed_in_traffic() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[GROUP]);
    let agent = Agent::start(&bed);
    let mut watch = Watch::begin(&agent);
    let sender = feed(&bed);
    watch.until("agrees", agrees);

    bed.ovs.kill_vswitchd();
    watch.until("the switch is away", |told| is(told, "SwitchAway"));
    watch.counts_on("counting without a switch");
    bed.ovs.start_vswitchd().unwrap();
    watch.until("the switch has no flows", |told| is(told, "SwitchRestarted"));
    watch.counts_on("counting beside a switch without flows");
    bed.pipeline().install(2).unwrap();
    let healed = watch.until("agrees by itself", agrees);
    assert_eq!(healed.totals[2], 0, "nothing of the gap is booked: {healed:?}");
    assert!(healed.causes.iter().all(|cause| cause == "FlowReset"), "{healed:?}");

    bed.ovs.kill_ovsdb();
    watch.counts_on("counting without the database");
    assert!(agrees(&watch.look()), "the switch itself is read on");
    bed.ovs.start_ovsdb().unwrap();
    watch.counts_on("counting with the database back");
    watch.until("agrees", agrees);

    let sent = sender.stop().unwrap();
    watch.until("every packet is counted", |told| told.sent == sent);
}

/// A minute without the switch's management socket; the agent is killed and started meanwhile, so that it has to connect.
#[test]
fn the_socket_is_gone_for_a_minute_and_the_agent_is_killed() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[GROUP]);
    let mut agent = Agent::start(&bed);
    let before = {
        let mut watch = Watch::begin(&agent);
        watch.until("agrees", agrees);
        // A real loss, so that there is something booked that must not be forgotten.
        let table = bed
            .pipeline()
            .table(mcstat_bed::pipeline::tables::Table::MulticastEgressRule)
            .unwrap();
        let drop = format!("table={table},priority=65000,ip,nw_dst=239.9.9.9,actions=drop");
        bed.ovs.ofctl(&["add-flow", mcstat_bed::ovs::BRIDGE, &drop]).unwrap();
        send(&bed, "feed", Ipv4Addr::new(239, 9, 9, 9), 50, 200, 100);
        watch.until("50 booked", |told| told.totals[2] == 50)
    };
    let sender = feed(&bed);
    let socket = bed.ovs.run_dir().join(format!("{}.mgmt", mcstat_bed::ovs::BRIDGE));
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    agent.node.kill();
    agent.run();
    let mut watch = Watch {
        agent: &agent,
        last: before,
    };
    let mut away = false;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let now = watch.look();
        away |= is(&now, "SwitchAway");
        assert!(!agrees(&now), "{now:?}");
        thread::sleep(Duration::from_millis(500));
    }
    assert!(away, "it was never said that the switch is away");
    watch.counts_on("counting without the socket");
    std::fs::rename(&aside, &socket).unwrap();
    let healed = watch.until("agrees by itself", agrees);
    assert_eq!((healed.totals[2], healed.causes.len()), (50, 0), "{healed:?}");
    // Killed once more, with the switch there.
    let before = watch.look();
    agent.node.kill();
    agent.run();
    let mut watch = Watch {
        agent: &agent,
        last: before,
    };
    let sent = sender.stop().unwrap() + 50;
    let now = watch.until("agrees, and every packet is counted", |told| {
        agrees(told) && told.sent == sent
    });
    assert_eq!((now.totals[2], now.causes.len()), (50, 0), "{now:?}");
}
