//! Adapters whose backend may be unreachable at startup. Until the backend is opened (see [`retry_until_available`]), every
//! call fails at once with an "unavailable" error.
//!
//! [`retry_until_available`]: crate::open_error::retry_until_available

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use schemas::Receipt;
use schemas::job::{Job, JobId};

use crate::jobs::{JobRows, JobStore};
use crate::log::{AppendError, LogWriter, NewRecord};
use crate::store::{CasOutcome, InterceptedStore, Interceptor, Store, StoreError};

const NOT_OPENED: &str = "the backend has not been opened yet";

/// An adapter that is set once its backend is opened.
pub struct Deferred<T: ?Sized> {
    opened: OnceLock<Arc<T>>,
}

/// A log writer that is opened later.
pub type DeferredLog = Deferred<dyn LogWriter>;
/// A store that is opened later.
pub type DeferredStore = InterceptedStore<Deferred<dyn Store>>;
/// A job store that is opened later.
pub type DeferredJobs = Deferred<dyn JobStore>;

impl<T: ?Sized> Default for Deferred<T> {
    fn default() -> Self {
        Self { opened: OnceLock::new() }
    }
}

impl<T: ?Sized> Deferred<T> {
    /// Creates an adapter that is not opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the opened adapter. Only the first call has an effect.
    pub fn set(&self, adapter: Arc<T>) {
        let _ = self.opened.set(adapter);
    }

    fn get(&self) -> Option<&T> {
        self.opened.get().map(Arc::as_ref)
    }
}

#[async_trait]
impl LogWriter for Deferred<dyn LogWriter> {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        match self.get() {
            Some(log) => log.append(records).await,
            None => {
                records.iter().map(|_| Err(AppendError::Unavailable(NOT_OPENED.into()))).collect()
            }
        }
    }

    fn available(&self) -> Result<(), AppendError> {
        self.get().ok_or_else(|| AppendError::Unavailable(NOT_OPENED.into()))?.available()
    }
}

impl Interceptor for Deferred<dyn Store> {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        self.get().ok_or_else(|| StoreError::Unavailable(NOT_OPENED.into()))
    }
}

impl Deferred<dyn JobStore> {
    fn jobs(&self) -> Result<&dyn JobStore, StoreError> {
        self.get().ok_or_else(|| StoreError::Unavailable(NOT_OPENED.into()))
    }
}

#[async_trait]
impl JobStore for Deferred<dyn JobStore> {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.jobs()?.job_rows().await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.jobs()?.job(id).await
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        self.jobs()?.change_job(next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        self.jobs()?.delete_job(id, revision).await
    }
}
