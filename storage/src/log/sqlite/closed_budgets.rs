//! Which budgets are closed in which partition of the embedded log, by the markers in it.
//!
//! The log refuses submissions to a closed budget: behind a close marker they would not count. So none is in the submission
//! index either, and a repeated id never gets the address of a record that does not count.

use rusqlite::{OptionalExtension, Transaction};
use schemas::{Marker, MarkerKind, PartitionId};

/// Created together with the submission index.
pub(super) const TABLE: &str = r#"
    CREATE TABLE IF NOT EXISTS closed_budgets (
        partition INTEGER NOT NULL,
        budget TEXT NOT NULL,
        revision INTEGER NOT NULL,
        is_closed INTEGER NOT NULL,
        PRIMARY KEY (partition, budget)
    ) STRICT, WITHOUT ROWID;
"#;

/// Notes a marker that is appended, unless a later one is in the partition.
pub(super) fn note_marker(
    transaction: &Transaction<'_>,
    partition: PartitionId,
    budget: &str,
    marker: Marker,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO closed_budgets (partition, budget, revision, is_closed)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (partition, budget) DO UPDATE
             SET revision = excluded.revision, is_closed = excluded.is_closed
             WHERE excluded.revision > revision",
        )?
        .execute((
            partition.0,
            budget,
            marker.revision.cast_signed(),
            marker.kind == MarkerKind::Close,
        ))
        .map(drop)
}

/// Whether a submission to the budget would stand behind a close marker.
pub(super) fn is_closed(
    transaction: &Transaction<'_>,
    partition: PartitionId,
    budget: &str,
) -> rusqlite::Result<bool> {
    let found = transaction
        .prepare_cached(
            "SELECT is_closed FROM closed_budgets WHERE partition = ?1 AND budget = ?2",
        )?
        .query_row((partition.0, budget), |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(false))
}
