//! The cache and the store, in which the people of budgets are counted. Opened once a budget has a cap: most deployments
//! have none, and `ingest` needs neither of them otherwise.

use std::sync::{Arc, OnceLock};

use storage::cache::Cache;
use storage::config::StorageConfig;
use storage::open_error::OpenError;
use storage::store::Store;

/// Reads numbers of people from the cache, and person rows from the store.
pub struct CountedPeople {
    /// What opens the backends; `None` if they are open.
    config: Option<StorageConfig>,
    cache: OnceLock<Arc<dyn Cache>>,
    store: OnceLock<Arc<dyn Store>>,
}

impl CountedPeople {
    /// Creates the reads of backends that are open.
    pub fn opened(cache: Arc<dyn Cache>, store: Arc<dyn Store>) -> Self {
        Self { config: None, cache: cache.into(), store: store.into() }
    }

    /// Creates the reads of the configured backends. They are opened once a budget has a cap.
    pub fn opened_when_needed(config: StorageConfig) -> Self {
        Self { config: Some(config), cache: OnceLock::new(), store: OnceLock::new() }
    }

    /// Returns the store; `None` if it has not been opened yet.
    pub(super) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.get()
    }

    /// Returns the cache, which may be unreachable. `None` if no other process can reach the configured one.
    pub(super) async fn open_cache(&self) -> Option<&Arc<dyn Cache>> {
        if let (None, Some(config)) = (self.cache.get(), &self.config) {
            let opened = config.open_shared_cache().await?;
            return Some(self.cache.get_or_init(|| opened));
        }
        self.cache.get()
    }

    /// Opens the store, if it is not open. Its schema is left as it is.
    pub(super) async fn open_store(&self) -> Result<(), OpenError> {
        if let (None, Some(config)) = (self.store.get(), &self.config) {
            let opened = config.open_existing_store().await?;
            self.store.get_or_init(|| opened.store);
        }
        Ok(())
    }
}
