//! One partition's owner while it runs: how it is started, let go of, and what follows when its life ends. What it does
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
use crate::partition::{Ended, HaltReason, Partition, Progress};

/// Batches that may wait for an owner: with the source's batch size, some ten thousand records.
const WAITING_BATCHES: usize = 16;
/// How long a release with its last commit may take before the partition is let go without it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Owner {
    pub records: mpsc::Sender<RecordBatch>,
    pub progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Owner {
    pub fn start(
        shared: &Arc<Shared>,
        handle: &Handle,
        partition: PartitionId,
        owner: Partition,
        progress: Arc<Progress>,
    ) -> Self {
        let (records, inbox) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        shared.parts.metrics.partition(partition).set_owned();
        shared.unfolded.clear(partition);
        let shared = Arc::clone(shared);
        let life = owner.run(inbox, stop.clone());
        let task = handle.spawn(async move {
            // A bug in one owner must not take its partition away silently.
            let ended = AssertUnwindSafe(life).catch_unwind().await.unwrap_or_else(|_| {
                Ended::Halted(HaltReason::Failed("it panicked; see the log".into()))
            });
            shared.ended(partition, &ended);
        });
        Self { records, progress, stop, task }
    }

    /// Lets go of the partition, after a last commit unless it is lost anyway.
    pub async fn release(self, shared: &Shared, partition: PartitionId, lost: bool) {
        self.stop.cancel();
        let mut task = self.task;
        let patience = if lost { Duration::ZERO } else { RELEASE_PATIENCE };
        if tokio::time::timeout(patience, &mut task).await.is_err() {
            // Its commits are fenced by the next owner's claim; what it folded is folded again there.
            task.abort();
            let _ = task.await;
            if !lost {
                tracing::warn!(%partition, "released without a last commit: the store did not answer in time");
            }
        }
        shared.parts.publisher.forget(shared.id(partition));
    }
}

impl Shared {
    /// An owner's life has ended, by its own decision or not.
    fn ended(&self, partition: PartitionId, ended: &Ended) {
        match ended {
            Ended::Released => {
                tracing::info!(%partition, "partition released");
                return;
            }
            Ended::Fenced => {
                tracing::warn!(%partition, "another owner has claimed the partition; joining the group again");
                self.parts.metrics.fenced();
                self.rejoin.after(Duration::ZERO, Instant::now());
            }
            Ended::StoreWentBack => {
                tracing::warn!(%partition, "the store has lost commits; joining the group again");
                self.rejoin.after(Duration::ZERO, Instant::now());
            }
            Ended::Halted(reason) => self.unfolded.halted(partition, reason),
        }
        self.parts.publisher.forget(self.id(partition));
    }
}
