//! A fake log of signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{BudgetId, Signal};
use storage::log::{AppendError, ReadError};
use storage::signals::{
    SignalBatch, SignalEraser, SignalErasure, SignalQuery, SignalReader, SignalStream,
};
use tokio::sync::mpsc;

use super::Switch;

#[derive(Default)]
pub struct FakeSignals {
    pub switch: Arc<Switch>,
    pub signals: Mutex<Vec<Signal>>,
    pub reads: AtomicUsize,
}

#[async_trait]
impl SignalEraser for FakeSignals {
    async fn erase(&self, budget: &BudgetId) -> Result<SignalErasure, AppendError> {
        self.signals.lock().retain(|signal| signal.budget != *budget);
        Ok(SignalErasure::Erased)
    }
}

impl SignalReader for FakeSignals {
    fn read(&self, query: SignalQuery) -> SignalStream {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel(1);
        let mut signals = self.signals.lock().clone();
        signals.retain(|signal| {
            query.accepted_ms.contains(&signal.accepted_at_ms)
                && query.budget.as_ref().is_none_or(|budget| *budget == signal.budget)
        });
        let switch = Arc::clone(&self.switch);
        tokio::spawn(async move {
            let total = signals.len() as u64;
            let batch = switch.pass().await.map(|()| SignalBatch { signals, done: total, total });
            let _ = sender.send(batch.map_err(ReadError::Unavailable)).await;
        });
        receiver
    }
}
