//! Fake backends with switchable faults and read counters.

mod annulments;
mod dead_letters;
mod signals;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::job::{Job, JobId};
use schemas::*;
use storage::cache::{Cache, CacheError, CacheUpdate};
use storage::control::{BudgetDefinitions, Catalog, Change, ControlTopicError, Deletion, Erasure};
use storage::jobs::{JobRows, JobStore, UnreadableJob};
use storage::store::memory::MemoryStore;
use storage::store::*;
use tokio::sync::{broadcast, watch};

pub use annulments::FakeAnnulments;
pub use dead_letters::{FakeDeadLetterOpener, FakeDeadLetters};
pub use signals::FakeSignals;
pub use store::FakeStore;
use store::unavailable;

/// How a backend behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Works,
    Fails,
    Hangs,
}

/// Controls how a backend behaves. A read that hangs continues when the mode changes.
pub struct Switch(watch::Sender<Mode>);

impl Default for Switch {
    fn default() -> Self {
        Self(watch::Sender::new(Mode::Works))
    }
}

impl Switch {
    pub fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }

    async fn pass(&self) -> Result<(), String> {
        let mut mode = self.0.subscribe();
        let mode = *mode.wait_for(|mode| *mode != Mode::Hangs).await.unwrap();
        if mode == Mode::Works { Ok(()) } else { Err("switched off".into()) }
    }
}

#[derive(Default)]
pub struct FakeCache {
    pub switch: Switch,
    pub reads: AtomicUsize,
    answers: Mutex<BTreeMap<BudgetId, CombinedTotals>>,
    reads_by_budget: Mutex<BTreeMap<BudgetId, usize>>,
    updates: Mutex<Option<broadcast::Sender<CacheUpdate>>>,
}

impl FakeCache {
    /// Sets the totals without a cache update.
    pub fn put(&self, budget: &str, totals: Option<CombinedTotals>) {
        let mut answers = self.answers.lock();
        match totals {
            Some(totals) => answers.insert(id(budget), totals),
            None => answers.remove(&id(budget)),
        };
    }

    pub fn get(&self, budget: &str) -> Option<CombinedTotals> {
        self.answers.lock().get(&id(budget)).cloned()
    }

    pub fn send_update(&self, update: CacheUpdate) {
        if let Some(updates) = &*self.updates.lock() {
            let _ = updates.send(update);
        }
    }

    pub fn reads_of(&self, budget: &str) -> usize {
        self.reads_by_budget.lock().get(&id(budget)).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Cache for FakeCache {
    async fn publish(
        &self,
        _: &BudgetId,
        _: PartitionCount,
        _: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        Ok(())
    }

    async fn outdated_partitions(
        &self,
        _: &BudgetId,
        _: Term,
        _: PartitionCount,
        _: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        Ok(Vec::new())
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        for budget in budgets {
            *self.reads_by_budget.lock().entry(budget.clone()).or_default() += 1;
        }
        // Taken before waiting for the switch: a slow answer reflects the moment of the read.
        let found = {
            let answers = self.answers.lock();
            budgets.iter().map(|budget| answers.get(budget).cloned()).collect()
        };
        self.switch.pass().await.map_err(CacheError)?;
        Ok(found)
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.updates.lock().get_or_insert_with(|| broadcast::channel(8).0).subscribe()
    }
}

/// Jobs in memory, behind a switch.
#[derive(Default)]
pub struct FakeJobs {
    pub switch: Switch,
    pub stored: MemoryStore,
    pub unreadable: Mutex<Vec<UnreadableJob>>,
}

#[async_trait]
impl JobStore for FakeJobs {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        let mut rows = self.stored.job_rows().await?;
        rows.unreadable.clone_from(&self.unreadable.lock());
        Ok(rows)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.job(id).await
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.change_job(next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.delete_job(id, revision).await
    }
}

#[derive(Default)]
pub struct FakeDefinitions {
    catalog: Mutex<Arc<Catalog>>,
    changed: watch::Sender<()>,
    /// Whether the definitions are still loading.
    pub loading: AtomicBool,
}

impl FakeDefinitions {
    pub fn put(&self, budget: Budget) {
        let mut catalog = self.catalog.lock();
        *catalog = Arc::new(catalog.with(Arc::new(budget)));
        self.changed.send_replace(());
    }

    /// Replaces a definition by one that another release stored.
    pub fn put_stored(&self, id: &BudgetId, json: &str) {
        let mut catalog = self.catalog.lock();
        *catalog = Arc::new(catalog.with_stored(id, StoredBudget::parse(json.as_bytes())));
        self.changed.send_replace(());
    }
}

#[async_trait]
impl BudgetDefinitions for FakeDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.lock())
    }

    fn is_loaded(&self) -> bool {
        !self.loading.load(Ordering::SeqCst)
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        Ok(self.catalog())
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    async fn change(
        &self,
        id: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError> {
        let current = self.catalog().changeable(id.as_str())?.cloned();
        if let Some(next) = decide(current.as_deref())? {
            self.put(next);
        }
        Ok(Arc::clone(self.catalog().get(id.as_str()).unwrap()))
    }

    async fn delete(&self, _: &BudgetId, _: &Deletion<'_>) -> Result<(), ControlTopicError> {
        Err(ControlTopicError::Unavailable("the api deletes no definitions".into()))
    }

    async fn erase_former_definitions(&self, _: &BudgetId) -> Result<Erasure, ControlTopicError> {
        Ok(Erasure::Erased)
    }
}

pub fn id(text: &str) -> BudgetId {
    BudgetId::parse(text).unwrap()
}

/// The partition count of every test's log.
pub fn partitions() -> PartitionCount {
    PartitionCount::new(3).unwrap()
}
