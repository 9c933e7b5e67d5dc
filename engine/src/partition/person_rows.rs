//! Writing person rows behind the commit.
//!
//! A round covers every person who has changed when it begins, slice by slice. A slice is a copy made at one moment and
//! is written only once every record in it is committed. When the round is complete, every change below the position at
//! which it began is stored: that position is the new `rows_position`.

use backon::Retryable;
use schemas::{PersonRow, Position};
use storage::store::{PartitionRef, People, StoreError};
use tokio::sync::Semaphore;

use super::{HaltReason, OWNER_RETRY};
use crate::fold::{PartitionState, RowScan};

/// Rows in one slice: large enough that each bucket gets a batch worth sending.
const SLICE_ROWS: usize = 8_192;

/// The rounds of person rows of one partition.
#[derive(Debug, Default)]
pub(super) struct RowRounds {
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    /// Every row below this position is stored once the round is complete.
    rows_position: Position,
    scan: RowScan,
}

/// Rows to be written once `required_commit` is committed.
#[derive(Debug)]
pub(super) struct Slice {
    pub rows: Vec<PersonRow>,
    pub required_commit: Position,
}

/// The next step of a round.
#[derive(Debug)]
pub(super) enum RoundStep {
    /// No round is running.
    Idle,
    /// Write this slice, then ask for the next step.
    Write(Slice),
    /// The round is complete: every row below this position is stored.
    Complete(Position),
}

impl RowRounds {
    pub fn is_running(&self) -> bool {
        self.round.is_some()
    }

    /// Begins a round over the people who have changed; `folded` is the state's position.
    pub fn begin(&mut self, folded: Position, state: &PartitionState) {
        self.round = Some(Round { rows_position: folded, scan: state.begin_row_scan() });
    }

    /// Returns the round's next step. Call it only when the last slice is written.
    pub fn next_step(&mut self, state: &mut PartitionState) -> RoundStep {
        let Some(round) = &mut self.round else { return RoundStep::Idle };
        match state.take_changed_rows(&mut round.scan, SLICE_ROWS) {
            Some(rows) => {
                let last = rows.iter().map(|row| row.offset).max();
                let required_commit = last.map_or(Position::START, |offset| offset.next());
                RoundStep::Write(Slice { rows, required_commit })
            }
            None => {
                let rows_position = round.rows_position;
                self.round = None;
                RoundStep::Complete(rows_position)
            }
        }
    }
}

/// Writes rows, retrying an unavailable store without a limit.
///
/// A repetition is harmless: of two writes of one row the higher offset stays. With `permits`, each attempt takes one
/// and returns it before the backoff, so a failing partition does not block the others.
pub(super) async fn write_rows(
    store: &dyn People,
    id: PartitionRef,
    rows: &[PersonRow],
    permits: Option<&Semaphore>,
) -> Result<(), HaltReason> {
    let write = || async move {
        let _permit = match permits {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        store.write_people(id, rows).await
    };
    write
        .retry(OWNER_RETRY)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| {
            tracing::warn!(
                partition = %id.partition,
                rows = rows.len(),
                %error,
                retry_in_ms = pause.as_millis() as u64,
                "failed to write person rows, retrying",
            );
        })
        .await
        .map_err(HaltReason::from_store)
}
