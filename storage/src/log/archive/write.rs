//! Extends an archive: copies each partition's records from the end of its last segment.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas::{Offset, PartitionId, Position};
use tokio::sync::Mutex;

use super::segment::SegmentWriter;
use super::{Archive, LogName, Segment, SegmentFault};
use crate::log::{LogBounds, LogReader, ReadError, RecordBatch};

/// A segment is finished once its records reach this size, before compression.
const SEGMENT_BYTES: u64 = 64 << 20;
const LOCK_FILE: &str = "archive.lock";

/// Why an archive could not be extended.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveWriteError {
    /// The log is unavailable, or lacks records.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A segment is damaged, or belongs to another log.
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    /// The directory cannot be read or written.
    #[error("the archive in {dir} cannot be written: {reason}")]
    Disk {
        /// The archive's directory.
        dir: PathBuf,
        /// The operating system's error.
        reason: io::Error,
    },
    /// Another process writes to the archive.
    #[error("another process writes to the archive in {0}")]
    InUse(PathBuf),
    /// The log was truncated beyond the archive's end.
    #[error(
        "partition {partition}: the archive ends at {end}, and the log begins at {low}: the records between are lost"
    )]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The archive's end.
        end: Position,
        /// The log's first position.
        low: Position,
    },
    /// Segments are missing from the archive.
    #[error("partition {partition}: the archive has no records {from}..{to}")]
    Broken {
        /// The partition.
        partition: PartitionId,
        /// The first missing position.
        from: Position,
        /// The first position of the next segment.
        to: Position,
    },
    /// The log was recreated since it was archived.
    #[error("partition {partition}: the log was recreated since it was archived: {reason}")]
    OtherLog {
        /// The partition.
        partition: PartitionId,
        /// How the log contradicts the archive.
        reason: String,
    },
    /// A bug: a task panicked.
    #[error("writing the archive failed: {0}")]
    Failed(String),
}

/// The archive of one partition after an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivedPartition {
    /// The archive's end: it has all records before this position.
    pub end: Position,
    /// Number of new records.
    pub records: u64,
    /// Number of new segments.
    pub segments: u64,
}

/// Writes an archive, and locks it against other writers.
pub struct ArchiveWriter {
    pub(super) archive: Archive,
    segment_bytes: u64,
    /// Also held by each running blocking task, which outlives a dropped writer.
    lock: Arc<Mutex<File>>,
}

impl ArchiveWriter {
    /// Creates the directory if it is missing, readable by its owner only, and locks it.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process has locked it.
    pub fn open(dir: &Path, log: LogName) -> Result<Self, ArchiveWriteError> {
        let disk = |reason| ArchiveWriteError::Disk { dir: dir.to_owned(), reason };
        create_dir(dir).map_err(disk)?;
        let lock = File::create(dir.join(LOCK_FILE)).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ArchiveWriteError::InUse(dir.to_owned())),
            Err(TryLockError::Error(reason)) => return Err(disk(reason)),
        }
        let archive = Archive::new(dir, log);
        Ok(Self { archive, segment_bytes: SEGMENT_BYTES, lock: Arc::new(Mutex::new(lock)) })
    }

    /// Sets the size at which a segment is finished.
    #[must_use]
    pub fn with_segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Returns the archive, for reading.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Copies a partition's records from the archive's end up to `to`.
    ///
    /// `to` must be in the log, and `log` must be the log without its archive. Calls `on_progress` with the position
    /// reached, first with the archive's end. If the future is dropped, finished segments stay, and the next call
    /// continues after them.
    ///
    /// # Errors
    /// When there is a gap, the archive belongs to another log, or the log or the directory is unavailable.
    pub async fn extend_from_log(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
        to: Position,
        on_progress: impl Fn(Position),
    ) -> Result<ArchivedPartition, ArchiveWriteError> {
        let end = self.archived_end(log, partition).await?;
        let mut archived = ArchivedPartition { end, records: 0, segments: 0 };
        on_progress(end);
        let mut batches = log.read(partition, end..to);
        let mut segment = None;
        while archived.end < to {
            let ended = || ReadError::Unavailable("the log's stream ended early".to_owned());
            let batch = batches.recv().await.ok_or_else(ended)??;
            archived.records += batch.len() as u64;
            archived.end = batch.end().unwrap_or(archived.end);
            let finished;
            (segment, finished) = self.write_batch(segment, batch, to).await?;
            archived.segments += finished;
            on_progress(archived.end);
        }
        Ok(archived)
    }

    /// Returns the archive's end, after checking that the log continues there.
    async fn archived_end(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
    ) -> Result<Position, ArchiveWriteError> {
        let archive = self.archive.clone();
        let segments = self.blocking(move || archive.segments(partition)).await?;
        let end = contiguous_end(partition, &segments)?;
        let bounds = log.bounds(partition).await?;
        if bounds.low > end {
            return Err(ArchiveWriteError::Gap { partition, end, low: bounds.low });
        }
        if let Some(last) = segments.into_iter().next_back() {
            self.archive.check_tail(log, last, bounds).await?;
        }
        Ok(end)
    }

    /// Writes a batch's records. Returns the unfinished segment, and the number of segments that were finished.
    async fn write_batch(
        &self,
        mut segment: Option<SegmentWriter>,
        batch: RecordBatch,
        to: Position,
    ) -> Result<(Option<SegmentWriter>, u64), ArchiveWriteError> {
        let Archive { dir, log } = self.archive.clone();
        let segment_bytes = self.segment_bytes;
        self.blocking(move || {
            let mut finished = 0;
            for record in batch.iter() {
                let mut open = match segment.take() {
                    Some(open) => open,
                    None => {
                        let first = Position(record.offset.0);
                        SegmentWriter::begin(&dir, &log, batch.partition(), first)?
                    }
                };
                open.push(record)?;
                if open.bytes() >= segment_bytes || record.offset.next() >= to {
                    open.finish()?;
                    finished += 1;
                } else {
                    segment = Some(open);
                }
            }
            Ok((segment, finished))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveWriteError> {
        self.locked(work).await?.map_err(|reason| self.archive.disk_error(reason))
    }

    /// Runs blocking work, during which the archive stays locked.
    pub(super) async fn locked<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ArchiveWriteError> {
        let lock = Arc::clone(&self.lock).lock_owned().await;
        // The result comes first: if this future was dropped, the result is dropped before the lock is released.
        match tokio::task::spawn_blocking(move || (work(), lock)).await {
            Ok((result, _lock)) => Ok(result),
            Err(error) => Err(ArchiveWriteError::Failed(error.to_string())),
        }
    }
}

/// Creates a directory that only its owner can open, and those above it. Durably: records of the log are deleted
/// because the archive has them.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    create_dir(above)?;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// Returns the end of a partition's segments, which must begin at the log's first position and have no gap.
pub(super) fn contiguous_end(
    partition: PartitionId,
    segments: &[Segment],
) -> Result<Position, ArchiveWriteError> {
    let mut end = Position::START;
    for Segment { first, end: next, .. } in segments {
        if *first != end {
            return Err(ArchiveWriteError::Broken { partition, from: end, to: *first });
        }
        end = *next;
    }
    Ok(end)
}

impl Archive {
    pub(super) fn disk_error(&self, reason: io::Error) -> ArchiveWriteError {
        ArchiveWriteError::Disk { dir: self.dir.clone(), reason }
    }

    /// Checks that the log continues the archive: the log reaches the archive's end and has the same last record. A log
    /// that was truncated beyond that record is not compared.
    pub(super) async fn check_tail(
        &self,
        log: &dyn LogReader,
        last: Segment,
        bounds: LogBounds,
    ) -> Result<(), ArchiveWriteError> {
        let (partition, end) = (last.partition, last.end);
        if bounds.high < end {
            let reason = format!("it ends at {}, and the archive at {end}", bounds.high);
            return Err(ArchiveWriteError::OtherLog { partition, reason });
        }
        let offset = Offset(end.0 - 1);
        let name = self.log.clone();
        let read = tokio::task::spawn_blocking(move || last_record(&last, &name));
        let archived =
            read.await.map_err(|error| ArchiveWriteError::Failed(error.to_string()))??;
        if bounds.low.includes(offset) {
            return Ok(());
        }
        let mut batches = log.read(partition, Position(offset.0)..end);
        let batch = batches.recv().await.ok_or(ReadError::Missing(Position(offset.0)))??;
        let same = batch.iter().any(|record| {
            record.offset == offset && (record.key, record.value) == (&archived.0, &archived.1)
        });
        if same {
            return Ok(());
        }
        let reason = format!("another record is at offset {offset}");
        Err(ArchiveWriteError::OtherLog { partition, reason })
    }
}

/// Returns key and value of a segment's last record.
fn last_record(segment: &Segment, log: &LogName) -> Result<(Vec<u8>, Vec<u8>), SegmentFault> {
    let mut records = segment.open(log)?;
    let mut last = (Vec::new(), Vec::new());
    while let Some(record) = records.next()? {
        last.0.clear();
        last.0.extend_from_slice(record.key);
        last.1.clear();
        last.1.extend_from_slice(record.value);
    }
    Ok(last)
}
