//! Reads of person rows and their progress in the store: limited, and behind a deadline and a circuit breaker.

use std::sync::Arc;

use schemas::{PersonKey, PersonRow, Position};
use storage::store::{PartitionRef, Store, StoreError};

use crate::breaker::BreakerDecision;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::read_limit::ReadLimit;
use crate::tiers::TierError;
use crate::tiers::guard::Guard;

/// The label of person row reads in metrics and logs.
pub const TIER: &str = "people";

/// Reads person rows from the store.
pub struct PersonStore {
    store: Arc<dyn Store>,
    guard: Guard,
    limit: ReadLimit,
}

impl PersonStore {
    /// Creates the reads of `store`.
    pub fn new(config: &ApiConfig, store: Arc<dyn Store>, metrics: &ApiMetrics) -> Self {
        let overloaded = metrics.reads.with_label_values(&[TIER, "overloaded"]);
        Self {
            store,
            guard: Guard::new(TIER, config.summary_deadline, config.breaker(), metrics),
            limit: ReadLimit::new(config.max_person_reads, config.summary_deadline, overloaded),
        }
    }

    /// Reads one person's row.
    ///
    /// # Errors
    /// When the store is unavailable or overloaded.
    pub async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, NoAnswer> {
        self.read(self.store.person(partition, person)).await
    }

    /// Reads up to which position the rows of a partition are written.
    ///
    /// # Errors
    /// When the store is unavailable or overloaded.
    pub async fn rows_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, NoAnswer> {
        self.read(self.store.rows_position(partition)).await
    }

    /// Returns the store, for a [`read`](Self::read) of several steps.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Runs a read of the store once it is its turn.
    ///
    /// # Errors
    /// When the store is unavailable or overloaded.
    pub async fn read<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, NoAnswer> {
        // Before the guard: waiting for a turn says nothing about the store.
        let _permit = self.limit.acquire().await?;
        let decision = self.guard.admit();
        if decision == BreakerDecision::Refused {
            return Err(NoAnswer::Unavailable);
        }
        let answer = self.guard.run(decision, async {
            match read.await {
                Err(StoreError::Unavailable(reason)) => Err(TierError(reason)),
                // A damaged row is no failure of the store: it must not open the breaker.
                answered => Ok(answered),
            }
        });
        match answer.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::error!(%error, "failed to read a person row");
                Err(NoAnswer::Unavailable)
            }
            Err(_) => Err(NoAnswer::Unavailable),
        }
    }
}
