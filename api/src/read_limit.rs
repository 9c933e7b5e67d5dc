//! Limits the concurrent reads of one kind, and how long further reads wait for their turn.

use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::no_answer::NoAnswer;

/// Limits concurrent reads. Reads are admitted in the order of their arrival.
#[derive(Debug)]
pub struct ReadLimit {
    permits: Semaphore,
    max_wait: Duration,
    overloaded: IntCounter,
}

impl ReadLimit {
    /// Creates a limit of `max_reads`; `overloaded` counts the reads that waited longer than `max_wait`.
    pub fn new(max_reads: usize, max_wait: Duration, overloaded: IntCounter) -> Self {
        let permits = Semaphore::new(max_reads.min(Semaphore::MAX_PERMITS));
        Self { permits, max_wait, overloaded }
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// [`NoAnswer::Overloaded`] when no permit is free in time.
    pub async fn acquire(&self) -> Result<SemaphorePermit<'_>, NoAnswer> {
        match timeout(self.max_wait, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => {
                self.overloaded.inc();
                Err(NoAnswer::Overloaded)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_its_turn_and_not_longer_than_the_limit() {
        let overloaded = IntCounter::new("overloaded", "Reads.").unwrap();
        let limit = ReadLimit::new(1, Duration::from_millis(500), overloaded.clone());
        let first = limit.acquire().await.unwrap();
        assert_eq!(limit.acquire().await.err(), Some(NoAnswer::Overloaded));
        assert_eq!(overloaded.get(), 1);
        let (second, ()) = tokio::join!(limit.acquire(), async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            drop(first);
        });
        assert!(second.is_ok());
    }
}
