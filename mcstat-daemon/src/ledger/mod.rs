//! Pure accounting: values and a given time in, values out. No I/O, no clock, no async; imports neither tokio nor aya
//! nor kube.
//!
//! ```text
//! Snapshot ─┬─▶ delta       the last readings ─▶ rates ───────────────┐
//!           ├─▶ history     what has ended     ─▶ totals ──────────────┤
//!           ├─▶ membership  reports and kernels ─▶ who has joined what ─┤
//!           ├─▶ rules       policies           ─▶ what their rules decided ┤
//!           ├─▶ findings    ◀── membership      ─▶ what is wrong ───────┤
//!           └─▶ reconcile   ◀── membership      ─▶ what the switch says ┴─▶ summary ─▶ NodeStatsSummary
//! ```
//! The same snapshots give the same summaries, byte for byte.

mod control_counts;
mod delta;
mod findings;
mod groups;
mod growth;
mod history;
mod judge;
#[cfg(test)]
#[path = "../../tests/scenarios_support/mod.rs"]
mod lines;
mod membership;
mod reconcile;
mod rules;
#[cfg(test)]
mod scene;
pub mod snapshot;
mod status;
mod summary;
pub mod switch;
#[cfg(test)]
mod tests;
mod totals;
pub mod verdict;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use mcstat_common::abi::PortBook;

use self::{
    delta::Window,
    findings::Findings,
    history::Sandboxes,
    membership::Memberships,
    reconcile::Reconcile,
    rules::Rules,
    snapshot::{PortReading, Snapshot},
};
pub use self::{
    reconcile::LAG,
    rules::{Decided, Queried},
};
use crate::api::{rule::RuleReference, summary::NodeStatsSummary};

/// The window of rates and of `Dropping`, unless the configuration says otherwise.
pub const WINDOW_SECONDS: u32 = 10;

/// Every membership of the node, by port and group: whose slots must not be folded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Joined(Vec<(u32, IpAddr)>);

impl Joined {
    /// Whether the Pod behind this port is a member of the group.
    pub fn contains(&self, port: u32, group: IpAddr) -> bool {
        self.0.binary_search(&(port, group)).is_ok()
    }
}

/// The rules that denied the last reports of groups, by port and group.
pub type Denials = BTreeMap<(u32, IpAddr), RuleReference>;

/// What a summary says about its node besides the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// When this agent process started.
    pub start_time: Timestamp,
    /// How often the agent pushes, in seconds.
    pub push_interval_seconds: u32,
    /// The window of rates and of `Dropping`, in seconds; see [`WINDOW_SECONDS`].
    pub window_seconds: u32,
}

/// The state between two ticks: the readings of the window, the totals of what has ended, memberships, rules, and since
/// when something is wrong.
///
/// Bounded by what the snapshots of one window hold, by the interfaces that living Pod sandboxes ever had, and by the rules
/// of the policies there are.
#[derive(Debug)]
pub struct Ledger {
    node: Node,
    window: Window,
    sandboxes: Sandboxes,
    memberships: Memberships,
    findings: Findings,
    reconcile: Reconcile,
    rules: Rules,
}

impl Ledger {
    /// A ledger that has seen nothing: rates are absent until its second tick.
    pub fn new(node: Node) -> Self {
        let window = Window::new(node.window_seconds);
        Self {
            node,
            window,
            sandboxes: Sandboxes::default(),
            memberships: Memberships::default(),
            findings: Findings::default(),
            reconcile: Reconcile::default(),
            rules: Rules::default(),
        }
    }

    /// Takes one reading in and says what the node's truth is now.
    ///
    /// Totals are cumulative since each Pod's `startTime` and never fall while the sandbox lives, as long as the
    /// snapshot keeps its promise. Should time jump back, rates begin anew; they are never negative.
    pub fn tick(&mut self, snapshot: &Snapshot) -> NodeStatsSummary {
        self.window.push(snapshot);
        self.sandboxes.update(snapshot);
        self.memberships.update(snapshot);
        self.findings.update(snapshot, &self.memberships);
        self.reconcile.update(snapshot, &self.memberships);
        self.rules.update(snapshot);
        summary::summarize(self, snapshot)
    }

    /// Before the first tick: what an earlier process had booked, and its baselines, by port id; and the last readings of
    /// interfaces that living sandboxes no longer have. What passed meanwhile is compared; nothing is booked twice.
    pub fn restore(&mut self, books: BTreeMap<u32, PortBook>, vanished: &[(PortReading, PortBook)]) {
        for (reading, book) in vanished {
            self.sandboxes.remember(reading);
            self.reconcile.remember(reading, *book);
        }
        self.reconcile.restore(books);
    }

    /// Before the first tick: what an earlier process said of [`denials`](Self::denials). A membership that goes on is as
    /// denied as it was.
    pub fn restore_denials(&mut self, denials: Denials) {
        self.memberships.restore(denials);
    }

    /// How late the switch's counters may be, in place of [`LAG`].
    pub fn set_lag(&mut self, lag: SignedDuration) {
        self.reconcile.set_lag(lag);
    }

    /// Ports whose two ledgers were off at the last tick, and of which something may be booked at the next: if somebody has
    /// taken mcstat's programs off there, that tick must know.
    pub fn suspects(&self) -> Vec<u32> {
        self.reconcile.suspects().collect()
    }

    /// What [`restore`](Self::restore) wants at the next start, by port id, as of the last tick.
    pub fn books(&self) -> impl Iterator<Item = (u32, PortBook)> {
        self.reconcile.books()
    }

    /// The rules that denied the last reports of groups, as of the last tick.
    pub fn denials(&self) -> impl Iterator<Item = ((u32, IpAddr), &RuleReference)> {
        self.memberships.denials()
    }

    /// What rules on IGMP queries counted, for the readings of the next tick and of the next process: the switch alone counts
    /// them, and forgets.
    pub fn queried(&self) -> impl Iterator<Item = Queried> {
        self.rules.queried()
    }

    /// The memberships as of the last tick, by the merged truth, denied ones included.
    pub fn joined(&self) -> Joined {
        let ports = self.memberships.ports().flat_map(|(id, port)| {
            let joined = port
                .memberships()
                .iter()
                .filter(|(_, membership)| membership.is_wanted());
            joined.map(move |(group, _)| (id, *group))
        });
        // Ports come by id and groups in order.
        Joined(ports.collect())
    }
}
