//! What operators do about records that the fold could not take: look at them, append them once more, or drop them.
//!
//! The book of dead letters is only ever added to; what has become of a letter follows from its entries ([`Letters`]).
//! A letter is named by the place of its record in the log, where its bytes still are.

mod command;
mod replay;

use std::collections::BTreeMap;

use schemas::{Offset, PartitionId, Position, Receipt};
use storage::log::{Decision, Entry, LetterBook, PutAway, ReadError};
use uuid::Uuid;

pub use command::{DeadLettersArgs, dead_letters_command};
pub use replay::{Refusal, ReplayError, ReplayParts, replay};

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has decided anything.
    Open,
    /// Somebody has begun to append its record once more, and may not have come to it.
    Replaying {
        /// Who.
        attempt: Uuid,
        /// Where to.
        partition: PartitionId,
        /// At this position or later.
        from: Position,
    },
    /// Its record stands there as well.
    Replayed(Receipt),
    /// There is nothing to do about it.
    Dropped,
}

/// A letter and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// As it was put away.
    pub put_away: PutAway,
    /// What has become of it.
    pub state: State,
}

/// Every letter in the book, by the place of its record.
#[derive(Debug, Default)]
pub struct Letters(BTreeMap<(PartitionId, Offset), Letter>);

impl Letters {
    /// Reads the book.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub async fn read(book: &dyn LetterBook) -> Result<Self, ReadError> {
        let mut letters = Self::default();
        let mut entries = book.entries();
        while let Some(entry) = entries.recv().await {
            letters.enter(entry?);
        }
        Ok(letters)
    }

    /// Takes the next entry in. Of two decisions that exclude each other the first one holds.
    pub fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Letter(place, put_away) => {
                let letter = Letter { put_away, state: State::Open };
                self.0.entry((place.partition, place.offset)).or_insert(letter);
            }
            Entry::Decided(place, decision) => {
                if let Some(letter) = self.0.get_mut(&(place.partition, place.offset)) {
                    letter.state = letter.state.after(decision);
                }
            }
        }
    }

    /// One letter.
    pub fn get(&self, place: Receipt) -> Option<&Letter> {
        self.0.get(&(place.partition, place.offset))
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Receipt, &Letter)> {
        self.0.iter().map(|((partition, offset), letter)| {
            (Receipt { partition: *partition, offset: *offset }, letter)
        })
    }
}

impl State {
    fn after(self, decision: Decision) -> Self {
        match (self, decision) {
            (Self::Open, Decision::Replay { attempt, partition, from }) => {
                Self::Replaying { attempt, partition, from }
            }
            (Self::Open | Self::Replaying { .. }, Decision::Replayed { partition, offset }) => {
                Self::Replayed(Receipt { partition, offset })
            }
            (Self::Open, Decision::Dropped) => Self::Dropped,
            (
                Self::Replaying { .. } | Self::Replayed(_) | Self::Dropped,
                Decision::Replay { .. } | Decision::Replayed { .. } | Decision::Dropped,
            ) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Receipt = Receipt { partition: PartitionId(3), offset: Offset(42) };

    fn letter() -> Entry {
        let reason = "unknown record version 9".to_owned();
        Entry::Letter(PLACE, PutAway { reason, key_bytes: 16, value_bytes: 40, put_at_ms: 1 })
    }

    fn decisions() -> impl Strategy<Value = Vec<Decision>> {
        let replay = any::<u128>().prop_map(|id| Decision::Replay {
            attempt: Uuid::from_u128(id),
            partition: PartitionId(1),
            from: Position(7),
        });
        let replayed = (0..9_u64).prop_map(|offset| Decision::Replayed {
            partition: PartitionId(1),
            offset: Offset(offset),
        });
        prop::collection::vec(prop_oneof![replay, replayed, Just(Decision::Dropped)], 0..6)
    }

    fn state(entries: impl IntoIterator<Item = Entry>) -> Option<State> {
        let mut letters = Letters::default();
        entries.into_iter().for_each(|entry| letters.enter(entry));
        letters.get(PLACE).map(|letter| letter.state)
    }

    proptest! {
        #[test]
        fn the_first_end_is_the_end_and_the_first_attempt_the_only_one(made in decisions()) {
            let entries = made.iter().map(|decision| Entry::Decided(PLACE, *decision));
            let found = state(std::iter::once(letter()).chain(entries)).unwrap();
            let replayed = made.iter().find_map(|decision| match decision {
                Decision::Replayed { partition, offset } => {
                    Some(State::Replayed(Receipt { partition: *partition, offset: *offset }))
                }
                Decision::Replay { .. } | Decision::Dropped => None,
            });
            let expected = match made.first() {
                None => State::Open,
                Some(Decision::Dropped) => State::Dropped,
                Some(Decision::Replayed { .. }) => replayed.unwrap(),
                Some(Decision::Replay { attempt, partition, from }) => replayed.unwrap_or(
                    State::Replaying { attempt: *attempt, partition: *partition, from: *from },
                ),
            };
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_letter_entered_twice_is_one_letter_and_keeps_what_was_decided() {
        let dropped = Entry::Decided(PLACE, Decision::Dropped);
        assert_eq!(state([letter(), dropped.clone(), letter()]), Some(State::Dropped));
        assert_eq!(state([dropped]), None);
    }
}
