//! A log with its archive before it: what the log no longer has is read from there, and then on from the log.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, Position};
use tokio::sync::{mpsc, watch};

use super::listed::Listed;
use super::{Archive, LogName, Segment, SegmentFault};
use crate::log::gapless::{self, Gapless};
use crate::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordBatch, Stretch};

/// Batches that wait beside those of what is read from.
const BATCHES_AHEAD: usize = 1;

/// A log that begins where its archive does.
pub struct ArchivedReader {
    archive: Listed,
    log: Arc<dyn LogReader>,
}

impl ArchivedReader {
    /// Puts the archive in `dir` before a log, whose topic is called so. What is wrong with it is logged, and is for whoever
    /// reads from it: the log itself can be read all the same. Nothing is read from an archive of another log.
    pub async fn open(dir: &Path, topic: &str, log: Arc<dyn LogReader>) -> Self {
        let archive = Archive::new(dir, LogName::of(&*log, topic));
        let found = archive.clone();
        match tokio::task::spawn_blocking(move || found.is_of_its_log()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault @ SegmentFault::OtherLog { .. })) => {
                tracing::error!(%fault, "the archive is not of this log, which is read without it");
            }
            Ok(Err(fault)) => tracing::warn!(%fault, "the log's archive cannot be used now"),
            Err(error) => tracing::warn!(%error, "the log's archive was not looked at"),
        }
        Self { archive: Listed::new(archive), log }
    }
}

impl Archive {
    /// Whether each partition's last segment, if there is any, is of the log.
    fn is_of_its_log(&self) -> Result<(), SegmentFault> {
        let segments = self
            .all_segments()
            .map_err(|error| SegmentFault::Unreadable(self.dir.clone(), error))?;
        let by_partition = segments.chunk_by(|one, next| one.partition == next.partition);
        by_partition.filter_map(<[Segment]>::last).try_for_each(|last| last.is_of(&self.log))
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

    /// It begins where the archive does, as far as that is known, if that leads to where the log begins.
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let bounds = self.log.bounds(partition).await?;
        if bounds.low == Position::START {
            return Ok(bounds);
        }
        let low = self.archive.first(partition, bounds.low).await;
        Ok(LogBounds { low, ..bounds })
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> Stretch {
        let (batches, stretch) = mpsc::channel(BATCHES_AHEAD);
        let following = Following {
            archive: self.archive.archive().clone(),
            log: Arc::clone(&self.log),
            partition,
            next: start,
            end,
            batches,
        };
        tokio::spawn(following.run());
        stretch
    }
}

/// One stretch on its way.
struct Following {
    archive: Archive,
    log: Arc<dyn LogReader>,
    partition: PartitionId,
    next: Position,
    end: watch::Receiver<Position>,
    batches: mpsc::Sender<Result<RecordBatch, ReadError>>,
}

impl Following {
    async fn run(mut self) {
        let batches = self.batches.clone();
        let followed = tokio::select! {
            biased;
            () = batches.closed() => return,
            followed = self.follow() => followed,
        };
        if let Err(error) = followed {
            // Whoever does not want it has dropped the other end.
            let _ = batches.send(Err(error)).await;
        }
    }

    async fn follow(&mut self) -> Result<(), ReadError> {
        let low = self.log.bounds(self.partition).await?.low;
        if self.next < low {
            let mut leading = self.archive.leading_to(self.partition, low).await?;
            leading.retain(|segment| self.next < segment.end);
            let end = match &leading[..] {
                [first, ..] if self.next < first.first => None,
                others => others.last().map(|last| last.end),
            };
            let end = end.ok_or(ReadError::Missing(self.next))?;
            self.forward(self.archive_from(leading)).await?;
            if self.next < end {
                // No more is wanted.
                return Ok(());
            }
        }
        let log = self.log.follow(self.partition, self.next, self.end.clone());
        self.forward(log).await
    }

    /// The records of these segments from the next one on, as far as they are wanted.
    fn archive_from(&self, segments: Vec<Segment>) -> Stretch {
        let name = self.archive.log.clone();
        gapless::stretch(self.partition, self.next, self.end.clone(), move |records| {
            for segment in &segments {
                read(segment, &name, records)?;
            }
            records.flush();
            Ok(())
        })
    }

    async fn forward(&mut self, mut from: Stretch) -> Result<(), ReadError> {
        while let Some(batch) = from.recv().await {
            let batch = batch?;
            self.next = batch.end().unwrap_or(self.next);
            if self.batches.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Gives a segment's records from the next one on that is wanted.
fn read(segment: &Segment, log: &LogName, wanted: &mut Gapless<'_>) -> Result<(), ReadError> {
    // It is not opened before somebody wants anything of it.
    if wanted.wanted().is_none() {
        return Ok(());
    }
    let mut records = segment.open(log)?;
    while let Some(record) = records.next()? {
        let Some(next) = wanted.wanted() else { return Ok(()) };
        if !next.includes(record.offset) {
            wanted.push(record)?;
        }
    }
    Ok(())
}
