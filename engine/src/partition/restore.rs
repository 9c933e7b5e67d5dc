//! Restoring people at a takeover: person rows go straight into the state, a page at a time. The records after the rows
//! position are replayed from the log by the `actor` module.
//!
//! Rows can be read before the claim ([`prepare_people`]), while the former owner still folds. Nothing is believed of
//! them that the claim does not confirm: see [`PreparedPeople::under_claim`].

use backon::{ConstantBuilder, Retryable};
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use schemas::{Offset, PartitionCount, PersonRow, Position, buckets};
use storage::store::{Checkpoint, Epoch, PartitionRef, People, StoreError, StoredPartition};
use tokio_util::sync::CancellationToken;

use super::{HaltReason, OWNER_RETRY, ResumePoint};
use crate::fold::PartitionState;

/// Maximum number of buckets read at the same time.
const MAX_CONCURRENT_BUCKETS: usize = 16;
/// Attempts to read a bucket before the claim. After it, there is no limit.
const MAX_PREPARE_RETRIES: usize = 5;

/// How reading the person rows ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestoreOutcome {
    /// Every row is in the state.
    Complete,
    /// The owner was asked to stop meanwhile.
    Stopped,
    /// A row belongs to a record that the totals do not contain.
    RowAheadOfTotals,
}

/// People in memory before their partition is claimed: read from their rows, or kept by an owner of this process.
///
/// Worth nothing until [`under_claim`](Self::under_claim) has compared them with the claimed checkpoint.
#[derive(Debug)]
pub struct PreparedPeople {
    state: PartitionState,
    /// The latest claim when the people were read, or that of the owner that kept them.
    epoch: Epoch,
    /// The rows position at that time.
    rows_position: Position,
    /// Every record below this position is in the people; later ones may be.
    complete_to: Position,
    /// The latest record that is known to be in the people.
    newest: Option<Offset>,
}

/// Why people that were prepared cannot be used: they are restored after the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreparedPeopleFault {
    /// Another owner has claimed the partition in between.
    #[error("another owner has claimed the partition meanwhile")]
    OtherOwner,
    /// The rows that were read are invalid.
    #[error("the person rows were invalidated meanwhile")]
    RowsInvalidated,
    /// The people contain records that the totals do not.
    #[error("the people are ahead of the totals")]
    AheadOfTotals,
    /// The log no longer has the records that would have to be replayed.
    #[error("the log no longer has the records to replay")]
    NotInLog,
    /// The people do not fit the totals' budgets.
    #[error("the people do not fit the totals")]
    OtherBudgets,
}

impl PreparedPeople {
    /// Keeps the people of an owner that has committed everything it has folded.
    pub(super) fn kept(mut state: PartitionState, epoch: Epoch, committed: &Checkpoint) -> Self {
        // Rows that were being written may be lost with their owner.
        state.mark_changed_from(committed.rows_position);
        Self {
            state,
            epoch,
            rows_position: committed.rows_position,
            complete_to: committed.position,
            newest: committed.last_record.map(|record| record.offset),
        }
    }

    /// The latest claim when the people were read, or that of the owner that kept them.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Checks that these are people of the claimed checkpoint, and returns them with where to resume.
    ///
    /// Only the owner before this claim can have written since they were prepared, and it has only gone forward: each
    /// record between them and the checkpoint is in the log, and is replayed.
    ///
    /// # Errors
    /// When the prepared people may not belong to the claimed checkpoint.
    pub fn under_claim(
        mut self,
        stored: &StoredPartition,
        resume: ResumePoint,
    ) -> Result<(Self, ResumePoint), PreparedPeopleFault> {
        let checkpoint = &stored.checkpoint;
        if stored.epoch.0 != self.epoch.0 + 1 {
            return Err(PreparedPeopleFault::OtherOwner);
        }
        if checkpoint.rows_position < self.rows_position {
            return Err(PreparedPeopleFault::RowsInvalidated);
        }
        let position = checkpoint.position;
        if self.complete_to > position
            || self.newest.is_some_and(|newest| !position.includes(newest))
        {
            return Err(PreparedPeopleFault::AheadOfTotals);
        }
        let expected = resume.expected_record.map(|record| Position(record.offset.0));
        let from = expected.map_or(self.complete_to, |expected| expected.min(self.complete_to));
        if from < resume.log_start {
            return Err(PreparedPeopleFault::NotInLog);
        }
        if !self.state.set_totals(stored.totals.clone()) {
            return Err(PreparedPeopleFault::OtherBudgets);
        }
        Ok((self, ResumePoint { from, ..resume }))
    }

    /// Returns the state, and the position up to which its people are complete.
    pub(super) fn into_state(self) -> (PartitionState, Position) {
        (self.state, self.complete_to)
    }
}

/// Reads the people of a partition before its claim. `former` is the partition as its owner has stored it.
///
/// Returns `None` if there is nothing to read, or it cannot be read: they are restored after the claim.
pub async fn prepare_people(
    store: &dyn People,
    id: PartitionRef,
    partitions: PartitionCount,
    former: &StoredPartition,
) -> Option<PreparedPeople> {
    let Checkpoint { rows_position, .. } = former.checkpoint;
    if rows_position == Position::START {
        return None;
    }
    let mut state = PartitionState::new(id.partition, partitions, former.totals.clone());
    state.reserve_people();
    let (mut newest, mut fits) = (None, true);
    let mut take = |row: PersonRow| {
        newest = newest.max(Some(row.offset));
        fits &= state.restore_ahead(&row);
    };
    let retry = OWNER_RETRY.with_max_times(MAX_PREPARE_RETRIES);
    read_rows(store, id, retry, &mut take).await.ok()?;
    fits.then_some(PreparedPeople {
        state,
        epoch: former.epoch,
        rows_position,
        complete_to: rows_position,
        newest,
    })
}

/// Reads every person row into the state that the checkpoint's totals describe.
pub(super) async fn restore_people(
    store: &dyn People,
    id: PartitionRef,
    checkpoint: &Checkpoint,
    state: &mut PartitionState,
    stop: &CancellationToken,
) -> Result<RestoreOutcome, HaltReason> {
    if checkpoint.rows_position == Position::START {
        return Ok(RestoreOutcome::Complete);
    }
    state.reserve_people();
    let position = checkpoint.position;
    let (mut ahead, mut misfit) = (None, None);
    let mut take = |row: PersonRow| {
        if !position.includes(row.offset) {
            ahead = ahead.max(Some(row.offset));
        } else if !state.restore(&row) && misfit.is_none() {
            misfit = Some((row.offset, row.budget));
        }
    };
    let reading = read_rows(store, id, OWNER_RETRY, &mut take);
    match stop.run_until_cancelled(reading).await {
        None => return Ok(RestoreOutcome::Stopped),
        Some(read) => read.map_err(HaltReason::from_store)?,
    }
    if let Some(offset) = ahead {
        tracing::error!(
            partition = %id.partition,
            %offset,
            %position,
            "person row is ahead of the totals: the store lost an acknowledged commit",
        );
        return Ok(RestoreOutcome::RowAheadOfTotals);
    }
    if let Some((offset, budget)) = misfit {
        return Err(HaltReason::Store(format!(
            "the person row at offset {offset} does not fit the totals of budget `{budget}` at {position}"
        )));
    }
    Ok(RestoreOutcome::Complete)
}

/// Passes every row of a partition to `take`, in any order, in bounded memory. A row may come twice.
async fn read_rows(
    store: &dyn People,
    id: PartitionRef,
    retry: ConstantBuilder,
    take: &mut (dyn FnMut(PersonRow) + Send),
) -> Result<(), StoreError> {
    let take = Mutex::new(take);
    let take = &take;
    let mut reading = stream::iter(buckets())
        .map(|bucket| read_bucket(store, id, bucket, retry, take))
        .buffer_unordered(MAX_CONCURRENT_BUCKETS);
    while let Some(read) = reading.next().await {
        read?;
    }
    Ok(())
}

async fn read_bucket(
    store: &dyn People,
    id: PartitionRef,
    bucket: u8,
    retry: ConstantBuilder,
    take: &Mutex<&mut (dyn FnMut(PersonRow) + Send)>,
) -> Result<(), StoreError> {
    let read = || async move {
        let mut take = |row| (take.lock())(row);
        store.read_people(id, bucket, &mut take).await
    };
    read.retry(retry)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| {
            tracing::warn!(
                partition = %id.partition,
                bucket,
                %error,
                retry_in_ms = pause.as_millis() as u64,
                "failed to read person rows, retrying",
            );
        })
        .await
}
