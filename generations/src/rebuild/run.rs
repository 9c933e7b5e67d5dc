//! The steps of a rebuild: its targets, and waiting for the comparison.

use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{
    Building, Generation, GenerationRecord, GenerationRegistry, LogRef, PartitionId, Position,
};
use storage::log::{LogReader, ReadError};
use storage::store::{Store, StoreError};
use tokio::time::Instant;

use super::progress::{RebuildProgress, RebuildStage, measure};
use crate::registry::RegistryUpdateError;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Longest time for which stalled partitions are waited for.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a rebuild ended early. The generation is still built: another rebuild joins it.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The end of the log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A transition of the registry failed.
    #[error(transparent)]
    Change(#[from] RegistryUpdateError),
    /// The store is unavailable or holds damaged data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process cancelled the generation or switched to it.
    #[error("generation {0} was cancelled or made active by another process")]
    NoLongerBuilding(Generation),
    /// Either the building generation or this rebuild is a dry run, but not both.
    #[error("generation {0} is being built for another purpose: wait for it, or cancel it")]
    PurposeConflict(Generation),
    /// The log lost its first records and no archive holds them.
    #[error(
        "partition {0} of the log begins at {1}: earlier records are gone, and no archive holds them: set `archive.dir` \
         to the directory of its archive"
    )]
    LogTruncated(PartitionId, Position),
    /// Partitions made no progress for too long.
    #[error("the rebuild is stalled: {0}")]
    Stalled(String),
}

/// Whether a rebuild may join a building generation: it is on the active log, and a dry run as well, or not.
pub fn is_joinable(building: &Building, active_log: &LogRef, dry_run: bool) -> bool {
    building.dry_run == dry_run && building.record.log == *active_log
}

/// Reads the current end of every partition: the positions that a rebuild has to reach.
///
/// # Errors
/// When the log cannot be read, or its first records are gone.
pub async fn target_positions(log: &dyn LogReader) -> Result<Vec<Position>, RebuildError> {
    let mut targets = Vec::new();
    for partition in log.partitions().partitions() {
        let bounds = log.bounds(partition).await?;
        if bounds.low > Position::START {
            return Err(RebuildError::LogTruncated(partition, bounds.low));
        }
        targets.push(bounds.high);
    }
    Ok(targets)
}

/// Waits until every partition is compared, and returns the number of records and the differences.
///
/// # Errors
/// When the generation is no longer being built, is stalled, or the store holds damaged data.
pub async fn wait_until_compared(
    store: &dyn Store,
    record: &GenerationRecord,
    active: Generation,
    targets: &[Position],
    on_progress: impl Fn(&RebuildProgress),
) -> Result<(u64, Vec<String>), RebuildError> {
    let mut stalled_since = None;
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let reports = match store.reports(record.generation, record.log.partitions).await {
            Ok(reports) => reports,
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        ensure_still_building(store, record.generation).await?;
        let progress = measure(targets, &reports, active, now_ms());
        on_progress(&progress);
        match progress.stage {
            RebuildStage::Compared(differences) => return Ok((progress.total, differences)),
            RebuildStage::InProgress if progress.stall_reasons.is_empty() => stalled_since = None,
            RebuildStage::InProgress => {
                let since = *stalled_since.get_or_insert_with(Instant::now);
                if since.elapsed() > STALL_TIMEOUT {
                    return Err(RebuildError::Stalled(progress.stall_reasons.join("; ")));
                }
            }
        }
    }
}

async fn ensure_still_building(
    store: &dyn Store,
    generation: Generation,
) -> Result<(), RebuildError> {
    match store.registry().await {
        Ok(Some(GenerationRegistry { building: Some(building), .. }))
            if building.record.generation == generation =>
        {
            Ok(())
        }
        Ok(_) => Err(RebuildError::NoLongerBuilding(generation)),
        // The next poll reads it again.
        Err(StoreError::Unavailable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
