//! Runs a log source.

use std::sync::Arc;

use schemas::LogRef;
use storage::log::{LogSource, SourceError};
use tokio_util::sync::CancellationToken;

use super::Owner;
use crate::contract::wait::{TEST_TIMEOUT, until};

/// A source that runs on its own thread.
pub struct RunningSource {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<(Box<dyn LogSource>, Result<(), SourceError>)>,
}

impl RunningSource {
    pub fn start(mut source: Box<dyn LogSource>, log: &LogRef, owner: &Arc<Owner>) -> Self {
        let (stop, owner, log) = (CancellationToken::new(), Arc::clone(owner), log.clone());
        let token = stop.clone();
        let thread = std::thread::spawn(move || {
            let outcome = source.run(&log, &*owner, &token);
            (source, outcome)
        });
        Self { stop, thread }
    }

    pub async fn stop(self) -> (Box<dyn LogSource>, Result<(), SourceError>) {
        self.stop.cancel();
        self.end().await
    }

    /// Waits until the source ends by itself.
    pub async fn end(self) -> (Box<dyn LogSource>, Result<(), SourceError>) {
        until("the source ends", TEST_TIMEOUT, async || self.thread.is_finished()).await;
        self.thread.join().unwrap()
    }
}
