//! Copies the committed part of the log to the archive, and checks an archive against its log.
//!
//! `storage` owns the archive's format and its reader. Only records below the active generation's committed positions
//! are copied. [`trim()`] deletes from the embedded log what the archive has.

mod trim;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::{Generation, LogRef, PartitionId, Position};
use storage::log::archive::{
    Archive, ArchiveCheckReport, ArchiveWriteError, ArchiveWriter, LogName, TrimError,
    archive_dir_for,
};
use storage::log::{LogReader, LogReaderOpener, ReadError};
use storage::open_error::OpenError;
use storage::store::{PartitionRef, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::BackendError;
use crate::progress::Progress;
use generations::registry::require_active_log;
use storage::retry::{Transient, retry};

pub use trim::{Trimmed, trim};

/// The dependencies of archiving one log.
pub struct ArchiveDeps {
    /// Reads the log without its archive.
    pub log: Arc<dyn LogReader>,
    /// The log's topic, as recorded in the generation registry.
    pub topic: String,
    /// Reads the registry and the committed positions.
    pub store: Arc<dyn Store>,
    /// Directory of this log's archive.
    pub dir: PathBuf,
}

impl ArchiveDeps {
    /// Opens a log, whose archive is a subdirectory of `dir`.
    ///
    /// # Errors
    /// When the log is unavailable or invalid.
    pub async fn of(
        log: &LogRef,
        logs: &dyn LogReaderOpener,
        store: &Arc<dyn Store>,
        dir: &Path,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            log: logs.open_without_archive(log).await?,
            topic: log.topic.clone(),
            store: Arc::clone(store),
            dir: archive_dir_for(dir, log),
        })
    }
}

/// Why archiving failed. Complete segments stay, and the next run continues after them.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log or the store is unavailable, or holds data that cannot be archived.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The archive cannot be extended.
    #[error(transparent)]
    Write(ArchiveWriteError),
    /// The log cannot be trimmed.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// A rebuild reads the log from its first record.
    #[error(
        "the log is not trimmed while generation {0} is built: wait for it (`jobs list`), or cancel it \
         (`generations cancel`), then repeat the command"
    )]
    Building(Generation),
    /// A newer release has written the generation registry, and this one does not understand all of it.
    #[error("a newer release has written the generation registry: trim the log with that release")]
    NewerRegistry,
}

impl Transient for ArchiveError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Backend(error) if error.is_transient())
    }
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self::Backend(error.into())
    }
}

impl From<ReadError> for ArchiveError {
    fn from(error: ReadError) -> Self {
        ArchiveWriteError::from(error).into()
    }
}

impl From<ArchiveWriteError> for ArchiveError {
    fn from(error: ArchiveWriteError) -> Self {
        match error {
            ArchiveWriteError::Log(ReadError::Unavailable(_)) => {
                BackendError::Unavailable(error.to_string()).into()
            }
            other => Self::Write(other),
        }
    }
}

/// Copies the committed records that the archive lacks, and returns each partition's result. The progress counts
/// records.
///
/// Committed means committed by the active generation. If the future is dropped, complete segments stay, and the next
/// call continues after them.
///
/// # Errors
/// When the log or the store stays unavailable after all retries, the archive belongs to another log, or there would be
/// a gap.
pub async fn archive(
    deps: &ArchiveDeps,
    progress: &Progress,
) -> Result<Vec<Archived>, ArchiveError> {
    let committed = committed(deps).await?;
    let writer = ArchiveWriter::open(&deps.dir, LogName::of(&*deps.log, &deps.topic))?;
    progress.set_total(committed.iter().map(|(_, position)| position.0).sum());
    let (mut archived, mut before) = (Vec::new(), 0);
    for (partition, position) in committed {
        let from = AtomicU64::new(u64::MAX);
        let reached = |position: Position| {
            from.fetch_min(position.0, Ordering::Relaxed);
            progress.set_done(before + position.0);
        };
        let write = || async {
            Ok::<_, ArchiveError>(
                writer.extend_from_log(&*deps.log, partition, position, reached).await?.end,
            )
        };
        let end = retry(write).await?;
        before += position.0;
        archived.push(Archived { partition, from: Position(from.into_inner()), end });
    }
    Ok(archived)
}

/// The archived records of one partition after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// The archived partition.
    pub partition: PartitionId,
    /// Where the archive ended before the run.
    pub from: Position,
    /// Where the archive ends now: every record below is in it.
    pub end: Position,
}

/// Reads the active generation's committed position of each partition.
async fn committed(deps: &ArchiveDeps) -> Result<Vec<(PartitionId, Position)>, ArchiveError> {
    let registry = retry(|| deps.store.registry()).await?;
    let registry = require_active_log(registry, &deps.topic, deps.log.partitions())
        .map_err(BackendError::Invalid)?;
    let mut committed = Vec::new();
    for partition in deps.log.partitions().partitions() {
        let id = PartitionRef { generation: registry.active.generation, partition };
        let stored = retry(|| deps.store.read_partition(id)).await?;
        let position = stored.map_or(Position::START, |stored| stored.checkpoint.position);
        committed.push((partition, position));
    }
    Ok(committed)
}

/// Reads every segment of an archive, and compares the archive with its log. The progress counts records; their total
/// is unknown.
///
/// The archive must reach the log's first retained record and end inside the log. If the future is dropped, the reading
/// thread stops after the current segment.
///
/// # Errors
/// When the log stays unavailable after all retries.
pub async fn check_archive(
    log: &dyn LogReader,
    topic: &str,
    dir: &Path,
    progress: &Arc<Progress>,
) -> Result<ArchiveCheckReport, ArchiveError> {
    let archive = Archive::new(dir, LogName::of(log, topic));
    let wanted = CancellationToken::new();
    let _dropped = wanted.clone().drop_guard();
    let mut report = ArchiveCheckReport::default();
    for partition in log.partitions().partitions() {
        let low = retry(|| log.bounds(partition)).await?.low;
        let (checking, progress, wanted) = (archive.clone(), Arc::clone(progress), wanted.clone());
        let checked = tokio::task::spawn_blocking(move || {
            checking.check(partition, low, |segment| {
                progress.add_done(segment.end.0 - segment.first.0);
                !wanted.is_cancelled()
            })
        });
        let found = checked.await.map_err(|error| BackendError::Invalid(error.to_string()))?;
        let tail_fault =
            retry(|| async { Ok::<_, ArchiveError>(archive.tail_mismatch(log, partition).await?) })
                .await?;
        report.segments += found.segments;
        report.records += found.records;
        report.faults.extend(found.faults.into_iter().chain(tail_fault));
    }
    Ok(report)
}
