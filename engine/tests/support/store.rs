//! An in-memory store with faults that a test switches on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use schemas::{GenerationRegistry, PartitionId};
use storage::store::memory::MemoryStore;
use storage::store::{
    CasOutcome, Checkpoints, Epoch, Generations, InterceptedStore, Interceptor, PartitionRef,
    Store, StoreError, StoreOperation,
};
use tokio::sync::watch;

/// Lets calls pass while open, and blocks them while closed.
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// How many calls are blocked.
    pub fn blocked(&self) -> usize {
        self.0.receiver_count()
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// A store in memory with faults that a test switches on.
pub type FaultyStore = InterceptedStore<Faults>;

#[derive(Default)]
pub struct Faults {
    pub inner: MemoryStore,
    pub commits: Gate,
    pub people: Gate,
    pub row_writes: Gate,
    /// How many writes of person rows were begun.
    pub begun_row_writes: AtomicU64,
    /// Partitions whose claims never return.
    pub unresponsive: Mutex<BTreeSet<PartitionId>>,
    /// Another process claims first at the next claim.
    pub lose_next_claim_race: AtomicBool,
    /// The next commit is acknowledged and lost: the server is killed before its commit log reaches the disk.
    pub lose_next_commit: AtomicBool,
    /// The next registry change fails and is applied when the following one arrives: like an accepted Paxos round that
    /// the next round completes.
    pub defer_next_registry_change: AtomicBool,
    deferred: Mutex<Option<GenerationRegistry>>,
    /// The most budgets that one commit has changed.
    pub most_budgets_in_a_commit: AtomicU64,
    /// Whether every third intercepted call fails: alternately after and without being applied.
    loses_responses: bool,
    calls: AtomicU64,
}

impl Faults {
    /// Creates a store that loses responses.
    pub fn losing_responses() -> FaultyStore {
        FaultyStore::with(Self { loses_responses: true, ..Self::default() })
    }

    /// Claims a partition for another process.
    pub async fn claim_for_rival(&self, partition: PartitionRef) {
        let epoch = self.inner.read_partition(partition).await.unwrap().map(|stored| stored.epoch);
        let next = Epoch(epoch.map_or(1, |epoch| epoch.0 + 1));
        self.inner.claim(partition, epoch, next, "rival").await.unwrap();
    }

    async fn maybe_lose<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.loses_responses || !number.is_multiple_of(3) {
            return call.await;
        }
        if number.is_multiple_of(2) {
            call.await?;
        }
        Err(StoreError::Unavailable("the response is lost".into()))
    }

    async fn apply_deferred_registry_change(&self) -> Result<(), StoreError> {
        let deferred = self.deferred.lock().take();
        if let Some(deferred) = deferred {
            self.inner.change_registry(&deferred).await?;
        }
        Ok(())
    }
}

impl Interceptor for Faults {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        Ok(&self.inner)
    }

    async fn intercept<T: Send>(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match operation {
            StoreOperation::ReadPeople(..) => {
                self.people.pass().await;
                call.await
            }
            StoreOperation::WritePeople(..) => {
                self.begun_row_writes.fetch_add(1, Ordering::Relaxed);
                self.row_writes.pass().await;
                self.maybe_lose(call).await
            }
            StoreOperation::ReadPartition(_) | StoreOperation::ReadRegistry => {
                self.maybe_lose(call).await
            }
            _ => call.await,
        }
    }

    async fn intercept_cas(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<CasOutcome, StoreError>> + Send,
    ) -> Result<CasOutcome, StoreError> {
        match operation {
            StoreOperation::Claim(partition) => {
                if self.unresponsive.lock().contains(&partition.partition) {
                    std::future::pending::<()>().await;
                }
                if self.lose_next_claim_race.swap(false, Ordering::Relaxed) {
                    self.claim_for_rival(partition).await;
                }
            }
            StoreOperation::Commit(_, commit) => {
                self.commits.pass().await;
                self.most_budgets_in_a_commit
                    .fetch_max(commit.totals.len() as u64, Ordering::Relaxed);
                // Only commits that advance the position: a lost `rows_position` is repeated by the next commit.
                let advances = commit.checkpoint.position > commit.from;
                if advances && self.lose_next_commit.swap(false, Ordering::Relaxed) {
                    return Ok(CasOutcome::Applied);
                }
            }
            StoreOperation::ChangeRegistry(next) => {
                if self.defer_next_registry_change.swap(false, Ordering::Relaxed) {
                    *self.deferred.lock() = Some(next.clone());
                    return Err(StoreError::Unavailable("no response".into()));
                }
                self.apply_deferred_registry_change().await?;
            }
            _ => return call.await,
        }
        self.maybe_lose(call).await
    }
}
