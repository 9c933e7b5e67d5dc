//! One person's allocation as counted now: the row that the partition's owner has written for it.
//!
//! Rows are written behind the commits, so a row may be a moment behind the aggregate. Whoever needs their own
//! submission says so with its receipt. A record in another partition cannot be about this person, so a receipt from
//! there asks for nothing. In the same partition the row itself shows that it is recent enough, or else (for the
//! receipt of a repetition, which moves no row, or of somebody else) the partition's checkpoint.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use schemas::{
    BudgetId, PartitionCount, PartitionId, PersonKey, PersonKeyHasher, PersonName, PersonRow,
    Receipt, partition_for,
};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::time::{Instant, sleep_until};

use crate::breaker::Admission;
use crate::config::ApiConfig;
use crate::consistency::AtLeast;
use crate::generation::CurrentGeneration;
use crate::metrics::ApiMetrics;
use crate::reader::NoAnswer;
use crate::tiers::TierError;
use crate::tiers::guard::Guard;
use crate::waiters::Waiters;

/// Between two looks at a row that somebody waits for.
const LOOK: Duration = Duration::from_millis(50);

/// What reads of rows are called in metrics and logs.
const TIER: &str = "people";

/// Finds people's rows.
pub struct People {
    store: Arc<dyn Store>,
    generation: Arc<CurrentGeneration>,
    hasher: PersonKeyHasher,
    partitions: PartitionCount,
    guard: Guard,
    waiters: Arc<Waiters>,
    hits: IntCounter,
    misses: IntCounter,
}

/// A person's row and where its record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row.
    pub row: PersonRow,
    /// The record that it follows from.
    pub receipt: Receipt,
}

impl People {
    /// People of a deployment with this secret and partition count.
    pub fn new(
        config: &ApiConfig,
        store: Arc<dyn Store>,
        generation: Arc<CurrentGeneration>,
        hasher: PersonKeyHasher,
        partitions: PartitionCount,
        waiters: Arc<Waiters>,
        metrics: &ApiMetrics,
    ) -> Self {
        let guard = Guard::new(TIER, config.summary_deadline, config.breaker, metrics);
        let count = |outcome| metrics.reads.with_label_values(&[TIER, outcome]);
        let (hits, misses) = (count("hit"), count("miss"));
        Self { store, generation, hasher, partitions, guard, waiters, hits, misses }
    }

    /// A person's row in a budget; `None` when there is none, or the person has withdrawn.
    ///
    /// # Errors
    /// [`NoAnswer::Unknown`] when the store does not answer; the others as they say.
    pub async fn find(
        &self,
        budget: &BudgetId,
        person: &PersonName,
        at_least: Option<AtLeast>,
    ) -> Result<Option<Found>, NoAnswer> {
        let key = self.hasher.key(budget, person);
        let partition = partition_for(&key, self.partitions);
        let row = match at_least.filter(|wanted| wanted.receipt.partition == partition) {
            None => self.row(partition, &key).await,
            Some(wanted) => self.row_at_least(partition, &key, wanted).await,
        };
        // Withdrawn: the row only says that its record was taken in.
        let row = row.map(|row| row.filter(|row| !row.basis_points.is_empty()));
        match &row {
            Ok(Some(_)) => self.hits.inc(),
            Ok(None) | Err(NoAnswer::NotYetVisible | NoAnswer::TooManyWaiters) => self.misses.inc(),
            // The guard has counted how it came to that.
            Err(NoAnswer::Unknown) => {}
        }
        Ok(row?.map(|row| Found { receipt: Receipt { partition, offset: row.offset }, row }))
    }

    async fn row_at_least(
        &self,
        partition: PartitionId,
        key: &PersonKey,
        wanted: AtLeast,
    ) -> Result<Option<PersonRow>, NoAnswer> {
        let offset = wanted.receipt.offset;
        let end = Instant::now() + wanted.wait.unwrap_or_default();
        let mut waiting = None;
        loop {
            let row = self.row(partition, key).await?;
            if row.as_ref().is_some_and(|row| row.offset >= offset) {
                return Ok(row);
            }
            let now = Instant::now();
            if now >= end {
                break;
            }
            if waiting.is_none() {
                waiting = Some(self.waiters.enter().ok_or(NoAnswer::TooManyWaiters)?);
            }
            sleep_until(end.min(now + LOOK)).await;
        }
        // Most rows come by themselves, so this one is asked only before saying no. Whatever it includes is in the
        // table already.
        let state_position = self
            .guarded(async |partition| self.store.state_position(partition).await, partition)
            .await?;
        match state_position {
            Some(position) if position.includes(offset) => self.row(partition, key).await,
            _ => Err(NoAnswer::NotYetVisible),
        }
    }

    async fn row(
        &self,
        partition: PartitionId,
        key: &PersonKey,
    ) -> Result<Option<PersonRow>, NoAnswer> {
        self.guarded(async |partition| self.store.person(partition, key).await, partition).await
    }

    /// Reads something of a partition of the current generation; before the first there is nothing.
    async fn guarded<T>(
        &self,
        read: impl AsyncFnOnce(PartitionRef) -> Result<Option<T>, StoreError>,
        partition: PartitionId,
    ) -> Result<Option<T>, NoAnswer> {
        let admission = self.guard.admit();
        if admission == Admission::Refused {
            return Err(NoAnswer::Unknown);
        }
        let read = async {
            let Some(current) = self.generation.get().await? else {
                return Ok(None);
            };
            read(PartitionRef { generation: current.term.generation, partition }).await
        };
        let answer = self.guard.run(admission, async {
            match read.await {
                Err(StoreError::Unavailable(reason)) => Err(TierError(reason)),
                answered => Ok(answered),
            }
        });
        match answer.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(damage)) => {
                tracing::error!(%partition, error = %damage, "a person's row cannot be read");
                Err(NoAnswer::Unknown)
            }
            Err(_) => Err(NoAnswer::Unknown),
        }
    }
}
