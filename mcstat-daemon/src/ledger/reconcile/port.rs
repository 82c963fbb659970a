//! One port: the readings of veth and switch paired, direction by direction.
//!
//! Promises nothing of IPv6, of frames with a foreign source, and of control messages: the switch does not count them
//! where these are counted.

use std::net::{IpAddr, Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use mcstat_common::abi::PortBook;

use super::{
    buckets::{Buckets, DropRules, Fate, fate},
    crosscheck::CrossCheck,
    evidence::{Evidence, share_bytes},
    side::{Blur, Found, Moment, Reading, Side},
    wire::{Count, History, Sent, Wire},
};
use crate::{
    api::ledgers::{Cause, Reason},
    ledger::{
        membership::{self, after},
        snapshot::{Direction, PodRef, PortReading, Snapshot, SwitchAccount, SwitchPort, SwitchReading},
        switch::FlowCount,
    },
};

/// What one tick knows besides the port itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) buckets: &'a Buckets,
    pub(super) rules: &'a DropRules<'a>,
    /// The switch may be another one than at the reading before.
    pub(super) restarted: bool,
    pub(super) lag: SignedDuration,
}

/// One interface of a Pod.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) pod: PodRef,
    /// Whether the last snapshot had it.
    pub(super) listed: bool,
    pub(super) outbound: Side,
    pub(super) inbound: Side,
    pub(super) crosscheck: CrossCheck,
    restored: Option<PortBook>,
    wire: Option<Wire>,
    history: History,
    sent: Sent,
    /// The Pod's own packets that the switch counted as copies for it.
    own: Count,
    own_seen: Option<Timestamp>,
    /// Such packets may have passed while nothing was read of the switch.
    own_missed: bool,
    detached: Option<Timestamp>,
    evidence: Evidence,
    fingerprint: u64,
}

impl Port {
    pub(super) fn new(reading: &PortReading, restored: Option<PortBook>) -> Self {
        let book = restored.unwrap_or_default();
        Self {
            pod: reading.pod.clone(),
            listed: true,
            outbound: Side::booked(Direction::Outbound, &book.outbound),
            inbound: Side::booked(Direction::Inbound, &book.inbound),
            crosscheck: CrossCheck::default(),
            restored,
            wire: None,
            history: History::default(),
            sent: Sent::default(),
            own: Count::default(),
            own_seen: None,
            own_missed: false,
            detached: None,
            evidence: Evidence::default(),
            fingerprint: book.buckets,
        }
    }

    /// The interface is gone; what was booked of it stays.
    pub(super) fn vanish(&mut self) {
        self.listed = false;
        self.absent(Reason::NotOnSwitch);
    }

    /// What must outlive the process. Until the switch was read for the first time, what the process before wrote down.
    pub(super) fn book(&self) -> PortBook {
        self.restored.unwrap_or_else(|| PortBook {
            outbound: self.outbound.book(Count::default()),
            inbound: self.inbound.book(self.own),
            sent: self.wire.map_or(0, |wire| wire.outbound.packets),
            buckets: self.fingerprint,
        })
    }

    /// Takes in one tick.
    pub(super) fn update(&mut self, reading: &PortReading, member: Option<&membership::Port>, context: &Context<'_>) {
        let snapshot = context.snapshot;
        let wire = Wire::of(reading, snapshot.policy.is_some());
        self.sent.update(&reading.outbound, self.wire.is_none());
        if self.wire.is_some_and(|before| before.judged != wire.judged) {
            // Its readings are of another count.
            self.history = History::default();
        }
        let port = snapshot.switch_ports.get(&reading.id);
        match (&snapshot.switch, port) {
            (SwitchReading::None, _) => self.absent(Reason::NoSwitchLedger),
            (SwitchReading::Away { .. }, _) => {
                self.outbound.away();
                self.inbound.away();
                self.own_missed = true;
            }
            (SwitchReading::Read(account), _) if !account.switch.has_metrics() => {
                self.absent(Reason::NoMetricTables);
            }
            (SwitchReading::Read(_), None) => self.absent(Reason::NotOnSwitch),
            (SwitchReading::Read(account), Some(port)) => self.read(reading, &wire, account, port, context),
        }
        let read = matches!(snapshot.switch, SwitchReading::Read(_)) && context.buckets.known();
        match (member, port) {
            (Some(member), Some(port)) if read => {
                self.crosscheck
                    .update(context.buckets, port.ofport, member, snapshot.at);
            }
            _ => self.crosscheck.clear(),
        }
        let counted = [wire.outbound, wire.inbound.plus(self.own)];
        self.history.push(snapshot.at, counted, context.lag);
        self.wire = Some(wire);
    }

    fn absent(&mut self, reason: Reason) {
        self.outbound.absent(reason);
        self.inbound.absent(reason);
    }

    fn read(
        &mut self,
        reading: &PortReading,
        wire: &Wire,
        account: &SwitchAccount,
        port: &SwitchPort,
        context: &Context<'_>,
    ) {
        let moment = Moment {
            now: context.snapshot.at,
            before: account.before,
            lag: context.lag,
            restarted: context.restarted,
        };
        let [outbound, inbound] = flows(account, port);
        self.restore(wire, outbound, inbound, moment.now);
        self.outbound.judge(wire.judged);
        self.evidence
            .update(account, context.rules, port, reading.ifindex, wire, &self.sent);
        self.find_blurs(reading, wire, account, port, context);
        let behind = stands_behind(reading, context);
        self.read_outbound(wire, outbound, behind, &moment);
        self.read_inbound(wire, inbound, behind, &moment);
        self.fingerprint = context.buckets.fingerprint(port.ofport);
    }

    fn read_outbound(&mut self, wire: &Wire, flow: Flow, behind: bool, moment: &Moment) {
        let old = after(moment.before, -moment.lag);
        let quiet = is_quiet(wire.outbound_seen, wire.outbound, old);
        let [sent, _] = self.history.until(old);
        let pair = Pair {
            wire: [if quiet { wire.outbound } else { sent }, wire.outbound],
            shown: wire.outbound,
            bytes_blurred: self.wire.is_some_and(|before| before.foreign != wire.foreign),
        };
        let found = pair.take(&mut self.outbound, flow, Reason::NoMetricTables, moment);
        if let Some(found) = found {
            let unsure = found.off < 0 || found.off.unsigned_abs() > self.evidence.ruled();
            self.name_outbound(&found, behind, moment.now);
            if found.off != 0 && unsure && self.own.packets > 0 {
                self.inbound.blur(Blur::Own, moment.now);
            }
        }
        let foreign = Count {
            packets: wire.foreign,
            bytes: 0,
        };
        self.outbound.tell(Cause::ForeignSource, foreign, false, moment.now);
    }

    fn read_inbound(&mut self, wire: &Wire, flow: Flow, behind: bool, moment: &Moment) {
        let old = after(moment.before, -moment.lag);
        let all = wire.inbound.plus(self.own);
        let quiet = is_quiet(wire.inbound_seen, wire.inbound, old) && is_quiet(self.own_seen, self.own, old);
        let [_, handed] = self.history.until(old);
        let pair = Pair {
            wire: [if quiet { all } else { handed }, all],
            shown: wire.inbound,
            bytes_blurred: false,
        };
        let found = pair.take(&mut self.inbound, flow, Reason::NoIngressMetrics, moment);
        if let Some(found) = found {
            self.name_inbound(&found, behind, moment.now);
        }
        self.inbound.tell(Cause::SelfDelivery, self.own, true, moment.now);
    }

    /// At the first reading of the switch, what an earlier process wrote down.
    fn restore(&mut self, wire: &Wire, outbound: Flow, inbound: Flow, now: Timestamp) {
        let Some(book) = self.restored.take() else { return };
        let flows = |flow: Flow| flow.flatten().map_or(0, |(_, flows)| flows);
        self.outbound = Side::restored(Direction::Outbound, &book.outbound, flows(outbound), wire.outbound, now);
        self.inbound = Side::restored(Direction::Inbound, &book.inbound, flows(inbound), wire.inbound, now);
        // What was sent meanwhile may have been for the Pod itself.
        self.own_missed = book.sent != wire.outbound.packets;
    }

    /// Adds the Pod's own copies up, and finds what blurs the switch's counters.
    fn find_blurs(
        &mut self,
        reading: &PortReading,
        wire: &Wire,
        account: &SwitchAccount,
        port: &SwitchPort,
        context: &Context<'_>,
    ) {
        let (buckets, now) = (context.buckets, context.snapshot.at);
        let groups = buckets.of_port(port.ofport);
        let before = self.wire.unwrap_or(*wire);
        let mut unclear = !buckets.known() || (wire.unslotted != before.unslotted && !groups.is_empty());
        let missed = std::mem::take(&mut self.own_missed);
        unclear |= missed && (wire.unslotted > 0 || groups.iter().any(|group| self.sent.is_sent(*group)));
        for &group in groups {
            let growth = self.sent.growth(group);
            if growth.packets == 0 {
                continue;
            }
            let fate = fate(&account.switch.egress_rules, &port.addresses, port.ofport, group);
            unclear |= fate == Fate::Unclear || growth.segments != growth.packets || wire.foreign != before.foreign;
            if fate == Fate::Passes {
                self.own = self.own.plus(Count {
                    packets: growth.packets,
                    bytes: growth.bytes,
                });
                self.own_seen = self.own_seen.max(self.sent.seen(group));
            }
        }
        let passes = |group| self.sent.is_sent(group) || is_received(reading, group);
        unclear |= buckets.undescribed().iter().any(|group| passes(*group));
        if unclear {
            self.inbound.blur(Blur::Own, now);
        }
        let unread = self.fingerprint != 0 && self.fingerprint != buckets.fingerprint(port.ofport);
        if !wire.is_clear(&before) {
            self.outbound.blur(Blur::Own, now);
        }
        if buckets.blurs(port.ofport, passes) || unread {
            self.inbound.blur(Blur::Membership, now);
        }
        let detached = context.snapshot.detached.get(&reading.id).copied();
        if detached.is_some() && detached != self.detached {
            self.inbound.blur(Blur::Unattached, now);
            self.outbound.blur(Blur::Unattached, now);
        }
        self.detached = detached;
    }

    fn name_outbound(&mut self, found: &Found, behind: bool, now: Timestamp) {
        if found.packets > 0 {
            let parts = self.evidence.missing(found.packets.unsigned_abs());
            for ((cause, packets), bytes) in parts.iter().zip(share_bytes(&parts, found.bytes)) {
                self.outbound.settle(*cause, packets.cast_signed(), Some(bytes), now);
            }
        } else if found.packets < 0 {
            let (cause, bytes) = if behind {
                (Cause::NotAttached, found.bytes)
            } else if let Some(bytes) = self.evidence.segmented(found) {
                (Cause::GsoUpcall, -bytes)
            } else {
                (Cause::Unexplained, found.bytes)
            };
            self.outbound.settle(cause, found.packets, Some(bytes), now);
        } else {
            settle_bytes(&mut self.outbound, found, now);
        }
        self.evidence.agree(found);
    }

    fn name_inbound(&mut self, found: &Found, behind: bool, now: Timestamp) {
        if found.packets == 0 {
            settle_bytes(&mut self.inbound, found, now);
            return;
        }
        let unseen = found.packets > 0 && behind;
        let cause = if unseen { Cause::NotAttached } else { Cause::Unexplained };
        self.inbound.settle(cause, found.packets, Some(found.bytes), now);
    }
}

/// The table's absence, the flow's, or the counter and how many flows it sums up.
type Flow = Option<Option<(FlowCount, usize)>>;

/// Outbound and inbound. A Pod with several addresses has several flows.
fn flows(account: &SwitchAccount, port: &SwitchPort) -> [Flow; 2] {
    let switch = &account.switch;
    let outbound = switch.outbound.as_ref().map(|flows| {
        let flows = port.addresses.iter().filter_map(|address| flows.get(address));
        sum(flows.copied())
    });
    let inbound = switch.inbound.as_ref().filter(|_| switch.ingress.is_some());
    [outbound, inbound.map(|flows| sum(flows.get(&port.ofport).copied()))]
}

fn sum(flows: impl IntoIterator<Item = FlowCount>) -> Option<(FlowCount, usize)> {
    flows.into_iter().fold(None, |sum, flow| match sum {
        None => Some((flow, 1)),
        Some((sum, flows)) => {
            let all = FlowCount {
                packets: sum.packets.saturating_add(flow.packets),
                bytes: sum.bytes.saturating_add(flow.bytes),
                duration: sum.duration.min(flow.duration),
                cookie: sum.cookie,
            };
            Some((all, flows + 1))
        }
    })
}

/// What the veth has to say at one tick of one direction.
struct Pair {
    wire: [Count; 2],
    shown: Count,
    bytes_blurred: bool,
}

impl Pair {
    fn take(self, side: &mut Side, flow: Flow, without: Reason, moment: &Moment) -> Option<Found> {
        match flow {
            None => side.absent(without),
            Some(None) => side.no_flow(self.wire, moment),
            Some(Some((flow, flows))) => {
                let reading = Reading {
                    flow,
                    flows,
                    wire: self.wire,
                    shown: self.shown,
                    bytes_blurred: self.bytes_blurred,
                };
                return side.take(&reading, moment);
            }
        }
        None
    }
}

/// Bytes that turn out to be off belong to the packets accounted for last, if any are.
fn settle_bytes(side: &mut Side, found: &Found, now: Timestamp) {
    if found.bytes != 0 {
        let cause = side.catching_up().unwrap_or(Cause::Unexplained);
        side.settle(cause, 0, Some(found.bytes), now);
    }
}

/// Whether nothing has passed since `old`: what was counted then is what is counted now.
fn is_quiet(seen: Option<Timestamp>, count: Count, old: Timestamp) -> bool {
    seen.map_or(count.packets == 0, |seen| seen <= old)
}

/// Whether another program sees this interface's packets first.
fn stands_behind(reading: &PortReading, context: &Context<'_>) -> bool {
    context.snapshot.uncounted.iter().any(|port| {
        port.pod == reading.pod && port.interface == reading.interface && port.reason == "BehindAnotherProgram"
    })
}

fn is_received(reading: &PortReading, group: Ipv4Addr) -> bool {
    let [other, _] = &reading.inbound.other;
    let slots = reading.inbound.groups.iter();
    let mut slots = slots.filter(|series| series.group == IpAddr::V4(group));
    other.admitted.packets > 0 || slots.any(|series| series.admitted.packets > 0)
}
