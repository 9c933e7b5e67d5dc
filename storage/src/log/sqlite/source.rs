//! Reads the embedded log: a group with one member, which owns every partition from start to stop.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use schemas::{LogRef, Offset, PartitionCount, PartitionId, Position};
use tokio_util::sync::CancellationToken;

use super::end_of;
use super::tail::Tail;
use crate::log::{
    LogBounds, LogIdentity, LogSource, PartitionHandler, Record, RecordBatch, SourceError, Start,
};

const BATCH_RECORDS: u32 = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// How often a source that has nothing to do looks whether it is to stop or to rejoin.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How soon an owner without room is offered its batch again.
const RETRY_WAIT: Duration = Duration::from_millis(2);

/// A reader of the embedded log.
pub struct SqliteSource {
    pub(super) connection: Connection,
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
        let bounds = self
            .partitions
            .partitions()
            .map(|partition| Ok((partition, self.bounds(partition)?)))
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(source_error)?;
        let starts = handler.assigned(&bounds);
        let flows = bounds.iter().map(|(partition, bounds)| {
            let start = starts.iter().find(|(id, _)| id == partition).map(|(_, start)| *start);
            Flow::begin(*partition, *bounds, start.unwrap_or(Start::Nowhere))
        });
        let outcome = flows
            .collect::<Result<Vec<_>, _>>()
            .and_then(|mut flows| self.deliver(&mut flows, handler, stop));
        let partitions: Vec<_> = self.partitions.partitions().collect();
        handler.revoked(&partitions, false);
        outcome
    }
}

impl SqliteSource {
    fn deliver(
        &self,
        flows: &mut [Flow],
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        while !stop.is_cancelled() {
            if handler.wants_to_rejoin() {
                return Err(SourceError::Rejoin("the owner asked for it".into()));
            }
            let ends = self.tail.ends();
            let (mut moved, mut full) = (false, false);
            for (flow, end) in flows.iter_mut().zip(&ends) {
                match self.step(flow, *end, handler).map_err(source_error)? {
                    Step::Moved => moved = true,
                    Step::Full => full = true,
                    Step::Idle => {}
                }
            }
            if !moved {
                self.tail.wait_beyond(&ends, if full { RETRY_WAIT } else { IDLE_WAIT });
            }
        }
        Ok(())
    }

    /// Takes one partition one batch further.
    fn step(
        &self,
        flow: &mut Flow,
        end: Position,
        handler: &dyn PartitionHandler,
    ) -> rusqlite::Result<Step> {
        if flow.reported_end != Some(end) {
            flow.reported_end = Some(end);
            handler.high_watermark(flow.partition, end);
        }
        let Some(next) = flow.next else { return Ok(Step::Idle) };
        let batch = match flow.given_back.take() {
            Some(batch) => batch,
            None if next < end => self.read(flow.partition, next)?,
            None => return Ok(Step::Idle),
        };
        let Some(batch_end) = batch.end() else {
            flow.next = None;
            let reason =
                format!("the log has no record at {next}: somebody else's hand was in its file");
            handler.halt(flow.partition, reason);
            return Ok(Step::Idle);
        };
        match handler.deliver(batch, Duration::ZERO) {
            Ok(()) => {
                flow.next = Some(batch_end);
                Ok(Step::Moved)
            }
            Err(batch) => {
                flow.given_back = Some(batch);
                Ok(Step::Full)
            }
        }
    }

    /// The records from `next` on, up to the batch's limits or to a gap.
    fn read(&self, partition: PartitionId, next: Position) -> rusqlite::Result<RecordBatch> {
        let mut select = self.connection.prepare_cached(
            r#"SELECT "offset", key, value FROM records WHERE partition = ?1 AND "offset" >= ?2
               ORDER BY "offset" LIMIT ?3"#,
        )?;
        let mut rows = select.query((partition.0, next.0.cast_signed(), BATCH_RECORDS))?;
        let mut batch = RecordBatch::new(partition);
        let mut expected = next;
        while batch.size_bytes() < BATCH_BYTES
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

    fn bounds(&self, partition: PartitionId) -> rusqlite::Result<LogBounds> {
        let high = end_of(&self.connection, partition.0)?;
        let low = self
            .connection
            .prepare_cached(r#"SELECT min("offset") FROM records WHERE partition = ?1"#)?
            .query_row([partition.0], |row| row.get::<_, Option<i64>>(0))?
            .map_or(high, |first| Position(first.cast_unsigned()));
        Ok(LogBounds { low, high })
    }
}

/// One partition on its way to its owner.
struct Flow {
    partition: PartitionId,
    /// What to read next; `None` when the partition is not read at all.
    next: Option<Position>,
    /// A batch that the owner had no room for.
    given_back: Option<RecordBatch>,
    reported_end: Option<Position>,
}

enum Step {
    /// The owner took a batch; there may be more.
    Moved,
    /// The owner has no room.
    Full,
    /// There is nothing to deliver.
    Idle,
}

impl Flow {
    /// Where the owner wants it to begin. What is outside the log is found out, and told exactly, by the next claim.
    fn begin(partition: PartitionId, bounds: LogBounds, start: Start) -> Result<Self, SourceError> {
        let next = match start {
            Start::At(position) if (bounds.low..=bounds.high).contains(&position) => Some(position),
            Start::At(position) => {
                let reason = format!("the log has no position {position} in partition {partition}");
                return Err(SourceError::Rejoin(reason));
            }
            Start::Nowhere => None,
        };
        Ok(Self { partition, next, given_back: None, reported_end: None })
    }
}

fn source_error(error: rusqlite::Error) -> SourceError {
    SourceError::Rejoin(error.to_string())
}
