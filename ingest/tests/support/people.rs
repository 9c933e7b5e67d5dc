//! Numbers of people and their rows, in a cache and a store that fail on demand.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ingest::CountedPeople;
use parking_lot::Mutex;
use schemas::{
    BudgetId, CombinedTotals, GenerationRegistry, LogNumber, LogRef, Offset, PartitionCount,
    PartitionId, PartitionTotals, PersonRow, Position, Term, partition_for,
};
use storage::cache::{Cache, CacheError, CacheUpdate};
use storage::store::memory::MemoryStore;
use storage::store::{
    Generations, InterceptedStore, Interceptor, PartitionRef, People, Store, StoreError,
    StoreOperation,
};
use tokio::sync::broadcast;

use super::{PARTITIONS, key};

/// The fakes behind the cap on people.
#[derive(Default)]
pub struct FakePeople {
    pub cache: Arc<FakeCache>,
    pub store: Arc<InterceptedStore<FakeStore>>,
}

impl FakePeople {
    pub fn counted(&self) -> CountedPeople {
        CountedPeople::opened(self.cache.clone(), self.store.clone())
    }

    /// Publishes a number of people of the default budget, and waits until `ingest` has read it.
    pub async fn publish(&self, people: u64) {
        self.cache.people.lock().insert("taxes".to_owned(), people);
        self.next_read().await;
    }

    /// Waits until a read that begins from now on has been processed.
    pub async fn next_read(&self) {
        // A later read begins only after an earlier one has been processed.
        let enough = self.cache.reads.load(Ordering::SeqCst) + 2;
        for _ in 0..1_000 {
            if self.cache.reads.load(Ordering::SeqCst) >= enough {
                return;
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        panic!("the number of people is not read: does the budget have a cap?");
    }

    /// Writes the row of a person of the default budget, who has withdrawn if there are no shares.
    pub async fn write_row(&self, person: &str, shares: &[u16]) {
        let partitions = PartitionCount::new(PARTITIONS).unwrap();
        let registry = GenerationRegistry::first(LogRef::first("submissions", partitions));
        // Refused once it is there.
        self.store.inner.change_registry(&registry).await.unwrap();
        let person = key(person);
        let partition = partition_for(&person, partitions);
        let partition = PartitionRef { generation: registry.active.generation, partition };
        let row = PersonRow {
            person,
            budget: BudgetId::parse("taxes").unwrap(),
            offset: Offset(7),
            basis_points: shares.to_vec(),
            annulled: false,
            recent: Default::default(),
        };
        self.store.inner.write_people(partition, &[row]).await.unwrap();
    }
}

/// How the cache answers.
#[derive(Default)]
pub struct FakeCache {
    /// Published numbers of people.
    pub people: Mutex<HashMap<String, u64>>,
    pub failing: AtomicBool,
    pub reads: AtomicUsize,
}

#[async_trait]
impl Cache for FakeCache {
    async fn publish(
        &self,
        _: &BudgetId,
        _: PartitionCount,
        _: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        Err(CacheError("ingest publishes nothing".into()))
    }

    async fn outdated_partitions(
        &self,
        _: &BudgetId,
        _: Term,
        _: PartitionCount,
        _: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        Err(CacheError("ingest publishes nothing".into()))
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(CacheError("injected fault".into()));
        }
        let people = self.people.lock();
        let totals = |budget: &BudgetId| {
            Some(CombinedTotals {
                term: Term { number: 1, generation: schemas::Generation(1), log: LogNumber::FIRST },
                positions: Vec::new(),
                people: *people.get(budget.as_str())?,
                updated_at_ms: 0,
                categories: Vec::new(),
                closed_partitions: 0,
                annulled: 0,
            })
        };
        Ok(budgets.iter().map(totals).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        broadcast::Sender::new(1).subscribe()
    }
}

/// A store in memory.
#[derive(Default)]
pub struct FakeStore {
    pub inner: MemoryStore,
    pub failing: AtomicBool,
    /// Reads take for ever.
    pub hangs: AtomicBool,
    pub person_reads: AtomicUsize,
}

impl Interceptor for FakeStore {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        Ok(&self.inner)
    }

    async fn intercept<T: Send>(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if let StoreOperation::ReadPerson(_) = operation {
            self.person_reads.fetch_add(1, Ordering::SeqCst);
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("injected fault".into()));
        }
        call.await
    }
}
