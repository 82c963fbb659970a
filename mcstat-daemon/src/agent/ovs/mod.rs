//! The switch's own account: flows and groups of one bridge, read over its management socket.
//!
//! ```text
//!  <run dir>/<bridge>.mgmt ─┬─ OpenFlow 1.0, for a moment: table names ─▶ numbers
//!                           ├─ OpenFlow 1.5, kept: flows ──┐
//!                           └─ OpenFlow 1.5, kept: groups ─┴─▶ Description ─▶ ledger::switch
//! ```
//! Promises: nothing that is sent can change the switch; the flows of a reading are whole or there is none; a switch that
//! is away is asked again after 1 to 8 s, and [`Ovs::state`] says so meanwhile. Groups have a connection of their own, and
//! each is asked for alone: a switch may lose its place in the stream over one of more than 64 KiB, and neither counters
//! nor other groups must suffer for it. This module compares nothing: that is the ledger's part.

mod connection;
pub mod follow;
mod queue;
mod reconnect;
pub mod snooping;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::timeout_at;
use tracing::{debug, warn};

use self::connection::{Connection, Line};
pub use self::reconnect::{Reconnect, State};
use crate::{
    ledger::switch::{Description, Table},
    proto::openflow::{Answer, GroupDesc, GroupId, Reply, Request, RequestError, SessionError, TableEntry, Version},
};

/// How long a reading may take. A switch that configures itself answers late; one that hangs, never.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long names hold on one connection: Antrea's agent may restart with other features and move its tables.
const NAMES_HOLD: Duration = Duration::from_secs(10);
/// How long a group is left out whose description broke the connection.
const LEFT_OUT: Duration = Duration::from_secs(60);
/// What is read, counters first: only they have to be close to the readings of the maps.
const ORDER: [Table; 7] = [
    Table::EgressPodMetric,
    Table::IngressPodMetric,
    Table::EgressMetric,
    Table::IngressMetric,
    Table::EgressRule,
    Table::IngressRule,
    Table::Routing,
];

/// One reading of a bridge.
#[derive(Debug)]
pub struct Reading {
    /// Just before the switch was asked.
    pub before: Instant,
    /// When the last table of counters was there.
    pub after: Instant,
    /// Which connection its flows came by, from 1. Another one may be another switch process, with other counters.
    pub connection: u64,
    /// The flows of the tables that the bridge has, and the groups that MulticastRouting names.
    pub description: Description,
    /// Why groups are missing in `description`, when they are for a reason. Counters hold without them.
    pub groups: Result<(), OvsError>,
}

/// Why there is no reading.
#[derive(Debug, Error)]
pub enum OvsError {
    /// The switch is away and it is too early to try again.
    #[error("the switch is away; it is asked again within {} s", .retry.as_secs() + 1)]
    Away {
        /// Time until then.
        retry: Duration,
    },
    /// There is no socket, or nobody behind it.
    #[error("connecting to {} failed: {source}; is Open vSwitch running, and the bridge's name right?", path.display())]
    Connect {
        /// The management socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The switch ended the connection, as it does when it ends.
    #[error("the switch closed the connection")]
    Closed,
    /// No whole answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The switch says what no switch says.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// One request was refused, or its reply is not to be understood.
    #[error("{request:?}: {error}")]
    Request {
        /// What was asked.
        request: Request,
        /// Why there is no reply.
        error: RequestError,
    },
}

/// A reader of one bridge.
#[derive(Debug)]
pub struct Ovs {
    socket: PathBuf,
    flows: Line,
    groups: Line,
    tables: BTreeMap<Table, u8>,
    /// When `tables` was read.
    named: Option<Instant>,
    /// Groups that the switch cannot describe, and when that was found out.
    left_out: BTreeMap<GroupId, Instant>,
}

impl Ovs {
    /// A reader of `bridge`; nothing is opened yet.
    pub fn new(run_dir: &Path, bridge: &str) -> Self {
        let socket = run_dir.join(format!("{bridge}.mgmt"));
        Self {
            flows: Line::new(socket.clone(), "flows"),
            groups: Line::new(socket.clone(), "groups"),
            socket,
            tables: BTreeMap::new(),
            named: None,
            left_out: BTreeMap::new(),
        }
    }

    /// Whether the switch is there, and since when or until when.
    pub fn state(&self) -> State {
        self.flows.reconnect.state()
    }

    /// Reads the bridge once, within 2 s; connects first when that is due. A reading that is dropped halfway costs the
    /// connection.
    ///
    /// # Errors
    /// [`OvsError`]. Only [`OvsError::Request`] leaves the connection as it is.
    pub async fn read(&mut self) -> Result<Reading, OvsError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let flows = timeout_at(deadline, self.read_flows())
            .await
            .unwrap_or(Err(OvsError::Silent));
        let mut reading = flows.inspect_err(|error| self.flows.lost(error))??;
        let routed = reading.description.routed_groups();
        let ids: Vec<GroupId> = routed.into_iter().filter_map(GroupId::new).collect();
        if !ids.is_empty() {
            let groups = &mut reading.description.groups;
            let outcome = timeout_at(deadline, self.read_groups(&ids, groups)).await;
            reading.groups = match outcome.unwrap_or(Err(OvsError::Silent)) {
                Ok(outcome) => outcome,
                Err(error) => {
                    self.groups.lost(&error);
                    Err(error)
                }
            };
        }
        Ok(reading)
    }

    /// The inner result is of a request; with it the connection lives on.
    async fn read_flows(&mut self) -> Result<Result<Reading, OvsError>, OvsError> {
        let new = self.flows.open().await?;
        if new || self.named.is_none_or(|named| named.elapsed() >= NAMES_HOLD) {
            self.named = None;
            let tables = names(&self.socket).await?;
            if self.tables != tables {
                debug!(?tables, "the bridge's tables");
            }
            self.tables = tables;
            self.named = Some(Instant::now());
        }
        let wanted = ORDER
            .into_iter()
            .filter_map(|table| Some((table, *self.tables.get(&table)?)));
        let wanted: Vec<(Table, u8)> = wanted.collect();
        let requests: Vec<Request> = wanted
            .iter()
            .map(|(_, number)| Request::Flows { table: *number })
            .collect();
        let before = Instant::now();
        let mut reading = Reading {
            before,
            after: before,
            connection: self.flows.reconnect.connections(),
            description: Description::default(),
            groups: Ok(()),
        };
        let mut failed = None;
        let each = |answer| {
            if let Err(error) = reading.add(&wanted, answer) {
                failed.get_or_insert(error);
            }
        };
        self.flows.ask(&requests, each).await?;
        Ok(failed.map_or(Ok(reading), Err))
    }

    /// As [`read_flows`](Self::read_flows); groups that were described before an error are in `groups`.
    async fn read_groups(
        &mut self,
        ids: &[GroupId],
        groups: &mut Vec<GroupDesc>,
    ) -> Result<Result<(), OvsError>, OvsError> {
        self.groups.open().await?;
        self.left_out.retain(|_, since| since.elapsed() < LEFT_OUT);
        let ids: Vec<GroupId> = ids
            .iter()
            .copied()
            .filter(|id| !self.left_out.contains_key(id))
            .collect();
        let requests: Vec<Request> = ids.iter().copied().map(Request::Group).collect();
        let (mut answered, mut failed) = (0, None);
        let each = |Answer { request, result }| {
            answered += 1;
            match result {
                Ok(Reply::Groups(described)) => groups.extend(described),
                // A session answers every request with its own kind.
                Ok(_) => {}
                Err(error) => drop(failed.get_or_insert(OvsError::Request { request, error })),
            }
        };
        let asked = self.groups.ask(&requests, each).await;
        // Answers come in the order of the requests: the first without one is where the stream broke.
        if let (Err(OvsError::Session(error)), Some(id)) = (&asked, ids.get(answered)) {
            warn!(group = id.number(), %error, "the switch cannot describe this group; it may exceed 64 KiB");
            self.left_out.insert(*id, Instant::now());
        }
        asked?;
        Ok(failed.map_or(Ok(()), Err))
    }
}

impl Reading {
    fn add(&mut self, wanted: &[(Table, u8)], Answer { request, result }: Answer) -> Result<(), OvsError> {
        let flows = match result {
            Ok(Reply::Flows(flows)) => flows,
            // A session answers every request with its own kind.
            Ok(_) => return Ok(()),
            Err(error) => return Err(OvsError::Request { request, error }),
        };
        let asked = |(_, number): &&(Table, u8)| request == Request::Flows { table: *number };
        if let Some((table, _)) = wanted.iter().find(asked) {
            if is_counter(*table) {
                self.after = Instant::now();
            }
            self.description.tables.insert(*table, flows);
        }
        Ok(())
    }
}

fn is_counter(table: Table) -> bool {
    matches!(
        table,
        Table::EgressPodMetric | Table::IngressPodMetric | Table::EgressMetric | Table::IngressMetric
    )
}

/// The numbers of Antrea's tables, by a connection of their own: only OpenFlow 1.0 has names without a megabyte of
/// features around them.
async fn names(socket: &Path) -> Result<BTreeMap<Table, u8>, OvsError> {
    let mut connection = Connection::open(socket, Version::V10).await?;
    let mut entries: Result<Vec<TableEntry>, OvsError> = Ok(Vec::new());
    connection
        .ask(&[Request::Tables], |Answer { request, result }| match result {
            Ok(Reply::Tables(tables)) => entries = Ok(tables),
            Ok(_) => {}
            Err(error) => entries = Err(OvsError::Request { request, error }),
        })
        .await?;
    let mut tables = BTreeMap::new();
    for entry in entries? {
        if let Some(table) = Table::ALL.into_iter().find(|table| table.name() == entry.name) {
            tables.entry(table).or_insert(entry.id);
        }
    }
    Ok(tables)
}
