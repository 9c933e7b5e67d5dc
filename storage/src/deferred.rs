//! Adapters whose backend may be unreachable at startup. Until the backend is opened (see [`retry_until_available`]),
//! every call fails at once with an "unavailable" error.
//!
//! [`retry_until_available`]: crate::open_error::retry_until_available

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use schemas::{PartitionId, RecordAddress};

use crate::config::StoreHandles;
use crate::jobs::JobStore;
use crate::log::{AppendError, LogWriter, NewRecord};
use crate::store::{InterceptedStore, Interceptor, Store, StoreError};

const NOT_OPENED: &str = "the backend has not been opened yet";

/// An adapter that is set once its backend is opened.
pub struct Deferred<T> {
    opened: OnceLock<T>,
}

/// A log writer that is opened later.
pub type DeferredLog = Deferred<Arc<dyn LogWriter>>;
/// A store and its jobs, which are opened later.
pub type DeferredStore = InterceptedStore<Deferred<StoreHandles>>;

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self { opened: OnceLock::new() }
    }
}

impl<T> Deferred<T> {
    /// Creates an adapter that is not opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the opened adapter. Only the first call has an effect.
    pub fn set(&self, adapter: T) {
        let _ = self.opened.set(adapter);
    }
}

#[async_trait]
impl LogWriter for DeferredLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        match self.opened.get() {
            Some(log) => log.append(records).await,
            None => {
                records.iter().map(|_| Err(AppendError::Unavailable(NOT_OPENED.into()))).collect()
            }
        }
    }

    async fn append_once_per_id(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        match self.opened.get() {
            Some(log) => log.append_once_per_id(records).await,
            None => self.append(records).await,
        }
    }

    fn available(&self) -> Result<(), AppendError> {
        self.opened.get().ok_or_else(|| AppendError::Unavailable(NOT_OPENED.into()))?.available()
    }

    fn refused_partitions(&self) -> Vec<PartitionId> {
        self.opened.get().map(|log| log.refused_partitions()).unwrap_or_default()
    }
}

impl Deferred<StoreHandles> {
    fn handles(&self) -> Result<&StoreHandles, StoreError> {
        self.opened.get().ok_or_else(|| StoreError::Unavailable(NOT_OPENED.into()))
    }
}

impl Interceptor for Deferred<StoreHandles> {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        Ok(self.handles()?.store.as_ref())
    }

    fn job_store(&self) -> Result<&dyn JobStore, StoreError> {
        Ok(self.handles()?.jobs.as_ref())
    }
}
