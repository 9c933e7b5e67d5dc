//! What operators do about records that the fold could not take: look at them, append them once more, or drop them.
//!
//! The book of dead letters is only ever added to; what has become of a letter follows from its entries ([`Letters`]).
//! A letter is named by the place of its record in the log, where its bytes still are.

mod command;
mod replay;

use std::collections::BTreeMap;

use schemas::{PartitionId, Position, Receipt};
use storage::log::{Decision, Entry, LetterBook, LogReader, PutAway, ReadError};
use uuid::Uuid;

pub use command::{DeadLettersArgs, dead_letters_command};
pub use replay::{Refusal, ReplayError, ReplayParts, Unfinished, replay};

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
pub struct Letters {
    by_place: BTreeMap<Receipt, Letter>,
    foreign: u64,
}

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

    /// Takes the next entry in.
    pub fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Letter(place, put_away) => {
                let letter = Letter { put_away, state: State::Open };
                self.by_place.entry(place).or_insert(letter);
            }
            Entry::Decided(place, decision) => {
                if let Some(letter) = self.by_place.get_mut(&place) {
                    letter.state = letter.state.after(place, decision);
                }
            }
            Entry::Foreign => self.foreign += 1,
        }
    }

    /// One letter.
    pub fn get(&self, place: Receipt) -> Option<&Letter> {
        self.by_place.get(&place)
    }

    /// Entries that nobody of ours wrote.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Receipt, &Letter)> {
        self.by_place.iter().map(|(place, letter)| (*place, letter))
    }
}

/// The key and the value of the record that stands somewhere.
async fn read_record(log: &dyn LogReader, place: Receipt) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
    let start = Position(place.offset.0);
    let mut stretch = log.read(place.partition, start..place.offset.next());
    let batch = stretch.recv().await.ok_or(ReadError::Missing(start))??;
    let record = batch.iter().next().ok_or(ReadError::Missing(start))?;
    Ok((record.key.to_vec(), record.value.to_vec()))
}

impl State {
    /// A record that was appended is in the log, whatever was decided before; else the first decision holds, but a letter
    /// may be dropped that somebody has begun to replay.
    fn after(self, letter: Receipt, decision: Decision) -> Self {
        match (self, decision) {
            (Self::Open, Decision::Replay { attempt, partition, from }) => {
                Self::Replaying { attempt, partition, from }
            }
            (Self::Replayed(_), _) => self,
            (_, Decision::Replayed { partition, offset }) => {
                Self::Replayed(Receipt { partition, offset, ..letter })
            }
            (_, Decision::Dropped) => Self::Dropped,
            (Self::Replaying { .. } | Self::Dropped, Decision::Replay { .. }) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{LogNumber, Offset};

    use super::*;

    const PLACE: Receipt =
        Receipt { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(42) };

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
        fn what_was_appended_is_replayed_else_what_was_dropped_is_dropped_else_the_first_attempt_holds(
            made in decisions(),
        ) {
            let entries = made.iter().map(|decision| Entry::Decided(PLACE, *decision));
            let found = state(std::iter::once(letter()).chain(entries)).unwrap();
            let replayed = made.iter().find_map(|decision| match decision {
                Decision::Replayed { partition, offset } => {
                    Some(State::Replayed(Receipt { partition: *partition, offset: *offset, ..PLACE }))
                }
                Decision::Replay { .. } | Decision::Dropped => None,
            });
            let dropped = made.contains(&Decision::Dropped).then_some(State::Dropped);
            let begun = made.iter().find_map(|decision| match *decision {
                Decision::Replay { attempt, partition, from } => {
                    Some(State::Replaying { attempt, partition, from })
                }
                Decision::Replayed { .. } | Decision::Dropped => None,
            });
            let expected = replayed.or(dropped).or(begun).unwrap_or(State::Open);
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
