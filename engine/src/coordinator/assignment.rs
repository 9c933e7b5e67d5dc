//! One assigned partition, until the group revokes it: reads its people, claims it, checks its log, runs its owner, and
//! claims it again with backoff when any of that fails. Nothing here concerns another partition, and no failure leaves
//! the group.
//!
//! The people are read before the claim, while the former owner still folds: see `hand_over`.
//!
//! A partition that is given up stays assigned to this process, so that nobody else will claim it: this process does,
//! for as long as the group says so. A fenced owner's partition is claimed again, too: the group decides who should own
//! it, and a process that it has passed over learns so before its delay is over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::PartitionId;
use storage::log::{BoundsReader, LogBounds};
use storage::store::StoredPartition;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::backoff::{Backoff, RetryCause};
use super::hand_over::{HAND_OVER_TIMEOUT, HandOver, HandOverEnd};
use super::owner_handle::OwnerHandle;
use crate::partition::{
    ClaimError, HaltReason, Partition, PartitionDeps, PartitionExit, PartitionProgress,
    PreparedPeople, ResumePoint, check_log, claim, prepare_people,
};

/// Time for the final commit of a release. Afterwards the partition is released without it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that holds an assigned partition.
pub(super) struct AssignmentHandle {
    stop: CancellationToken,
    moved: CancellationToken,
    bounds: Arc<dyn BoundsReader>,
    task: JoinHandle<()>,
}

impl AssignmentHandle {
    /// Starts to hold a partition. `former` is a former assignment of it to this process, of which the owner may still
    /// fold: it is released first.
    pub fn start(
        shared: &Arc<Shared>,
        partition: PartitionId,
        bounds: &Arc<dyn BoundsReader>,
        former: Option<AssignmentHandle>,
    ) -> Self {
        let (stop, moved) = (CancellationToken::new(), CancellationToken::new());
        let assignment = Assignment {
            shared: Arc::clone(shared),
            partition,
            bounds: Arc::clone(bounds),
            stop: stop.clone(),
            moved: moved.clone(),
        };
        let panicked = Arc::clone(shared);
        let moved_away = moved.clone();
        let hold = async move {
            if let Some(former) = former {
                former.release(partition, false).await;
            }
            let (shared, moved) = (Arc::clone(&assignment.shared), assignment.moved.clone());
            let id = shared.id(partition);
            assignment.hold().await;
            if moved.is_cancelled() {
                // The takeover may have ended just when the partition was moved away.
                shared.partitions.remove(partition);
                shared.starts.forget(partition);
                shared.deps.publisher.forget(id);
                shared.deps.metrics.forget(partition);
            }
        };
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
        let bounds = Arc::clone(bounds);
        Self { stop, moved, bounds, task: shared.spawner.spawn(task.boxed()) }
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
    pub async fn handed_over(self, partition: PartitionId) {
        let mut task = self.task;
        if tokio::time::timeout(HAND_OVER_TIMEOUT + RELEASE_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            tracing::warn!(%partition, "partition handed over without a final commit");
        }
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
    /// The people, if they were in memory before the claim.
    people: Option<PreparedPeople>,
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
    /// The group has moved the partition to another member.
    moved: CancellationToken,
}

impl Assignment {
    /// Runs what an assignment does without an owner. `None` once it has ended.
    async fn until_revoked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.moved.run_until_cancelled(self.stop.run_until_cancelled(work)).await.flatten()
    }

    fn is_revoked(&self) -> bool {
        self.stop.is_cancelled() || self.moved.is_cancelled()
    }

    /// Holds the partition until it is released or handed over, or halts.
    async fn hold(self) {
        let mut backoff = Backoff::default();
        loop {
            let claimed = match self.until_revoked(self.take_over()).await {
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
            if self.is_revoked() {
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
            if self.until_revoked(sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Reads the people, claims the partition and checks its log.
    async fn take_over(&self) -> Result<Claimed, OwnershipFailure> {
        let Shared { deps, partitions, .. } = self.shared.as_ref();
        let began = Instant::now();
        // Nothing is read or claimed of a partition whose log cannot be read.
        let bounds = self.read_bounds().await?;
        let prepared = self.prepare_people(bounds).await;
        let stored = self.claim().await?;
        let claimed_at = Instant::now();
        // Again: the former owner has folded on meanwhile.
        let bounds = self.read_bounds().await?;
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
        let (people, resume, source) = self.people_under_claim(prepared, &stored, resume);
        deps.metrics.taken_over(source);
        tracing::info!(
            partition = %self.partition,
            epoch = stored.epoch.0,
            %position,
            rows_position = %stored.checkpoint.rows_position,
            log_end = %bounds.high,
            replay_from = %resume.from,
            people = source,
            elapsed_ms = began.elapsed().as_millis() as u64,
            "partition claimed",
        );
        let progress = Arc::new(PartitionProgress::default());
        progress.set_high(bounds.high);
        Ok(Claimed { stored, resume, people, progress, at: claimed_at })
    }

    async fn read_bounds(&self) -> Result<LogBounds, OwnershipFailure> {
        self.bounds.bounds(self.partition).await.map_err(|error| {
            OwnershipFailure::unavailable(format!("the bounds of its log are unknown: {error}"))
        })
    }

    /// Returns the prepared people if they are those of the claim, where to resume, and where they come from.
    fn people_under_claim(
        &self,
        prepared: Option<(PreparedPeople, &'static str)>,
        stored: &StoredPartition,
        resume: ResumePoint,
    ) -> (Option<PreparedPeople>, ResumePoint, &'static str) {
        const UNREAD: &str = "unread";
        let Some((people, source)) = prepared else { return (None, resume, UNREAD) };
        match people.under_claim(stored, resume) {
            Ok((people, resume)) => (Some(people), resume, source),
            Err(fault) => {
                tracing::warn!(partition = %self.partition, source, %fault, "people are read again");
                (None, resume, UNREAD)
            }
        }
    }

    /// Reads the people into memory, or takes them from the shadow partition of this process. `None` if that fails: then
    /// they are read after the claim.
    async fn prepare_people(&self, bounds: LogBounds) -> Option<(PreparedPeople, &'static str)> {
        let deps = &self.shared.deps;
        let id = self.shared.id(self.partition);
        if let Some(people) = deps.shadow_owners.take(id).await {
            return Some((people, "shadow"));
        }
        let reading = tokio::time::timeout(deps.claim_timeout, deps.store.read_partition(id));
        let former = reading.await.ok()?.ok()??;
        if bounds.high < former.checkpoint.position {
            // Not to be taken over now: the log is short.
            return None;
        }
        // These totals are committed: readers need not wait until people are read.
        deps.publisher.publish(id, former.totals.clone());
        let partitions = self.shared.active.borrow().log.partitions;
        let people = prepare_people(deps.store.as_ref(), id, partitions, &former).await?;
        Some((people, "read"))
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

    /// Runs the owner until it exits. Returns `None` if the partition is released or handed over.
    async fn run_owner(&self, claimed: Claimed) -> Option<OwnershipFailure> {
        let Self { shared, partition, .. } = self;
        let from = claimed.resume.from;
        let stop = self.stop.child_token();
        let (owner, inbox) = OwnerHandle::new(Arc::clone(&claimed.progress), stop.clone());
        let reading = owner.reading.clone();
        let hand_over = HandOver {
            id: shared.id(*partition),
            epoch: claimed.stored.epoch,
            claimed_at: claimed.stored.checkpoint.position,
            resumed_at: from,
            log: shared.active.borrow().log.clone(),
            progress: Arc::clone(&claimed.progress),
            records: owner.records(),
        };
        let mut run = Box::pin(self.owner(claimed).run(inbox, stop.clone()));
        shared.partitions.claim(*partition, owner);
        shared.starts.start(*partition, from, reading);
        let exit = tokio::select! {
            biased;
            exit = &mut run => exit,
            () = self.moved.cancelled() => {
                self.log_hand_over(&self.hand_over(hand_over, &mut run, stop).await);
                return None;
            }
        };
        shared.owner_ended(*partition);
        self.failure_of(exit)
    }

    /// Lets the owner fold until the next one has claimed the partition.
    async fn hand_over(
        &self,
        hand_over: HandOver,
        mut run: impl Future<Output = PartitionExit> + Unpin,
        stop: CancellationToken,
    ) -> PartitionExit {
        let Shared { deps, hand_over_reader, .. } = self.shared.as_ref();
        tracing::info!(partition = %self.partition, "partition is handed over to another member");
        let feeding = hand_over.feed_until_claimed(deps.store.as_ref(), hand_over_reader);
        let end = tokio::select! {
            biased;
            exit = &mut run => {
                if exit == PartitionExit::Fenced {
                    deps.metrics.handed_over(HandOverEnd::Claimed.label());
                }
                return exit;
            }
            end = feeding => end,
        };
        deps.metrics.handed_over(end.label());
        if end != HandOverEnd::Claimed {
            tracing::warn!(partition = %self.partition, reason = ?end, "no other member has claimed the partition");
        }
        stop.cancel();
        run.await
    }

    fn owner(&self, claimed: Claimed) -> Partition {
        let Shared { deps, active, .. } = self.shared.as_ref();
        let Claimed { stored, resume, people, progress, at } = claimed;
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
        let owner = Partition::new(self.shared.id(self.partition), stored, resume, at, deps);
        match people {
            Some(people) => owner.with_people(people),
            None => owner,
        }
    }

    fn log_hand_over(&self, exit: &PartitionExit) {
        let partition = self.partition;
        match exit {
            PartitionExit::Released => tracing::info!(%partition, "partition released"),
            PartitionExit::Fenced => tracing::info!(%partition, "partition handed over"),
            // The next owner finds it, too.
            reason => tracing::warn!(%partition, %reason, "partition not handed over"),
        }
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
