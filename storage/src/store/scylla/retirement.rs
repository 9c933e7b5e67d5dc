//! Retiring a partition: an epoch that no claim follows, then deletions.
//!
//! The row of the table `totals` that carries that epoch is never deleted: a process with an outdated registry would
//! otherwise claim the partition anew, and its person rows would vanish under the tombstones of the deleted ones.

use schemas::{Generation, PartitionId};
use scylla::client::session::Session;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::session::{
    corrupt, outcome, partition_key, prepare_conditional, prepare_idempotent, unavailable,
};
use crate::store::{CasOutcome, KnownPartition, PartitionRef, StoreError};

/// Epoch of a retired partition. Claims count up from 1 and never reach it.
pub(super) const RETIRED_EPOCH: i64 = i64::MAX;

/// Owner of a retired partition.
const RETIRED_OWNER: &str = "retired";

/// Attempts to fence a partition, of which each fails only if another process claims it meanwhile.
const MAX_FENCE_ATTEMPTS: u32 = 20;

/// Budgets deleted by one conditional batch, which then is a few kB.
const BUDGETS_PER_BATCH: usize = 100;

/// Partitions in one page of the list.
const PAGE_ROWS: i32 = 5_000;

/// Prepared statements for retiring partitions.
pub(super) struct RetirementStatements {
    read: PreparedStatement,
    fence_unclaimed: PreparedStatement,
    fence_claimed: PreparedStatement,
    keep_fence: PreparedStatement,
    delete_budget: PreparedStatement,
    list: PreparedStatement,
}

impl RetirementStatements {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        let mut list = prepare_idempotent(
            session,
            "SELECT DISTINCT generation, partition, epoch FROM totals",
            Consistency::LocalQuorum,
        )
        .await?;
        list.set_page_size(PAGE_ROWS);
        Ok(Self {
            // Serial: sees every acknowledged write, and settles an unacknowledged one.
            read: prepare_idempotent(
                session,
                "SELECT epoch, budget FROM totals WHERE generation = ? AND partition = ?",
                Consistency::LocalSerial,
            )
            .await?,
            fence_unclaimed: prepare_conditional(
                session,
                "INSERT INTO totals (epoch, owner, generation, partition) VALUES (?, ?, ?, ?) \
                 IF NOT EXISTS",
            )
            .await?,
            fence_claimed: prepare_conditional(
                session,
                "UPDATE totals SET epoch = ?, owner = ? WHERE generation = ? AND partition = ? \
                 IF epoch = ?",
            )
            .await?,
            keep_fence: prepare_conditional(
                session,
                "UPDATE totals SET owner = ? WHERE generation = ? AND partition = ? IF epoch = ?",
            )
            .await?,
            delete_budget: prepare_conditional(
                session,
                "DELETE FROM totals WHERE generation = ? AND partition = ? AND budget = ?",
            )
            .await?,
            list,
        })
    }

    pub(super) async fn known_partitions(
        &self,
        session: &Session,
    ) -> Result<Vec<KnownPartition>, StoreError> {
        let mut known = Vec::new();
        let mut from = PagingState::start();
        loop {
            let page = session.execute_single_page(&self.list, (), from).await;
            let (response, next) = page.map_err(unavailable)?;
            let rows = response.into_rows_result().map_err(corrupt)?;
            for row in rows.rows::<(i32, i32, Option<i64>)>().map_err(corrupt)? {
                let (generation, partition, epoch) = row.map_err(corrupt)?;
                let id = PartitionRef {
                    generation: Generation(u32::try_from(generation).map_err(corrupt)?),
                    partition: PartitionId(u32::try_from(partition).map_err(corrupt)?),
                };
                known.push(KnownPartition { id, is_retired: epoch == Some(RETIRED_EPOCH) });
            }
            match next {
                PagingStateResponse::HasMorePages { state } => from = state,
                PagingStateResponse::NoMorePages => return Ok(known),
            }
        }
    }

    pub(super) async fn is_fenced(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<bool, StoreError> {
        Ok(self.read(session, partition).await?.0 == Some(RETIRED_EPOCH))
    }

    /// Makes all later claims and commits fail.
    pub(super) async fn fence(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<(), StoreError> {
        let (generation, number) = partition_key(partition)?;
        for _ in 0..MAX_FENCE_ATTEMPTS {
            let written = match self.read(session, partition).await?.0 {
                Some(RETIRED_EPOCH) => return Ok(()),
                None => {
                    let values = (RETIRED_EPOCH, RETIRED_OWNER, generation, number);
                    session.execute_unpaged(&self.fence_unclaimed, values).await
                }
                Some(epoch) => {
                    let values = (RETIRED_EPOCH, RETIRED_OWNER, generation, number, epoch);
                    session.execute_unpaged(&self.fence_claimed, values).await
                }
            };
            if outcome(written.map_err(unavailable)?)? == CasOutcome::Applied {
                return Ok(());
            }
        }
        Err(unavailable("other processes keep claiming the partition"))
    }

    /// Deletes the totals of a fenced partition.
    pub(super) async fn delete_totals(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<(), StoreError> {
        let (generation, number) = partition_key(partition)?;
        let budgets = self.read(session, partition).await?.1;
        for budgets in budgets.chunks(BUDGETS_PER_BATCH) {
            // Conditional, as every write of this table: its timestamps are those of Paxos.
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.append_statement(self.keep_fence.clone());
            let condition = (RETIRED_OWNER, generation, number, RETIRED_EPOCH);
            let mut values: Vec<Box<dyn SerializeRow + Send + Sync>> = vec![Box::new(condition)];
            for budget in budgets {
                batch.append_statement(self.delete_budget.clone());
                values.push(Box::new((generation, number, budget.as_str())));
            }
            let deleted = session.batch(&batch, values).await.map_err(unavailable)?;
            if outcome(deleted)? == CasOutcome::Refused {
                return Err(corrupt("a retired partition was claimed again"));
            }
        }
        Ok(())
    }

    /// Reads the epoch and the budgets of a partition.
    async fn read(
        &self,
        session: &Session,
        partition: PartitionRef,
    ) -> Result<(Option<i64>, Vec<String>), StoreError> {
        let response = session.execute_unpaged(&self.read, partition_key(partition)?).await;
        let rows = response.map_err(unavailable)?.into_rows_result().map_err(corrupt)?;
        let (mut epoch, mut budgets) = (None, Vec::new());
        for row in rows.rows::<(Option<i64>, Option<String>)>().map_err(corrupt)? {
            let (stored, budget) = row.map_err(corrupt)?;
            epoch = epoch.or(stored);
            budgets.extend(budget);
        }
        Ok((epoch, budgets))
    }
}
