//! The coordinator's handle of one running owner: starting it, releasing it, and handling its exit. What the owner does
//! with its records is the `partition` module's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::PartitionId;
use storage::log::RecordBatch;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::partition::{HaltReason, Partition, PartitionExit, PartitionProgress};

/// Maximum number of batches queued for an owner: with the source's batch size, some ten thousand records.
const MAX_QUEUED_BATCHES: usize = 16;
/// Time for the final commit of a release. Afterwards the partition is released without it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct OwnerHandle {
    pub records: mpsc::Sender<RecordBatch>,
    pub progress: Arc<PartitionProgress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl OwnerHandle {
    /// Spawns the owner on `handle`.
    pub fn start(
        shared: &Arc<Shared>,
        handle: &Handle,
        partition: PartitionId,
        owner: Partition,
        progress: Arc<PartitionProgress>,
    ) -> Self {
        let (records, inbox) = mpsc::channel(MAX_QUEUED_BATCHES);
        let stop = CancellationToken::new();
        let shared = Arc::clone(shared);
        let run = owner.run(inbox, stop.clone());
        let task = handle.spawn(async move {
            // A bug in one owner must not stop its partition silently.
            let exit = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
                PartitionExit::Halted(HaltReason::Failed("it panicked; see the log".into()))
            });
            shared.handle_exit(partition, &exit);
        });
        Self { records, progress, stop, task }
    }

    /// Releases the partition, after a final commit unless the partition is `lost`.
    pub async fn release(self, shared: &Shared, partition: PartitionId, lost: bool) {
        self.stop.cancel();
        let mut task = self.task;
        let timeout = if lost { Duration::ZERO } else { RELEASE_TIMEOUT };
        if tokio::time::timeout(timeout, &mut task).await.is_err() {
            // The next owner's claim fences the aborted commit; its records are folded again there.
            task.abort();
            let _ = task.await;
            if !lost {
                tracing::warn!(
                    %partition,
                    timeout_ms = RELEASE_TIMEOUT.as_millis() as u64,
                    "partition released without a final commit: the store did not respond in time",
                );
            }
        }
        shared.deps.publisher.forget(shared.id(partition));
    }
}

impl Shared {
    /// Handles the exit of an owner, requested or not.
    fn handle_exit(&self, partition: PartitionId, exit: &PartitionExit) {
        match exit {
            PartitionExit::Released => {
                tracing::info!(%partition, "partition released");
                return;
            }
            PartitionExit::Fenced => {
                tracing::warn!(%partition, "partition fenced by another owner, rejoining the group");
                self.deps.metrics.fenced();
                self.rejoin_timer.schedule(Duration::ZERO, Instant::now());
            }
            PartitionExit::CommitsLost => {
                tracing::warn!(%partition, "the store lost acknowledged commits, rejoining the group");
                self.rejoin_timer.schedule(Duration::ZERO, Instant::now());
            }
            PartitionExit::RowsLost(_) => {
                tracing::warn!(%partition, "person rows invalidated, rejoining the group to replay people");
                self.rejoin_timer.schedule(Duration::ZERO, Instant::now());
            }
            PartitionExit::LogGap { expected, found } => {
                let (expected, found) = (*expected, *found);
                if self.partitions.is_first_gap(partition, expected) {
                    tracing::error!(
                        %partition,
                        %expected,
                        %found,
                        "log skipped records, rejoining the group to read them again",
                    );
                    self.rejoin_timer.schedule(Duration::ZERO, Instant::now());
                } else {
                    self.partitions.halt(partition, &HaltReason::LogGap { expected, found });
                }
            }
            PartitionExit::Halted(reason) => self.partitions.halt(partition, reason),
        }
        self.deps.publisher.forget(self.id(partition));
    }
}
