//! Bringing the ports table and the attached programs to the list that the Pod source wants: off the tick, on a thread
//! of its own, since a TCX attach waits some 20 ms for RCU and a freed slot waits longer.
//!
//! The list is a whole each time, so every step can be interrupted by a newer one. While the source is away nothing is
//! changed: counting goes on for the Pods that it named last.

mod hooks;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use super::{
    bpf::{
        ClockSource, KernelError,
        attach::Programs,
        free,
        maps::{Maps, update_settings},
        now, rcu, read,
        settle::settle_stale,
        table::{self, Entry, text},
    },
    pods::{PodPort, PodPorts},
};
use crate::ledger::{
    Joined,
    snapshot::{PodRef, PortReading, UncountedPort},
};

/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often idle slots are looked for, in retries.
const IDLE_EVERY: u32 = 60;
/// How often slots are looked for whose verdict is no longer their port's, in retries.
const SETTLE_EVERY: u32 = 5;
/// How often the hooks are looked at, in retries.
const HOOKS_EVERY: u32 = 5;
/// Slots that one RCU wait frees at most.
const FOLD_BATCH: usize = 1024;

/// What the thread is told and tells besides the list of Pods.
pub(super) struct Channels {
    /// Last readings of ports that are gone, for one more summary.
    pub(super) departed: mpsc::Sender<PortReading>,
    /// Interfaces that are not counted, those of the source included.
    pub(super) uncounted: watch::Sender<Vec<UncountedPort>>,
    /// Groups whose slots stay.
    pub(super) joined: watch::Receiver<Arc<Joined>>,
    /// When each port's programs were last found off, by port id.
    pub(super) detached: watch::Sender<BTreeMap<u32, Timestamp>>,
    /// Ports whose hooks are to be looked at now.
    pub(super) suspects: watch::Receiver<Vec<u32>>,
}

/// What the thread works on.
pub(super) struct Ports {
    /// The maps.
    maps: Arc<Maps>,
    /// The programs.
    programs: Programs,
    /// The kernel's clock.
    clock: ClockSource,
    /// Idle time after which a slot may be folded.
    slot_idle: Duration,
    /// At most this many ports are counted.
    max_ports: u32,
    channels: Channels,
    attached: BTreeSet<u32>,
    /// Whose programs were found off and are not back yet.
    off: BTreeSet<u32>,
    complaints: BTreeMap<String, String>,
    /// What the last round could not count.
    refused: Vec<UncountedPort>,
    /// Counted ports, by id, whose packets another program sees first.
    behind: BTreeMap<u32, UncountedPort>,
    /// Something of the last round is to be tried again.
    unfinished: bool,
    /// What was kept of Pods that left while no agent ran is forgotten.
    swept: bool,
}

impl Ports {
    /// The thread's state; nothing is touched yet.
    pub(super) fn new(
        maps: Arc<Maps>,
        programs: Programs,
        clock: ClockSource,
        limits: (Duration, u32),
        channels: Channels,
    ) -> Self {
        let (slot_idle, max_ports) = limits;
        Self {
            maps,
            programs,
            clock,
            slot_idle,
            max_ports,
            channels,
            attached: BTreeSet::new(),
            off: BTreeSet::new(),
            complaints: BTreeMap::new(),
            refused: Vec::new(),
            behind: BTreeMap::new(),
            unfinished: true,
            swept: false,
        }
    }

    /// Follows `wanted` on a thread until its sender is gone. What is attached stays attached.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn spawn(
        mut self,
        runtime: Handle,
        mut wanted: watch::Receiver<PodPorts>,
    ) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("ports".to_owned()).spawn(move || {
            let (mut rounds, mut changed) = (0u32, true);
            loop {
                if self.unfinished || changed {
                    let list = wanted.borrow_and_update().clone();
                    self.round(&list, &wanted);
                }
                rounds = rounds.wrapping_add(1);
                if rounds.is_multiple_of(IDLE_EVERY) {
                    self.fold_idle();
                }
                if rounds.is_multiple_of(SETTLE_EVERY) {
                    self.settle();
                }
                if rounds.is_multiple_of(HOOKS_EVERY) {
                    self.look_at_hooks();
                }
                changed = match runtime.block_on(next(&mut wanted, &mut self.channels.suspects)) {
                    Next::List => true,
                    Next::End => return,
                    Next::Retry => false,
                    Next::Suspects(ports) => {
                        self.look_for_detached(|id| ports.contains(&id));
                        false
                    }
                };
            }
        })
    }

    /// One round: remove, then attach until done or until a newer list is there.
    fn round(&mut self, list: &PodPorts, newer: &watch::Receiver<PodPorts>) {
        let mut uncounted = list.uncounted.clone();
        self.unfinished = true;
        // An empty list of a source that was never connected says nothing about the Pods.
        let removed = !list.connected || self.remove_stale(list);
        let entries = table::entries(&self.maps);
        let mut by_ifindex: BTreeMap<u32, Entry> =
            entries.into_iter().map(|entry| (entry.port.ifindex, entry)).collect();
        let mut refused = Vec::new();
        for wanted in &list.ports {
            if newer.has_changed().unwrap_or(true) {
                return;
            }
            match self.ensure(wanted, &mut by_ifindex) {
                Ok(()) => {}
                Err(refusal) => refused.push(*refusal),
            }
        }
        self.unfinished = !removed || !refused.is_empty();
        uncounted.append(&mut refused);
        self.share_out(by_ifindex.len());
        self.complain(&uncounted);
        self.refused = uncounted;
        self.tell();
    }

    /// Tells the tick what is not counted, or not as it should be.
    fn tell(&self) {
        let told: Vec<_> = self.refused.iter().chain(self.behind.values()).cloned().collect();
        self.channels.uncounted.send_if_modified(|old| {
            let changed = *old != told;
            *old = told;
            changed
        });
    }

    /// Takes every port that is not wanted off and frees all it held. One RCU wait serves them all. Returns whether all are
    /// gone.
    fn remove_stale(&mut self, list: &PodPorts) -> bool {
        let stale: Vec<Entry> = table::entries(&self.maps)
            .into_iter()
            .filter(|entry| !list.ports.iter().any(|wanted| table::is(&entry.port, wanted)))
            .collect();
        let living: BTreeSet<&PodRef> = pods(list).collect();
        if stale.is_empty() {
            if !std::mem::replace(&mut self.swept, true) {
                self.forget(&living);
            }
            return true;
        }
        for entry in &stale {
            self.programs.detach(entry);
            table::stop(&self.maps, entry);
        }
        if let Err(error) = rcu::wait() {
            warn!(%error, "cannot wait for running programs; the slots of Pods that left stay taken until this works");
            return false;
        }
        let mut all = true;
        for entry in &stale {
            if let Err(error) = self.remove(entry, &living) {
                warn!(pod = text(&entry.port.pod), %error, "cannot free a port; it is tried again");
                all = false;
            }
        }
        self.swept = true;
        self.forget(&living);
        all
    }

    /// Forgets what was kept of ports and Pods that are gone.
    fn forget(&self, living: &BTreeSet<&PodRef>) {
        if let Err(error) = self.maps.kept.forget(&self.maps, |pod| living.contains(pod)) {
            warn!(%error, "cannot forget what was kept of a port; it is tried again with the next one that goes");
        }
    }

    /// Reads a stopped port for the last time and gives back all it held.
    fn remove(&mut self, entry: &Entry, living: &BTreeSet<&PodRef>) -> Result<(), KernelError> {
        let clock = self.clock.read(&self.maps)?;
        let system = |error| KernelError::System {
            call: "reading a port for the last time",
            error,
        };
        if let Some(last) = read::read_port(&self.maps, entry, &clock).map_err(system)? {
            info!(
                pod = %format_args!("{}/{}", last.pod.namespace, last.pod.name),
                interface = last.interface,
                port = last.id,
                "no longer counting"
            );
            // A tick that does not read is no reason to wait: the port goes all the same.
            let _ = self.channels.departed.try_send(last);
        }
        if living.contains(&read::pod(&entry.port)) {
            self.remember(entry)?;
        }
        table::end(&self.maps, entry);
        free::free_port(&self.maps, entry.port.id).map_err(|error| KernelError::System {
            call: "freeing a port's slots",
            error,
        })?;
        table::leave(&self.maps, entry);
        self.attached.remove(&entry.port.id);
        self.off.remove(&entry.port.id);
        self.behind.remove(&entry.port.id);
        self.channels.detached.send_modify(|detached| {
            detached.remove(&entry.port.id);
        });
        Ok(())
    }

    /// Keeps the totals of an interface that goes while its Pod lives: they stay in the Pod's, over a restart too. Nothing
    /// counts in it any more, and an RCU wait is over since.
    fn remember(&self, entry: &Entry) -> Result<(), KernelError> {
        if !table::has_begun(entry) {
            return Ok(());
        }
        free::fold_port(&self.maps, entry.port.id, || Ok(())).map_err(|error| KernelError::System {
            call: "folding a port's slots",
            error,
        })?;
        if let Err(error) = self.maps.kept.remember(&self.maps, entry) {
            warn!(
                pod = %format_args!("{}/{}", text(&entry.port.namespace), text(&entry.port.pod)),
                interface = text(&entry.port.interface),
                %error,
                "cannot keep what a vanished interface had counted; a restart of the agent would forget it"
            );
        }
        Ok(())
    }

    /// Makes sure that a wanted port is in the table and has this process's programs.
    fn ensure(&mut self, wanted: &PodPort, entries: &mut BTreeMap<u32, Entry>) -> Result<(), Box<UncountedPort>> {
        let Some(entry) = entries.get(&wanted.ifindex).copied() else {
            let entry = self.start(wanted, entries.len())?;
            entries.insert(wanted.ifindex, entry);
            return Ok(());
        };
        if !table::is(&entry.port, wanted) {
            return Err(refusal(
                wanted,
                "StillLeaving",
                "the interface's last owner is not yet gone from the maps",
            ));
        }
        table::set_addresses(&self.maps, &entry, &wanted.addresses);
        if self.attached.contains(&entry.port.id) {
            return Ok(());
        }
        // Of an earlier run of the agent: the programs are replaced, the counters go on.
        let taken_over = self.programs.attach(&entry).or_else(|_| {
            // A dead link: the interface went and came back under the same number.
            self.off.insert(entry.port.id);
            self.tell_detached(entry.port.id);
            self.programs.detach(&entry);
            self.programs.attach(&entry)
        });
        taken_over.map_err(|error| refusal(wanted, "AttachFailed", &error.to_string()))?;
        self.attached.insert(entry.port.id);
        if self.off.remove(&entry.port.id) {
            // Until now packets passed uncounted.
            self.tell_detached(entry.port.id);
        }
        Ok(())
    }

    /// Attaches a new port, then begins its counting.
    fn start(&mut self, wanted: &PodPort, taken: usize) -> Result<Entry, Box<UncountedPort>> {
        if taken >= self.max_ports as usize {
            return Err(refusal(
                wanted,
                "TableFull",
                &format!("maps.ports is {}; raise it", self.max_ports),
            ));
        }
        self.share_out(taken + 1);
        let mut entry = table::reserve(&self.maps, wanted).ok_or_else(|| {
            refusal(
                wanted,
                "TableFull",
                "no free entry near the interface's number in the ports map",
            )
        })?;
        if let Err(error) = self.programs.attach(&entry) {
            // Nothing has counted in it: there is nothing to wait for.
            table::leave(&self.maps, &entry);
            return Err(refusal(wanted, "AttachFailed", &error.to_string()));
        }
        // Only now: what is told to be counted since then is counted since then.
        table::begin(&self.maps, &mut entry, now().as_millisecond() as u64);
        self.attached.insert(entry.port.id);
        info!(
            pod = %format_args!("{}/{}", wanted.pod.namespace, wanted.pod.name),
            interface = wanted.interface,
            host_interface = wanted.host_interface,
            port = entry.port.id,
            "counting"
        );
        Ok(entry)
    }

    /// The fair share of the table: table ÷ ports.
    fn share_out(&self, ports: usize) {
        let share = self.maps.slots.len() / (ports.max(1) as u32);
        update_settings(&self.maps, |settings| settings.fair_share = share);
    }

    /// Logs each refusal once, and again when its message changes.
    fn complain(&mut self, uncounted: &[UncountedPort]) {
        let key = |port: &UncountedPort| format!("{} {}", port.pod.sandbox, port.interface);
        for port in uncounted {
            if self.complaints.insert(key(port), port.message.clone()).as_ref() != Some(&port.message) {
                warn!(
                    pod = %format_args!("{}/{}", port.pod.namespace, port.pod.name),
                    interface = port.interface,
                    reason = port.reason,
                    "not counted: {}",
                    port.message
                );
            }
        }
        let now: BTreeSet<String> = uncounted.iter().map(key).collect();
        self.complaints.retain(|key, _| now.contains(key));
    }

    /// Settles slots after a change of what is enforced, which does not wait for it; what else changes has done so itself.
    fn settle(&self) {
        if let Err(error) = settle_stale(&self.maps, rcu::wait) {
            warn!(%error, "cannot settle what was counted by older policies; it is tried again");
        }
    }

    /// Folds slots that are idle, where room is needed.
    fn fold_idle(&mut self) {
        let outcome = self.clock.read(&self.maps).and_then(|clock| {
            let ticks = self.slot_idle.as_secs() * u64::from(clock.hz);
            let joined = Arc::clone(&self.channels.joined.borrow());
            let idle = free::idle(&self.maps, &clock, ticks, |port, group| joined.contains(port, group));
            idle.chunks(FOLD_BATCH)
                .try_fold(0, |sum, batch| Ok(sum + free::fold(&self.maps, batch, rcu::wait)?))
                .map_err(|error| KernelError::System {
                    call: "folding idle slots",
                    error,
                })
        });
        match outcome {
            Ok(0) => {}
            Ok(slots) => info!(slots, "folded idle groups into their Pods' other groups"),
            Err(error) => warn!(%error, "cannot fold idle groups; it is tried again in a minute"),
        }
    }
}

/// The Pods that live, those included none of whose interfaces can be counted.
fn pods(list: &PodPorts) -> impl Iterator<Item = &PodRef> {
    let counted = list.ports.iter().map(|port| &port.pod);
    counted.chain(list.uncounted.iter().map(|port| &port.pod))
}

/// What ends the thread's sleep.
enum Next {
    List,
    Suspects(Vec<u32>),
    Retry,
    End,
}

/// A list that changed meanwhile is returned at once.
async fn next(wanted: &mut watch::Receiver<PodPorts>, suspects: &mut watch::Receiver<Vec<u32>>) -> Next {
    tokio::select! {
        changed = wanted.changed() => if changed.is_ok() { Next::List } else { Next::End },
        Ok(()) = suspects.changed() => Next::Suspects(suspects.borrow_and_update().clone()),
        () = tokio::time::sleep(RETRY) => Next::Retry,
    }
}

fn refusal(wanted: &PodPort, reason: &str, message: &str) -> Box<UncountedPort> {
    Box::new(UncountedPort {
        pod: wanted.pod.clone(),
        interface: wanted.interface.clone(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    })
}
