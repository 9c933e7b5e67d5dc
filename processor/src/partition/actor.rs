//! The partition's owner: one task that folds what comes, commits as soon as the last commit is done, and writes
//! people's rows behind it. It alone touches the partition's state.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{BudgetId, BudgetTotals, PartitionCount, Position, record_fingerprint};
use storage::log::{DeadLetter, DeadLetters, LogIdentity, Record, RecordBatch};
use storage::store::{Checkpoint, Commit, Epoch, PartitionRef, RecordMark, Store, StoredPartition};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::commit::commit_with_letters;
use super::load::{Restored, restore_people};
use super::pace::{Pace, Workload};
use super::restore::matches_mark;
use super::rows::{Next, RowRounds, Slice, write_rows};
use super::{CommitError, Ended, HaltReason, Limits, Resume};
use crate::coordinator::Progress;
use crate::fold::{Outcome, PartitionState, Reach};
use crate::metrics::PartitionMetrics;
use crate::publisher::Publisher;

/// What an owner works with.
pub struct PartitionParts {
    /// Where totals and rows go.
    pub store: Arc<dyn Store>,
    /// Where records go that cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who tells the readers.
    pub publisher: Arc<Publisher>,
    /// Which log is folded.
    pub identity: LogIdentity,
    /// The generation's partition count.
    pub partitions: PartitionCount,
    /// The pace.
    pub limits: Limits,
    /// The partition's metrics.
    pub metrics: PartitionMetrics,
    /// What the rest of the process may know of the partition.
    pub progress: Arc<Progress>,
}

/// A claimed partition.
pub struct Partition {
    id: PartitionRef,
    epoch: Epoch,
    parts: PartitionParts,
    state: PartitionState,
    /// How far the state has come.
    folded: Checkpoint,
    committed: Checkpoint,
    mark: Option<RecordMark>,
    claimed_at: Instant,
    dead_letters: Vec<DeadLetter>,
    rounds: RowRounds,
    waiting_slice: Option<Slice>,
    pace: Pace,
}

type CommitDone = (Checkpoint, Vec<(BudgetId, BudgetTotals)>, Result<(), CommitError>);

impl Partition {
    /// Takes up what was claimed.
    pub fn new(
        id: PartitionRef,
        stored: StoredPartition,
        resume: Resume,
        claimed_at: Instant,
        parts: PartitionParts,
    ) -> Self {
        let state = PartitionState::new(id.partition, parts.partitions, stored.totals);
        parts.progress.set_committed(stored.checkpoint.position);
        Self {
            id,
            epoch: stored.epoch,
            state,
            folded: stored.checkpoint.clone(),
            committed: stored.checkpoint,
            mark: resume.mark,
            claimed_at,
            dead_letters: Vec::new(),
            rounds: RowRounds::default(),
            waiting_slice: None,
            pace: Pace::new(parts.limits, claimed_at),
            parts,
        }
    }

    /// Lives until released, fenced or halted. `stop` asks for a release with a last commit.
    pub async fn run(
        mut self,
        mut records: mpsc::Receiver<RecordBatch>,
        stop: CancellationToken,
    ) -> Ended {
        match self.restore(&stop).await {
            Ok(Restored::Whole) => {}
            Ok(Restored::Stopped) => return Ended::Released,
            Ok(Restored::AheadOfTotals) => return self.disown_rows().await,
            Err(reason) => return Ended::Halted(reason),
        }
        self.publish_everything();
        match self.fold_until(&mut records, &stop).await {
            Ok(()) => match self.last_commit().await {
                Ok(()) => Ended::Released,
                Err(ended) => ended,
            },
            Err(ended) => ended,
        }
    }

    async fn restore(&mut self, stop: &CancellationToken) -> Result<Restored, HaltReason> {
        let Self { state, parts, id, committed, claimed_at, .. } = self;
        let restored = restore_people(parts.store.as_ref(), *id, committed, state, stop).await?;
        if restored == Restored::Whole && committed.state_position > Position::START {
            parts.metrics.restored(claimed_at.elapsed());
            tracing::info!(
                partition = %id.partition,
                people = state.people(),
                elapsed_ms = claimed_at.elapsed().as_millis() as u64,
                "people restored",
            );
        }
        Ok(restored)
    }

    /// A row ahead of the totals has replaced the one that belonged to them, so the rows cannot bring people back to
    /// where the totals are: the checkpoint is made to say that no row counts, and whoever claims the partition next
    /// replays people from the log's beginning.
    async fn disown_rows(mut self) -> Ended {
        self.folded.state_position = Position::START;
        let done = self.begin_commit(Instant::now()).await;
        match self.end_commit(done) {
            Ok(()) => Ended::StoreWentBack,
            Err(ended) => ended,
        }
    }

    fn publish_everything(&self) {
        let totals = self.state.totals().map(|(id, totals)| (id.clone(), totals.clone())).collect();
        self.parts.publisher.publish(self.id, totals);
    }

    async fn fold_until(
        &mut self,
        records: &mut mpsc::Receiver<RecordBatch>,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut committing: Option<BoxFuture<'static, CommitDone>> = None;
        let mut writing: Option<BoxFuture<'static, Result<(), HaltReason>>> = None;
        loop {
            // One reading for all that is decided in this turn.
            let now = Instant::now();
            // Rows first: the end of a round is news for the commit.
            if writing.is_none() {
                writing = self.next_rows(now);
            }
            if committing.is_none()
                && self.pace.commit_is_due(now, &self.workload(), records.is_empty())
            {
                committing = Some(self.begin_commit(now));
            }
            let work = self.workload();
            let alarm = self.pace.next_alarm(now, &work, committing.is_some(), writing.is_some());
            let room = self.pace.has_room(&work);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    if let Some(commit) = committing {
                        self.end_commit(commit.await)?;
                    }
                    return Ok(());
                }
                done = pending_or(&mut committing) => {
                    committing = None;
                    self.end_commit(done)?;
                }
                done = pending_or(&mut writing) => {
                    writing = None;
                    done?;
                }
                batch = records.recv(), if room => match batch {
                    Some(batch) => self.fold(&batch)?,
                    None => return Ok(()),
                },
                () = at_or_never(alarm) => {}
            }
        }
    }

    fn fold(&mut self, batch: &RecordBatch) -> Result<(), HaltReason> {
        let started = Instant::now();
        let (mut applied, mut duplicates) = (0, 0);
        let mut last = None;
        for record in batch.iter() {
            if self.committed.position.includes(record.offset) {
                self.replay(record)?;
                continue;
            }
            if self.folded.position.includes(record.offset) {
                continue;
            }
            self.require_mark_met()?;
            match self.state.fold(record, Reach::Everything) {
                Outcome::Applied => applied += 1,
                Outcome::Duplicate => duplicates += 1,
                Outcome::DeadLetter(reason) => {
                    self.folded.tally.dead_lettered += 1;
                    self.dead_letters.push(DeadLetter {
                        partition: self.id.partition,
                        offset: record.offset,
                        reason: reason.to_string(),
                        key: record.key.to_vec(),
                        value: record.value.to_vec(),
                    });
                }
            }
            self.folded.position = record.offset.next();
            last = Some(record);
        }
        if let Some(record) = last {
            self.took_in(record, applied, duplicates, started);
        }
        Ok(())
    }

    fn took_in(&mut self, last: Record<'_>, applied: u64, duplicates: u64, started: Instant) {
        if self.folded.last_record == self.committed.last_record
            && self.pace.last_commit() == self.claimed_at
        {
            tracing::info!(
                partition = %self.id.partition,
                epoch = self.epoch.0,
                position = %last.offset,
                elapsed_ms = self.claimed_at.elapsed().as_millis() as u64,
                "first new record since the claim",
            );
        }
        self.folded.last_record = Some(RecordMark {
            offset: last.offset,
            fingerprint: record_fingerprint(last.key, last.value),
        });
        self.folded.identity.get_or_insert_with(|| self.parts.identity.clone());
        self.folded.tally.applied += applied;
        self.folded.tally.duplicates += duplicates;
        self.parts.progress.set_folded(self.folded.position);
        self.parts.metrics.folded(applied, duplicates, started.elapsed());
    }

    /// A record that the totals contain already: it brings people's rows up to the totals' position.
    fn replay(&mut self, record: Record<'_>) -> Result<(), HaltReason> {
        if let Some(mark) = self.mark
            && mark.offset == record.offset
        {
            if !matches_mark(mark, record) {
                return Err(HaltReason::OtherRecord(record.offset));
            }
            self.mark = None;
        }
        if !self.committed.state_position.includes(record.offset) {
            self.state.fold(record, Reach::PeopleOnly);
        }
        Ok(())
    }

    fn require_mark_met(&self) -> Result<(), HaltReason> {
        self.mark.map_or(Ok(()), |mark| Err(HaltReason::MarkMissing(mark.offset)))
    }

    fn workload(&self) -> Workload {
        let folded = self.folded.position;
        Workload {
            has_news: self.folded != self.committed,
            uncommitted: folded.0 - self.committed.position.0,
            unread: self.parts.progress.high().0.saturating_sub(folded.0),
            replay: folded.0 - self.folded.state_position.0,
            people_changed: self.state.changed_people() > 0,
        }
    }

    fn begin_commit(&mut self, now: Instant) -> BoxFuture<'static, CommitDone> {
        self.pace.committing(now);
        if self.all_rows_are_written() {
            self.folded.state_position = self.folded.position;
        }
        let totals = self.state.take_changed();
        let checkpoint = self.folded.clone();
        let commit = Commit {
            epoch: self.epoch,
            from: self.committed.position,
            checkpoint: checkpoint.clone(),
            totals,
        };
        let letters = std::mem::take(&mut self.dead_letters);
        let store = Arc::clone(&self.parts.store);
        let dead_letters = Arc::clone(&self.parts.dead_letters);
        let id = self.id;
        Box::pin(async move {
            let (store, dead_letters) = (store.as_ref(), dead_letters.as_ref());
            let outcome = commit_with_letters(store, dead_letters, id, &commit, &letters).await;
            (checkpoint, commit.totals, outcome)
        })
    }

    /// Whether everyone's row is as their state: then a take-over has nothing to replay, however many records came that
    /// changed nobody, or came while a round was under way.
    fn all_rows_are_written(&self) -> bool {
        let replayed = self.mark.is_none();
        replayed && !self.rounds.is_running() && self.state.changed_people() == 0
    }

    fn end_commit(&mut self, (checkpoint, totals, outcome): CommitDone) -> Result<(), Ended> {
        match outcome {
            Ok(()) => {}
            Err(CommitError::Fenced) => return Err(Ended::Fenced),
            Err(lost @ CommitError::WentBack { .. }) => {
                tracing::error!(partition = %self.id.partition, reason = %lost, "what was lost is folded again");
                return Err(Ended::StoreWentBack);
            }
            Err(CommitError::Corrupt(reason)) => return Err(HaltReason::Invariant(reason).into()),
        }
        let records = checkpoint.position.0 - self.committed.position.0;
        let dead = checkpoint.tally.dead_lettered - self.committed.tally.dead_lettered;
        self.parts.metrics.committed(records, dead, self.pace.last_commit().elapsed());
        self.committed = checkpoint;
        self.parts.progress.set_committed(self.committed.position);
        self.parts.publisher.publish(self.id, totals);
        Ok(())
    }

    /// What was folded and not committed yet is committed before the partition is let go.
    async fn last_commit(&mut self) -> Result<(), Ended> {
        if self.folded.position > self.committed.position {
            let done = self.begin_commit(Instant::now()).await;
            self.end_commit(done)?;
        }
        Ok(())
    }

    fn next_rows(&mut self, now: Instant) -> Option<BoxFuture<'static, Result<(), HaltReason>>> {
        self.begin_round_if_due(now);
        let slice = match self.waiting_slice.take() {
            Some(slice) => slice,
            None => match self.rounds.next(&mut self.state) {
                Next::Idle => return None,
                Next::Write(slice) => slice,
                Next::Through(covers) => {
                    self.pace.round_is_through(now);
                    self.folded.state_position = covers;
                    return None;
                }
            },
        };
        if slice.committed > self.committed.position {
            self.waiting_slice = Some(slice);
            return None;
        }
        let store = Arc::clone(&self.parts.store);
        let (id, metrics) = (self.id, self.parts.metrics.clone());
        Some(Box::pin(async move {
            write_rows(store.as_ref(), id, &slice.rows).await?;
            metrics.rows_written(slice.rows.len());
            Ok(())
        }))
    }

    fn begin_round_if_due(&mut self, now: Instant) {
        let replaying = self.folded.position == self.committed.position && self.mark.is_some();
        if !self.rounds.is_running() && !replaying && self.pace.round_is_due(now, &self.workload())
        {
            self.rounds.begin(self.folded.position);
        }
    }
}

/// Waits for what is under way, or for ever if nothing is.
async fn pending_or<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
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
