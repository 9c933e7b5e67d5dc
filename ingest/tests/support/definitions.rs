//! Budget definitions in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Budget, BudgetId, StoredBudget};
use storage::control::{BudgetDefinitions, Catalog, Change, ControlTopicError, Deletion, Erasure};
use tokio::sync::watch;

pub struct FakeDefinitions {
    pub catalog: Mutex<Arc<Catalog>>,
    pub loaded: AtomicBool,
    pub failing: AtomicBool,
    /// Changing a definition takes for ever.
    pub changes_hang: AtomicBool,
    pub changes: AtomicUsize,
    /// Applied just before the next change, as a concurrent writer would.
    pub concurrent_change: Mutex<Option<Budget>>,
    /// Applied just before the next confirmation is read, as a processor would.
    pub before_confirmation: Mutex<Option<Budget>>,
    /// The control topic cannot be read to its end.
    pub unconfirmed: AtomicBool,
    /// Reading the control topic to its end takes for ever.
    pub confirmation_hangs: AtomicBool,
    pub confirmations: AtomicUsize,
    changed: watch::Sender<()>,
}

/// No definition yet, and nothing fails.
impl Default for FakeDefinitions {
    fn default() -> Self {
        Self {
            catalog: Mutex::default(),
            loaded: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            changes_hang: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            concurrent_change: Mutex::default(),
            before_confirmation: Mutex::default(),
            unconfirmed: AtomicBool::new(false),
            confirmation_hangs: AtomicBool::new(false),
            confirmations: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
        }
    }
}

impl FakeDefinitions {
    pub fn put(&self, budget: Budget) {
        let mut catalog = self.catalog.lock();
        *catalog = Arc::new(catalog.with(Arc::new(budget)));
    }

    /// Adds a definition as another release stored it.
    pub fn put_stored(&self, json: &str) {
        let id = StoredBudget::id(json.as_bytes()).unwrap();
        let mut catalog = self.catalog.lock();
        *catalog = Arc::new(catalog.with_stored(&id, StoredBudget::parse(json.as_bytes())));
    }

    pub fn get(&self, id: &str) -> Option<Arc<Budget>> {
        self.catalog.lock().get(id).cloned()
    }
}

#[async_trait]
impl BudgetDefinitions for FakeDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.lock())
    }

    fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        self.confirmations.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.confirmation_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.unconfirmed.load(Ordering::SeqCst) {
            return Err(ControlTopicError::Unavailable("injected fault".into()));
        }
        if let Some(budget) = self.before_confirmation.lock().take() {
            self.put(budget);
        }
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
        self.changes.fetch_add(1, Ordering::SeqCst);
        // The real implementations yield too, so that other tasks interleave.
        tokio::task::yield_now().await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(ControlTopicError::Unavailable("injected fault".into()));
        }
        if self.changes_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(budget) = self.concurrent_change.lock().take() {
            self.put(budget);
        }
        let current = self.catalog.lock().changeable(id.as_str())?.cloned();
        match decide(current.as_deref())? {
            Some(next) => {
                let next = self.catalog().numbered(next);
                self.put(next);
                Ok(self.get(id.as_str()).unwrap())
            }
            None => Ok(current.unwrap()),
        }
    }

    async fn delete(&self, id: &BudgetId, decide: &Deletion<'_>) -> Result<(), ControlTopicError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(ControlTopicError::Unavailable("injected fault".into()));
        }
        let mut catalog = self.catalog.lock();
        let current = catalog.changeable(id.as_str())?.cloned();
        decide(current.as_deref())?;
        *catalog = Arc::new(catalog.without(id, current.unwrap().revision + 1));
        Ok(())
    }

    async fn erase_former_definitions(&self, _: &BudgetId) -> Result<Erasure, ControlTopicError> {
        Err(ControlTopicError::Unavailable("ingest erases no definitions".into()))
    }
}
