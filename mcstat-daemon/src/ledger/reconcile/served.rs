//! The two ledgers of one Pod as they are served: numbers, verdicts, discrepancies and the condition `LedgersAgree`.

use jiff::{SignedDuration, Timestamp};

use super::{
    Reconcile,
    port::Port,
    side::{Entry, Side},
    wire::Count,
};
use crate::{
    api::ledgers::{Account, Cause, Comparison, Discrepancy, Ledgers, PacketsAndBytes, Reason},
    ledger::snapshot::{Direction, PortReading, Snapshot, SwitchReading},
};

/// What is served of one Pod.
#[derive(Debug)]
pub(in crate::ledger) struct Served {
    /// `.status.ledgers`; absent where no switch is read.
    pub(in crate::ledger) ledgers: Option<Ledgers>,
    /// Reason of `LedgersAgree`.
    pub(in crate::ledger) reason: Reason,
    /// Its message.
    pub(in crate::ledger) message: String,
}

impl Reconcile {
    /// The ledgers of a Pod with these interfaces, as of the last tick.
    pub(in crate::ledger) fn served(
        &self,
        readings: &[&PortReading],
        snapshot: &Snapshot,
        window: SignedDuration,
    ) -> Served {
        if snapshot.switch == SwitchReading::None {
            return Served {
                ledgers: None,
                reason: Reason::NoSwitchLedger,
                message: message(Reason::NoSwitchLedger, snapshot),
            };
        }
        let ports = readings
            .iter()
            .filter_map(|reading| Some((*reading, self.ports.get(&reading.id)?)));
        let ports: Vec<(&PortReading, &Port)> = ports.collect();
        let mut ledgers = Ledgers::default();
        for (reading, port) in &ports {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let entries = port.side(direction).entries().iter();
                let found = entries.map(|(cause, entry)| discrepancy(reading, direction, *cause, entry));
                ledgers.discrepancies.extend(found);
            }
            ledgers.memberships.extend(port.crosscheck.served(reading, snapshot.at));
        }
        let recent = |found: &&Discrepancy| differs_now(found.cause, found.changed, snapshot.at, window);
        let differing: Vec<&Discrepancy> = ledgers.discrepancies.iter().filter(recent).collect();
        let [inbound, outbound] =
            [Direction::Inbound, Direction::Outbound].map(|direction| verdict(&ports, direction, &differing));
        // Without ingress metrics, outbound speaks alone.
        let reason = inbound.min(outbound);
        let message = if reason == Reason::Differ {
            sentences(&differing)
        } else {
            message(reason, snapshot)
        };
        ledgers.differing = u32::try_from(differing.len()).unwrap_or(u32::MAX);
        ledgers.inbound = comparison(&ports, Direction::Inbound, inbound);
        ledgers.outbound = comparison(&ports, Direction::Outbound, outbound);
        Served {
            ledgers: Some(ledgers),
            reason,
            message,
        }
    }
}

impl Port {
    pub(super) fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

fn differs_now(cause: Cause, changed: Timestamp, now: Timestamp, window: SignedDuration) -> bool {
    cause.differs() && now.duration_since(changed) < window
}

/// Of one direction, over the interfaces.
fn verdict(ports: &[(&PortReading, &Port)], direction: Direction, differing: &[&Discrepancy]) -> Reason {
    let word = direction.to_string();
    let reasons = ports.iter().map(|(_, port)| port.side(direction).reason());
    // An interface that the switch does not know says nothing of one that it does.
    let known = reasons.filter(|reason| *reason != Reason::NotOnSwitch).min();
    let reason = known.unwrap_or(Reason::NotOnSwitch);
    if differing.iter().any(|found| found.direction == word) {
        reason.min(Reason::Differ)
    } else {
        reason
    }
}

fn discrepancy(reading: &PortReading, direction: Direction, cause: Cause, entry: &Entry) -> Discrepancy {
    let sign = if entry.packets == 0 {
        entry.bytes.unwrap_or(0)
    } else {
        entry.packets
    };
    // What is missing is missing behind the first of the two: outbound that is the veth, inbound the switch.
    let more = if (sign >= 0) == (direction == Direction::Outbound) {
        Account::Wire
    } else {
        Account::Switch
    };
    Discrepancy {
        interface: reading.interface.clone(),
        direction: direction.to_string(),
        cause,
        more,
        packets: entry.packets.unsigned_abs(),
        bytes: entry.bytes.map(i64::unsigned_abs),
        since: entry.since,
        changed: entry.changed,
    }
}

/// The sums over the interfaces that have a baseline; since the newest of them.
fn comparison(ports: &[(&PortReading, &Port)], direction: Direction, verdict: Reason) -> Option<Comparison> {
    let shown = ports.iter().filter_map(|(_, port)| port.side(direction).shown());
    let sum = shown.reduce(|(since, wire, switch), (more_since, more_wire, more_switch)| {
        (since.max(more_since), wire.plus(more_wire), switch.plus(more_switch))
    });
    let (since, wire, switch) = sum?;
    let served = |count: Count| PacketsAndBytes {
        packets: count.packets,
        bytes: count.bytes,
    };
    Some(Comparison {
        since,
        wire: served(wire),
        switch: served(switch),
        verdict,
    })
}

fn sentences(differing: &[&Discrepancy]) -> String {
    let sentences: Vec<_> = differing
        .iter()
        .map(|found| {
            let more = match found.more {
                Account::Wire => "the veth",
                Account::Switch => "the switch",
            };
            let amount = match (found.packets, found.bytes) {
                (0, Some(bytes)) => format!("{bytes} bytes"),
                (packets, _) => format!("{packets} packets"),
            };
            let (direction, cause) = (&found.direction, found.cause.word());
            format!("{} {direction}: {more} has {amount} more ({cause})", found.interface)
        })
        .collect();
    sentences.join("; ")
}

fn message(reason: Reason, snapshot: &Snapshot) -> String {
    let text = match reason {
        Reason::NoSwitchLedger => "no switch is read: the counters are the kernel's alone",
        Reason::SwitchAway => match &snapshot.switch {
            SwitchReading::Away { since } => return format!("the switch has not answered since {since}"),
            _ => "the switch does not answer",
        },
        Reason::NoMetricTables => "not available: no metric tables",
        Reason::SwitchRestarted => "the switch or its flow began anew; nothing is booked from the gap",
        Reason::NotOnSwitch => "no interface of the Pod is a port of the switch",
        Reason::NoFlow => "the switch has no counter for the Pod",
        Reason::NotCompared => {
            "not compared for some seconds: the buckets of the Pod's groups keep changing or are not known, or how many of the copies are its own"
        }
        Reason::Baseline => "the first reading; the next one tells",
        Reason::NoIngressMetrics => "the switch sends copies past its counters: its rules are off",
        Reason::Differ | Reason::Agree => "",
    };
    text.to_owned()
}
