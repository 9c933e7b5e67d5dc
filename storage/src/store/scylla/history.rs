//! History points: plain writes of values that depend on the key alone, so a repeated write changes nothing.
//!
//! All writes have the same timestamp, and deletions a later one: what a former owner writes into a retired partition
//! stays deleted. Points expire by their time to live, which is computed from their last instant.

use std::ops::Range;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{BudgetId, HistoryInstant, HistoryPoint, HistoryStep};
use scylla::client::session::Session;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::session::{
    corrupt, idempotent_retry_policy, int, partition_key, prepare_idempotent, unavailable,
};
use crate::store::{PartitionRef, StoreError};

/// Points in one batch: at most about 100 kB.
const BATCH_POINTS: usize = 150;
/// Maximum concurrent batches of one call.
const BATCHES_IN_FLIGHT: usize = 8;
/// Points in one page of a scan.
const PAGE_POINTS: i32 = 1_000;

/// Timestamp of every point.
const WRITE_TIMESTAMP: i64 = 1;
/// Timestamp of deletions.
const DELETION_TIMESTAMP: i64 = 2;
/// Longest time to live that is written: servers reject one of more than 20 years.
const MAX_TTL_SECONDS: u64 = 2 * 366 * 24 * 3_600;

/// Prepared statements for history points.
pub(super) struct HistoryStatements {
    write: PreparedStatement,
    read_last_before: PreparedStatement,
    read_after: PreparedStatement,
    scan: PreparedStatement,
    delete: PreparedStatement,
}

impl HistoryStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let prepare =
            async |text: &str| prepare_idempotent(session, text, Consistency::LocalQuorum).await;
        let mut scan = prepare(
            "SELECT budget, first_instant, state FROM history \
             WHERE generation = ? AND partition = ? AND step = ?",
        )
        .await?;
        scan.set_page_size(PAGE_POINTS);
        Ok(Self {
            write: prepare(
                "INSERT INTO history (generation, partition, step, budget, first_instant, state) \
                 VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?",
            )
            .await?,
            read_last_before: prepare(
                "SELECT first_instant, state FROM history \
                 WHERE generation = ? AND partition = ? AND step = ? AND budget = ? \
                 AND first_instant <= ? ORDER BY budget DESC, first_instant DESC LIMIT 1",
            )
            .await?,
            read_after: prepare(
                "SELECT first_instant, state FROM history \
                 WHERE generation = ? AND partition = ? AND step = ? AND budget = ? \
                 AND first_instant > ? AND first_instant < ?",
            )
            .await?,
            scan,
            delete: prepare(
                "DELETE FROM history USING TIMESTAMP ? \
                 WHERE generation = ? AND partition = ? AND step = ?",
            )
            .await?,
        })
    }

    /// Writes points in batches, each of one Scylla partition.
    pub(super) async fn write(
        &self,
        session: &Session,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let of_step = |step| {
            let points = points.iter().filter(move |(_, point)| point.step == step);
            points.filter(|(_, point)| !point.is_expired(now_ms)).collect::<Vec<_>>()
        };
        let by_step: Vec<Vec<_>> = HistoryStep::ALL.into_iter().map(of_step).collect();
        let batches = by_step
            .iter()
            .flat_map(|points| points.chunks(BATCH_POINTS))
            .map(|points| self.write_batch(session, partition, points, now_ms))
            .collect::<Vec<_>>();
        stream::iter(batches).buffer_unordered(BATCHES_IN_FLIGHT).try_collect().await
    }

    async fn write_batch(
        &self,
        session: &Session,
        partition: PartitionRef,
        points: &[&(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let (generation, number) = partition_key(partition)?;
        let statements = points.iter().map(|_| self.write.clone().into()).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_is_idempotent(true);
        batch.set_retry_policy(Some(idempotent_retry_policy()));
        let values = points
            .iter()
            .map(|(budget, point)| {
                let (step, first) = (i32::from(point.step.number()), int(point.first.0)?);
                let (state, ttl) = (point.encode_state(), ttl_seconds(point, now_ms)?);
                Ok((generation, number, step, budget.as_str(), first, state, WRITE_TIMESTAMP, ttl))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        session.batch(&batch, values).await.map_err(unavailable)?;
        Ok(())
    }

    pub(super) async fn read(
        &self,
        session: &Session,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        let (generation, number) = partition_key(partition)?;
        let (stored_step, budget) = (i32::from(step.number()), budget.as_str());
        let (start, end) = (int(instants.start.0)?, int(instants.end.0)?);
        // The points of a budget do not overlap: only the last one before the range can reach into it.
        let values = (generation, number, stored_step, budget, start);
        let before = session.execute_unpaged(&self.read_last_before, values);
        let values = (generation, number, stored_step, budget, start, end);
        let after = session.execute_unpaged(&self.read_after, values);
        let (before, after) = join(before, after).await;
        let mut points = Vec::new();
        for response in [before, after] {
            let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
            for row in rows.rows::<(i32, &[u8])>().map_err(corrupt)? {
                let (first, state) = row.map_err(corrupt)?;
                points.push(decode(step, first, state)?);
            }
        }
        points.retain(|point| point.overlaps(&instants));
        Ok(points)
    }

    pub(super) async fn scan(
        &self,
        session: &Session,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        let (generation, number) = partition_key(partition)?;
        let values = (generation, number, i32::from(step.number()));
        let mut from = PagingState::start();
        loop {
            let page = session.execute_single_page(&self.scan, values, from).await;
            let (response, next) = page.map_err(unavailable)?;
            let rows = response.into_rows_result().map_err(corrupt)?;
            for row in rows.rows::<(&str, i32, &[u8])>().map_err(corrupt)? {
                let (budget, first, state) = row.map_err(corrupt)?;
                let budget = BudgetId::parse(budget).map_err(corrupt)?;
                point(budget, decode(step, first, state)?);
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    /// Deletes the history of a partition permanently.
    pub(super) async fn delete(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<(), StoreError> {
        let (generation, number) = partition_key(partition)?;
        for step in HistoryStep::ALL {
            let values = (DELETION_TIMESTAMP, generation, number, i32::from(step.number()));
            session.execute_unpaged(&self.delete, values).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

fn decode(step: HistoryStep, first: i32, state: &[u8]) -> Result<HistoryPoint, StoreError> {
    let first = HistoryInstant(u32::try_from(first).map_err(corrupt)?);
    HistoryPoint::decode(step, first, state).map_err(corrupt)
}

/// Returns how long a point is kept from now on; 0 is for ever.
fn ttl_seconds(point: &HistoryPoint, now_ms: u64) -> Result<i32, StoreError> {
    let Some(retention_ms) = point.step.retention_ms() else { return Ok(0) };
    let kept_until_ms = point.end.at_ms(point.step).saturating_add(retention_ms);
    let seconds = kept_until_ms.saturating_sub(now_ms) / 1_000;
    i32::try_from(seconds.clamp(1, MAX_TTL_SECONDS)).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use schemas::HistoryTotals;

    use super::*;

    fn point(step: HistoryStep, end: u32) -> HistoryPoint {
        let (first, end) = (HistoryInstant(0), HistoryInstant(end));
        HistoryPoint { step, first, end, totals: HistoryTotals::default() }
    }

    #[test]
    fn a_point_lives_until_its_end_has_expired() {
        let minute = point(HistoryStep::Minute, 10);
        assert_eq!(ttl_seconds(&minute, 10 * 60_000), Ok(2 * 24 * 3_600));
        assert_eq!(ttl_seconds(&minute, u64::MAX), Ok(1));
        assert_eq!(ttl_seconds(&point(HistoryStep::Day, 10), 0), Ok(0));
        // A clock far behind the log's time.
        assert!(ttl_seconds(&point(HistoryStep::Minute, 1 << 30), 0).unwrap() < 630_720_000);
    }
}
