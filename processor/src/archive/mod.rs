//! The archive's operators' side: copying what is committed of the log into it, and checking it.
//!
//! What an archive is, and how it is read, is storage's. What is copied is what the generation that answers has committed:
//! it stays as it is.

mod command;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::{LogRef, PartitionId, Position};
use storage::log::archive::{
    Archive, ArchiveWriter, Found, LogName, Segment, WriteError, folder_of,
};
use storage::log::{LogReader, LogReaders, ReadError};
use storage::opening::OpenError;
use storage::store::{PartitionRef, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::again::{self, Away};
use crate::generations::of_log;

pub use command::{ArchiveArgs, archive_command};
pub(crate) use command::{CommandError, check_configured};

/// What is archived, and where to.
pub struct ArchiveParts {
    /// The log itself, without an archive before it.
    pub log: Arc<dyn LogReader>,
    /// Its topic, as the generation records it.
    pub topic: String,
    /// Says what is committed.
    pub store: Arc<dyn Store>,
    /// The archive's folder.
    pub dir: PathBuf,
}

impl ArchiveParts {
    /// Of one log, to its folder in the folder of the archives.
    ///
    /// # Errors
    /// When the log does not answer, or is not what it should be.
    pub async fn of(
        log: &LogRef,
        logs: &dyn LogReaders,
        store: &Arc<dyn Store>,
        dir: &Path,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            log: logs.open_alone(log).await?,
            topic: log.topic.clone(),
            store: Arc::clone(store),
            dir: folder_of(dir, log),
        })
    }
}

/// Why something is not archived. What is whole stays, and the same again goes on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A place does not answer: try again later.
    #[error("{0}")]
    Away(String),
    /// A place is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// The archive cannot be written on.
    #[error(transparent)]
    Write(WriteError),
}

impl Away for ArchiveError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Away(error.to_string()),
            StoreError::Corrupt(_) => Self::Wrong(error.to_string()),
        }
    }
}

impl From<ReadError> for ArchiveError {
    fn from(error: ReadError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<WriteError> for ArchiveError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Log(ReadError::Unavailable(_)) => Self::Away(error.to_string()),
            other => Self::Write(other),
        }
    }
}

/// How far it has come, for whoever watches it.
#[derive(Debug, Default)]
pub struct ArchiveProgress {
    of: AtomicU64,
    done: AtomicU64,
}

impl ArchiveProgress {
    /// Records archived or checked, and how many there are to be; of a check that is not known before.
    pub fn records(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// A check has come to a segment.
    fn looks_at(&self, segment: &Segment) {
        self.done.fetch_add(segment.end.0 - segment.first.0, Ordering::Relaxed);
    }
}

/// Copies everything that the generation that answers has committed and that is not in the archive yet; answers what is
/// in it then, partition by partition. If it is dropped, what is whole stays, and the same again goes on.
///
/// # Errors
/// When a place does not answer, however often it is asked, the archive is of another log, or there would be a gap.
pub async fn archive(
    parts: &ArchiveParts,
    progress: &ArchiveProgress,
) -> Result<Vec<Archived>, ArchiveError> {
    let committed = committed(parts).await?;
    let writer = ArchiveWriter::open(&parts.dir, LogName::of(&*parts.log, &parts.topic))?;
    let positions = committed.iter().map(|(_, position)| position.0).sum();
    progress.of.store(positions, Ordering::Relaxed);
    let (mut archived, mut before) = (Vec::new(), 0);
    for (partition, position) in committed {
        let from = AtomicU64::new(u64::MAX);
        let reached = |position: Position| {
            from.fetch_min(position.0, Ordering::Relaxed);
            progress.done.store(before + position.0, Ordering::Relaxed);
        };
        let write =
            || async { Ok(writer.write_on(&*parts.log, partition, position, reached).await?.end) };
        let end = again(write).await?;
        before += position.0;
        archived.push(Archived { partition, from: Position(from.into_inner()), end });
    }
    Ok(archived)
}

/// What is in an archive of one partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Of which.
    pub partition: PartitionId,
    /// Where it ended before.
    pub from: Position,
    /// Everything below is in it.
    pub end: Position,
}

/// For each partition how far the generation that answers has come.
async fn committed(parts: &ArchiveParts) -> Result<Vec<(PartitionId, Position)>, ArchiveError> {
    let roster = again(|| async { Ok(parts.store.roster().await?) }).await?;
    let roster =
        of_log(roster, &parts.topic, parts.log.partitions()).map_err(ArchiveError::Wrong)?;
    let mut committed = Vec::new();
    for partition in parts.log.partitions().partitions() {
        let id = PartitionRef { generation: roster.current.generation, partition };
        let stored = again(|| async { Ok(parts.store.read_partition(id).await?) }).await?;
        let position = stored.map_or(Position::START, |stored| stored.checkpoint.position);
        committed.push((partition, position));
    }
    Ok(committed)
}

/// Reads every segment of an archive, and compares it with its log, without the archive before it: where that begins
/// now, and that the archive ends in it. If it is dropped, it ends soon.
///
/// # Errors
/// When the log does not answer, however often it is asked.
pub async fn check_archive(
    log: &dyn LogReader,
    topic: &str,
    dir: &Path,
    progress: &Arc<ArchiveProgress>,
) -> Result<Found, ArchiveError> {
    let archive = Archive::new(dir, LogName::of(log, topic));
    let wanted = CancellationToken::new();
    let _dropped = wanted.clone().drop_guard();
    let mut whole = Found::default();
    for partition in log.partitions().partitions() {
        let low = again(|| async { Ok(log.bounds(partition).await?) }).await?.low;
        let (checking, progress, wanted) = (archive.clone(), Arc::clone(progress), wanted.clone());
        let checked = tokio::task::spawn_blocking(move || {
            checking.check(partition, low, |segments| {
                progress.looks_at(segments);
                !wanted.is_cancelled()
            })
        });
        let found = checked.await.map_err(|error| ArchiveError::Wrong(error.to_string()))?;
        let at_its_end =
            again(|| async { Ok(archive.fault_at_its_end(log, partition).await?) }).await?;
        whole.segments += found.segments;
        whole.records += found.records;
        whole.faults.extend(found.faults.into_iter().chain(at_its_end));
    }
    Ok(whole)
}

/// Asks a place that does not answer again.
async fn again<T, Asking: Future<Output = Result<T, ArchiveError>>>(
    ask: impl Fn() -> Asking,
) -> Result<T, ArchiveError> {
    again::again(ask).await
}
