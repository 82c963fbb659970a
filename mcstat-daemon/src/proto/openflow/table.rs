//! Table statistics of OpenFlow 1.0 (OFPST_TABLE, §5.3.5), for their names: 64 bytes a table, of which the counters are
//! left alone.

use super::{super::cursor::Reader, error::DecodeError};

/// Length of a name, filled up with NUL.
const NAME: usize = 32;
/// Wildcards, sizes and counters after the name.
const COUNTERS: usize = 28;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its number.
    pub id: u8,
    /// Its name; empty when nobody gave it one.
    pub name: String,
}

/// Appends every table of one part of a reply.
///
/// # Errors
/// [`DecodeError`]; tables before the wrong one are in `tables` then.
pub fn decode_tables(part: &[u8], tables: &mut Vec<TableEntry>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(part);
    while !reader.rest().is_empty() {
        let [id, ..]: [u8; 4] = reader.array("table")?;
        let name: [u8; NAME] = reader.array("table")?;
        reader.take(COUNTERS, "table")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
        tables.push(TableEntry {
            id,
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(())
}
