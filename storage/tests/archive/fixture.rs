//! A log with an archive, in a temporary folder.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, PersonKey, Position};
use storage::log::archive::{
    Archive, ArchiveWriteError, ArchiveWriter, ArchivedPartition, ArchivedReader, LogName, Segment,
};
use storage::log::sqlite::{SqliteLog, SqliteReader};
use storage::log::{LogReader, NewRecord, ReadError};
use tempfile::TempDir;

use crate::truncated_log::{TruncatedLog, TruncationPoint};

pub const TOPIC: &str = "submissions";
pub const ZERO: PartitionId = PartitionId(0);
pub const ONE: PartitionId = PartitionId(1);
/// A segment of a few dozen records.
pub const SEGMENT_BYTES: u64 = 4_000;
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A log with two partitions, and its archive.
pub struct Fixture {
    pub dir: TempDir,
    pub log: SqliteLog,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let log = SqliteLog::open(&dir.path().join("log.db"), two()).unwrap();
        Self { dir, log }
    }

    pub async fn with(records: u64) -> Self {
        let fixture = Self::new();
        fixture.append(0..records).await;
        fixture
    }

    /// Closes the log and opens it again.
    pub fn reopened(self) -> Self {
        let Self { dir, log } = self;
        drop(log);
        let log = SqliteLog::open(&dir.path().join("log.db"), two()).unwrap();
        Self { dir, log }
    }

    /// Appends these records to both partitions.
    pub async fn append(&self, numbers: Range<u64>) {
        let record = |partition, number: u64| {
            let key = PersonKey::from_bytes(u128::from(number).to_be_bytes());
            (partition, NewRecord { key, value: vec![number as u8; number as usize % 200] })
        };
        for partition in [ZERO, ONE] {
            let records = numbers.clone().map(|number| record(partition, number)).collect();
            let results = self.log.append_to(records).await;
            results.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        }
    }

    pub fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(SqliteReader::open(&self.dir.path().join("log.db"), two()).unwrap())
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    pub fn name(&self) -> LogName {
        LogName::of(&*self.reader(), TOPIC)
    }

    pub fn writer(&self) -> ArchiveWriter {
        ArchiveWriter::open(&self.folder(), self.name()).unwrap().with_segment_bytes(SEGMENT_BYTES)
    }

    /// Opens a writer once the archive is unlocked.
    pub async fn free_writer(&self) -> ArchiveWriter {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            match ArchiveWriter::open(&self.folder(), self.name()) {
                Ok(writer) => return writer,
                Err(ArchiveWriteError::InUse(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "the archive stayed locked");
            tokio::task::yield_now().await;
        }
    }

    pub async fn archive(
        &self,
        partition: PartitionId,
        to: u64,
    ) -> Result<ArchivedPartition, ArchiveWriteError> {
        self.writer().extend_from_log(&*self.reader(), partition, Position(to), |_| {}).await
    }

    pub fn segments(&self, partition: PartitionId) -> Vec<Segment> {
        Archive::new(&self.folder(), self.name()).segments(partition).unwrap()
    }

    /// Checks partition 0, whose log starts at `low`.
    pub fn faults(&self, low: u64) -> Vec<String> {
        let archive = Archive::new(&self.folder(), self.name());
        archive.check(ZERO, Position(low), |_| true).faults
    }

    /// Opens the log with its archive, after the records before `low` were deleted.
    pub async fn archived(&self, low: u64) -> ArchivedReader {
        let log = TruncatedLog::new(self.reader(), At(Position(low)));
        ArchivedReader::open(&self.folder(), TOPIC, Arc::new(log)).await
    }
}

pub struct At(pub Position);

#[async_trait]
impl TruncationPoint for At {
    async fn low(&self, _: &dyn LogReader, _: PartitionId, _: Position) -> Position {
        self.0
    }
}

pub fn two() -> PartitionCount {
    PartitionCount::new(2).unwrap()
}

pub type Read = (u64, Vec<u8>, Vec<u8>);

pub async fn read(
    log: &dyn LogReader,
    partition: PartitionId,
    range: Range<u64>,
) -> Result<Vec<Read>, ReadError> {
    let mut batches = log.read(partition, Position(range.start)..Position(range.end));
    let mut read = Vec::new();
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        read.extend(batch.iter().map(|it| (it.offset.0, it.key.to_vec(), it.value.to_vec())));
    }
    Ok(read)
}
