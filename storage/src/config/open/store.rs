//! Opens the store: totals, person rows, generations and jobs.

use std::sync::Arc;

use crate::config::embedded_files::STORE_FILE;
use crate::config::{StorageConfig, StoreKind};
use crate::jobs::JobStore;
use crate::open_error::OpenError;
use crate::store::Store;
use crate::store::scylla::ScyllaStore;
use crate::store::sqlite::SqliteStore;

/// The handles of the store, opened once.
#[derive(Clone)]
pub struct StoreHandles {
    /// Totals, person rows and generations.
    pub store: Arc<dyn Store>,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
}

impl StoreHandles {
    fn of(store: impl Store + JobStore) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, jobs: store }
    }
}

impl StorageConfig {
    /// Opens the store, and migrates its schema.
    ///
    /// # Errors
    /// If the store is unreachable or has an unexpected schema.
    pub async fn open_store(&self) -> Result<StoreHandles, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                // Boxed: the driver's nested futures would exceed the compiler's depth limit in the callers.
                let opened = Box::pin(ScyllaStore::connect(&self.scylla)).await;
                Ok(StoreHandles::of(opened?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open(&self.embedded_file(STORE_FILE)?);
                Ok(StoreHandles::of(
                    opened.map_err(|error| OpenError::invalid("the store", error))?,
                ))
            }
        }
    }

    /// Opens an existing store without changing its schema.
    ///
    /// # Errors
    /// If the store is unreachable, does not exist, or has an old schema.
    pub async fn open_existing_store(&self) -> Result<StoreHandles, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                let opened = Box::pin(ScyllaStore::connect_to_existing(&self.scylla)).await;
                Ok(StoreHandles::of(opened?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open_existing(&self.sqlite_dir.join(STORE_FILE));
                Ok(StoreHandles::of(
                    opened.map_err(|error| OpenError::invalid("the store", error))?,
                ))
            }
        }
    }
}
