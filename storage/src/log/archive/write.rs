//! Writing an archive on: each partition from where its last segment ends.

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

/// A segment is closed once it has so many bytes of records, before they are compressed.
const SEGMENT_BYTES: u64 = 64 << 20;
const LOCK_FILE: &str = "archive.lock";

/// Why an archive cannot be written on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The log does not answer, or not as it should.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// What is in the archive is not as it should be.
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    /// The folder cannot be used.
    #[error("the archive in {dir} cannot be written: {reason}")]
    Disk {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Somebody else writes to it.
    #[error("another process writes to the archive in {0}")]
    InUse(PathBuf),
    /// What comes after it is gone from the log.
    #[error(
        "partition {partition}: the archive ends at {end}, and the log begins at {low}: what was between is gone"
    )]
    Gap {
        /// Of which partition.
        partition: PartitionId,
        /// Where the archive ends.
        end: Position,
        /// Where the log begins.
        low: Position,
    },
    /// Something in the middle is missing.
    #[error("partition {partition}: the archive has no records {from}..{to}")]
    Broken {
        /// Of which partition.
        partition: PartitionId,
        /// Where they would begin.
        from: Position,
        /// Where it goes on.
        to: Position,
    },
    /// The archive is of what this log was before it was created anew.
    #[error("partition {partition}: the log was created anew since it was archived: {reason}")]
    OtherLog {
        /// Of which partition.
        partition: PartitionId,
        /// By what that is seen.
        reason: String,
    },
    /// A bug.
    #[error("writing the archive failed: {0}")]
    Failed(String),
}

/// What is in an archive of one partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Everything below.
    pub end: Position,
    /// Records that are new in it.
    pub records: u64,
    /// Segments that are new in it.
    pub segments: u64,
}

/// An archive that nobody else writes to.
pub struct ArchiveWriter {
    archive: Archive,
    segment_bytes: u64,
    /// Also held by whatever is being written: who is dropped in the middle does not end that.
    lock: Arc<Mutex<File>>,
}

impl ArchiveWriter {
    /// Takes the folder, which is made if it is not there, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be used, or somebody else uses it.
    pub fn open(dir: &Path, log: LogName) -> Result<Self, WriteError> {
        let disk = |reason| WriteError::Disk { dir: dir.to_owned(), reason };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk)?;
        let lock = File::create(dir.join(LOCK_FILE)).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::InUse(dir.to_owned())),
            Err(TryLockError::Error(reason)) => return Err(disk(reason)),
        }
        let archive = Archive::new(dir, log);
        Ok(Self { archive, segment_bytes: SEGMENT_BYTES, lock: Arc::new(Mutex::new(lock)) })
    }

    /// With smaller or larger segments.
    #[must_use]
    pub fn with_segments_of(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// The archive that is written.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Copies a partition's records from where the archive ends up to `to`, which has to be in the log. `log` has to be
    /// the log itself. `reached` is told how far it is, from the beginning on. If it is dropped, what is whole stays, and
    /// the same again goes on.
    ///
    /// # Errors
    /// When there is a gap, the archive is of another log, or one of both cannot be used.
    pub async fn write_on(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
        to: Position,
        reached: impl Fn(Position),
    ) -> Result<Archived, WriteError> {
        let end = self.end(log, partition).await?;
        let mut archived = Archived { end, records: 0, segments: 0 };
        reached(end);
        let mut batches = log.read(partition, end..to);
        let mut segment = None;
        while archived.end < to {
            let ended = || ReadError::Unavailable("the log is read no more".to_owned());
            let batch = batches.recv().await.ok_or_else(ended)??;
            archived.records += batch.len() as u64;
            archived.end = batch.end().unwrap_or(archived.end);
            let whole;
            (segment, whole) = self.take(segment, batch, to).await?;
            archived.segments += whole;
            reached(archived.end);
        }
        Ok(archived)
    }

    /// Where the archive ends, if the log goes on there.
    async fn end(
        &self,
        log: &dyn LogReader,
        partition: PartitionId,
    ) -> Result<Position, WriteError> {
        let archive = self.archive.clone();
        let segments = self.blocking(move || archive.segments(partition)).await?;
        let mut end = Position::START;
        for Segment { first, end: next, .. } in &segments {
            if *first != end {
                return Err(WriteError::Broken { partition, from: end, to: *first });
            }
            end = *next;
        }
        let bounds = log.bounds(partition).await?;
        if bounds.low > end {
            return Err(WriteError::Gap { partition, end, low: bounds.low });
        }
        if let Some(last) = segments.into_iter().next_back() {
            self.archive.ends_in(log, last, bounds).await?;
        }
        Ok(end)
    }

    /// Writes a batch's records; answers the segment that has room for more, and how many were finished.
    async fn take(
        &self,
        mut segment: Option<SegmentWriter>,
        batch: RecordBatch,
        to: Position,
    ) -> Result<(Option<SegmentWriter>, u64), WriteError> {
        let Archive { dir, log } = self.archive.clone();
        let segment_bytes = self.segment_bytes;
        self.blocking(move || {
            let mut whole = 0;
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
                    whole += 1;
                } else {
                    segment = Some(open);
                }
            }
            Ok((segment, whole))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let lock = Arc::clone(&self.lock).lock_owned().await;
        // The lock comes out last: if nobody waits for it any more, what was done is let go of first.
        match tokio::task::spawn_blocking(move || (work(), lock)).await {
            Ok((done, _lock)) => {
                done.map_err(|reason| WriteError::Disk { dir: self.archive.dir.clone(), reason })
            }
            Err(error) => Err(WriteError::Failed(error.to_string())),
        }
    }
}

impl Archive {
    /// The log has to reach to where its archive's last segment ends, and the last record there has to be the same in the
    /// log, if that has it still.
    pub(super) async fn ends_in(
        &self,
        log: &dyn LogReader,
        last: Segment,
        bounds: LogBounds,
    ) -> Result<(), WriteError> {
        let (partition, end) = (last.partition, last.end);
        if bounds.high < end {
            let reason = format!("it ends at {}, and the archive at {end}", bounds.high);
            return Err(WriteError::OtherLog { partition, reason });
        }
        let offset = Offset(end.0 - 1);
        let name = self.log.clone();
        let read = tokio::task::spawn_blocking(move || last_record(&last, &name));
        let archived = read.await.map_err(|error| WriteError::Failed(error.to_string()))??;
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
        Err(WriteError::OtherLog { partition, reason })
    }
}

/// Key and value of a segment's last record.
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
