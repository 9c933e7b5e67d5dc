//! The owner's commits: what goes into one, and what is true once it is done. How it is made certain is the `commit`
//! module's, when it is due the `pace` module's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{BudgetId, BudgetTotals};
use storage::store::{Checkpoint, Commit};
use tokio::time::Instant;

use super::Partition;
use crate::partition::commit::{CommitError, commit_with_letters};
use crate::partition::{Ended, HaltReason};

/// The checkpoint and the totals of a commit, and what came of it.
pub(super) type CommitDone = (Checkpoint, Vec<(BudgetId, BudgetTotals)>, Result<(), CommitError>);

impl Partition {
    pub(super) fn begin_commit(&mut self, now: Instant) -> BoxFuture<'static, CommitDone> {
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
        let letters = std::mem::take(&mut self.letters);
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

    pub(super) fn end_commit(
        &mut self,
        (checkpoint, totals, outcome): CommitDone,
    ) -> Result<(), Ended> {
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
        self.parts.metrics.set_progress(self.committed.position.0, self.parts.progress.lag());
        if let Some(publisher) = &self.parts.publisher {
            publisher.publish(self.id, totals);
        }
        Ok(())
    }

    /// What was folded and not committed yet is committed before the partition is let go.
    pub(super) async fn last_commit(&mut self) -> Result<(), Ended> {
        if self.folded.position > self.committed.position {
            let done = self.begin_commit(Instant::now()).await;
            self.end_commit(done)?;
        }
        Ok(())
    }
}
