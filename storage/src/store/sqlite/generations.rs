//! Which generations there are, and what is said of those that are folded beside the one that answers.

use rusqlite::{Connection, OptionalExtension};
use schemas::{Generation, PartitionCount, PartitionReport, Roster};

use super::Fault;
use crate::store::{Conditional, PartitionRef};

pub(super) fn roster(connection: &Connection) -> Result<Option<Roster>, Fault> {
    let text: Option<String> =
        connection.query_row("SELECT roster FROM roster", [], |row| row.get(0)).optional()?;
    let damage = || Fault::Damage("the roster of generations is none".to_owned());
    text.map(|text| Roster::from_json(&text).ok_or_else(damage)).transpose()
}

pub(super) fn change(connection: &Connection, next: &Roster) -> Result<Conditional, Fault> {
    let values = (next.revision.cast_signed(), next.to_json());
    let changed = if next.revision == 1 {
        connection.execute(
            "INSERT INTO roster (id, revision, roster) VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING",
            values,
        )?
    } else {
        connection.execute(
            "UPDATE roster SET revision = ?1, roster = ?2 WHERE revision = ?1 - 1",
            values,
        )?
    };
    Ok(if changed == 1 { Conditional::Applied } else { Conditional::Refused })
}

pub(super) fn write_report(
    connection: &Connection,
    partition: PartitionRef,
    report: &str,
) -> Result<(), Fault> {
    connection.execute(
        "INSERT OR REPLACE INTO partition_reports (generation, partition, report) VALUES (?1, ?2, ?3)",
        (partition.generation.0, partition.partition.0, report),
    )?;
    Ok(())
}

pub(super) fn reports(
    connection: &Connection,
    generation: Generation,
    partitions: PartitionCount,
) -> Result<Vec<Option<PartitionReport>>, Fault> {
    let mut select = connection
        .prepare("SELECT partition, report FROM partition_reports WHERE generation = ?1")?;
    let mut rows = select.query([generation.0])?;
    let mut reports = vec![None; partitions.get() as usize];
    while let Some(row) = rows.next()? {
        let (partition, report): (u32, String) = (row.get(0)?, row.get(1)?);
        if let Some(place) = reports.get_mut(partition as usize) {
            *place = PartitionReport::from_json(&report);
        }
    }
    Ok(reports)
}
