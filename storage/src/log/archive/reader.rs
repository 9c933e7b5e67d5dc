//! Reads a log with its archive: records that the log no longer has come from the archive, and then from the log.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, Position};
use tokio::sync::{mpsc, watch};

use super::first_positions::FirstPositions;
use super::{Archive, LogName, Segment, SegmentFault};
use crate::log::contiguous_batcher::{ContiguousBatcher, spawn_record_stream};
use crate::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordBatch, RecordStream};

/// Batches that may wait for the receiver, in addition to those of the underlying stream.
const STREAM_CAPACITY: usize = 1;

/// Reads a log that starts at the first record of its archive.
pub struct ArchivedReader {
    archive: FirstPositions,
    log: Arc<dyn LogReader>,
}

impl ArchivedReader {
    /// Combines a log with the archive in `dir`. Faults of the archive are only logged here, and fail the reads that
    /// need it; the log itself stays readable. Nothing is read from an archive of another log.
    pub async fn open(dir: &Path, topic: &str, log: Arc<dyn LogReader>) -> Self {
        let archive = Archive::new(dir, LogName::of(&*log, topic));
        let checked = archive.clone();
        match tokio::task::spawn_blocking(move || checked.check_log()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault @ SegmentFault::OtherLog { .. })) => {
                tracing::error!(error = %fault, "archive belongs to another log, reading without it");
            }
            Ok(Err(fault)) => tracing::warn!(error = %fault, "failed to read the log archive"),
            Err(error) => tracing::warn!(%error, "failed to check the log archive"),
        }
        Self { archive: FirstPositions::new(archive), log }
    }
}

impl Archive {
    /// Checks that each partition's last segment, if there is any, belongs to the log.
    fn check_log(&self) -> Result<(), SegmentFault> {
        let segments = self
            .all_segments()
            .map_err(|error| SegmentFault::Unreadable(self.dir.clone(), error))?;
        let by_partition = segments.chunk_by(|one, next| one.partition == next.partition);
        by_partition.filter_map(<[Segment]>::last).try_for_each(|last| last.check_log(&self.log))
    }
}

#[async_trait]
impl LogReader for ArchivedReader {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }

    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    /// Returns the log's bounds, extended by the archive if it continues in the log.
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let bounds = self.log.bounds(partition).await?;
        if bounds.low == Position::START {
            return Ok(bounds);
        }
        let low = self.archive.first_position(partition, bounds.low).await;
        Ok(LogBounds { low, ..bounds })
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        let (sender, stream) = mpsc::channel(STREAM_CAPACITY);
        let task = StreamTask {
            archive: self.archive.archive().clone(),
            log: Arc::clone(&self.log),
            partition,
            next: start,
            end,
            stream: sender,
        };
        tokio::spawn(task.run());
        stream
    }
}

/// Feeds one stream from the archive and the log.
struct StreamTask {
    archive: Archive,
    log: Arc<dyn LogReader>,
    partition: PartitionId,
    next: Position,
    end: watch::Receiver<Position>,
    stream: mpsc::Sender<Result<RecordBatch, ReadError>>,
}

impl StreamTask {
    async fn run(mut self) {
        let stream = self.stream.clone();
        let outcome = tokio::select! {
            biased;
            () = stream.closed() => return,
            outcome = self.read_archive_and_log() => outcome,
        };
        if let Err(error) = outcome {
            // A send fails only when the receiver was dropped, and then the error is of no interest.
            let _ = stream.send(Err(error)).await;
        }
    }

    async fn read_archive_and_log(&mut self) -> Result<(), ReadError> {
        loop {
            let Err(error) = self.read_archive_then_log().await else { return Ok(()) };
            // The log may have been trimmed while it was read: then the archive has what is missing.
            let low = self.log.bounds(self.partition).await?.low;
            if !matches!(error, ReadError::Missing(missing) if missing < low) {
                return Err(error);
            }
            let segments = self.archive.segments_up_to(self.partition, low).await?;
            if !segments.iter().any(|segment| (segment.first..segment.end).contains(&self.next)) {
                return Err(error);
            }
        }
    }

    async fn read_archive_then_log(&mut self) -> Result<(), ReadError> {
        let low = self.log.bounds(self.partition).await?.low;
        if self.next < low {
            let mut segments = self.archive.segments_up_to(self.partition, low).await?;
            segments.retain(|segment| self.next < segment.end);
            let end = match &segments[..] {
                [first, ..] if self.next < first.first => None,
                others => others.last().map(|last| last.end),
            };
            let end = end.ok_or(ReadError::Missing(self.next))?;
            self.forward(self.read_segments(segments)).await?;
            if self.next < end {
                // The requested end is in the archive.
                return Ok(());
            }
        }
        let log = self.log.follow(self.partition, self.next, self.end.clone());
        self.forward(log).await
    }

    /// Streams the segments' records from `next` up to the requested end.
    fn read_segments(&self, segments: Vec<Segment>) -> RecordStream {
        let name = self.archive.log.clone();
        spawn_record_stream(self.partition, self.next, self.end.clone(), move |records| {
            for segment in &segments {
                read_segment(segment, &name, records)?;
            }
            records.flush();
            Ok(())
        })
    }

    async fn forward(&mut self, mut source: RecordStream) -> Result<(), ReadError> {
        while let Some(batch) = source.recv().await {
            let batch = batch?;
            self.next = batch.end().unwrap_or(self.next);
            if self.stream.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads a segment's records from the next requested one.
fn read_segment(
    segment: &Segment,
    log: &LogName,
    batcher: &mut ContiguousBatcher<'_>,
) -> Result<(), ReadError> {
    // The segment is not opened before a record is requested.
    if batcher.wait_for_request().is_none() {
        return Ok(());
    }
    let mut records = segment.open(log)?;
    while let Some(record) = records.next()? {
        let Some(next) = batcher.wait_for_request() else { return Ok(()) };
        if !next.includes(record.offset) {
            batcher.push(record)?;
        }
    }
    Ok(())
}
