//! One assigned partition, until the group revokes it: claims it, checks its log, runs its owner, and claims it again
//! with backoff when any of that fails. Nothing here concerns another partition, and no failure leaves the group.
//!
//! A partition that is given up stays assigned to this process, so that nobody else will claim it: this process does,
//! for as long as the group says so. A fenced owner's partition is claimed again, too: the group decides who should own
//! it, and a process that it has passed over learns so before its delay is over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::PartitionId;
use storage::log::BoundsReader;
use storage::store::StoredPartition;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::backoff::{Backoff, RetryCause};
use super::owner_handle::OwnerHandle;
use crate::partition::{
    ClaimError, HaltReason, Partition, PartitionDeps, PartitionExit, PartitionProgress,
    ResumePoint, check_log, claim,
};

/// Time for the final commit of a release. Afterwards the partition is released without it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that holds an assigned partition.
pub(super) struct AssignmentHandle {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AssignmentHandle {
    /// Starts to hold a partition.
    pub fn start(
        shared: &Arc<Shared>,
        partition: PartitionId,
        bounds: &Arc<dyn BoundsReader>,
    ) -> Self {
        let stop = CancellationToken::new();
        let assignment = Assignment {
            shared: Arc::clone(shared),
            partition,
            bounds: Arc::clone(bounds),
            stop: stop.clone(),
        };
        let panicked = Arc::clone(shared);
        let task = AssertUnwindSafe(assignment.hold()).catch_unwind().map(move |ended| {
            // A bug must not stop the partition silently.
            if ended.is_err() {
                panicked.owner_ended(partition);
                let reason = HaltReason::Failed("it panicked; see the log".into());
                panicked.partitions.halt(partition, &reason);
            }
        });
        Self { stop, task: shared.spawner.spawn(task.boxed()) }
    }

    /// Ends the assignment, after a final commit of its owner unless the partition is `lost`.
    pub async fn release(self, partition: PartitionId, lost: bool) {
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
    }
}

/// Why an assigned partition has no owner.
enum OwnershipFailure {
    /// It is claimed again.
    Retry(RetryCause, String),
    /// Only an operator can help.
    Halt(HaltReason),
}

impl OwnershipFailure {
    fn unavailable(reason: String) -> Self {
        Self::Retry(RetryCause::Unavailable, reason)
    }
}

/// A claimed partition, and where to read it from.
struct Claimed {
    stored: StoredPartition,
    resume: ResumePoint,
    progress: Arc<PartitionProgress>,
    at: Instant,
}

impl Shared {
    /// Stops the source and the publisher for a partition that has no owner any more.
    fn owner_ended(&self, partition: PartitionId) {
        self.starts.pause(partition);
        self.deps.publisher.forget(self.id(partition));
    }
}

struct Assignment {
    shared: Arc<Shared>,
    partition: PartitionId,
    bounds: Arc<dyn BoundsReader>,
    stop: CancellationToken,
}

impl Assignment {
    /// Holds the partition until it is released or halts.
    async fn hold(self) {
        let mut backoff = Backoff::default();
        loop {
            let claimed = match self.stop.run_until_cancelled(self.take_over()).await {
                None => return,
                Some(claimed) => claimed,
            };
            let began = Instant::now();
            let failure = match claimed {
                Ok(claimed) => match self.run_owner(claimed).await {
                    Some(failure) => failure,
                    None => return,
                },
                Err(failure) => failure,
            };
            if self.stop.is_cancelled() {
                return;
            }
            let partitions = &self.shared.partitions;
            let (cause, reason) = match failure {
                OwnershipFailure::Halt(reason) => return partitions.halt(self.partition, &reason),
                OwnershipFailure::Retry(cause, reason) => (cause, reason),
            };
            let delay = backoff.next(cause, began.elapsed());
            if !partitions.set_unclaimed(self.partition, reason, delay) {
                return;
            }
            self.shared.deps.metrics.claim_retried(self.partition, cause.label());
            if self.stop.run_until_cancelled(sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Claims the partition and checks its log.
    async fn take_over(&self) -> Result<Claimed, OwnershipFailure> {
        let Shared { deps, partitions, .. } = self.shared.as_ref();
        let at = Instant::now();
        let bounds = self.bounds.bounds(self.partition).await.map_err(|error| {
            OwnershipFailure::unavailable(format!("the bounds of its log are unknown: {error}"))
        })?;
        let stored = self.claim().await?;
        let position = stored.checkpoint.position;
        if bounds.high >= position {
            partitions.log_recovered(self.partition);
        } else if partitions.log_may_recover(self.partition, Instant::now()) {
            let reason =
                format!("the log ends at {}, before the totals at {position}", bounds.high);
            return Err(OwnershipFailure::Retry(RetryCause::ShortLog, reason));
        }
        let resume = check_log(&stored.checkpoint, &deps.identity, bounds)
            .map_err(OwnershipFailure::Halt)?;
        tracing::info!(
            partition = %self.partition,
            epoch = stored.epoch.0,
            %position,
            rows_position = %stored.checkpoint.rows_position,
            log_end = %bounds.high,
            "partition claimed",
        );
        let progress = Arc::new(PartitionProgress::default());
        progress.set_high(bounds.high);
        Ok(Claimed { stored, resume, progress, at })
    }

    async fn claim(&self) -> Result<StoredPartition, OwnershipFailure> {
        let deps = &self.shared.deps;
        let claiming = claim(deps.store.as_ref(), self.shared.id(self.partition), &deps.owner);
        match tokio::time::timeout(deps.claim_timeout, claiming).await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(ClaimError::Corrupt(reason))) => {
                Err(OwnershipFailure::Halt(HaltReason::Store(reason)))
            }
            Ok(Err(lost @ ClaimError::LostClaimRace)) => {
                Err(OwnershipFailure::Retry(RetryCause::Contended, lost.to_string()))
            }
            Err(_) => {
                let timeout_ms = deps.claim_timeout.as_millis();
                let reason = format!("the store did not respond in {timeout_ms} ms");
                Err(OwnershipFailure::unavailable(reason))
            }
        }
    }

    /// Runs the owner until it exits. Returns `None` if the partition is released.
    async fn run_owner(&self, claimed: Claimed) -> Option<OwnershipFailure> {
        let Self { shared, partition, .. } = self;
        let from = claimed.resume.from;
        let stop = self.stop.child_token();
        let (owner, inbox) = OwnerHandle::new(Arc::clone(&claimed.progress), stop.clone());
        let reading = owner.reading.clone();
        let run = self.owner(claimed).run(inbox, stop);
        shared.partitions.claim(*partition, owner);
        shared.starts.start(*partition, from, reading);
        let exit = run.await;
        shared.owner_ended(*partition);
        self.failure_of(exit)
    }

    fn owner(&self, claimed: Claimed) -> Partition {
        let Shared { deps, active, .. } = self.shared.as_ref();
        let Claimed { stored, resume, progress, at } = claimed;
        let deps = PartitionDeps {
            store: Arc::clone(&deps.store),
            dead_letters: Arc::clone(&deps.dead_letters),
            publisher: Some(Arc::clone(&deps.publisher)),
            commit_permits: Arc::clone(&deps.commit_permits),
            row_write_permits: None,
            identity: deps.identity.clone(),
            log: active.borrow().log.clone(),
            limits: deps.limits,
            metrics: deps.metrics.partition(self.partition),
            progress,
        };
        Partition::new(self.shared.id(self.partition), stored, resume, at, deps)
    }

    /// What follows from an owner's exit, requested or not.
    fn failure_of(&self, exit: PartitionExit) -> Option<OwnershipFailure> {
        let Self { shared, partition, stop, .. } = self;
        let reason = exit.to_string();
        match exit {
            PartitionExit::Released if stop.is_cancelled() => {
                tracing::info!(%partition, "partition released");
                None
            }
            // Its records could not be read further: `Coordinator::read_failed` says why.
            PartitionExit::Released => Some(OwnershipFailure::Retry(
                RetryCause::ReadFailed,
                "its log could not be read".into(),
            )),
            PartitionExit::Fenced => {
                tracing::warn!(%partition, "partition fenced by another owner");
                shared.deps.metrics.fenced();
                Some(OwnershipFailure::Retry(RetryCause::Contended, reason))
            }
            PartitionExit::CommitsLost => {
                Some(OwnershipFailure::Retry(RetryCause::CommitsLost, reason))
            }
            PartitionExit::RowsLost(_) => {
                Some(OwnershipFailure::Retry(RetryCause::RowsLost, reason))
            }
            PartitionExit::LogGap { expected, found } => {
                if shared.partitions.is_first_gap(*partition, expected) {
                    tracing::error!(%partition, %expected, %found, "log skipped records, reading them again");
                    Some(OwnershipFailure::Retry(RetryCause::LogGap, reason))
                } else {
                    Some(OwnershipFailure::Halt(HaltReason::LogGap { expected, found }))
                }
            }
            PartitionExit::Halted(reason) => Some(OwnershipFailure::Halt(reason)),
        }
    }
}
