//! A store that stalls at a given operation, like a killed or paused process. Before the operation, or after it took
//! effect and before its response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::jobs::JobStore;
use storage::store::memory::MemoryStore;
use storage::store::{InterceptedStore, Interceptor, Store, StoreError, StoreOperation};
use tokio::sync::watch;

pub type StallingStore = InterceptedStore<Staller>;

/// Stalls at one operation and at every later one, until it is resumed.
pub struct Staller {
    inner: Arc<MemoryStore>,
    operations: AtomicU64,
    /// The operation to stall at, and whether it takes effect before.
    stall_at: (u64, bool),
    resumed: watch::Sender<bool>,
}

/// Creates a store that stalls at the given operation; `true`: after it took effect.
pub fn stalling_store(inner: Arc<MemoryStore>, stall_at: (u64, bool)) -> StallingStore {
    let (operations, resumed) = (AtomicU64::new(0), watch::Sender::new(false));
    StallingStore::with(Staller { inner, operations, stall_at, resumed })
}

impl Staller {
    /// Returns the number of operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Whether the operation to stall at has begun.
    pub fn is_stalled(&self) -> bool {
        self.operations() > self.stall_at.0
    }

    /// Resumes all stalled operations, as for a process that was only paused.
    pub fn resume(&self) {
        self.resumed.send_replace(true);
    }

    async fn wait_until_resumed(&self) {
        self.resumed.subscribe().wait_for(|resumed| *resumed).await.unwrap();
    }
}

impl Interceptor for Staller {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        Ok(self.inner.as_ref())
    }

    fn job_store(&self) -> Result<&dyn JobStore, StoreError> {
        Ok(self.inner.as_ref())
    }

    async fn intercept<T: Send>(
        &self,
        _: StoreOperation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        let (last, after) = self.stall_at;
        if number > last || (number == last && !after) {
            self.wait_until_resumed().await;
        }
        let result = call.await;
        if number == last && after {
            self.wait_until_resumed().await;
        }
        result
    }
}
