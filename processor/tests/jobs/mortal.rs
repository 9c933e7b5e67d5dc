//! A store as one process sees it that is killed, or stands still, at a certain call: at its beginning, or after it took
//! effect and before its answer came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::store::memory::MemoryStore;
use tokio::sync::watch;

use crate::passing::{Around, Call, Passing};

pub type Mortal = Passing<Stops>;

pub struct Stops {
    calls: AtomicU64,
    /// The call at which everything stands still, and whether it took effect before.
    at: (u64, bool),
    goes_on: watch::Sender<bool>,
}

impl Mortal {
    pub fn stopping(inner: Arc<MemoryStore>, at: (u64, bool)) -> Self {
        Self::new(inner, Stops { calls: AtomicU64::new(0), at, goes_on: watch::Sender::new(false) })
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.around.calls.load(Ordering::Relaxed)
    }

    /// Whether the call has come.
    pub fn stands_still(&self) -> bool {
        self.calls() > self.around.at.0
    }

    /// It was not killed: it only stood still.
    pub fn go_on(&self) {
        self.around.goes_on.send_replace(true);
    }
}

impl Stops {
    async fn wait(&self) {
        self.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.unwrap();
    }
}

impl Around for Stops {
    async fn around<T: Send>(
        &self,
        _: &MemoryStore,
        _: Call,
        answer: impl Future<Output = T> + Send,
    ) -> T {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (last, after) = self.at;
        if number > last || (number == last && !after) {
            self.wait().await;
        }
        let answer = answer.await;
        if number == last && after {
            self.wait().await;
        }
        answer
    }
}
