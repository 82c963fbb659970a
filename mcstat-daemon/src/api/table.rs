//! `meta.k8s.io` Tables: columns as data, and one row of cells per object.
//!
//! The server makes the cells, so kubectl and `mcstat get` show the same. A number is a JSON number, so that clients
//! can sort; what was not measured is the string `-`, never 0. Ages are as of a time given by the caller. No I/O.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{resource::Object, stats::Metadata};
use crate::render::age;

/// What a cell says when nothing was measured.
pub const NOT_MEASURED: &str = "-";

/// A list of objects as cells (`meta.k8s.io/v1`, kind `Table`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// `Table`.
    pub kind: String,
    /// `meta.k8s.io/v1`, or `v1beta1` for old clients; the shape is the same.
    pub api_version: String,
    /// resourceVersion of the list.
    #[serde(default)]
    pub metadata: ListMetadata,
    /// One entry per cell of a row.
    #[serde(default)]
    pub column_definitions: Vec<ColumnDefinition>,
    /// One per object.
    #[serde(default)]
    pub rows: Vec<Row>,
}

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// Publish time in milliseconds of the newest object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnDefinition {
    /// Heading; kubectl prints it in capitals.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `date`. A hint only: `-` stands in any column.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format, `name` for the column that identifies the object.
    pub format: String,
    /// One sentence.
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// The cells of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// One value per column.
    pub cells: Vec<Value>,
    /// The object, its metadata or nothing, as asked for with `includeObject`.
    #[serde(default)]
    pub object: Value,
}

/// How much of each object a Table carries (`includeObject`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing but the cells.
    None,
    /// `PartialObjectMetadata`: what kubectl needs for `-A`, `-L` and `--show-labels`.
    #[default]
    Metadata,
    /// The whole object: what kubectl needs for `--sort-by`.
    Object,
}

impl Table {
    /// A Table of these objects, ages as of `now`. `version` is `v1` or `v1beta1`.
    #[must_use]
    pub fn new<'a, T: Object>(
        objects: impl Iterator<Item = &'a T>,
        version: &str,
        include: IncludeObject,
        resource_version: Option<String>,
        now: Timestamp,
    ) -> Self {
        let api_version = format!("meta.k8s.io/{version}");
        let rows = objects
            .map(|object| Row {
                cells: T::COLUMNS.iter().map(|column| (column.cell)(object, now)).collect(),
                object: included(object, include, &api_version),
            })
            .collect();
        Self {
            kind: "Table".to_owned(),
            api_version,
            metadata: ListMetadata { resource_version },
            column_definitions: T::COLUMNS.iter().map(Column::definition).collect(),
            rows,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartialObjectMetadata<'a> {
    kind: &'static str,
    api_version: &'a str,
    metadata: &'a Metadata,
}

fn included<T: Object>(object: &T, include: IncludeObject, api_version: &str) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => {
            json!(PartialObjectMetadata {
                kind: "PartialObjectMetadata",
                api_version,
                metadata: object.metadata()
            })
        }
        IncludeObject::Object => json!(object),
    }
}

/// OpenAPI type of a column of whole numbers.
pub const INTEGER: &str = "integer";
/// OpenAPI type of a column of numbers.
pub const NUMBER: &str = "number";
/// Type of a column of times, as Antrea says it.
pub const DATE: &str = "date";
/// OpenAPI type of a column of text.
pub const STRING: &str = "string";

/// One column of the Table of `T`: what it is called and how its cell is made.
#[derive(Debug)]
pub struct Column<T: 'static> {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    wide: bool,
    description: &'static str,
    cell: fn(&T, Timestamp) -> Value,
}

impl<T> Column<T> {
    /// The column that identifies the object.
    pub const fn name(name: &'static str, description: &'static str, cell: fn(&T, Timestamp) -> Value) -> Self {
        Self {
            format: "name",
            ..Self::shown(name, STRING, description, cell)
        }
    }

    /// A column that is always shown.
    pub const fn shown(
        name: &'static str,
        kind: &'static str,
        description: &'static str,
        cell: fn(&T, Timestamp) -> Value,
    ) -> Self {
        Self {
            name,
            kind,
            format: "",
            wide: false,
            description,
            cell,
        }
    }

    /// A column that `-o wide` adds.
    pub const fn wide(
        name: &'static str,
        kind: &'static str,
        description: &'static str,
        cell: fn(&T, Timestamp) -> Value,
    ) -> Self {
        Self {
            wide: true,
            ..Self::shown(name, kind, description, cell)
        }
    }

    fn definition(&self) -> ColumnDefinition {
        ColumnDefinition {
            name: self.name.to_owned(),
            kind: self.kind.to_owned(),
            format: if self.kind == INTEGER { "int64" } else { self.format }.to_owned(),
            description: self.description.to_owned(),
            priority: self.wide.into(),
        }
    }
}

/// The value, or `-`.
pub(super) fn cell<S: Serialize>(value: Option<S>) -> Value {
    value.map_or_else(|| json!(NOT_MEASURED), |value| json!(value))
}

/// The age of `then` at `now`, or `-`.
pub(super) fn age_cell(then: Option<Timestamp>, now: Timestamp) -> Value {
    cell(then.map(|then| age::since(then, now)))
}
