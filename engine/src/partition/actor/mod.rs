//! The partition's owner: one task that folds batches, commits, and writes person rows behind the commit. Only this
//! task touches the partition's state.
//!
//! This file has the event loop; `folding` handles one batch, `committing` builds and completes commits,
//! `commit_permit` waits for a place among the commits of the process.

mod commit_permit;
mod committing;
mod folding;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{LogRef, Position};
use storage::log::{DeadLetterWriter, LogIdentity, RecordBatch};
use storage::store::{Checkpoint, Epoch, PartitionRef, RecordFingerprint, Store, StoredPartition};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dead_letter_buffer::DeadLetterBuffer;
use super::dead_letter_limit::DeadLetterLimit;
use super::pace::{Pace, Workload};
use super::person_rows::{RoundStep, RowRounds, Slice, write_rows};
use super::restore::{PreparedPeople, RestoreOutcome, restore_people};
use super::{HaltReason, OwnerExit, PartitionLimits, PartitionProgress, ResumePoint};
use crate::fold::{PartitionState, PeopleOrigin};
use crate::metrics::PartitionMetrics;
use crate::publisher::Publisher;
use commit_permit::{CommitPermit, commit_under_permit};
use committing::CommitDone;

/// Dependencies of one partition's owner.
pub struct PartitionDeps {
    /// Stores totals, checkpoints and person rows.
    pub store: Arc<dyn Store>,
    /// Appends rejected records to the dead letter journal.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
    /// Publishes totals to readers. `None` for a shadow generation.
    pub publisher: Option<Arc<Publisher>>,
    /// Limits the commits that this process has in flight. A partition that waits for one gathers more records.
    pub commit_permits: Arc<Semaphore>,
    /// Limits concurrent writes of person rows. `None` in the active generation: no limit.
    pub row_write_permits: Option<Arc<Semaphore>>,
    /// Identifies the log that is folded.
    pub identity: LogIdentity,
    /// The log that the generation is derived from.
    pub log: LogRef,
    /// Intervals and bounds.
    pub limits: PartitionLimits,
    /// Metrics of this partition.
    pub metrics: PartitionMetrics,
    /// Positions that the rest of the process reads.
    pub progress: Arc<PartitionProgress>,
}

/// A claimed partition and its owner's state.
pub struct PartitionOwner {
    id: PartitionRef,
    epoch: Epoch,
    deps: PartitionDeps,
    state: PartitionState,
    /// The checkpoint of the state in memory.
    folded: Checkpoint,
    committed: Checkpoint,
    /// The position up to which people are in the state once it is restored; the records after it are replayed.
    people_position: Position,
    /// Whether people were in memory before the claim.
    is_prepared: bool,
    /// The first position in the log at the claim.
    log_start: Position,
    /// The position of the next record that the log must deliver.
    next_read: Position,
    /// The record that identifies the log, until it has been read. It is the last one to replay.
    expected_record: Option<RecordFingerprint>,
    /// When the takeover of the partition began, with the reading of people before the claim.
    began_at: Instant,
    has_folded_new_record: bool,
    dead_letter_limit: DeadLetterLimit,
    /// A batch of which some records wait for the next commit.
    unfinished_batch: Option<RecordBatch>,
    /// Dead letters of records that no commit has passed yet.
    dead_letters: DeadLetterBuffer,
    rounds: RowRounds,
    /// A slice whose records are not all committed yet.
    waiting_slice: Option<Slice>,
    pace: Pace,
}

impl PartitionOwner {
    /// Creates the owner of a partition that was just claimed, in a takeover that began at `began_at`.
    pub fn new(
        id: PartitionRef,
        stored: StoredPartition,
        resume: ResumePoint,
        began_at: Instant,
        deps: PartitionDeps,
    ) -> Self {
        let state = PartitionState::new(id.partition, deps.log.partitions, stored.totals);
        deps.progress.set_committed(stored.checkpoint.position);
        Self {
            id,
            epoch: stored.epoch,
            state,
            people_position: stored.checkpoint.rows_position,
            is_prepared: false,
            folded: stored.checkpoint.clone(),
            committed: stored.checkpoint,
            log_start: resume.log_start,
            next_read: resume.from,
            expected_record: resume.expected_record,
            began_at,
            has_folded_new_record: false,
            dead_letter_limit: DeadLetterLimit::new(deps.limits.dead_letters),
            unfinished_batch: None,
            dead_letters: DeadLetterBuffer::default(),
            rounds: RowRounds::default(),
            waiting_slice: None,
            pace: Pace::new(deps.limits, Instant::now()),
            deps,
        }
    }

    /// Begins with people that were in memory before the claim. They are of this claim, and the owner was created with
    /// their resume point: see [`PreparedPeople::under_claim`].
    #[must_use]
    pub fn with_people(mut self, people: PreparedPeople) -> Self {
        (self.state, self.people_position) = people.into_state();
        self.is_prepared = true;
        self
    }

    /// Runs until released, fenced or halted. Cancelling `stop` releases the partition after a final commit. Returns
    /// the people, too, if it was released and all of them are known.
    pub async fn run_and_keep_people(
        mut self,
        mut records: mpsc::Receiver<RecordBatch>,
        stop: CancellationToken,
    ) -> (OwnerExit, Option<PreparedPeople>) {
        // The totals are committed: readers need not wait until people are restored.
        self.publish_all();
        match self.restore(&stop).await {
            Ok(RestoreOutcome::Complete) => {}
            Ok(RestoreOutcome::Stopped) => return (OwnerExit::Released, None),
            Ok(RestoreOutcome::RowAheadOfTotals) => {
                return (self.invalidate_rows(OwnerExit::CommitsLost).await, None);
            }
            Err(reason) => return (OwnerExit::Halted(reason), None),
        }
        match self.fold_and_commit(&mut records, &stop).await {
            Ok(()) => {
                // Not if the owner was stopped while it replayed.
                let people = self
                    .expected_record
                    .is_none()
                    .then(|| PreparedPeople::kept(self.state, self.epoch, &self.committed));
                (OwnerExit::Released, people)
            }
            Err(lost @ OwnerExit::RowsLost(_)) => (self.invalidate_rows(lost).await, None),
            Err(ended) => (ended, None),
        }
    }

    async fn fold_and_commit(
        &mut self,
        records: &mut mpsc::Receiver<RecordBatch>,
        stop: &CancellationToken,
    ) -> Result<(), OwnerExit> {
        // Otherwise people are complete once the expected record is replayed.
        if self.expected_record.is_none() {
            self.check_people()?;
        }
        self.fold_until(records, stop).await?;
        self.final_commit().await
    }

    async fn restore(&mut self, stop: &CancellationToken) -> Result<RestoreOutcome, HaltReason> {
        let Self { state, deps, id, committed, began_at, is_prepared, .. } = self;
        if *is_prepared {
            deps.metrics.restored(began_at.elapsed());
            return Ok(RestoreOutcome::Complete);
        }
        let restored = restore_people(deps.store.as_ref(), *id, committed, state, stop).await?;
        if restored == RestoreOutcome::Complete && committed.rows_position > Position::START {
            deps.metrics.restored(began_at.elapsed());
            tracing::info!(
                partition = %id.partition,
                people = state.person_count(),
                elapsed_ms = began_at.elapsed().as_millis() as u64,
                "person rows restored",
            );
        }
        Ok(restored)
    }

    /// Checks that the restored people are those whom the totals count, before any new record is folded.
    ///
    /// A row that the store has lost, or an old one that it has brought back, would make the person's next submission
    /// add more than it subtracts, or forget the ids of the person's submissions.
    fn check_people(&mut self) -> Result<(), OwnerExit> {
        let is_replayed = self.committed.rows_position == Position::START && !self.is_prepared;
        let origin = if is_replayed { PeopleOrigin::Log } else { PeopleOrigin::Rows };
        let fault = match self.state.check_totals_match_people(origin) {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        if self.is_prepared {
            // The rows may be right: they are read again before they are given up.
            tracing::warn!(
                partition = %self.id.partition,
                position = %self.committed.position,
                reason = %fault,
                "people in memory do not match the totals, reading their rows again",
            );
            return Err(OwnerExit::PreparedPeopleDiffer(fault));
        }
        if self.committed.rows_position == Position::START {
            // Nobody was restored from a row: the totals themselves are wrong.
            return Err(HaltReason::Invariant(fault.to_string()).into());
        }
        tracing::error!(
            partition = %self.id.partition,
            position = %self.committed.position,
            rows_position = %self.committed.rows_position,
            reason = %fault,
            "person rows do not match the totals: the store lost rows that it had acknowledged",
        );
        Err(OwnerExit::RowsLost(fault))
    }

    /// Commits a checkpoint without valid person rows, then exits with `exit`. The next owner replays people from the
    /// log's beginning; if the log no longer has it, the partition halts, and its rows stay as they are.
    ///
    /// A row ahead of the totals has replaced the row that matched them, and a lost row is nowhere else: the rows can
    /// no longer restore people as of the totals' position.
    async fn invalidate_rows(mut self, exit: OwnerExit) -> OwnerExit {
        if self.log_start > Position::START {
            let (fault, log_start) = (exit.to_string(), self.log_start);
            return HaltReason::PeopleLost { fault, log_start }.into();
        }
        self.folded.rows_position = Position::START;
        let done = self.commit_folded(Instant::now()).await;
        match self.end_commit(done) {
            // Rows that vanished with their generation are not lost.
            Err(OwnerExit::Retired) => OwnerExit::Retired,
            ended => {
                self.deps.metrics.rows_invalidated();
                ended.err().unwrap_or(exit)
            }
        }
    }

    fn publish_all(&self) {
        if let Some(publisher) = &self.deps.publisher {
            let totals = self.state.totals().map(|(id, totals)| (id.clone(), totals.clone()));
            publisher.publish(self.id, totals.collect());
        }
    }

    async fn fold_until(
        &mut self,
        records: &mut mpsc::Receiver<RecordBatch>,
        stop: &CancellationToken,
    ) -> Result<(), OwnerExit> {
        let mut committing: Option<BoxFuture<'static, CommitDone>> = None;
        let mut writing: Option<BoxFuture<'static, Result<(), HaltReason>>> = None;
        let mut permit = CommitPermit::new(Arc::clone(&self.deps.commit_permits));
        loop {
            // One clock reading for every decision of this iteration.
            let now = Instant::now();
            // Rows first: a completed round changes the checkpoint, which the commit then includes.
            if writing.is_none() {
                writing = self.next_rows(now);
            }
            let waits_for_commit = committing.is_none()
                && self.pace.commit_is_due(now, &self.workload(), records.is_empty());
            if waits_for_commit && let Some(permit) = permit.take() {
                committing = Some(commit_under_permit(permit, self.begin_commit(now)));
            }
            let work = self.workload();
            let alarm = self.pace.next_alarm(now, &work, committing.is_some(), writing.is_some());
            let may_fold = self.pace.may_fold(&work);
            if may_fold && let Some(batch) = self.unfinished_batch.take() {
                self.fold(batch)?;
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = result_or_never(&mut committing) => {
                    committing = None;
                    self.end_commit(done)?;
                }
                done = result_or_never(&mut writing) => {
                    writing = None;
                    done?;
                }
                batch = records.recv(), if may_fold => match batch {
                    Some(batch) => self.fold(batch)?,
                    None => break,
                },
                () = permit.acquire(), if waits_for_commit && committing.is_none() => {}
                () = at_or_never(alarm) => {}
            }
        }
        match committing {
            Some(commit) => self.end_commit(commit.await),
            None => Ok(()),
        }
    }

    fn workload(&self) -> Workload {
        let folded = self.folded.position;
        Workload {
            has_changes: self.folded != self.committed,
            uncommitted: folded.0 - self.committed.position.0,
            dead_letter_bytes: self.dead_letters.bytes(),
            changed_bytes: self.state.changed_bytes(),
            unread: self.deps.progress.high().0.saturating_sub(folded.0),
            replay: folded.0 - self.folded.rows_position.0,
            people_changed: self.state.changed_person_count() > 0,
        }
    }

    fn next_rows(&mut self, now: Instant) -> Option<BoxFuture<'static, Result<(), HaltReason>>> {
        self.begin_round_if_due(now);
        let slice = match self.waiting_slice.take() {
            Some(slice) => slice,
            None => match self.rounds.next_step(&mut self.state) {
                RoundStep::Idle => return None,
                RoundStep::Write(slice) => slice,
                RoundStep::Complete(rows_position) => {
                    self.pace.round_completed(now);
                    self.folded.rows_position = rows_position;
                    return None;
                }
            },
        };
        if slice.required_commit > self.committed.position {
            self.waiting_slice = Some(slice);
            return None;
        }
        let store = Arc::clone(&self.deps.store);
        let (id, metrics) = (self.id, self.deps.metrics.clone());
        let permits = self.deps.row_write_permits.clone();
        Some(Box::pin(async move {
            write_rows(store.as_ref(), id, &slice.rows, permits.as_deref()).await?;
            metrics.rows_written(slice.rows.len());
            Ok(())
        }))
    }

    fn begin_round_if_due(&mut self, now: Instant) {
        let replaying =
            self.folded.position == self.committed.position && self.expected_record.is_some();
        if !self.rounds.is_running() && !replaying && self.pace.round_is_due(now, &self.workload())
        {
            self.rounds.begin(self.folded.position, &self.state);
        }
    }
}

/// Waits for the operation in flight; never returns if there is none.
async fn result_or_never<T>(in_flight: &mut Option<BoxFuture<'static, T>>) -> T {
    match in_flight {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn at_or_never(alarm: Option<Instant>) {
    match alarm {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
