//! People's rows, written behind the commit.
//!
//! A round takes every person who has changed, of those there are when it begins, slice by slice. A slice is a copy as
//! of the moment it is taken and is written only once everything in it is committed. When the round is through, every
//! change below the position at which it began is in the table: that is the new `state_position`.

use schemas::{PersonRow, Position};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::sync::Semaphore;

use super::{HaltReason, RETRY_PAUSE};
use crate::fold::{PartitionState, RowScan};

/// Rows of one slice: large enough that each bucket gets a batch of its own worth sending.
const SLICE_ROWS: usize = 8_192;

/// The rounds of one partition.
#[derive(Debug, Default)]
pub(super) struct RowRounds {
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    /// Everything below is in the table once the round is through.
    covers: Position,
    scan: RowScan,
}

/// Rows to be written once `committed` is reached.
#[derive(Debug)]
pub(super) struct Slice {
    pub rows: Vec<PersonRow>,
    pub committed: Position,
}

/// What a round does next.
#[derive(Debug)]
pub(super) enum Next {
    /// There is none.
    Idle,
    /// Write this, then ask again.
    Write(Slice),
    /// The round is through: all rows below this position are in the table.
    Through(Position),
}

impl RowRounds {
    pub fn is_running(&self) -> bool {
        self.round.is_some()
    }

    /// Begins a round; `folded` is how far the state has come.
    pub fn begin(&mut self, folded: Position, state: &PartitionState) {
        self.round = Some(Round { covers: folded, scan: state.begin_row_scan() });
    }

    /// Goes on with the round, when the slice before has been written.
    pub fn next(&mut self, state: &mut PartitionState) -> Next {
        let Some(round) = &mut self.round else { return Next::Idle };
        match state.take_changed_rows(&mut round.scan, SLICE_ROWS) {
            Some(rows) => {
                let last = rows.iter().map(|row| row.offset).max();
                let committed = last.map_or(Position::START, |offset| offset.next());
                Next::Write(Slice { rows, committed })
            }
            None => {
                let covers = round.covers;
                self.round = None;
                Next::Through(covers)
            }
        }
    }
}

/// Writes rows, however long the store is away: of two writes of one row the higher offset stays. Where there are turns, each
/// try is one: who has no luck holds up nobody.
pub(super) async fn write_rows(
    store: &dyn Store,
    id: PartitionRef,
    rows: &[PersonRow],
    turns: Option<&Semaphore>,
) -> Result<(), HaltReason> {
    let write = async || {
        let _turn = match turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        store.write_people(id, rows).await
    };
    loop {
        match write().await {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(reason)) => return Err(HaltReason::Store(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %id.partition, reason, "people's rows cannot be written yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
