//! Closing a budget: the fence in its definition, the markers in the log, and a partition's state between them.
//!
//! The fence is written first: from then on no submission is acknowledged. Then each partition gets a close marker.
//! What stands behind it in the log does not count, whatever a clock says. Reopening goes the same way, with other
//! markers.

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::{BudgetId, Offset, PartitionCount, PartitionId, PersonKey, partition_for};

/// What a definition says about closing. Its revision grows with each change of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosingFence {
    /// Revision of the definition that changed the state last, and of the markers that follow from it.
    pub revision: u64,
    /// The state.
    pub state: ClosingState,
}

/// Whether a budget that was closed once accepts submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosingState {
    /// Closed: each partition gets a close marker.
    Closed,
    /// Closed still: submissions are accepted once each partition has its reopen marker.
    Reopening,
    /// Open again.
    Reopened,
}

impl ClosingFence {
    /// Whether submissions are accepted.
    pub fn is_open(self) -> bool {
        self.state == ClosingState::Reopened
    }

    /// Returns the marker that each partition gets; `None` if each has it.
    pub fn marker(self) -> Option<Marker> {
        let kind = match self.state {
            ClosingState::Closed => MarkerKind::Close,
            ClosingState::Reopening => MarkerKind::Reopen,
            ClosingState::Reopened => return None,
        };
        Some(Marker { kind, revision: self.revision })
    }
}

/// What a marker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerKind {
    /// Closes the budget in the marker's partition.
    Close,
    /// Opens it again.
    Reopen,
}

/// The content of a record that closes or reopens a budget in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// What the marker does.
    pub kind: MarkerKind,
    /// Revision of the fence that it follows from; at least 1.
    pub revision: u64,
}

impl Marker {
    /// Returns the record key of a budget's markers in a partition: the key of nobody that belongs to the partition.
    pub fn key(budget: &BudgetId, partition: PartitionId, count: PartitionCount) -> PersonKey {
        // One of `count` keys belongs to the partition, on average.
        let keys = (0_u64..).map(|attempt| {
            let mut hash = digest::Context::new(&digest::SHA256);
            hash.update(b"marker\0");
            hash.update(budget.as_str().as_bytes());
            hash.update(&[0]);
            hash.update(&attempt.to_be_bytes());
            let mut key = [0; PersonKey::BYTES];
            key.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
            PersonKey::from_bytes(key)
        });
        let belongs = |key: &PersonKey| partition_for(key, count) == partition;
        let mut belonging = keys.filter(belongs);
        belonging.next().unwrap_or(PersonKey::from_bytes([0; PersonKey::BYTES]))
    }
}

/// Whether a budget is closed in a partition, and was at each earlier offset: the fold of its markers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closing {
    /// Revision of the latest marker; 0 without one.
    revision: u64,
    /// Offsets of the markers that changed the state, in order: the first closed the budget, the next reopened it.
    changes: Vec<Offset>,
}

impl Closing {
    /// The state before the first marker.
    pub const NONE: Self = Self { revision: 0, changes: Vec::new() };

    /// Restores a stored state; `None` if its offsets are not in order.
    pub fn new(revision: u64, changes: Vec<Offset>) -> Option<Self> {
        changes.is_sorted_by(|one, next| one < next).then_some(Self { revision, changes })
    }

    /// Revision of the latest marker; 0 without one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Offsets of the markers that changed the state, in order.
    pub fn changes(&self) -> &[Offset] {
        &self.changes
    }

    /// Whether the budget is closed after all markers.
    pub fn is_closed(&self) -> bool {
        self.changes.len() % 2 == 1
    }

    /// Whether a submission at `offset` comes too late to count.
    pub fn is_late(&self, offset: Offset) -> bool {
        self.changes.partition_point(|change| *change < offset) % 2 == 1
    }

    /// Folds the marker at `offset`. Returns whether it is later than the former ones; others have no effect.
    pub fn fold(&mut self, marker: Marker, offset: Offset) -> bool {
        if marker.revision <= self.revision {
            return false;
        }
        self.revision = marker.revision;
        if (marker.kind == MarkerKind::Close) != self.is_closed() {
            self.changes.push(offset);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(close: bool, revision: u64) -> Marker {
        Marker { kind: if close { MarkerKind::Close } else { MarkerKind::Reopen }, revision }
    }

    proptest! {
        /// Naively: replays all markers in front of an offset.
        #[test]
        fn what_is_late_is_decided_by_the_latest_revision_in_front_of_it(
            markers in prop::collection::vec(prop::option::of((any::<bool>(), 1..6_u64)), 0..30),
        ) {
            let mut closing = Closing::default();
            let (mut latest, mut closed) = (0, false);
            let mut expected = Vec::new();
            for (offset, marker_at) in (0..).map(Offset).zip(&markers) {
                expected.push(closed);
                if let Some((close, revision)) = marker_at {
                    let later = *revision > latest;
                    prop_assert_eq!(closing.fold(marker(*close, *revision), offset), later);
                    if later {
                        (latest, closed) = (*revision, *close);
                    }
                }
                prop_assert_eq!((closing.revision(), closing.is_closed()), (latest, closed));
            }
            // Afterwards, as a takeover asks: the state at each earlier offset is still known.
            for (offset, late) in (0..).map(Offset).zip(expected) {
                prop_assert_eq!(closing.is_late(offset), late, "{} in {:?}", offset, markers);
            }
            let stored = Closing::new(closing.revision(), closing.changes().to_vec());
            prop_assert_eq!(stored, Some(closing));
        }

        #[test]
        fn a_markers_key_belongs_to_its_partition(partition in 0..64_u32, count in 1..=64_u64) {
            let count = PartitionCount::new(count).unwrap();
            let partition = PartitionId(partition % count.get());
            let budget = BudgetId::parse("taxes").unwrap();
            let key = Marker::key(&budget, partition, count);
            prop_assert_eq!(partition_for(&key, count), partition);
            prop_assert_eq!(key, Marker::key(&budget, partition, count));
        }
    }

    #[test]
    fn offsets_out_of_order_are_no_state() {
        assert_eq!(Closing::new(2, vec![Offset(5), Offset(5)]), None);
    }
}
