//! The handle of the task that holds an assigned partition: how the coordinator ends an assignment, and gets back the
//! people of an owner that it has released.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::PartitionId;
use storage::log::BoundsReader;
use storage::store::PartitionRef;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::assignment::Assignment;
use super::hand_over::HAND_OVER_TIMEOUT;
use crate::partition::{HaltReason, PreparedPeople};

/// Time for the final commit of a release. Afterwards the partition is released without it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that holds an assigned partition. Dropping it aborts the task: an assignment that nobody can release any
/// more must not end under its successor.
pub(super) struct AssignmentHandle {
    stop: CancellationToken,
    moved: CancellationToken,
    /// The partition in the generation of the start.
    id: PartitionRef,
    bounds: Arc<dyn BoundsReader>,
    /// The people of an owner that was released.
    people: oneshot::Receiver<PreparedPeople>,
    task: AbortOnDropHandle<()>,
}

impl AssignmentHandle {
    /// Starts to hold a partition. `former` is a former assignment of it to this process, of which the owner may still
    /// fold: it is released first, and its people are kept.
    pub fn start(
        shared: &Arc<Shared>,
        partition: PartitionId,
        bounds: &Arc<dyn BoundsReader>,
        former: Option<AssignmentHandle>,
    ) -> Self {
        let (stop, moved) = (CancellationToken::new(), CancellationToken::new());
        let id = shared.id(partition);
        let (sender, people) = oneshot::channel();
        let (stopped, moved_away) = (stop.clone(), moved.clone());
        let assignment = Assignment {
            shared: Arc::clone(shared),
            partition,
            bounds: Arc::clone(bounds),
            stop: stop.clone(),
            moved: moved.clone(),
        };
        let hold = async move {
            let kept = match former {
                Some(former) => {
                    // Another generation may count another log.
                    let is_same = former.id == id;
                    former.release(partition, false).await.filter(|_| is_same)
                }
                None => None,
            };
            let shared = Arc::clone(&assignment.shared);
            let id = shared.id(partition);
            let left = assignment.hold(kept).await;
            if moved_away.is_cancelled() {
                // The takeover may have ended just when the partition was moved away.
                shared.partitions.remove(partition);
                shared.starts.forget(partition);
                shared.deps.publisher.forget(id);
                shared.deps.metrics.forget(partition);
            }
            // Of a partition that nobody has released, nobody will take them.
            if let Some(people) = left.filter(|_| stopped.is_cancelled()) {
                // Fails if the release has timed out.
                let _ = sender.send(people);
            }
        };
        let (panicked, moved_away) = (Arc::clone(shared), moved.clone());
        let task = AssertUnwindSafe(hold).catch_unwind().map(move |ended| {
            // A bug must not stop the partition silently.
            if ended.is_err() {
                panicked.owner_ended(partition);
                if !moved_away.is_cancelled() {
                    let reason = HaltReason::Failed("it panicked; see the log".into());
                    panicked.partitions.halt(partition, &reason);
                }
            }
        });
        let task = AbortOnDropHandle::new(shared.spawner.spawn(task.boxed()));
        Self { stop, moved, id, bounds: Arc::clone(bounds), people, task }
    }

    /// Lets the owner, if there is one, fold on until the next one has claimed the partition.
    pub fn hand_over(&self) {
        self.moved.cancel();
    }

    /// Reads the bounds of the partition's log.
    pub fn bounds(&self) -> &Arc<dyn BoundsReader> {
        &self.bounds
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the end of a hand-over.
    pub async fn handed_over(mut self, partition: PartitionId) {
        let timeout = HAND_OVER_TIMEOUT + RELEASE_TIMEOUT;
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            tracing::warn!(%partition, "partition handed over without a final commit");
        }
    }

    /// Ends the assignment, after a final commit of its owner unless the partition is `lost`. Returns the people of an
    /// owner that has committed everything and knows all of them.
    pub async fn release(mut self, partition: PartitionId, lost: bool) -> Option<PreparedPeople> {
        self.stop.cancel();
        let timeout = if lost { Duration::ZERO } else { RELEASE_TIMEOUT };
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            // The next owner's claim fences the aborted commit; its records are folded again there.
            self.task.abort();
            let _ = self.task.await;
            if !lost {
                tracing::warn!(
                    %partition,
                    timeout_ms = RELEASE_TIMEOUT.as_millis() as u64,
                    "partition released without a final commit: the store did not respond in time",
                );
            }
            return None;
        }
        self.people.try_recv().ok()
    }
}
