//! Consumes the embedded log as a group with one member. The member owns every partition from start to stop.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use schemas::{LogRef, Offset, PartitionCount, PartitionId, Position};
use tokio_util::sync::CancellationToken;

use super::read_bounds;
use super::tail::Tail;
use crate::log::{
    BoundsReader, LogIdentity, LogSource, PartitionHandler, Record, RecordBatch, Revocation,
    SourceError, StartPosition,
};

const MAX_BATCH_RECORDS: u32 = 1_000;
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How often an idle source checks whether to stop or to rejoin.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a batch is delivered again to an owner whose queue was full.
const REDELIVERY_DELAY: Duration = Duration::from_millis(2);

/// Consumes the embedded log.
pub struct SqliteSource {
    pub(super) connection: Connection,
    pub(super) bounds: Arc<dyn BoundsReader>,
    pub(super) partitions: PartitionCount,
    pub(super) identity: LogIdentity,
    pub(super) tail: Arc<Tail>,
    pub(super) _lock: Arc<File>,
}

impl LogSource for SqliteSource {
    fn identity(&self) -> LogIdentity {
        self.identity.clone()
    }

    fn run(
        &mut self,
        _only: &LogRef,
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let partitions: Vec<_> = self.partitions.partitions().collect();
        handler.assigned(&partitions, &self.bounds);
        let mut cursors: Vec<_> =
            partitions.iter().map(|partition| Cursor::new(*partition)).collect();
        let outcome = self.deliver(&mut cursors, handler, stop);
        handler.revoked(&partitions, Revocation::Released);
        outcome
    }
}

impl SqliteSource {
    fn deliver(
        &self,
        cursors: &mut [Cursor],
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        while !stop.is_cancelled() {
            if handler.wants_to_rejoin() {
                return Err(SourceError::Rejoin("the owner requested it".into()));
            }
            for (partition, start) in handler.take_starts() {
                if let Some(cursor) = cursors.get_mut(partition.0 as usize) {
                    self.start(cursor, start, handler).map_err(source_error)?;
                }
            }
            let ends = self.tail.ends();
            let (mut delivered, mut queue_full) = (false, false);
            for (cursor, end) in cursors.iter_mut().zip(&ends) {
                match self.deliver_batch(cursor, *end, handler).map_err(source_error)? {
                    Delivery::Delivered => delivered = true,
                    Delivery::QueueFull => queue_full = true,
                    Delivery::Idle => {}
                }
            }
            if !delivered {
                let timeout = if queue_full { REDELIVERY_DELAY } else { IDLE_POLL_INTERVAL };
                self.tail.wait_for_change(&ends, timeout);
            }
        }
        Ok(())
    }

    /// Moves a partition to its start position, which must be in the log.
    fn start(
        &self,
        cursor: &mut Cursor,
        start: StartPosition,
        handler: &dyn PartitionHandler,
    ) -> rusqlite::Result<()> {
        *cursor = Cursor::new(cursor.partition);
        let StartPosition::At(position) = start else { return Ok(()) };
        let bounds = read_bounds(&self.connection, cursor.partition)?;
        if (bounds.low..=bounds.high).contains(&position) {
            cursor.next = Some(position);
        } else {
            let reason = format!("the log has no position {position}");
            handler.read_failed(cursor.partition, &reason);
        }
        Ok(())
    }

    /// Delivers one batch of one partition.
    fn deliver_batch(
        &self,
        cursor: &mut Cursor,
        end: Position,
        handler: &dyn PartitionHandler,
    ) -> rusqlite::Result<Delivery> {
        if cursor.reported_end != Some(end) {
            cursor.reported_end = Some(end);
            handler.high_watermark(cursor.partition, end);
        }
        let Some(next) = cursor.next else { return Ok(Delivery::Idle) };
        let batch = match cursor.undelivered.take() {
            Some(batch) => batch,
            None if next < end => self.read(cursor.partition, next)?,
            None => return Ok(Delivery::Idle),
        };
        let Some(batch_end) = batch.end() else {
            cursor.next = None;
            let reason =
                format!("the log has no record at {next}: another program has changed its file");
            handler.halt(cursor.partition, reason);
            return Ok(Delivery::Idle);
        };
        match handler.deliver(batch, Duration::ZERO) {
            Ok(()) => {
                cursor.next = Some(batch_end);
                Ok(Delivery::Delivered)
            }
            Err(batch) => {
                cursor.undelivered = Some(batch);
                Ok(Delivery::QueueFull)
            }
        }
    }

    /// Reads records from `next`, up to the batch's limits or a gap.
    fn read(&self, partition: PartitionId, next: Position) -> rusqlite::Result<RecordBatch> {
        let mut select = self.connection.prepare_cached(
            r#"SELECT "offset", key, value FROM records WHERE partition = ?1 AND "offset" >= ?2
               ORDER BY "offset" LIMIT ?3"#,
        )?;
        let mut rows = select.query((partition.0, next.0.cast_signed(), MAX_BATCH_RECORDS))?;
        let mut batch = RecordBatch::new(partition);
        let mut expected = next;
        while batch.size_bytes() < MAX_BATCH_BYTES
            && let Some(row) = rows.next()?
        {
            let offset = Offset(row.get::<_, i64>(0)?.cast_unsigned());
            if offset.0 != expected.0 {
                break;
            }
            let key = row.get_ref(1)?.as_blob()?;
            let value = row.get_ref(2)?.as_blob()?;
            batch.push(Record { offset, key, value });
            expected = offset.next();
        }
        Ok(batch)
    }
}

/// One partition's progress.
struct Cursor {
    partition: PartitionId,
    /// The next position to read; `None` when the partition is not read.
    next: Option<Position>,
    /// A batch that the owner's queue had no capacity for.
    undelivered: Option<RecordBatch>,
    reported_end: Option<Position>,
}

enum Delivery {
    /// The owner accepted a batch; there may be more.
    Delivered,
    /// The owner's queue is full.
    QueueFull,
    /// There is nothing to deliver.
    Idle,
}

impl Cursor {
    /// Creates a partition that is not read yet.
    fn new(partition: PartitionId) -> Self {
        Self { partition, next: None, undelivered: None, reported_end: None }
    }
}

fn source_error(error: rusqlite::Error) -> SourceError {
    SourceError::Rejoin(error.to_string())
}
