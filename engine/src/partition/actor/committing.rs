//! The owner's commits: what goes into one, and the state after it. How its outcome becomes certain is the `commit`
//! module's; when it is due, the `pace` module's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{BudgetId, BudgetTotals};
use storage::store::{Checkpoint, Commit};
use tokio::time::Instant;

use super::PartitionOwner;
use crate::partition::commit::{CommitError, commit_with_dead_letters};
use crate::partition::history::write_history;
use crate::partition::{HaltReason, OwnerExit};

/// The checkpoint and the totals of a commit, and its result.
pub(super) type CommitDone = (Checkpoint, Vec<(BudgetId, BudgetTotals)>, Result<(), CommitError>);

impl PartitionOwner {
    pub(super) fn begin_commit(&mut self, now: Instant) -> BoxFuture<'static, CommitDone> {
        if self.all_rows_are_written() {
            self.folded.rows_position = self.folded.position;
        }
        self.commit_folded(now)
    }

    /// Commits the folded checkpoint as it is, also if its rows position has been set back.
    pub(super) fn commit_folded(&mut self, now: Instant) -> BoxFuture<'static, CommitDone> {
        self.pace.commit_started(now);
        let totals = self.state.take_changed();
        let history = self.state.take_history();
        let checkpoint = self.folded.clone();
        let commit = Commit {
            epoch: self.epoch,
            from: self.committed.position,
            checkpoint: checkpoint.clone(),
            totals,
        };
        let dead_letters = std::mem::take(&mut self.dead_letters);
        let store = Arc::clone(&self.deps.store);
        let writer = Arc::clone(&self.deps.dead_letters);
        let id = self.id;
        Box::pin(async move {
            let (store, writer) = (store.as_ref(), writer.as_ref());
            let result = match write_history(store, id, &history).await {
                Ok(()) => commit_with_dead_letters(store, writer, id, &commit, &dead_letters).await,
                Err(error) => Err(error),
            };
            (checkpoint, commit.totals, result)
        })
    }

    /// Whether every person's row matches their state.
    ///
    /// Then a takeover has nothing to replay, however many records changed no person or arrived during a round.
    fn all_rows_are_written(&self) -> bool {
        let replayed = self.expected_record.is_none();
        replayed && !self.rounds.is_running() && self.state.changed_person_count() == 0
    }

    pub(super) fn end_commit(
        &mut self,
        (checkpoint, totals, result): CommitDone,
    ) -> Result<(), OwnerExit> {
        match result {
            Ok(()) => {}
            Err(CommitError::Fenced) => return Err(OwnerExit::Fenced),
            Err(CommitError::Retired) => return Err(OwnerExit::Retired),
            Err(lost @ CommitError::CommitsLost { .. }) => {
                tracing::error!(
                    partition = %self.id.partition,
                    reason = %lost,
                    "the store lost acknowledged commits, folding their records again",
                );
                return Err(OwnerExit::CommitsLost);
            }
            Err(CommitError::Corrupt(reason)) => return Err(HaltReason::Invariant(reason).into()),
        }
        let records = checkpoint.position.0 - self.committed.position.0;
        let dead_lettered = checkpoint.tally.dead_lettered - self.committed.tally.dead_lettered;
        let metrics = &self.deps.metrics;
        metrics.committed(records, dead_lettered, self.pace.last_commit().elapsed());
        self.committed = checkpoint;
        self.deps.progress.set_committed(self.committed.position);
        metrics.set_progress(self.committed.position.0, self.deps.progress.lag());
        if let Some(publisher) = &self.deps.publisher {
            publisher.publish(self.id, totals);
        }
        Ok(())
    }

    /// Commits what is folded but not committed, before the partition is released.
    pub(super) async fn final_commit(&mut self) -> Result<(), OwnerExit> {
        if self.folded.position > self.committed.position {
            let done = self.begin_commit(Instant::now()).await;
            self.end_commit(done)?;
        }
        Ok(())
    }
}
