//! Decides how far the embedded log may be trimmed, and has it trimmed.

use std::sync::Arc;

use generations::registry::require_active_log;
use schemas::{Generation, PartitionId, Position};
use storage::log::archive::{ArchiveWriter, LogName};
use storage::log::sqlite::SqliteLogTrimmer;
use storage::retry::retry;
use storage::store::PartitionRef;

use super::{ArchiveDeps, ArchiveError};
use crate::BackendError;
use crate::progress::Progress;

/// The log of one partition after it was trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// The partition.
    pub partition: PartitionId,
    /// Where the log began before.
    pub from: Position,
    /// Where the log begins now.
    pub low: Position,
}

/// Deletes from the log what its archive has and no takeover reads, and returns each partition's result. The progress
/// counts records.
///
/// A takeover reads from the position of the person rows, after the record before it. That holds for the active
/// generation and for the previous one, which a rollback takes over. If the future is dropped, the next call
/// continues.
///
/// # Errors
/// When a generation is being built, which reads the log from its first record, or the archive cannot replace the
/// records.
pub async fn trim(
    deps: &ArchiveDeps,
    log: &SqliteLogTrimmer,
    progress: &Arc<Progress>,
) -> Result<Vec<Trimmed>, ArchiveError> {
    let writer = ArchiveWriter::open(&deps.dir, LogName::of(&*deps.log, &deps.topic))?;
    let mut targets = Vec::new();
    for partition in deps.log.partitions().partitions() {
        targets.push((partition, trimmable_to(deps, partition).await?));
    }
    let store = log.clone();
    let synced = tokio::task::spawn_blocking(move || store.sync_store()).await;
    let unsynced =
        |error: String| BackendError::Unavailable(format!("the store cannot be synced: {error}"));
    synced
        .map_err(|error| unsynced(error.to_string()))?
        .map_err(|error| unsynced(error.to_string()))?;
    progress.set_done(0);
    progress.set_total(targets.iter().map(|(_, to)| to.0).sum());
    let (mut trimmed, mut before) = (Vec::new(), 0);
    for (partition, to) in targets {
        // A rebuild that began meanwhile reads the deleted records from the archive; stopping here only avoids
        // contention.
        generations_to_keep(deps).await?;
        let shown = Arc::clone(progress);
        let reached = move |low: Position| shown.set_done(before + low.0.min(to.0));
        let (from, low) = writer.trim(log.clone(), partition, to, reached).await?;
        before += to.0;
        progress.set_done(before);
        trimmed.push(Trimmed { partition, from, low });
    }
    Ok(trimmed)
}

/// Returns the position before which no takeover of a partition needs the log.
async fn trimmable_to(
    deps: &ArchiveDeps,
    partition: PartitionId,
) -> Result<Position, ArchiveError> {
    let mut needed = Position(u64::MAX);
    for generation in generations_to_keep(deps).await? {
        let id = PartitionRef { generation, partition };
        let stored = retry(|| deps.store.read_partition(id)).await?;
        let checkpoint = stored.map(|stored| stored.checkpoint);
        needed =
            needed.min(checkpoint.map_or(Position::START, |checkpoint| checkpoint.rows_position));
    }
    // The last folded record identifies the log: it is at the position before, if all rows are written.
    Ok(Position(needed.0.saturating_sub(1)))
}

/// Returns the generations whose partitions may be taken over: the active and the previous one.
async fn generations_to_keep(deps: &ArchiveDeps) -> Result<Vec<Generation>, ArchiveError> {
    let registry = retry(|| deps.store.registry()).await?;
    let registry = require_active_log(registry, &deps.topic, deps.log.partitions())
        .map_err(BackendError::Invalid)?;
    if !registry.not_understood.is_empty() {
        return Err(ArchiveError::NewerRegistry);
    }
    if let Some(building) = &registry.building {
        return Err(ArchiveError::Building(building.record.generation));
    }
    let previous = registry.previous.iter().map(|previous| previous.generation);
    Ok(std::iter::once(registry.active.generation).chain(previous).collect())
}
