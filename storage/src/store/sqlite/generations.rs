//! The generation registry, and progress reports of shadow partitions.

use rusqlite::{Connection, OptionalExtension};
use schemas::{Generation, GenerationRegistry, PartitionCount, PartitionReport};

use super::{Fault, outcome};
use crate::store::{CasOutcome, PartitionRef};

pub(super) fn registry(connection: &Connection) -> Result<Option<GenerationRegistry>, Fault> {
    let text: Option<String> =
        connection.query_row("SELECT roster FROM roster", [], |row| row.get(0)).optional()?;
    let damage = || Fault::Damage("the generation registry is damaged".to_owned());
    text.map(|text| GenerationRegistry::from_json(&text).ok_or_else(damage)).transpose()
}

pub(super) fn change(
    connection: &Connection,
    next: &GenerationRegistry,
) -> Result<CasOutcome, Fault> {
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
    Ok(outcome(changed))
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
        if let Some(slot) = reports.get_mut(partition as usize) {
            *slot = PartitionReport::from_json(&report);
        }
    }
    Ok(reports)
}
