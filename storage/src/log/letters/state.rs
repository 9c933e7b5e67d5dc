//! What has become of dead letters, by the book's entries.

use std::collections::{BTreeMap, HashSet};

use schemas::{PartitionId, Position, Receipt};
use uuid::Uuid;

use super::{Decision, Entry, LetterBook, PutAway};
use crate::log::ReadError;

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterState {
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
    pub state: LetterState,
    /// From where on its record may stand once more, if somebody has begun to append it: whatever was decided since.
    pub begun: Option<Position>,
}

/// Letters of the book, by the place of their record.
#[derive(Debug, Default)]
pub struct Letters {
    by_place: BTreeMap<Receipt, Letter>,
    foreign: u64,
}

impl Letters {
    /// Reads the whole book.
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

    /// Reads the book for one page of its letters, in the order of their places: at most `limit`, from behind `after` on.
    /// Takes no more memory than those.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub async fn page(
        book: &dyn LetterBook,
        after: Option<Receipt>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let mut page = Self::default();
        let mut entries = book.entries();
        while let Some(entry) = entries.recv().await {
            let entry = entry?;
            if matches!(&entry, Entry::Letter(place, _) if Some(*place) <= after) {
                continue;
            }
            page.enter(entry);
            // One more than is shown, which says that there are more. What was left out never comes back: places only
            // get smaller here.
            if page.by_place.len() > limit.saturating_add(1) {
                page.by_place.pop_last();
            }
        }
        let mut letters: Vec<_> = page.by_place.into_iter().collect();
        let is_last = letters.len() <= limit;
        letters.truncate(limit);
        let next = letters.last().map(|(place, _)| *place).filter(|_| !is_last);
        Ok(Page { letters, next })
    }

    /// Reads the book for one letter.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub async fn one(book: &dyn LetterBook, place: Receipt) -> Result<Option<Letter>, ReadError> {
        Ok(Self::some(book, &[place]).await?.by_place.into_values().next())
    }

    /// Reads the book for some letters. Takes no more memory than those.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub async fn some(book: &dyn LetterBook, places: &[Receipt]) -> Result<Self, ReadError> {
        let wanted: HashSet<&Receipt> = places.iter().collect();
        let mut letters = Self::default();
        let mut entries = book.entries();
        while let Some(entry) = entries.recv().await {
            let entry = entry?;
            if matches!(&entry, Entry::Letter(at, _) | Entry::Decided(at, _) if wanted.contains(at))
            {
                letters.enter(entry);
            }
        }
        Ok(letters)
    }

    /// Takes the next entry in.
    pub fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Letter(place, put_away) => {
                let letter = Letter { put_away, state: LetterState::Open, begun: None };
                self.by_place.entry(place).or_insert(letter);
            }
            Entry::Decided(place, decision) => {
                if let Some(letter) = self.by_place.get_mut(&place) {
                    letter.state = letter.state.after(place, decision);
                    if let LetterState::Replaying { from, .. } = letter.state {
                        letter.begun = Some(from);
                    }
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

/// Some of the book's letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their places.
    pub letters: Vec<(Receipt, Letter)>,
    /// Where the next page goes on; `None` if there are no more.
    pub next: Option<Receipt>,
}

impl LetterState {
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
#[allow(clippy::unwrap_used)]
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

    fn state(entries: impl IntoIterator<Item = Entry>) -> Option<LetterState> {
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
                    Some(LetterState::Replayed(Receipt { partition: *partition, offset: *offset, ..PLACE }))
                }
                Decision::Replay { .. } | Decision::Dropped => None,
            });
            let dropped = made.contains(&Decision::Dropped).then_some(LetterState::Dropped);
            let begun = made.iter().find_map(|decision| match *decision {
                Decision::Replay { attempt, partition, from } => {
                    Some(LetterState::Replaying { attempt, partition, from })
                }
                Decision::Replayed { .. } | Decision::Dropped => None,
            });
            let expected = replayed.or(dropped).or(begun).unwrap_or(LetterState::Open);
            prop_assert_eq!(found, expected);
        }
    }

    /// A book of these entries.
    struct Book(Vec<Entry>);

    #[async_trait::async_trait]
    impl LetterBook for Book {
        fn entries(&self) -> tokio::sync::mpsc::Receiver<Result<Entry, ReadError>> {
            let (entries, receiver) = tokio::sync::mpsc::channel(self.0.len().max(1));
            self.0.iter().for_each(|entry| entries.try_send(Ok(entry.clone())).unwrap());
            receiver
        }

        async fn decide(&self, _: Receipt, _: Decision) -> Result<(), crate::log::AppendError> {
            unreachable!("nothing is decided here")
        }
    }

    fn books() -> impl Strategy<Value = Vec<Entry>> {
        let place = (0..3_u32, 0..6_u64).prop_map(|(partition, offset)| Receipt {
            log: LogNumber::FIRST,
            partition: PartitionId(partition),
            offset: Offset(offset),
        });
        let entry = (place, decisions()).prop_map(|(place, made)| {
            let Entry::Letter(_, put_away) = letter() else { unreachable!() };
            let decided = made.into_iter().map(move |decision| Entry::Decided(place, decision));
            std::iter::once(Entry::Letter(place, put_away)).chain(decided).collect::<Vec<_>>()
        });
        prop::collection::vec(entry, 0..30).prop_map(|entries| entries.concat())
    }

    proptest! {
        #[test]
        fn all_pages_together_are_the_whole_book_and_one_letter_is_the_one_in_it(
            entries in books(), limit in 1..5_usize,
        ) {
            let book = Book(entries);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let whole = Letters::read(&book).await.unwrap();
                let whole: Vec<_> =
                    whole.iter().map(|(place, letter)| (place, letter.clone())).collect();
                let (mut paged, mut after) = (Vec::new(), None);
                loop {
                    let page = Letters::page(&book, after, limit).await.unwrap();
                    prop_assert!(page.letters.len() == limit || page.next.is_none());
                    paged.extend(page.letters);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(&paged, &whole);
                for (place, letter) in whole {
                    prop_assert_eq!(Letters::one(&book, place).await.unwrap(), Some(letter));
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_letter_entered_twice_is_one_letter_and_keeps_what_was_decided() {
        let dropped = Entry::Decided(PLACE, Decision::Dropped);
        assert_eq!(state([letter(), dropped.clone(), letter()]), Some(LetterState::Dropped));
        assert_eq!(state([dropped]), None);
    }
}
