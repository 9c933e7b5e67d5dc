//! A log of signals in memory, which fails or hangs on demand.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::Signal;
use storage::log::AppendError;
use storage::signals::SignalWriter;

#[derive(Default)]
pub struct FakeSignals {
    pub appended: Mutex<Vec<Signal>>,
    pub fails: AtomicBool,
    /// Appends never return.
    pub hangs: AtomicBool,
}

#[async_trait]
impl SignalWriter for FakeSignals {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("for a test".into()));
        }
        self.appended.lock().extend_from_slice(signals);
        Ok(())
    }

    async fn expire(&self, _now_ms: u64) -> Result<bool, AppendError> {
        Ok(false)
    }
}
