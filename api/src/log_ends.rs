//! Recognizes receipts so far beyond the end of the log that no submission can have them yet.
//!
//! A receipt of an earlier release is not signed: anybody can make one up. A read that waits for a made-up receipt would
//! occupy a waiting place for nothing. The end of the log is not known here exactly; how far the person rows of a
//! partition are written is close enough, because no partition folds [`MAX_RECORDS_AHEAD`] records during the longest
//! wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::{LogNumber, Position, RecordAddress, Term};
use storage::store::PartitionRef;

use crate::active_generation::ActiveGenerationCache;
use crate::person_store::PersonStore;

/// Records between the written rows of a partition and the farthest receipt that is worth a wait.
///
/// A partition folds about a million records per second, and the longest wait is ten seconds. The rest is for what an
/// outage of the processors leaves behind.
const MAX_RECORDS_AHEAD: u64 = 50_000_000;

/// Precision with which the check knows a position. Anybody may ask it with made-up receipts, and an exact position is
/// the number of records, also of budgets whose results are withheld.
const POSITION_GRAIN: u64 = 10_000_000;

/// Knows roughly where the partitions of the active log end.
pub struct LogEnds {
    people: Arc<PersonStore>,
    generation: Arc<ActiveGenerationCache>,
    /// The highest position seen, by partition. Positions only move forward within a generation.
    seen: Mutex<HashMap<PartitionRef, Position>>,
}

impl LogEnds {
    /// Creates the check; it reads positions only for receipts that are far beyond those it has seen.
    pub fn new(people: Arc<PersonStore>, generation: Arc<ActiveGenerationCache>) -> Self {
        Self { people, generation, seen: Mutex::default() }
    }

    /// Returns whether a receipt is so far beyond the end of the log that waiting for it is futile.
    ///
    /// `term` is the term of the answer that does not count the receipt. While the positions cannot be read, no receipt
    /// is too far.
    pub async fn is_far_beyond(&self, address: RecordAddress, term: Term) -> bool {
        if address.log > term.log {
            return self.is_no_log(address.log).await;
        }
        // Positions of an earlier log are unknown here.
        if address.log < term.log {
            return false;
        }
        let partition = PartitionRef { generation: term.generation, partition: address.partition };
        let too_far = |position: Position| address.offset.0 > farthest_offset(position);
        let seen = self.seen.lock().get(&partition).copied();
        if !too_far(seen.unwrap_or(Position::START)) {
            return false;
        }
        let Ok(Some(position)) = self.people.rows_position(partition).await else { return false };
        let mut seen = self.seen.lock();
        // Positions of earlier generations are no longer needed.
        seen.retain(|other, _| other.generation >= partition.generation);
        let newest = seen.entry(partition).or_insert(position);
        *newest = position.max(*newest);
        too_far(*newest)
    }

    /// Returns whether no generation has made this log yet; logs have the numbers of the generations that made them.
    async fn is_no_log(&self, log: LogNumber) -> bool {
        let Ok(Some(active)) = self.people.read(self.generation.get()).await else { return false };
        // The cached registry may lack the newest generation.
        log > LogNumber::for_generation(active.next)
    }
}

/// The farthest offset that is worth a wait: the same for all positions of one grain.
fn farthest_offset(position: Position) -> u64 {
    let grain_end = (position.0 / POSITION_GRAIN + 1).saturating_mul(POSITION_GRAIN);
    grain_end.saturating_add(MAX_RECORDS_AHEAD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bound_is_far_enough_and_tells_a_position_by_ten_millions_only(position in 0..u64::MAX / 2) {
            let farthest = farthest_offset(Position(position));
            prop_assert!(farthest >= position + MAX_RECORDS_AHEAD);
            let grain = position / POSITION_GRAIN * POSITION_GRAIN;
            prop_assert_eq!(farthest, farthest_offset(Position(grain)));
        }
    }
}
