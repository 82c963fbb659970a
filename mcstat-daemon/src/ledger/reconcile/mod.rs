//! The second ledger: the switch's flow counters beside the veth's, Pod by Pod, and what the difference means.
//!
//! ```text
//!  Snapshot ─┬─ ports         ─▶ wire ─────┐
//!            ├─ switch        ─▶ buckets ──┼─▶ port ─▶ side (track) ─▶ evidence names it ─▶ booked, listed
//!            └─ switch_ports ──────────────┘     └──▶ crosscheck
//! ```
//! A reading of the switch, OVS(t), lies in [veth(t − lag), veth(t + reading time)] as long as nothing is lost. What is
//! outside of that at two ticks in a row is accounted for, by a cause that something speaks for, else as unexplained; only
//! rule drops, queue overflows and the unexplained are booked as drops. Where policies are judged, the veth's own account has
//! what rules dropped: outbound its *admitted* packets are compared, nothing is booked and no rule explains anything. Pure;
//! bounded by the ports of the snapshot and by the interfaces that living sandboxes ever had.

mod buckets;
mod crosscheck;
mod evidence;
mod meter;
mod port;
mod served;
mod side;
#[cfg(test)]
mod tests;
mod track;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use mcstat_common::abi::PortBook;

use self::{
    buckets::{Buckets, DropRules},
    port::{Context, Port},
};
use super::{
    membership::Memberships,
    snapshot::{Direction, PodRef, PortReading, Snapshot, SwitchReading},
};

/// How late a flow's counter may be. Open vSwitch writes down what its datapath counted every 500 ms (`max-revalidator`);
/// the worst that was measured is 530 ms.
pub const LAG: SignedDuration = SignedDuration::from_millis(800);

/// Every port's two ledgers.
#[derive(Debug, Default)]
pub(super) struct Reconcile {
    ports: BTreeMap<u32, Port>,
    /// The ports of each sandbox.
    pods: BTreeMap<PodRef, BTreeSet<u32>>,
    buckets: Buckets,
    connection: Option<u64>,
    restored: BTreeMap<u32, PortBook>,
    /// When the switch was asked for its last account.
    read: Option<Timestamp>,
}

impl Reconcile {
    /// What an earlier process wrote down, before the first tick.
    pub(super) fn restore(&mut self, books: BTreeMap<u32, PortBook>) {
        self.restored = books;
    }

    /// An interface that vanished before this process, while its sandbox lives on.
    pub(super) fn remember(&mut self, reading: &PortReading, book: PortBook) {
        let mut port = Port::new(reading, Some(book));
        port.vanish();
        self.pods.entry(reading.pod.clone()).or_default().insert(reading.id);
        self.ports.insert(reading.id, port);
    }

    /// Ports that were off at the last tick.
    pub(super) fn suspects(&self) -> impl Iterator<Item = u32> {
        let listed = self.ports.iter().filter(|(_, port)| port.listed);
        listed
            .filter(|(_, port)| port.outbound.is_off() || port.inbound.is_off())
            .map(|(id, _)| *id)
    }

    /// What must outlive the process, by port, as of the last tick.
    pub(super) fn books(&self) -> impl Iterator<Item = (u32, PortBook)> {
        let listed = self.ports.iter().filter(|(_, port)| port.listed);
        listed.map(|(id, port)| (*id, port.book()))
    }

    /// Takes in one tick; the memberships are as of the snapshot.
    pub(super) fn update(&mut self, snapshot: &Snapshot, memberships: &Memberships) {
        if let SwitchReading::Read(account) = &snapshot.switch {
            // A switch that answers late leaves the tick its last account: what is off by it was off already.
            if self.read.replace(account.before) == Some(account.before) {
                return;
            }
        }
        let (mut restarted, mut rules) = (false, DropRules::default());
        if let SwitchReading::Read(account) = &snapshot.switch {
            restarted = self.connection.is_some_and(|before| before != account.connection);
            self.connection = Some(account.connection);
            self.buckets.update(account);
            if snapshot.policy.is_none() {
                rules = DropRules::new(&account.switch.egress_rules);
            }
        }
        let counted = snapshot.ports.iter().map(|port| &port.pod);
        let sandboxes: BTreeSet<&PodRef> = counted.chain(snapshot.uncounted.iter().map(|port| &port.pod)).collect();
        self.pods.retain(|pod, _| sandboxes.contains(pod));
        self.ports.retain(|_, port| sandboxes.contains(&port.pod));
        self.ports.values_mut().for_each(|port| port.listed = false);
        let context = Context {
            snapshot,
            buckets: &self.buckets,
            rules: &rules,
            restarted,
            lag: LAG,
        };
        for reading in &snapshot.ports {
            let port = self.ports.entry(reading.id).or_insert_with(|| {
                self.pods.entry(reading.pod.clone()).or_default().insert(reading.id);
                Port::new(reading, self.restored.remove(&reading.id))
            });
            port.listed = true;
            port.update(reading, memberships.port(reading.id), &context);
        }
    }

    /// Packets booked as dropped on all interfaces that the sandbox has had; `None` while no switch tells.
    pub(super) fn dropped(&self, pod: &PodRef, direction: Direction) -> Option<u64> {
        let ports = self.pods.get(pod).into_iter().flatten();
        let booked = ports.filter_map(|id| self.ports.get(id)?.side(direction).dropped());
        booked.reduce(u64::saturating_add)
    }

    /// Whether booked drops of the port grew within the window.
    pub(super) fn dropping(&self, id: u32, now: Timestamp, window: SignedDuration) -> bool {
        let port = self.ports.get(&id);
        let grew = port
            .into_iter()
            .flat_map(|port| [port.outbound.grew(), port.inbound.grew()]);
        grew.flatten().any(|grew| now.duration_since(grew) < window)
    }
}
