//! The owner task of a shadow partition and what is fed to it.

use std::sync::Arc;
use std::time::Duration;

use engine::partition::{OwnerExit, PartitionProgress};
use runtime::clock::now_ms;
use schemas::{PartitionReport, Position};
use storage::log::{LogReader, RecordBatch, RecordStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::dead_letters::DeadLetterFilter;
use super::error::ShadowError;

/// Longest time for a release, including its last commit.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which an unchanged report is written again, as a heartbeat.
pub(super) const REPORT_INTERVAL_MS: u64 = 5_000;

/// The running owner of a claimed partition.
pub(super) struct OwnerTask {
    pub stop: CancellationToken,
    pub task: JoinHandle<OwnerExit>,
}

impl OwnerTask {
    /// Releases the partition, after a last commit if that does not exceed the timeout.
    pub async fn release(mut self) {
        self.stop.cancel();
        // A finished task was awaited already by `exited`.
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(RELEASE_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }

    /// Waits until the owner exits, and returns why.
    pub async fn exited(&mut self) -> ShadowError {
        (&mut self.task).await.map_or(ShadowError::OwnerPanicked, ShadowError::Exited)
    }
}

/// The records that are fed to the owner, and the state of feeding.
pub(super) struct Feed {
    pub records: mpsc::Sender<RecordBatch>,
    pub progress: Arc<PartitionProgress>,
    pub dead_letters: Arc<DeadLetterFilter>,
    pub reader: Arc<dyn LogReader>,
    /// Position of the next record to feed.
    pub next: Position,
    /// Position up to which person rows are written.
    pub rows_position: Position,
    /// The open record stream and its adjustable end. `None` before the first read and after a
    /// failed one.
    pub source: Option<(watch::Sender<Position>, RecordStream)>,
    /// The last report that was written.
    pub last_report: Option<PartitionReport>,
    pub catch_up: CatchUp,
}

impl Feed {
    /// Whether the last report is older than the interval, or there is none.
    pub fn is_report_due(&self) -> bool {
        self.last_report
            .as_ref()
            .is_none_or(|last| now_ms() >= last.reported_at_ms + REPORT_INTERVAL_MS)
    }
}

/// Whether the partition catches up, which needs a permit: few partitions do so at once.
pub(super) enum CatchUp {
    /// The partition is not far behind.
    NotNeeded,
    /// The partition is far behind and waits for a permit.
    Waiting,
    /// The partition holds a permit until it has reached its target.
    Permitted { _permit: OwnedSemaphorePermit },
}

impl CatchUp {
    /// Waits for a permit if the partition needs one; otherwise never returns.
    pub async fn acquire(&mut self, permits: &Arc<Semaphore>) {
        if !matches!(self, Self::Waiting) {
            return std::future::pending().await;
        }
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(permits).acquire_owned().await {
            *self = Self::Permitted { _permit: permit };
        }
    }
}
