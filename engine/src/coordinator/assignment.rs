//! One assigned partition, until the group revokes it: reads its people, claims it, checks its log, runs its owner, and
//! claims it again with backoff when any of these steps fails. Nothing here concerns another partition, and no failure
//! leaves the group.
//!
//! The people are read before the claim, while the former owner still folds: see `hand_over`. If the former owner was
//! in this process, its people are kept instead.
//!
//! A partition without an owner stays assigned to this process, and no other process will claim it. So this process
//! claims it again, for as long as the group assigns it. A partition whose owner was fenced is claimed again, too: the
//! group decides who should own it, and a process from which the group has moved the partition learns of that before
//! its delay is over.

use std::sync::Arc;

use schemas::PartitionId;
use storage::log::{BoundsReader, LogBounds};
use storage::store::StoredPartition;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::backoff::{Backoff, RetryCause};
use super::fetch_watch::Fetch;
use super::hand_over::{HandOver, HandOverEnd};
use super::owner_handle::OwnerHandle;
use crate::partition::{
    ClaimError, HaltReason, OwnerExit, PartitionDeps, PartitionOwner, PartitionProgress,
    PreparedPeople, ResumePoint, check_log, claim, prepare_people,
};

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
    began_at: Instant,
}

/// Where the people of a takeover come from.
enum PeopleSource {
    /// An owner of this process that was just released.
    Kept(Box<PreparedPeople>),
    /// The shadow partition of this process, or their rows, before the claim.
    Prepared,
    /// Their rows, after the claim: what was prepared did not match the totals.
    UnderClaim,
}

impl Shared {
    /// Stops the source and the publisher for a partition that has no owner any more.
    pub(super) fn owner_ended(&self, partition: PartitionId) {
        self.starts.pause(partition);
        self.deps.publisher.forget(self.id(partition));
    }
}

pub(super) struct Assignment {
    pub shared: Arc<Shared>,
    pub partition: PartitionId,
    pub bounds: Arc<dyn BoundsReader>,
    pub stop: CancellationToken,
    /// The group has moved the partition to another member.
    pub moved: CancellationToken,
}

impl Assignment {
    /// Runs what an assignment does without an owner. `None` once it has ended.
    async fn until_revoked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.moved.run_until_cancelled(self.stop.run_until_cancelled(work)).await.flatten()
    }

    fn is_revoked(&self) -> bool {
        self.stop.is_cancelled() || self.moved.is_cancelled()
    }

    /// Holds the partition until it is released or handed over, or halts. `kept` are the people of an owner of it that
    /// this process has just released. Returns those of the last owner if it was released.
    pub async fn hold(self, kept: Option<PreparedPeople>) -> Option<PreparedPeople> {
        let mut backoff = Backoff::default();
        let mut people =
            kept.map_or(PeopleSource::Prepared, |kept| PeopleSource::Kept(Box::new(kept)));
        loop {
            let claimed = self.until_revoked(self.take_over(&mut people)).await?;
            let began = Instant::now();
            let (has_run, (failure, left)) = match claimed {
                Ok(claimed) => (true, self.run_owner(claimed).await),
                Err(failure) => (false, (Some(failure), None)),
            };
            let Some(failure) = failure.filter(|_| !self.is_revoked()) else { return left };
            let partitions = &self.shared.partitions;
            let (cause, reason) = match failure {
                OwnershipFailure::Halt(reason) => {
                    partitions.halt(self.partition, &reason);
                    return None;
                }
                OwnershipFailure::Retry(cause, reason) => (cause, reason),
            };
            // A takeover that failed has left what it did not use.
            if has_run {
                people = match (cause, left) {
                    (RetryCause::PreparedPeople, _) => PeopleSource::UnderClaim,
                    (_, Some(left)) => PeopleSource::Kept(Box::new(left)),
                    (_, None) => PeopleSource::Prepared,
                };
            }
            let delay = backoff.next(cause, began.elapsed());
            if !partitions.set_unclaimed(self.partition, reason, delay) {
                return None;
            }
            self.shared.deps.metrics.claim_retried(self.partition, cause.label());
            self.until_revoked(sleep(delay)).await?;
        }
    }

    /// Gets the people, claims the partition and checks its log. Takes the people of `source` once the log can be read.
    async fn take_over(&self, source: &mut PeopleSource) -> Result<Claimed, OwnershipFailure> {
        let Shared { deps, partitions, .. } = self.shared.as_ref();
        let began_at = Instant::now();
        // Nothing is read or claimed of a partition whose log cannot be read.
        let bounds = self.read_bounds().await?;
        let people = std::mem::replace(source, PeopleSource::Prepared);
        let prepared = self.prepare_people(people, bounds).await;
        let stored = self.claim().await?;
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
            people_source = source,
            elapsed_ms = began_at.elapsed().as_millis() as u64,
            "partition claimed",
        );
        let progress = Arc::new(PartitionProgress::default());
        progress.set_high(bounds.high);
        progress.set_delivered(resume.from);
        Ok(Claimed { stored, resume, people, progress, began_at })
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
                tracing::warn!(
                    partition = %self.partition,
                    source,
                    reason = %fault,
                    "prepared people do not match the claim, reading their rows again"
                );
                (None, resume, UNREAD)
            }
        }
    }

    /// Gets the people into memory, and returns them with the label of their source. `None` if that fails: then they
    /// are read after the claim.
    async fn prepare_people(
        &self,
        source: PeopleSource,
        bounds: LogBounds,
    ) -> Option<(PreparedPeople, &'static str)> {
        let deps = &self.shared.deps;
        let id = self.shared.id(self.partition);
        match source {
            PeopleSource::UnderClaim => return None,
            PeopleSource::Prepared => {}
            // Dropped before others are read, if another owner has claimed the partition meanwhile.
            PeopleSource::Kept(kept) => {
                let reading = tokio::time::timeout(deps.claim_timeout, deps.store.epoch(id));
                if matches!(reading.await, Ok(Ok(Some(epoch))) if epoch == kept.epoch()) {
                    return Some((*kept, "kept"));
                }
            }
        }
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

    /// Runs the owner until it exits. Returns why it is to be replaced, unless the partition is released or handed
    /// over, and the people that it leaves.
    async fn run_owner(
        &self,
        claimed: Claimed,
    ) -> (Option<OwnershipFailure>, Option<PreparedPeople>) {
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
        let progress = Arc::clone(&claimed.progress);
        let fetch = Fetch {
            partition: *partition,
            bounds: self.bounds.as_ref(),
            progress: &progress,
            queue: owner.records(),
            metrics: shared.deps.metrics.partition(*partition),
        };
        let mut run = Box::pin(self.owner(claimed).run_and_keep_people(inbox, stop.clone()));
        shared.partitions.claim(*partition, owner);
        shared.starts.start(*partition, from, reading);
        let (exit, people) = tokio::select! {
            biased;
            ended = &mut run => ended,
            never = fetch.watch() => match never {},
            () = self.moved.cancelled() => {
                let (exit, people) = self.hand_over(hand_over, &mut run, stop).await;
                self.log_hand_over(&exit);
                return (None, people);
            }
        };
        shared.owner_ended(*partition);
        (self.failure_of(exit), people)
    }

    /// Lets the owner fold until the next one has claimed the partition.
    async fn hand_over(
        &self,
        hand_over: HandOver,
        mut run: impl Future<Output = (OwnerExit, Option<PreparedPeople>)> + Unpin,
        stop: CancellationToken,
    ) -> (OwnerExit, Option<PreparedPeople>) {
        let Shared { deps, hand_over_tail, .. } = self.shared.as_ref();
        tracing::info!(partition = %self.partition, "partition is handed over to another member");
        let feeding = hand_over.feed_until_claimed(deps.store.as_ref(), hand_over_tail);
        let end = tokio::select! {
            biased;
            ended = &mut run => {
                if ended.0 == OwnerExit::Fenced {
                    deps.metrics.handed_over(HandOverEnd::Claimed.label());
                }
                return ended;
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

    fn owner(&self, claimed: Claimed) -> PartitionOwner {
        let Shared { deps, active, .. } = self.shared.as_ref();
        let Claimed { stored, resume, people, progress, began_at } = claimed;
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
        let id = self.shared.id(self.partition);
        let owner = PartitionOwner::new(id, stored, resume, began_at, deps);
        match people {
            Some(people) => owner.with_people(people),
            None => owner,
        }
    }

    fn log_hand_over(&self, exit: &OwnerExit) {
        let partition = self.partition;
        match exit {
            OwnerExit::Released => tracing::info!(%partition, "partition released"),
            OwnerExit::Fenced => tracing::info!(%partition, "partition handed over"),
            OwnerExit::Retired => {
                tracing::info!(%partition, "partition of a retired generation given up")
            }
            // The next owner finds it, too.
            reason => tracing::warn!(%partition, %reason, "partition not handed over"),
        }
    }

    /// What follows from an owner's exit, requested or not.
    fn failure_of(&self, exit: OwnerExit) -> Option<OwnershipFailure> {
        let Self { shared, partition, stop, .. } = self;
        let reason = exit.to_string();
        match exit {
            OwnerExit::Released if stop.is_cancelled() => {
                tracing::info!(%partition, "partition released");
                None
            }
            // Its records could not be read further: `Coordinator::read_failed` says why.
            OwnerExit::Released => Some(OwnershipFailure::Retry(
                RetryCause::ReadFailed,
                "its log could not be read".into(),
            )),
            OwnerExit::Fenced => {
                tracing::warn!(%partition, "partition fenced by another owner");
                shared.deps.metrics.fenced();
                Some(OwnershipFailure::Retry(RetryCause::Contended, reason))
            }
            OwnerExit::Retired => {
                let generation = shared.term().generation;
                tracing::info!(%partition, %generation, "partition of a retired generation given up");
                Some(OwnershipFailure::Retry(RetryCause::Retired, reason))
            }
            OwnerExit::CommitsLost => {
                Some(OwnershipFailure::Retry(RetryCause::CommitsLost, reason))
            }
            OwnerExit::RowsLost(_) => Some(OwnershipFailure::Retry(RetryCause::RowsLost, reason)),
            OwnerExit::PreparedPeopleDiffer(_) => {
                Some(OwnershipFailure::Retry(RetryCause::PreparedPeople, reason))
            }
            OwnerExit::LogGap { expected, found } => {
                if shared.partitions.is_first_gap(*partition, expected) {
                    tracing::error!(%partition, %expected, %found, "log skipped records, reading them again");
                    Some(OwnershipFailure::Retry(RetryCause::LogGap, reason))
                } else {
                    Some(OwnershipFailure::Halt(HaltReason::LogGap { expected, found }))
                }
            }
            OwnerExit::Halted(reason) => Some(OwnershipFailure::Halt(reason)),
        }
    }
}
