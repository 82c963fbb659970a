//! The rows of one reading, kept up to date by `update2` notifications.
//!
//! It promises what the server promises: after each whole update the three tables are consistent with each other. After
//! an error it is half changed and has to be thrown away.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    error::DecodeError,
    value::{RowId, change_map, optional_integer, optional_string, string, toggle_references},
};

/// A bridge (`ovs-vswitchd.conf.db`(5), table Bridge).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeRow {
    /// Unique on the node, such as `br-int`.
    pub name: String,
    /// `system` (or empty), or `netdev` for the userspace datapath.
    pub datapath_type: String,
    /// Its ports.
    pub ports: BTreeSet<RowId>,
}

/// A port of a bridge (table Port).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRow {
    /// Unique on the node.
    pub name: String,
    /// Written by whoever made the port: with Antrea, the Pod's identity.
    pub external_ids: BTreeMap<String, String>,
    /// One, or several where the port is a bond.
    pub interfaces: BTreeSet<RowId>,
}

/// A network device in a port (table Interface).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceRow {
    /// The device's name in the switch's network namespace.
    pub name: String,
    /// OpenFlow port number; -1 when the switch could not open the device, absent until it tried.
    pub ofport: Option<i64>,
    /// The device's index; 0 or absent while the switch does not know it. The column is not kept over a restart of the
    /// database server: it comes again when the switch writes it.
    pub ifindex: Option<i64>,
    /// `internal`, `afxdp`, `vxlan`, ...; empty for an ordinary network device.
    pub kind: String,
    /// Why the switch could not open the device.
    pub error: Option<String>,
    /// The device's Ethernet address, the host side's for a veth.
    pub mac_in_use: Option<String>,
}

/// Bridge, Port and Interface rows of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    bridges: BTreeMap<RowId, BridgeRow>,
    ports: BTreeMap<RowId, PortRow>,
    interfaces: BTreeMap<RowId, InterfaceRow>,
}

/// What the store needs to know of a row type.
trait Row: Default {
    const TABLE: &'static str;
    /// Takes over one column: the whole value on a new row, the difference on a known one.
    fn apply(&mut self, column: &str, value: &Value) -> Result<(), DecodeError>;
}

impl Row for BridgeRow {
    const TABLE: &'static str = "Bridge";
    fn apply(&mut self, column: &str, value: &Value) -> Result<(), DecodeError> {
        match column {
            "name" => self.name = string(value)?,
            "datapath_type" => self.datapath_type = string(value)?,
            "ports" => toggle_references(&mut self.ports, value)?,
            _ => {}
        }
        Ok(())
    }
}

impl Row for PortRow {
    const TABLE: &'static str = "Port";
    fn apply(&mut self, column: &str, value: &Value) -> Result<(), DecodeError> {
        match column {
            "name" => self.name = string(value)?,
            "external_ids" => change_map(&mut self.external_ids, value)?,
            "interfaces" => toggle_references(&mut self.interfaces, value)?,
            _ => {}
        }
        Ok(())
    }
}

impl Row for InterfaceRow {
    const TABLE: &'static str = "Interface";
    fn apply(&mut self, column: &str, value: &Value) -> Result<(), DecodeError> {
        match column {
            "name" => self.name = string(value)?,
            "ofport" => self.ofport = optional_integer(value)?,
            "ifindex" => self.ifindex = optional_integer(value)?,
            "type" => self.kind = string(value)?,
            "error" => self.error = optional_string(value)?,
            "mac_in_use" => self.mac_in_use = optional_string(value)?,
            _ => {}
        }
        Ok(())
    }
}

impl Store {
    /// Applies a `table-updates2` object: the result of `monitor_cond` or the second parameter of `update2`.
    ///
    /// Unknown tables and columns are skipped.
    ///
    /// # Errors
    /// [`DecodeError`]; the store is half changed then and must not be used any more.
    pub fn apply(&mut self, updates: &Value) -> Result<(), DecodeError> {
        let Value::Object(tables) = updates else {
            return Err(DecodeError::Shape {
                what: "table updates",
                need: "an object",
            });
        };
        for (table, rows) in tables {
            match table.as_str() {
                BridgeRow::TABLE => apply_table(&mut self.bridges, rows)?,
                PortRow::TABLE => apply_table(&mut self.ports, rows)?,
                InterfaceRow::TABLE => apply_table(&mut self.interfaces, rows)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The bridge of that name.
    pub fn bridge(&self, name: &str) -> Option<&BridgeRow> {
        self.bridges.values().find(|bridge| bridge.name == name)
    }

    /// The names of all bridges, sorted.
    pub fn bridge_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.bridges.values().map(|bridge| bridge.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The bridge's ports, in the order of their row ids.
    pub fn ports_of<'a>(&'a self, bridge: &'a BridgeRow) -> impl Iterator<Item = &'a PortRow> {
        bridge.ports.iter().filter_map(|id| self.ports.get(id))
    }

    /// The port's interfaces, in the order of their row ids.
    pub fn interfaces_of<'a>(&'a self, port: &'a PortRow) -> impl Iterator<Item = &'a InterfaceRow> {
        port.interfaces.iter().filter_map(|id| self.interfaces.get(id))
    }
}

fn apply_table<R: Row>(table: &mut BTreeMap<RowId, R>, updates: &Value) -> Result<(), DecodeError> {
    let Value::Object(updates) = updates else {
        return Err(DecodeError::Shape {
            what: "table update",
            need: "an object",
        });
    };
    for (id, update) in updates {
        apply_row(table, RowId(id.clone()), update)?;
    }
    Ok(())
}

/// A row update has one member: `initial`, `insert`, `modify` (each a row) or `delete` (null).
fn apply_row<R: Row>(table: &mut BTreeMap<RowId, R>, id: RowId, update: &Value) -> Result<(), DecodeError> {
    let mut members = update.as_object().into_iter().flatten();
    let (Some((operation, row)), None) = (members.next(), members.next()) else {
        return Err(DecodeError::Shape {
            what: "row update",
            need: "an object of one member",
        });
    };
    match operation.as_str() {
        // Columns that are left out have their default: a new row begins empty, whatever was known.
        "initial" | "insert" => {
            let mut new = R::default();
            apply_columns(&mut new, columns(row)?)?;
            table.insert(id, new);
        }
        "modify" => {
            let known = table.get_mut(&id).ok_or(DecodeError::UnknownRow { table: R::TABLE })?;
            apply_columns(known, columns(row)?)?;
        }
        "delete" => {
            table.remove(&id).ok_or(DecodeError::UnknownRow { table: R::TABLE })?;
        }
        _ => {
            return Err(DecodeError::Shape {
                what: "row update",
                need: "initial, insert, modify or delete",
            });
        }
    }
    Ok(())
}

fn columns(row: &Value) -> Result<&Map<String, Value>, DecodeError> {
    row.as_object().ok_or(DecodeError::Shape {
        what: "row",
        need: "an object",
    })
}

fn apply_columns<R: Row>(row: &mut R, columns: &Map<String, Value>) -> Result<(), DecodeError> {
    columns.iter().try_for_each(|(column, value)| row.apply(column, value))
}
