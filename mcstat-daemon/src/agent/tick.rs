//! The tick: everything read into one [`Snapshot`], and what the ledger makes of it handed on.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{MapData, MapError, RingBuf};
use jiff::Timestamp;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{
    bpf::{
        ClockSource, KernelError,
        clock::Clock,
        maps::Maps,
        policy,
        read::{self, Reader},
        ring::{self, RawEvent},
    },
    judge::InForce,
    ovs::follow::Follower,
    pods::{PodPort, PodPorts},
    reported::Reported,
    witness::Witness,
};
use crate::{
    api::summary::NodeStatsSummary,
    ledger::{
        Joined, Ledger,
        snapshot::{
            ControlEvent, Direction, Enforced, PolicyReading, PortReading, RuleReading, Snapshot, SwitchPort,
            SwitchReading, UncountedPort,
        },
    },
    proto,
};

/// How long the first tick waits for policies.
const POLICY_WAIT: Duration = Duration::from_secs(2);

/// What the tick is told and tells besides the maps.
pub(super) struct Channels {
    /// Last readings of ports that are gone.
    pub(super) departed: mpsc::Receiver<PortReading>,
    /// Interfaces that are not counted.
    pub(super) uncounted: watch::Receiver<Vec<UncountedPort>>,
    /// The Pods, for the second witness and the switch's names of their ports.
    pub(super) wanted: watch::Receiver<PodPorts>,
    /// The groups that each port has joined.
    pub(super) joined: watch::Sender<Arc<Joined>>,
    /// When each port's programs were found off.
    pub(super) detached: watch::Receiver<BTreeMap<u32, Timestamp>>,
    /// Ports whose hooks are to be looked at now.
    pub(super) suspects: watch::Sender<Vec<u32>>,
    /// The switch, where one is read.
    pub(super) switch: Option<Follower>,
    /// The policies in force.
    pub(super) judged: watch::Receiver<InForce>,
    /// Last readings of rules that are gone.
    pub(super) retired: mpsc::Receiver<RuleReading>,
}

/// What the tick owns.
pub(super) struct Tick {
    maps: Arc<Maps>,
    clock: ClockSource,
    ring: AsyncFd<RingBuf<MapData>>,
    ledger: Ledger,
    reader: Reader,
    witness: Witness,
    reported: Reported,
    channels: Channels,
    /// Taken from the ring between two ticks, since it was filling.
    waiting: Vec<RawEvent>,
    /// It was said that books cannot be written, and that denials cannot.
    complained: [bool; 2],
}

impl Tick {
    pub(super) fn new(
        maps: Arc<Maps>,
        clock: ClockSource,
        ring: RingBuf<MapData>,
        ledger: Ledger,
        witness: Witness,
        channels: Channels,
    ) -> std::io::Result<Self> {
        let reader = Reader::new(&maps);
        // SAFETY: the descriptor is the ring buffer map's own: it stays open and the same as long as the value lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        Ok(Self {
            maps,
            clock,
            ring,
            ledger,
            reader,
            witness,
            reported: Reported::default(),
            channels,
            waiting: Vec::new(),
            complained: [false; 2],
        })
    }

    /// Ticks for ever.
    pub(super) async fn run(
        mut self,
        every: Duration,
        summaries: watch::Sender<Option<Arc<NodeStatsSummary>>>,
    ) -> Result<(), KernelError> {
        self.begin().await;
        let mut timer = interval(every);
        // A tick that came late is not made up for: readings are cumulative.
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = timer.tick() => {
                    // The switch first: what it has counted by then is on the veths already.
                    let switch = match &mut self.channels.switch {
                        Some(switch) => switch.read().await,
                        None => SwitchReading::None,
                    };
                    let snapshot = tokio::task::block_in_place(|| self.read(switch))?;
                    summaries.send_replace(Some(Arc::new(self.ledger.tick(&snapshot))));
                    self.tell_joined();
                    self.write_denials();
                    if self.channels.switch.is_some() {
                        self.tell_suspects();
                        self.write_books();
                        policy::write_queried(&self.maps, self.ledger.queried());
                    }
                }
                ready = self.ring.readable_mut() => match ready {
                    Ok(mut guard) => {
                        self.waiting.append(&mut ring::drain(guard.get_inner_mut()));
                        guard.clear_ready();
                    }
                    Err(error) => warn!(%error, "cannot wait for the ring buffer; it is read each tick"),
                },
            }
        }
    }

    /// Another's packet socket tells nothing of the switch: only the userspace datapath has one on each port.
    fn without_strange_queues(&self, switch: SwitchReading) -> SwitchReading {
        match switch {
            SwitchReading::Read(mut account) if !self.channels.wanted.borrow().userspace => {
                account.queue_drops.clear();
                SwitchReading::Read(account)
            }
            switch => switch,
        }
    }

    /// Before the first tick: what the switch enforces, and the policies, if they are known soon. A summary that says there
    /// are none would take a restart for the end of the policy source.
    async fn begin(&mut self) {
        if let Some(switch) = &mut self.channels.switch {
            let reading = switch.read().await;
            self.tell_enforced(&reading);
        }
        // An error says that the policy thread has ended, which ends the agent.
        let told = self
            .channels
            .judged
            .wait_for(|judged| !matches!(judged, InForce::NotRead(_)));
        let _ = timeout(POLICY_WAIT, told).await;
    }

    /// Everything, as of now.
    fn read(&mut self, switch: SwitchReading) -> Result<Snapshot, KernelError> {
        let clock = self.clock.read(&self.maps)?;
        self.tell_enforced(&switch);
        let system = |error| KernelError::System {
            call: "reading the maps",
            error,
        };
        // Before the maps: a rule that goes meanwhile is told of at the next tick.
        let gone = self.gone_rules();
        let read::Reading {
            mut ports,
            rules,
            kernel,
        } = read::read(&self.maps, &mut self.reader, &clock).map_err(system)?;
        while let Ok(last) = self.channels.departed.try_recv() {
            // It is the whole; what the maps still hold of the port may be a part.
            ports.retain(|port| port.id != last.id);
            ports.push(last);
        }
        ports.sort_by_key(|port| port.id);
        let mut events = std::mem::take(&mut self.waiting);
        events.append(&mut ring::drain(self.ring.get_mut()));
        let messages: Vec<_> = events.iter().map(|event| control_event(event, &clock)).collect();
        // After the messages: what the tables say is then never older than a report that was handed up.
        if self.channels.wanted.has_changed().unwrap_or(false) {
            self.witness.follow(&self.channels.wanted.borrow_and_update().ports);
        }
        let namespaces = self
            .witness
            .read(&self.reported.pods(&ports, &messages), Instant::now());
        let uncounted = self.channels.uncounted.borrow().clone();
        // One look at the channel: between two the policies may be told.
        let judged = self.channels.judged.borrow().clone();
        let policy_awaited = matches!(judged, InForce::NotRead(_));
        let policy = self.policy(judged, rules, gone);
        Ok(Snapshot {
            at: clock.now,
            uncounted,
            kernel,
            namespaces,
            switch: self.without_strange_queues(switch),
            switch_ports: switch_ports(&ports, &self.channels.wanted.borrow().ports),
            policy,
            policy_awaited,
            detached: self.channels.detached.borrow().clone(),
            ports,
            messages,
        })
    }

    /// Told as often as there are any.
    fn tell_suspects(&self) {
        let suspects = self.ledger.suspects();
        self.channels.suspects.send_if_modified(|told| {
            *told = suspects;
            !told.is_empty()
        });
    }

    /// What was booked must outlive this process.
    fn write_books(&mut self) {
        let written = self.maps.kept.write_books(self.ledger.books());
        let [complained, _] = &mut self.complained;
        complain_once(complained, written, "what was booked against the switch");
    }

    /// And which reports rules denied: the kernels of the Pods know nothing of it.
    fn write_denials(&mut self) {
        let written = self.maps.kept.write_denied(self.ledger.denials());
        let [_, complained] = &mut self.complained;
        complain_once(complained, written, "all rules that denied reports");
    }

    /// Tells the programs what the switch enforces. While it does not say, the last known state holds.
    fn tell_enforced(&self, switch: &SwitchReading) {
        let enforced = match switch {
            SwitchReading::None => Some(Enforced::default()),
            SwitchReading::Away { .. } => None,
            SwitchReading::Read(account) => account.switch.enforced(),
        };
        if let Some(enforced) = enforced.filter(|enforced| *enforced != policy::enforced(&self.maps)) {
            let Enforced { data, reports, sources } = enforced;
            info!(data, reports, sources, "what the switch enforces of the policies");
            policy::set_enforced(&self.maps, enforced);
        }
    }

    /// The last readings of rules that are gone: told of once more.
    fn gone_rules(&mut self) -> Vec<RuleReading> {
        let mut last = Vec::new();
        while let Ok(reading) = self.channels.retired.try_recv() {
            last.push(reading);
        }
        last
    }

    /// The policies in force, be they of an earlier run, and what their rules decided.
    fn policy(
        &self,
        judged: InForce,
        mut rules: Vec<RuleReading>,
        mut gone: Vec<RuleReading>,
    ) -> Option<PolicyReading> {
        let (InForce::Policies(judged) | InForce::NotRead(Some(judged))) = judged else {
            return None;
        };
        rules.append(&mut gone);
        rules.sort_by_key(|rule| rule.row.slot);
        Some(PolicyReading {
            tables: judged.tables,
            policies: judged.policies,
            reach: judged.reach,
            rules,
            enforced: policy::enforced(&self.maps),
            problems: judged.problems,
        })
    }

    fn tell_joined(&self) {
        let joined = self.ledger.joined();
        self.channels.joined.send_if_modified(|told| {
            let changed = **told != joined;
            if changed {
                *told = Arc::new(joined);
            }
            changed
        });
    }
}

fn complain_once(complained: &mut bool, written: Result<(), MapError>, what: &str) {
    match written {
        Ok(()) => *complained = false,
        Err(error) if !std::mem::replace(complained, true) => {
            warn!(%error, "cannot write down {what}; a restart would forget it");
        }
        Err(_) => {}
    }
}

/// What the switch calls the ports, by their ids.
fn switch_ports(ports: &[PortReading], wanted: &[PodPort]) -> BTreeMap<u32, SwitchPort> {
    let named: BTreeMap<_, _> = wanted
        .iter()
        .filter_map(|port| Some(((&port.pod.sandbox, &port.interface), (port.ofport?, &port.addresses))))
        .collect();
    let known = ports.iter().filter_map(|port| {
        let (ofport, addresses) = named.get(&(&port.pod.sandbox, &port.interface))?;
        let ipv4 = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let port_of = SwitchPort {
            ofport: *ofport,
            addresses: ipv4.collect(),
        };
        Some((port.id, port_of))
    });
    known.collect()
}

fn control_event(event: &RawEvent, clock: &Clock) -> ControlEvent {
    let header = &event.header;
    ControlEvent {
        port: header.port,
        direction: if header.direction == 0 {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        at: clock.recent64(header.jiffies).unwrap_or(clock.now),
        original_length: header.original_length,
        message: proto::control::decode(&event.packet, header.original_length),
    }
}
