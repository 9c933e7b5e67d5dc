//! The partition's owner: one task that folds what comes, commits as soon as the last commit is done, and writes
//! people's rows behind it. It alone touches the partition's state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use schemas::{
    BudgetId, BudgetTotals, PartitionCount, PersonRow, Position, buckets, record_fingerprint,
};
use storage::log::{DeadLetter, DeadLetters, LogIdentity, Record, RecordBatch};
use storage::store::{
    Checkpoint, Commit, Epoch, PartitionRef, RecordMark, Store, StoreError, StoredPartition,
};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::restore::matches_mark;
use super::rows::{Next, RowRounds, Slice};
use super::{CommitError, Ended, HaltReason, Resume, settle_commit};
use crate::coordinator::Progress;
use crate::fold::{Outcome, PartitionState, Reach};
use crate::metrics::PartitionMetrics;
use crate::publisher::Publisher;

/// Buckets read side by side at a take-over.
const RESTORE_CONCURRENCY: usize = 16;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How an owner paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The least time between two commits.
    pub commit_interval: Duration,
    /// The time between two commits while the partition is far behind: fewer, larger steps.
    pub catch_up_commit_interval: Duration,
    /// From how many unread records on a partition counts as far behind.
    pub catch_up_lag: u64,
    /// How many records may be folded ahead of the commit.
    pub max_uncommitted: u64,
    /// The time between two rounds of people's rows.
    pub rows_interval: Duration,
    /// Rows are written even while far behind once a take-over would have to replay this many records.
    pub max_replay: u64,
}

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
    last_commit: Instant,
    last_round: Instant,
}

/// What reading people's rows came to.
enum Restored {
    /// All of them are in.
    Whole,
    /// Told to stop on the way.
    Stopped,
    /// One of them is of a record that the totals do not contain.
    AheadOfTotals,
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
            last_commit: claimed_at,
            last_round: claimed_at,
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

    /// Loads people's rows.
    async fn restore(&mut self, stop: &CancellationToken) -> Result<Restored, HaltReason> {
        let Self { state, parts, id, .. } = self;
        if self.committed.state_position == Position::START {
            return Ok(Restored::Whole);
        }
        let (store, position) = (&parts.store, self.committed.position);
        let mut loads = stream::iter(buckets())
            .map(|bucket| load_bucket(store.as_ref(), *id, bucket))
            .buffer_unordered(RESTORE_CONCURRENCY);
        loop {
            let rows = tokio::select! {
                () = stop.cancelled() => return Ok(Restored::Stopped),
                rows = loads.next() => rows,
            };
            let Some(rows) = rows else { break };
            for row in rows? {
                if !position.includes(row.offset) {
                    tracing::error!(
                        partition = %id.partition,
                        offset = %row.offset,
                        %position,
                        "a person's row is ahead of the totals: the store has lost an acknowledged commit",
                    );
                    return Ok(Restored::AheadOfTotals);
                }
                if !state.restore(&row) {
                    return Err(HaltReason::Store(format!(
                        "a person's row at offset {} does not fit the totals of budget `{}` at {position}",
                        row.offset, row.budget
                    )));
                }
            }
        }
        parts.metrics.restored(self.claimed_at.elapsed());
        tracing::info!(
            partition = %id.partition,
            people = state.people(),
            elapsed_ms = self.claimed_at.elapsed().as_millis() as u64,
            "people restored",
        );
        Ok(Restored::Whole)
    }

    /// A row ahead of the totals has replaced the one that belonged to them, so the rows cannot bring people back to
    /// where the totals are: the checkpoint is made to say that no row counts, and whoever claims the partition next
    /// replays people from the log's beginning.
    async fn disown_rows(mut self) -> Ended {
        self.folded.state_position = Position::START;
        let done = self.begin_commit().await;
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
            // One reading of the clock: what is not due by it gets an alarm by it, and nothing falls between.
            let now = Instant::now();
            // Rows first: the end of a round is news for the commit.
            if writing.is_none() {
                writing = self.next_rows(now);
            }
            if committing.is_none() && self.commit_is_due(now, records.is_empty()) {
                committing = Some(self.begin_commit());
            }
            let alarm = self.next_alarm(now, committing.is_some(), writing.is_some());
            let room = self.uncommitted() < self.parts.limits.max_uncommitted;
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
                () = alarm => {}
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
            && self.last_commit == self.claimed_at
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

    fn uncommitted(&self) -> u64 {
        self.folded.position.0 - self.committed.position.0
    }

    fn is_far_behind(&self) -> bool {
        self.parts.progress.high().0.saturating_sub(self.folded.position.0)
            > self.parts.limits.catch_up_lag
    }

    fn commit_pause(&self) -> Duration {
        if self.is_far_behind() {
            self.parts.limits.catch_up_commit_interval
        } else {
            self.parts.limits.commit_interval
        }
    }

    fn has_news(&self) -> bool {
        self.folded != self.committed
    }

    /// Commits are grouped: one follows the last when that is done, the least interval has passed, and what has
    /// already arrived is folded or waits too long.
    fn commit_is_due(&self, now: Instant, nothing_waits: bool) -> bool {
        let waited = now.saturating_duration_since(self.last_commit);
        self.has_news()
            && waited >= self.commit_pause()
            && (nothing_waits
                || waited >= self.parts.limits.catch_up_commit_interval
                || self.uncommitted() >= self.parts.limits.max_uncommitted)
    }

    fn next_alarm(&self, now: Instant, committing: bool, writing: bool) -> OptionalSleep {
        let commit_at =
            (!committing && self.has_news()).then(|| self.last_commit + self.commit_pause());
        let rows_at = (!writing && self.state.changed_people() > 0)
            .then(|| self.last_round + self.parts.limits.rows_interval);
        // Whatever is overdue waits for something else than the clock.
        let at = [commit_at, rows_at].into_iter().flatten().filter(|at| *at > now).min();
        OptionalSleep(at.map(|at| Box::pin(sleep_until(at.into()))))
    }

    fn begin_commit(&mut self) -> BoxFuture<'static, CommitDone> {
        self.last_commit = Instant::now();
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
            let outcome = match commit.totals.iter().find(|(_, totals)| !totals.is_consistent()) {
                Some((budget, _)) => Err(CommitError::Corrupt(format!(
                    "the folded totals of budget `{budget}` contradict themselves"
                ))),
                None => {
                    put_away(dead_letters.as_ref(), &letters).await;
                    settle_commit(store.as_ref(), id, &commit).await
                }
            };
            (checkpoint, commit.totals, outcome)
        })
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
        self.parts.metrics.committed(records, dead, self.last_commit.elapsed());
        self.committed = checkpoint;
        self.parts.progress.set_committed(self.committed.position);
        self.parts.publisher.publish(self.id, totals);
        Ok(())
    }

    /// What was folded and not committed yet is committed before the partition is let go.
    async fn last_commit(&mut self) -> Result<(), Ended> {
        if self.folded.position > self.committed.position {
            let done = self.begin_commit().await;
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
                    self.last_round = Instant::now();
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
        if self.rounds.is_running() || replaying || self.state.changed_people() == 0 {
            return;
        }
        let replay = self.folded.position.0 - self.folded.state_position.0;
        let since_last = now.saturating_duration_since(self.last_round);
        let calm = !self.is_far_behind() && since_last >= self.parts.limits.rows_interval;
        if calm || replay >= self.parts.limits.max_replay {
            self.rounds.begin(self.folded.position);
        }
    }
}

async fn load_bucket(
    store: &dyn Store,
    id: PartitionRef,
    bucket: u8,
) -> Result<Vec<PersonRow>, HaltReason> {
    loop {
        let mut rows = Vec::new();
        match store.read_people(id, bucket, &mut |row| rows.push(row)).await {
            Ok(()) => return Ok(rows),
            Err(StoreError::Corrupt(reason)) => return Err(HaltReason::Store(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %id.partition, reason, "people's rows cannot be read yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn write_rows(
    store: &dyn Store,
    id: PartitionRef,
    rows: &[PersonRow],
) -> Result<(), HaltReason> {
    loop {
        match store.write_people(id, rows).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(reason)) => return Err(HaltReason::Store(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %id.partition, reason, "people's rows cannot be written yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn put_away(dead_letters: &dyn DeadLetters, letters: &[DeadLetter]) {
    if letters.is_empty() {
        return;
    }
    while let Err(error) = dead_letters.put(letters).await {
        tracing::warn!(%error, letters = letters.len(), "dead letters cannot be put away yet");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Waits for what is under way, or for ever if nothing is.
async fn pending_or<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// A timer that may never go off.
struct OptionalSleep(Option<std::pin::Pin<Box<Sleep>>>);

impl Future for OptionalSleep {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(context),
            None => std::task::Poll::Pending,
        }
    }
}
