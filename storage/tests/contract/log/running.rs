//! A log's source at work.

use std::sync::Arc;

use schemas::LogRef;
use storage::log::{LogSource, SourceError};
use tokio_util::sync::CancellationToken;

use super::Owner;
use crate::contract::wait::{PATIENCE, until};

/// A source that runs in a thread of its own.
pub struct Running {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<(Box<dyn LogSource>, Result<(), SourceError>)>,
}

impl Running {
    pub fn start(mut source: Box<dyn LogSource>, log: &LogRef, owner: &Arc<Owner>) -> Self {
        let (stop, owner, log) = (CancellationToken::new(), Arc::clone(owner), log.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let outcome = source.run(&log, &*owner, &stopped);
            (source, outcome)
        });
        Self { stop, thread }
    }

    pub async fn stop(self) -> (Box<dyn LogSource>, Result<(), SourceError>) {
        self.stop.cancel();
        self.end().await
    }

    /// Waits for it to end by itself.
    pub async fn end(self) -> (Box<dyn LogSource>, Result<(), SourceError>) {
        until("the source ends", PATIENCE, async || self.thread.is_finished()).await;
        self.thread.join().unwrap()
    }
}
