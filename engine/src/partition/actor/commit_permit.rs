//! A permit for one of the commits that the process may have in flight. The permit is acquired before the commit is
//! built: a partition that waits for it goes on folding, so its commit contains more records.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::committing::CommitDone;

/// A commit that takes longer gives its place up: a part of the store that does not respond must not hold up the
/// commits to the others.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(250);

/// Runs a commit to its end, and holds the permit for as long as a commit takes at most.
pub(super) fn commit_under_permit(
    permit: OwnedSemaphorePermit,
    mut commit: BoxFuture<'static, CommitDone>,
) -> BoxFuture<'static, CommitDone> {
    Box::pin(async move {
        match timeout(PERMIT_TIMEOUT, &mut commit).await {
            Ok(done) => done,
            Err(_) => {
                drop(permit);
                commit.await
            }
        }
    })
}

/// Acquires one permit at a time, and keeps its place in the queue between calls.
pub(super) struct CommitPermit {
    permits: Arc<Semaphore>,
    waiting: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
    acquired: Option<OwnedSemaphorePermit>,
}

impl CommitPermit {
    pub fn new(permits: Arc<Semaphore>) -> Self {
        Self { permits, waiting: None, acquired: None }
    }

    /// Takes a permit: the acquired one, or a free one if nobody waits for it. `None`: wait with
    /// [`acquire`](Self::acquire).
    pub fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.waiting.is_some() {
            return None;
        }
        self.acquired.take().or_else(|| Arc::clone(&self.permits).try_acquire_owned().ok())
    }

    /// Waits in the queue for a permit. Cancel-safe: the place in the queue is kept.
    pub async fn acquire(&mut self) {
        let permits = &self.permits;
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(Arc::clone(permits).acquire_owned()));
        let acquired = waiting.await;
        self.waiting = None;
        // The semaphore is never closed.
        self.acquired = acquired.ok();
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_commit_without_a_response_gives_its_place_up() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = CommitPermit::new(Arc::clone(&permits)).take().expect("a free permit");
        let stalled = tokio::spawn(commit_under_permit(permit, Box::pin(std::future::pending())));
        let next = timeout(4 * PERMIT_TIMEOUT, permits.acquire()).await;
        assert!(next.is_ok(), "the stalled commit keeps its place");
        assert!(!stalled.is_finished(), "the stalled commit goes on");
    }

    #[tokio::test]
    async fn a_cancelled_wait_keeps_its_place_in_the_queue() {
        let permits = Arc::new(Semaphore::new(1));
        let mut first = CommitPermit::new(Arc::clone(&permits));
        let mut second = CommitPermit::new(Arc::clone(&permits));
        let mut third = CommitPermit::new(permits);
        let in_flight = first.take();
        assert!(in_flight.is_some());
        for waiting in [&mut second, &mut third] {
            assert!(waiting.take().is_none());
            assert!(waiting.acquire().now_or_never().is_none());
        }
        drop(in_flight);
        assert!(first.take().is_none(), "the permit belongs to those who wait");
        assert!(third.acquire().now_or_never().is_none());
        assert!(second.acquire().now_or_never().is_some());
        assert!(second.take().is_some());
    }
}
