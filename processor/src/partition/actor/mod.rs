//! The partition's owner: one task that folds what comes, commits as soon as the last commit is done, and writes
//! people's rows behind it. It alone touches the partition's state.
//!
//! Here is what it does when; `intake` has what becomes of a batch, `committing` what goes into a commit.

mod committing;
mod intake;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{LogRef, Position};
use storage::log::{DeadLetters, LogIdentity, RecordBatch};
use storage::store::{Checkpoint, Epoch, PartitionRef, RecordMark, Store, StoredPartition};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::letters::Letters;
use super::load::{Restored, restore_people};
use super::pace::{Pace, Workload};
use super::rows::{Next, RowRounds, Slice, write_rows};
use super::storm::StormWatch;
use super::{Ended, HaltReason, Limits, Progress, Resume};
use crate::fold::PartitionState;
use crate::metrics::PartitionMetrics;
use crate::publisher::Publisher;
use committing::CommitDone;

/// What an owner works with.
pub struct PartitionParts {
    /// Where totals and rows go.
    pub store: Arc<dyn Store>,
    /// Where records go that cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who tells the readers; nobody does of a generation that does not answer.
    pub publisher: Option<Arc<Publisher>>,
    /// Whose turn it is to write a slice of people's rows; nobody waits for one in the generation that answers.
    pub turns_to_write: Option<Arc<Semaphore>>,
    /// Which log is folded.
    pub identity: LogIdentity,
    /// The log that the generation derives from.
    pub log: LogRef,
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
    /// Whether a record came that nobody had folded before.
    took_in_any: bool,
    storm: StormWatch,
    /// Of the records that no commit has passed yet.
    letters: Letters,
    rounds: RowRounds,
    waiting_slice: Option<Slice>,
    pace: Pace,
}

impl Partition {
    /// Takes up what was claimed.
    pub fn new(
        id: PartitionRef,
        stored: StoredPartition,
        resume: Resume,
        claimed_at: Instant,
        parts: PartitionParts,
    ) -> Self {
        let state = PartitionState::new(id.partition, parts.log.partitions, stored.totals);
        parts.progress.set_committed(stored.checkpoint.position);
        Self {
            id,
            epoch: stored.epoch,
            state,
            folded: stored.checkpoint.clone(),
            committed: stored.checkpoint,
            mark: resume.mark,
            claimed_at,
            took_in_any: false,
            storm: StormWatch::new(parts.limits.storm),
            letters: Letters::default(),
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
        // They are committed: readers need not wait for the people behind them.
        self.publish_everything();
        match self.restore(&stop).await {
            Ok(Restored::Whole) => {}
            Ok(Restored::Stopped) => return Ended::Released,
            Ok(Restored::AheadOfTotals) => return self.disown_rows().await,
            Err(reason) => return Ended::Halted(reason),
        }
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
        if let Some(publisher) = &self.parts.publisher {
            let totals = self.state.totals().map(|(id, totals)| (id.clone(), totals.clone()));
            publisher.publish(self.id, totals.collect());
        }
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
                () = stop.cancelled() => break,
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
                    None => break,
                },
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
            has_news: self.folded != self.committed,
            uncommitted: folded.0 - self.committed.position.0,
            letter_bytes: self.letters.bytes(),
            unread: self.parts.progress.high().0.saturating_sub(folded.0),
            replay: folded.0 - self.folded.state_position.0,
            people_changed: self.state.changed_people() > 0,
        }
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
        let turns = self.parts.turns_to_write.clone();
        Some(Box::pin(async move {
            write_rows(store.as_ref(), id, &slice.rows, turns.as_deref()).await?;
            metrics.rows_written(slice.rows.len());
            Ok(())
        }))
    }

    fn begin_round_if_due(&mut self, now: Instant) {
        let replaying = self.folded.position == self.committed.position && self.mark.is_some();
        if !self.rounds.is_running() && !replaying && self.pace.round_is_due(now, &self.workload())
        {
            self.rounds.begin(self.folded.position, &self.state);
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
