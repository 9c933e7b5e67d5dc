//! Which budgets are closed in which partition of the embedded log, by the markers in it.
//!
//! The log refuses submissions to a closed budget: behind a close marker they would not count. So none is in the
//! submission index either, and a repeated id never gets the address of a record that does not count.
//!
//! The table is read once: each submission is checked in memory.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Transaction;
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

/// The latest marker of each budget in each partition, as the table has them.
#[derive(Debug, Default)]
pub(super) struct ClosedBudgets(BTreeMap<PartitionId, HashMap<String, Marker>>);

impl ClosedBudgets {
    /// Reads the table.
    pub fn read(transaction: &Transaction<'_>) -> rusqlite::Result<Self> {
        let mut markers = Self::default();
        let mut select = transaction
            .prepare("SELECT partition, budget, revision, is_closed FROM closed_budgets")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let kind = if row.get(3)? { MarkerKind::Close } else { MarkerKind::Reopen };
            let marker = Marker { kind, revision: row.get::<_, i64>(2)?.cast_unsigned() };
            markers.note(PartitionId(row.get(0)?), row.get_ref(1)?.as_str()?, marker);
        }
        Ok(markers)
    }

    /// Notes a marker, unless a later one is in the partition. What is noted in a transaction that fails is to be
    /// dropped.
    pub fn note(&mut self, partition: PartitionId, budget: &str, marker: Marker) {
        let markers = self.0.entry(partition).or_default();
        if markers.get(budget).is_none_or(|known| known.revision < marker.revision) {
            markers.insert(budget.to_owned(), marker);
        }
    }

    /// Whether a submission to the budget would stand behind a close marker.
    pub fn is_closed(&self, partition: PartitionId, budget: &str) -> bool {
        let latest = self.0.get(&partition).and_then(|markers| markers.get(budget));
        latest.is_some_and(|marker| marker.kind == MarkerKind::Close)
    }
}

/// Writes a marker that is appended into the table, unless a later one is in the partition.
pub(super) fn write_marker(
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
