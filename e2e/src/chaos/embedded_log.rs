//! A plain SQLite client of the embedded log.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};

use crate::kafka::LogRecord;

/// Number of partitions of the log in a data directory.
///
/// # Errors
/// When the database cannot be read.
pub fn partitions(data: &Path) -> Result<u32> {
    Ok(open(data)?.query_row("SELECT partition_count FROM log", [], |row| row.get(0))?)
}

/// Reads all records, ordered by partition and offset.
///
/// # Errors
/// When the database cannot be read.
pub fn read(data: &Path) -> Result<Vec<LogRecord>> {
    let log = open(data)?;
    let mut select = log.prepare(
        r#"SELECT partition, "offset", key, value FROM records ORDER BY partition, "offset""#,
    )?;
    let records = select.query_map([], |row| {
        Ok(LogRecord {
            partition: row.get(0)?,
            offset: row.get::<_, i64>(1)?.cast_unsigned(),
            key: row.get(2)?,
            value: row.get(3)?,
            headers: BTreeMap::new(),
        })
    })?;
    Ok(records.collect::<Result<_, _>>()?)
}

fn open(data: &Path) -> Result<Connection> {
    Ok(Connection::open_with_flags(data.join("log.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}
