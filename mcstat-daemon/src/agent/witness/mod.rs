//! The second witness: what the kernel of each Pod's network namespace says of its memberships and receive buffers.
//!
//! A namespace is the one that the other end of the Pod's veth lies in, by the id that the agent's own namespace knows it
//! by. Its tables are read through a process that the kernel says is in it (`/proc/<pid>/net`), which takes a shared PID
//! namespace (`hostPID`) and no capability; where no process is visible, by entering it on a thread that ends with the
//! reading. The id is asked for before and after each reading through a process, so what a process shows that has moved
//! on, or whose number another one has by now, is never taken for the Pod's. No file and no namespace stays open between
//! two readings: an open one would keep a deleted namespace alive.
//!
//! Each tick reads `igmp` and `igmp6` of every namespace. `snmp`, `snmp6`, `mcfilter` and `mcfilter6` have their turn
//! every tenth tick, a tenth of the namespaces at a time; the source tables also where a group table changed, where they
//! held a source, where the Pod has just sent a report, or where it speaks a version that reports no sources; `udp` and
//! `udp6` where the drop counters grew.

mod enter;
mod filter;
mod search;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Instant,
};

use tracing::{debug, warn};

use self::{
    search::Search,
    tables::{Plan, Raw, TableError, Tables},
};
use super::pods::{
    PodPort,
    link::{LinkError, RouteSocket},
};
use crate::ledger::snapshot::{NamespaceReading, PodRef};

/// Every so many ticks, what is not read each tick has its turn.
const TURNS: u32 = 10;

/// Why a namespace's tables are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unavailable {
    /// No veth of the Pod leads into another namespace: it is being made or removed.
    NoPeer,
    /// No process of the namespace is visible, and no path to enter it by is known.
    NoProcess,
    /// No process is visible, and the path leads nowhere or to another namespace.
    NoPath,
    /// No process is visible, and entering is not permitted.
    Denied,
    /// A table is longer than is read.
    TooLarge,
    /// A table cannot be read or is not understood.
    Unreadable,
}

impl Unavailable {
    /// One CamelCase word, for [`NamespaceReading::unavailable`].
    fn word(self) -> &'static str {
        match self {
            Self::NoPeer => "NoPeer",
            Self::NoProcess => "NoProcess",
            Self::NoPath => "NoPath",
            Self::Denied => "Denied",
            Self::TooLarge => "TooLarge",
            Self::Unreadable => "Unreadable",
        }
    }
}

/// The network namespace of one Pod sandbox.
#[derive(Debug)]
struct Namespace {
    pod: PodRef,
    /// Host sides of its veths.
    ifindexes: Vec<u32>,
    path: Option<String>,
    /// What the agent's own namespace calls it.
    id: Option<i32>,
    /// A process that was in it at the last reading.
    process: Option<u32>,
    tables: Tables,
    /// Which of the [`TURNS`] ticks is its turn.
    turn: u32,
    plan: Plan,
    /// What came of this tick's reading; `None` until something did.
    outcome: Option<Result<(), Unavailable>>,
    complaint: Option<String>,
}

/// Reads the namespaces of all Pods. Blocking, for the tick.
#[derive(Debug)]
pub struct Witness {
    /// In the agent's own namespace, which the host sides lie in.
    socket: RouteSocket,
    namespaces: BTreeMap<PodRef, Namespace>,
    search: Search,
    raw: Raw,
    round: u32,
    next_turn: u32,
}

impl Witness {
    /// A witness for the Pods whose host sides lie in the calling thread's network namespace.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn open() -> Result<Self, LinkError> {
        Ok(Self {
            socket: RouteSocket::open()?,
            namespaces: BTreeMap::new(),
            search: Search::default(),
            raw: Raw::default(),
            round: 0,
            next_turn: 0,
        })
    }

    /// Sets the Pods: all that are wanted, each time. What is known of a sandbox stays while it is listed.
    pub fn follow(&mut self, ports: &[PodPort]) {
        let mut before = std::mem::take(&mut self.namespaces);
        for port in ports {
            let namespace = self.namespaces.entry(port.pod.clone()).or_insert_with(|| {
                let known = before.remove(&port.pod);
                let mut namespace = known.unwrap_or_else(|| {
                    self.next_turn = self.next_turn.wrapping_add(1);
                    Namespace::new(port.pod.clone(), self.next_turn % TURNS)
                });
                (namespace.ifindexes, namespace.path) = (Vec::new(), None);
                namespace
            });
            namespace.ifindexes.push(port.ifindex);
            namespace.path = namespace.path.take().or_else(|| port.netns.clone());
        }
        // The veths may be others: their other ends are looked up again.
        self.locate();
    }

    /// Reads every namespace, in the order of the Pods. Of those `reported` the sources may have changed though the groups
    /// did not: they sent a membership report since the reading before, or have no report that names sources.
    pub fn read(&mut self, reported: &BTreeSet<&PodRef>, now: Instant) -> Vec<NamespaceReading> {
        self.round = self.round.wrapping_add(1);
        if self.round.is_multiple_of(TURNS) || self.namespaces.values().any(|namespace| namespace.id.is_none()) {
            self.locate();
        }
        for namespace in self.namespaces.values_mut() {
            namespace.begin(self.round, reported);
            namespace.read_through_process(&mut self.socket, &mut self.raw);
        }
        self.search(now);
        self.enter();
        self.namespaces.values().map(Namespace::reading).collect()
    }

    /// Looks up which namespace each Pod's veths lead to.
    fn locate(&mut self) {
        let links = match self.socket.links() {
            Ok(links) => links,
            Err(error) => {
                warn!(%error, "the Pods' network namespaces are not looked up again; those known hold");
                return;
            }
        };
        for namespace in self.namespaces.values_mut() {
            let mut ids = namespace
                .ifindexes
                .iter()
                .filter_map(|ifindex| links.get(ifindex)?.peer_nsid);
            namespace.belongs_to(ids.find(|id| *id >= 0));
        }
    }

    /// Looks for processes where they are missing, and reads through those found.
    fn search(&mut self, now: Instant) {
        let unread = |namespace: &&mut Namespace| namespace.outcome.is_none();
        let missing = self.namespaces.values_mut().filter(unread);
        let missing = missing.map(|namespace| namespace.pod.sandbox.clone()).collect();
        if !self.search.due(missing, now) {
            return;
        }
        // A namespace that has gone meanwhile has left its id to another.
        self.locate();
        let ids = self
            .namespaces
            .values_mut()
            .filter(unread)
            .filter_map(|n| n.id)
            .collect();
        let found = search::processes(&mut self.socket, &ids);
        debug!(
            wanted = ids.len(),
            found = found.len(),
            "looked for processes in the Pods' network namespaces"
        );
        for namespace in self.namespaces.values_mut().filter(unread) {
            namespace.process = namespace.id.and_then(|id| found.get(&id).copied());
            namespace.read_through_process(&mut self.socket, &mut self.raw);
        }
    }

    /// Enters what is left.
    fn enter(&mut self) {
        let mut left = Vec::new();
        for namespace in self
            .namespaces
            .values_mut()
            .filter(|namespace| namespace.outcome.is_none())
        {
            match (namespace.id, &namespace.path) {
                (None, _) => namespace.outcome = Some(Err(Unavailable::NoPeer)),
                (_, None) => namespace.outcome = Some(Err(Unavailable::NoProcess)),
                _ => left.push(namespace),
            }
        }
        if !left.is_empty()
            && let Err(error) = enter::read_all(&mut self.socket, left, &mut self.raw)
        {
            warn!(%error, "cannot start the thread that enters network namespaces; check the limit on tasks");
        }
    }
}

impl Namespace {
    fn new(pod: PodRef, turn: u32) -> Self {
        Self {
            pod,
            ifindexes: Vec::new(),
            path: None,
            id: None,
            process: None,
            tables: Tables::default(),
            turn,
            plan: Plan::default(),
            outcome: None,
            complaint: None,
        }
    }

    /// Sets the id; with another one, nothing that was known holds.
    fn belongs_to(&mut self, id: Option<i32>) {
        if self.id != id {
            (self.id, self.process, self.tables) = (id, None, Tables::default());
            self.outcome = None;
        }
    }

    fn begin(&mut self, round: u32, reported: &BTreeSet<&PodRef>) {
        let turn = round % TURNS == self.turn;
        self.plan = Plan {
            sources: turn || reported.contains(&self.pod),
            counters: turn || self.tables.drops.is_none(),
        };
        self.outcome = self.id.is_none().then_some(Err(Unavailable::NoPeer));
    }

    /// Reads through the known process, if it is in this namespace before and after; else it is forgotten.
    fn read_through_process(&mut self, socket: &mut RouteSocket, raw: &mut Raw) {
        let (Some(process), Some(_)) = (self.process, self.id) else {
            return;
        };
        let mut inside = |id| socket.id_of_process(process).is_ok_and(|found| found == id);
        if inside(self.id) {
            let directory = format!("/proc/{process}/net");
            let gathered = self.tables.gather(Path::new(&directory), self.plan, raw);
            if inside(self.id) {
                return self.settle(gathered, raw);
            }
        }
        self.process = None;
    }

    /// Takes over what was gathered, whose it is being certain now.
    fn settle(&mut self, gathered: Result<(), TableError>, raw: &mut Raw) {
        let taken = gathered.and_then(|()| Ok(self.tables.take(raw)?));
        let complaint = taken.as_ref().err().map(ToString::to_string);
        self.outcome = Some(taken.map_err(|error| match error {
            TableError::TooLarge(_) => Unavailable::TooLarge,
            TableError::Read { .. } | TableError::Decode(_) => Unavailable::Unreadable,
        }));
        if let Some(message) = complaint.as_ref().filter(|_| complaint != self.complaint) {
            let PodRef { namespace, name, .. } = &self.pod;
            warn!(pod = %format_args!("{namespace}/{name}"), "{message}");
        }
        self.complaint = complaint;
    }

    fn reading(&self) -> NamespaceReading {
        let mut reading = NamespaceReading {
            pod: self.pod.clone(),
            unavailable: None,
            interfaces: Vec::new(),
            socket_drops: None,
            losing_sockets: Vec::new(),
        };
        match self.outcome.unwrap_or(Err(Unavailable::Unreadable)) {
            Ok(()) => {
                reading.interfaces.clone_from(&self.tables.interfaces);
                reading.socket_drops = self.tables.drops;
                reading.losing_sockets.clone_from(&self.tables.losing);
            }
            Err(reason) => reading.unavailable = Some(reason.word().to_owned()),
        }
        reading
    }
}
