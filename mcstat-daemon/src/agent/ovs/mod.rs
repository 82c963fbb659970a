//! The switch's own account: flows and groups of one bridge, read over its management socket.
//!
//! ```text
//!  <run dir>/<bridge>.mgmt ─┬─ OpenFlow 1.0, for a moment: table names ─▶ numbers
//!                           └─ OpenFlow 1.5, kept: flows, groups ─▶ Description ─▶ ledger::switch
//! ```
//! Promises: nothing that is sent can change the switch; a reading is whole or an error; a switch that is away is asked
//! again after 1 to 8 s, and [`Ovs::state`] says so meanwhile. It compares nothing: that is the ledger's part.

mod connection;
mod reconnect;
pub mod snooping;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::connection::Connection;
pub use self::reconnect::{Reconnect, State};
use crate::{
    ledger::switch::{Description, Table},
    proto::openflow::{Answer, Reply, Request, RequestError, SessionError, TableEntry, Version},
};

/// How long a reading may take. A switch that configures itself answers late; one that hangs, never.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long names hold on one connection: Antrea's agent may restart with other features and move its tables.
const NAMES_HOLD: Duration = Duration::from_secs(10);
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Just before the switch was asked.
    pub before: Instant,
    /// When the last table of counters was there.
    pub after: Instant,
    /// Which connection it came by, from 1. Another one may be another switch process, with other counters.
    pub connection: u64,
    /// The flows of the tables that the bridge has, and its groups.
    pub description: Description,
    /// Why `description` has no groups, when it has none for a reason. Counters hold without them.
    pub groups: Result<(), RequestError>,
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
    reconnect: Reconnect,
    connection: Option<Connection>,
    tables: BTreeMap<Table, u8>,
    /// When `tables` was read; `None` before that, and on a new connection.
    named: Option<Instant>,
}

impl Ovs {
    /// A reader of `bridge`; nothing is opened yet.
    pub fn new(run_dir: &Path, bridge: &str) -> Self {
        Self {
            socket: run_dir.join(format!("{bridge}.mgmt")),
            reconnect: Reconnect::default(),
            connection: None,
            tables: BTreeMap::new(),
            named: None,
        }
    }

    /// Whether the switch is there, and since when or until when.
    pub fn state(&self) -> State {
        self.reconnect.state()
    }

    /// Reads the bridge once; connects first when that is due. A reading that is dropped halfway costs the connection.
    ///
    /// # Errors
    /// [`OvsError`]. Only [`OvsError::Request`] leaves the connection as it is.
    pub async fn read(&mut self) -> Result<Reading, OvsError> {
        let now = Instant::now();
        if let Some(retry) = self.reconnect.wait(now) {
            return Err(OvsError::Away { retry });
        }
        // Out of its place until all is well: a future that is dropped must not leave half a reply behind.
        let kept = self.connection.take();
        let result = timeout(PATIENCE, self.read_by(kept))
            .await
            .unwrap_or(Err(OvsError::Silent));
        match result {
            Ok((connection, reading)) => {
                self.connection = Some(connection);
                reading
            }
            Err(error) => {
                let now = Instant::now();
                let retry = self.reconnect.lost(now).saturating_duration_since(now);
                warn!(%error, retry_seconds = retry.as_secs(), "the switch is away and its last state holds");
                Err(error)
            }
        }
    }

    /// The inner result is of a request; with it the connection lives on.
    async fn read_by(&mut self, kept: Option<Connection>) -> Result<(Connection, Result<Reading, OvsError>), OvsError> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(&self.socket, Version::V15).await?;
                self.named = None;
                self.reconnect.connected(Instant::now());
                info!(socket = %self.socket.display(), "reading the switch");
                connection
            }
        };
        if self.named.is_none_or(|named| named.elapsed() >= NAMES_HOLD) {
            let tables = names(&self.socket).await?;
            if self.tables != tables {
                debug!(?tables, "the bridge's tables");
            }
            self.tables = tables;
            self.named = Some(Instant::now());
        }
        let reading = self.ask(&mut connection).await?;
        Ok((connection, reading))
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Result<Reading, OvsError>, OvsError> {
        let wanted = ORDER
            .into_iter()
            .filter_map(|table| Some((table, *self.tables.get(&table)?)));
        let wanted: Vec<(Table, u8)> = wanted.collect();
        let mut requests: Vec<Request> = wanted
            .iter()
            .map(|(_, number)| Request::Flows { table: Some(*number) })
            .collect();
        if self.tables.contains_key(&Table::Routing) {
            requests.push(Request::Groups);
        }
        let before = Instant::now();
        let mut reading = Reading {
            before,
            after: before,
            connection: self.reconnect.connections(),
            description: Description::default(),
            groups: Ok(()),
        };
        let mut failed = None;
        connection
            .ask(&requests, |answer| {
                if let Err(error) = reading.add(&wanted, answer) {
                    failed.get_or_insert(error);
                }
            })
            .await?;
        Ok(failed.map_or(Ok(reading), Err))
    }
}

impl Reading {
    fn add(&mut self, wanted: &[(Table, u8)], Answer { request, result }: Answer) -> Result<(), OvsError> {
        match (request, result) {
            (Request::Flows { table }, Ok(Reply::Flows(flows))) => {
                // Two names of one number do not exist: they came from one list.
                if let Some((table, _)) = wanted.iter().find(|(_, number)| Some(*number) == table) {
                    if is_counter(*table) {
                        self.after = Instant::now();
                    }
                    self.description.tables.insert(*table, flows);
                }
                Ok(())
            }
            (Request::Groups, Ok(Reply::Groups(groups))) => {
                self.description.groups = groups;
                Ok(())
            }
            (Request::Groups, Err(error)) => {
                self.groups = Err(error);
                Ok(())
            }
            (request, Err(error)) => Err(OvsError::Request { request, error }),
            // A session answers every request with its own kind.
            (_, Ok(_)) => Ok(()),
        }
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
