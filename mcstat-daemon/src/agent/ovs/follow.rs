//! The switch from tick to tick: a task of its own reads it whenever a tick begins, so that a switch that hangs delays no
//! reading of the maps.
//!
//! A tick waits a moment for the answer, since counters that are read close together are easy to compare; an answer that
//! comes later is the next tick's. It says once when the switch goes away and once when it is back.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use super::{Ovs, OvsError, Reading, is_counter, queue, snooping};
use crate::{
    agent::bpf,
    ledger::{
        snapshot::{SwitchAccount, SwitchReading},
        switch::{Switch, SwitchGroup, Table, snooped_groups},
    },
    proto::mdb::Mdb,
};

/// How long a tick waits for the switch: 500 Pods are read within 10 ms.
const WAIT: Duration = Duration::from_millis(200);

/// How often a bridge's own snooping table is read: a membership is no counter.
const SNOOPED_EVERY: Duration = Duration::from_secs(5);

/// The tick's end: it asks, and takes what is known by then.
pub struct Follower {
    ask: watch::Sender<u64>,
    told: watch::Receiver<Arc<SwitchReading>>,
}

impl Follower {
    /// Asks the switch and waits a moment; the newest answer, or what is known while there is none.
    pub async fn read(&mut self) -> SwitchReading {
        self.ask.send_modify(|asked| *asked = asked.wrapping_add(1));
        // Whatever ends the wait, the newest that is known counts.
        let _ = timeout(WAIT, self.told.changed()).await;
        SwitchReading::clone(&self.told.borrow_and_update())
    }
}

/// Where a switch is and how it is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Open vSwitch's run directory.
    pub run_dir: PathBuf,
    /// The bridge.
    pub bridge: String,
    /// Make the switch push its counters before each reading (`revalidator/wait`).
    pub revalidate: bool,
}

/// A follower, and the task that it asks; the task ends when the follower is gone.
pub fn follow(options: Options) -> (Follower, impl Future<Output = ()> + Send) {
    let (ask, asked) = watch::channel(0);
    let nothing_yet = SwitchReading::Away { since: bpf::now() };
    let (tell, told) = watch::channel(Arc::new(nothing_yet));
    (Follower { ask, told }, run(options, asked, tell))
}

async fn run(options: Options, mut asked: watch::Receiver<u64>, tell: watch::Sender<Arc<SwitchReading>>) {
    let mut ovs = Ovs::new(&options.run_dir, &options.bridge);
    let mut away: Option<Timestamp> = None;
    let mut complained = false;
    let mut snooped = Snooped::default();
    let (mut queues, mut not_understood) = (Queues::default(), NotUnderstood::default());
    while asked.changed().await.is_ok() {
        if options.revalidate
            && let Err(error) = revalidate(&options).await
            && !std::mem::replace(&mut complained, true)
        {
            warn!(%error, "the switch cannot be made to push its counters; they are up to a second late");
        }
        let told = match ovs.read().await {
            Ok(reading) => {
                if away.take().is_some() {
                    info!(bridge = options.bridge, "the switch is read again");
                }
                let mut account = account(&reading);
                account.queue_drops = queues.read();
                not_understood.tell(&options.bridge, &account.switch.unknown);
                if !reading.description.tables.contains_key(&Table::Routing) {
                    snooped.fill(&options, &mut account).await;
                }
                SwitchReading::Read(Box::new(account))
            }
            Err(error) => {
                if away.is_none() && !matches!(error, OvsError::Away { .. }) {
                    warn!(bridge = options.bridge, %error, "the switch cannot be read; counting on the veths goes on");
                }
                SwitchReading::Away {
                    since: *away.get_or_insert_with(bpf::now),
                }
            }
        };
        tell.send_replace(Arc::new(told));
    }
}

/// The queues before the switch. That they cannot be read is said once.
#[derive(Debug, Default)]
struct Queues {
    complained: bool,
}

impl Queues {
    fn read(&mut self) -> BTreeMap<u32, u64> {
        queue::drops().unwrap_or_else(|error| {
            if !std::mem::replace(&mut self.complained, true) {
                warn!(%error, "packet sockets cannot be asked (CONFIG_PACKET_DIAG); what overflows before the switch is called unexplained");
            }
            BTreeMap::new()
        })
    }
}

/// Flows in the tables of counters that are none that is known: another release of Antrea may count otherwise. Tables of
/// rules hold others in every release.
#[derive(Debug, Default)]
struct NotUnderstood(BTreeMap<Table, u32>);

impl NotUnderstood {
    fn tell(&mut self, bridge: &str, unknown: &BTreeMap<Table, u32>) {
        let counters = unknown.iter().filter(|(table, _)| is_counter(**table));
        for (table, flows) in counters.filter(|(table, flows)| self.0.get(table) != Some(flows)) {
            warn!(
                bridge,
                table = table.name(),
                flows,
                "flows that are not understood; their counters are left out"
            );
        }
        if self.0 != *unknown {
            self.0.clone_from(unknown);
        }
    }
}

/// The groups of a bridge without Antrea's tables: what it has learned by its own snooping, if it snoops.
#[derive(Debug, Default)]
struct Snooped {
    read: Option<Instant>,
    groups: Option<Vec<SwitchGroup>>,
}

impl Snooped {
    async fn fill(&mut self, options: &Options, account: &mut SwitchAccount) {
        if self.read.is_none_or(|read| read.elapsed() >= SNOOPED_EVERY) {
            self.read = Some(Instant::now());
            self.groups = match snooping_table(options).await {
                Ok(mdb) => Some(snooped_groups(&mdb)),
                Err(error) => {
                    debug!(bridge = options.bridge, %error, "the bridge has no groups of its own");
                    None
                }
            };
        }
        account.groups_known = self.groups.is_some();
        account.switch.groups = self.groups.clone().unwrap_or_default();
    }
}

async fn snooping_table(options: &Options) -> Result<Mdb, snooping::SnoopingError> {
    snooping::read(&snooping::control_socket(&options.run_dir)?, &options.bridge).await
}

async fn revalidate(options: &Options) -> Result<(), snooping::SnoopingError> {
    snooping::revalidate(&snooping::control_socket(&options.run_dir)?).await
}

fn account(reading: &Reading) -> SwitchAccount {
    let (clock, now) = (Instant::now(), Timestamp::now());
    let wall = |then: Instant| {
        let age = jiff::SignedDuration::try_from(clock.saturating_duration_since(then)).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    };
    SwitchAccount {
        before: wall(reading.before),
        after: wall(reading.after),
        connection: reading.connection,
        switch: Switch::new(&reading.description),
        groups_known: reading.groups.is_ok(),
        queue_drops: BTreeMap::new(),
    }
}
