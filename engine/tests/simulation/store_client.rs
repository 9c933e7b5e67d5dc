//! Each process's store client, through the simulated network.
//!
//! Requests own their arguments instead of passing an `Interceptor`: a request takes effect even after its sender is
//! gone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use schemas::{
    BudgetId, Generation, GenerationRegistry, HistoryInstant, HistoryPoint, HistoryStep,
    PartitionCount, PartitionReport, PersonKey, PersonRow, Position, bucket_of,
};
use storage::store::{
    BudgetSummary, CasOutcome, Checkpoints, Commit, DamagedTotals, Epoch, Generations, Histories,
    KnownPartition, PartitionRef, People, StoreError, StoredPartition,
};
use tokio::time::sleep;

use crate::network::{CALL_TIMEOUT_MS, Link, PartitionFault, Service};
use crate::store::StoreServer;

/// One process's store client.
pub struct StoreClient {
    pub server: Arc<StoreServer>,
    pub link: Link,
}

impl StoreClient {
    async fn call<T: Send + 'static>(
        &self,
        partition: PartitionRef,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.link.world.fault_of(partition.partition) == Some(PartitionFault::NoQuorum) {
            sleep(Duration::from_millis(CALL_TIMEOUT_MS)).await;
            return Err(StoreError::Unavailable("no quorum".into()));
        }
        self.link.call(Service::Store, effect).await.map_err(StoreError::Unavailable)?
    }
}

#[async_trait]
impl Checkpoints for StoreClient {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        let server = Arc::clone(&self.server);
        self.call(partition, async move { server.tables.read_partition(partition).await }).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let server = Arc::clone(&self.server);
        self.call(partition, server.claim(partition, expected, next, owner.to_owned())).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        self.call(partition, Arc::clone(&self.server).commit(partition, commit.clone())).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        self.server.tables.summaries(generation, partitions, budgets).await
    }

    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError> {
        self.server.tables.rows_position(partition).await
    }
}

#[async_trait]
impl People for StoreClient {
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let mut batches: BTreeMap<u8, Vec<PersonRow>> = BTreeMap::new();
        for row in rows {
            let batch = if self.link.world.plan.splits_rows { bucket_of(&row.person) } else { 0 };
            batches.entry(batch).or_default().push(row.clone());
        }
        let writes = batches.into_values().map(|rows| {
            let server = Arc::clone(&self.server);
            self.call(partition, server.write_people(partition, rows))
        });
        try_join_all(writes).await.map(|_| ())
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let server = Arc::clone(&self.server);
        let read = async move {
            let mut rows = Vec::new();
            server.tables.read_people(partition, bucket, &mut |row| rows.push(row)).await?;
            Ok(rows)
        };
        self.call(partition, read).await?.into_iter().for_each(row);
        Ok(())
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.server.tables.person(partition, person).await
    }
}

#[async_trait]
impl Histories for StoreClient {
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let server = Arc::clone(&self.server);
        self.call(partition, server.write_history(partition, points.to_vec(), now_ms)).await
    }

    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        self.server.tables.history(partition, budget, step, instants).await
    }

    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        self.server.tables.scan_history(partition, step, point).await
    }
}

#[async_trait]
impl Generations for StoreClient {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        self.server.tables.registry().await
    }

    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        self.server.tables.change_registry(next).await
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        self.server.tables.known_partitions().await
    }

    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.server.tables.retire_partition(partition).await
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.server.tables.write_report(partition, report).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.server.tables.reports(generation, partitions).await
    }
}
