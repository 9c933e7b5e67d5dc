//! Dead letters and their state, derived from the journal's entries.

use std::collections::{BTreeMap, HashSet};

use schemas::{PartitionId, Position, RecordAddress};
use uuid::Uuid;

use super::{DeadLetterJournal, DeadLetterMeta, Decision, JournalEntry};
use crate::log::ReadError;

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterState {
    /// No decision was made.
    Open,
    /// An attempt to append the record again was started, and may not have appended it.
    Replaying {
        /// The attempt.
        attempt: Uuid,
        /// The partition that the attempt appends to.
        partition: PartitionId,
        /// The new record is at this position or later.
        from: Position,
    },
    /// The record was appended again, at this address.
    Replayed(RecordAddress),
    /// The dead letter needs no action.
    Dropped,
    /// A newer release made a decision that this one does not know: nothing can be decided here.
    Unrecognized,
}

/// A dead letter's metadata and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedDeadLetter {
    /// The metadata in the journal.
    pub meta: DeadLetterMeta,
    /// The current state.
    pub state: DeadLetterState,
    /// Where to search for the new record; present once a replay was started, whatever was decided since.
    pub replay_from: Option<Position>,
}

/// Dead letters of the journal, by their record's address.
#[derive(Debug, Default)]
pub struct DeadLetterIndex {
    by_source: BTreeMap<RecordAddress, TrackedDeadLetter>,
    foreign: u64,
}

impl DeadLetterIndex {
    /// Reads the whole journal.
    ///
    /// # Errors
    /// When the journal cannot be read to its end.
    pub async fn read(journal: &dyn DeadLetterJournal) -> Result<Self, ReadError> {
        let mut index = Self::default();
        let mut entries = journal.entries();
        while let Some(entry) = entries.recv().await {
            index.apply(entry?);
        }
        Ok(index)
    }

    /// Reads one page of at most `limit` dead letters after the address `after`, ordered by address. Memory is
    /// bounded by the page.
    ///
    /// # Errors
    /// When the journal cannot be read to its end.
    pub async fn read_page(
        journal: &dyn DeadLetterJournal,
        after: Option<RecordAddress>,
        limit: usize,
    ) -> Result<DeadLetterPage, ReadError> {
        let mut index = Self::default();
        let mut entries = journal.entries();
        while let Some(entry) = entries.recv().await {
            let entry = entry?;
            if matches!(&entry, JournalEntry::DeadLetter(source, _) if Some(*source) <= after) {
                continue;
            }
            index.apply(entry);
            // One more than the page holds shows that there is a next page. An evicted dead letter is never needed
            // again: the addresses that are kept only get smaller.
            if index.by_source.len() > limit.saturating_add(1) {
                index.by_source.pop_last();
            }
        }
        let mut letters: Vec<_> = index.by_source.into_iter().collect();
        let is_last = letters.len() <= limit;
        letters.truncate(limit);
        let next = letters.last().map(|(source, _)| *source).filter(|_| !is_last);
        Ok(DeadLetterPage { letters, next })
    }

    /// Reads one dead letter.
    ///
    /// # Errors
    /// When the journal cannot be read to its end.
    pub async fn read_one(
        journal: &dyn DeadLetterJournal,
        source: RecordAddress,
    ) -> Result<Option<TrackedDeadLetter>, ReadError> {
        Ok(Self::read_many(journal, &[source]).await?.by_source.into_values().next())
    }

    /// Reads some dead letters. Memory is bounded by their number.
    ///
    /// # Errors
    /// When the journal cannot be read to its end.
    pub async fn read_many(
        journal: &dyn DeadLetterJournal,
        sources: &[RecordAddress],
    ) -> Result<Self, ReadError> {
        let wanted: HashSet<&RecordAddress> = sources.iter().collect();
        let mut index = Self::default();
        let mut entries = journal.entries();
        while let Some(entry) = entries.recv().await {
            let entry = entry?;
            if let JournalEntry::DeadLetter(source, _) | JournalEntry::Decision(source, _) = &entry
                && wanted.contains(source)
            {
                index.apply(entry);
            }
        }
        Ok(index)
    }

    /// Applies the journal's next entry.
    pub fn apply(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::DeadLetter(source, meta) => {
                let letter =
                    TrackedDeadLetter { meta, state: DeadLetterState::Open, replay_from: None };
                self.by_source.entry(source).or_insert(letter);
            }
            JournalEntry::Decision(source, decision) => {
                if let Some(letter) = self.by_source.get_mut(&source) {
                    letter.state = letter.state.after(source, decision);
                    if let DeadLetterState::Replaying { from, .. } = letter.state {
                        letter.replay_from = Some(from);
                    }
                }
            }
            JournalEntry::Foreign => self.foreign += 1,
        }
    }

    /// Returns one dead letter.
    pub fn get(&self, source: RecordAddress) -> Option<&TrackedDeadLetter> {
        self.by_source.get(&source)
    }

    /// Returns the number of entries that another program wrote.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Iterates over all dead letters, ordered by address.
    pub fn iter(&self) -> impl Iterator<Item = (RecordAddress, &TrackedDeadLetter)> {
        self.by_source.iter().map(|(source, letter)| (*source, letter))
    }
}

/// One page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// The dead letters, ordered by address.
    pub letters: Vec<(RecordAddress, TrackedDeadLetter)>,
    /// `after` of the next page; `None` on the last page.
    pub next: Option<RecordAddress>,
}

impl DeadLetterState {
    /// Returns the state after a decision. `Replayed` is final, since the record is in the log. Otherwise the first
    /// decision holds, except that a dead letter can be dropped while it is replaying. After a decision of a newer
    /// release only `Replayed` is certain.
    fn after(self, source: RecordAddress, decision: Decision) -> Self {
        match (self, decision) {
            (Self::Open, Decision::Replay { attempt, partition, from }) => {
                Self::Replaying { attempt, partition, from }
            }
            (Self::Replayed(_), _) => self,
            (_, Decision::Replayed { partition, offset }) => {
                Self::Replayed(RecordAddress { partition, offset, ..source })
            }
            (_, Decision::Unrecognized) | (Self::Unrecognized, _) => Self::Unrecognized,
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

    const SOURCE: RecordAddress =
        RecordAddress { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(42) };

    fn letter() -> JournalEntry {
        let reason = "unknown record version 9".to_owned();
        JournalEntry::DeadLetter(
            SOURCE,
            DeadLetterMeta { reason, key_bytes: 16, value_bytes: 40, appended_at_ms: 1 },
        )
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

    fn state(entries: impl IntoIterator<Item = JournalEntry>) -> Option<DeadLetterState> {
        let mut index = DeadLetterIndex::default();
        entries.into_iter().for_each(|entry| index.apply(entry));
        index.get(SOURCE).map(|letter| letter.state)
    }

    proptest! {
        #[test]
        fn replayed_wins_over_dropped_and_dropped_over_the_first_attempt(
            decisions in decisions(),
        ) {
            let entries = decisions.iter().map(|decision| JournalEntry::Decision(SOURCE, *decision));
            let actual = state(std::iter::once(letter()).chain(entries)).unwrap();
            let replayed = decisions.iter().find_map(|decision| match decision {
                Decision::Replayed { partition, offset } => {
                    Some(DeadLetterState::Replayed(RecordAddress { partition: *partition, offset: *offset, ..SOURCE }))
                }
                Decision::Replay { .. } | Decision::Dropped | Decision::Unrecognized => None,
            });
            let dropped = decisions.contains(&Decision::Dropped).then_some(DeadLetterState::Dropped);
            let started = decisions.iter().find_map(|decision| match *decision {
                Decision::Replay { attempt, partition, from } => {
                    Some(DeadLetterState::Replaying { attempt, partition, from })
                }
                Decision::Replayed { .. } | Decision::Dropped | Decision::Unrecognized => None,
            });
            let expected = replayed.or(dropped).or(started).unwrap_or(DeadLetterState::Open);
            prop_assert_eq!(actual, expected);
        }
    }

    /// A journal with fixed entries.
    struct FixedJournal(Vec<JournalEntry>);

    #[async_trait::async_trait]
    impl DeadLetterJournal for FixedJournal {
        fn entries(&self) -> tokio::sync::mpsc::Receiver<Result<JournalEntry, ReadError>> {
            let (entries, receiver) = tokio::sync::mpsc::channel(self.0.len().max(1));
            self.0.iter().for_each(|entry| entries.try_send(Ok(entry.clone())).unwrap());
            receiver
        }

        async fn decide(
            &self,
            _: RecordAddress,
            _: Decision,
        ) -> Result<(), crate::log::AppendError> {
            unreachable!("the index only reads")
        }
    }

    fn journals() -> impl Strategy<Value = Vec<JournalEntry>> {
        let source = (0..3_u32, 0..6_u64).prop_map(|(partition, offset)| RecordAddress {
            log: LogNumber::FIRST,
            partition: PartitionId(partition),
            offset: Offset(offset),
        });
        let entry = (source, decisions()).prop_map(|(source, decisions)| {
            let JournalEntry::DeadLetter(_, meta) = letter() else { unreachable!() };
            let decided =
                decisions.into_iter().map(move |decision| JournalEntry::Decision(source, decision));
            std::iter::once(JournalEntry::DeadLetter(source, meta))
                .chain(decided)
                .collect::<Vec<_>>()
        });
        prop::collection::vec(entry, 0..30).prop_map(|entries| entries.concat())
    }

    proptest! {
        #[test]
        fn pages_and_single_reads_agree_with_the_whole_journal(
            entries in journals(), limit in 1..5_usize,
        ) {
            let journal = FixedJournal(entries);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let whole = DeadLetterIndex::read(&journal).await.unwrap();
                let whole: Vec<_> =
                    whole.iter().map(|(source, letter)| (source, letter.clone())).collect();
                let (mut paged, mut after) = (Vec::new(), None);
                loop {
                    let page = DeadLetterIndex::read_page(&journal, after, limit).await.unwrap();
                    prop_assert!(page.letters.len() == limit || page.next.is_none());
                    paged.extend(page.letters);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(&paged, &whole);
                for (source, letter) in whole {
                    prop_assert_eq!(DeadLetterIndex::read_one(&journal, source).await.unwrap(), Some(letter));
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_decision_of_a_newer_release_is_not_taken_for_none() {
        let decided = |json: &[&str]| {
            let decisions =
                json.iter().map(|json| JournalEntry::Decision(SOURCE, Decision::parse(json)));
            state(std::iter::once(letter()).chain(decisions))
        };
        let replayed = r#"{"replayed":{"partition":1,"offset":4}}"#;
        for newer in [r#""parked""#, r#"{"edited":{"by":"otto"}}"#, "\u{1}"] {
            let unrecognized = Some(DeadLetterState::Unrecognized);
            assert_eq!(decided(&[newer]), unrecognized, "{newer}");
            assert_eq!(decided(&[r#""dropped""#, newer]), unrecognized, "{newer}");
            assert_eq!(decided(&[newer, r#""dropped""#]), unrecognized, "{newer}");
            let offset = Offset(4);
            let copy = DeadLetterState::Replayed(RecordAddress {
                partition: PartitionId(1),
                offset,
                ..SOURCE
            });
            assert_eq!(decided(&[newer, replayed]), Some(copy), "{newer}");
            assert_eq!(decided(&[replayed, newer]), Some(copy), "{newer}");
        }
        assert!(serde_json::to_string(&Decision::Unrecognized).is_err());
    }

    #[test]
    fn a_dead_letter_appended_twice_keeps_its_decision() {
        let dropped = JournalEntry::Decision(SOURCE, Decision::Dropped);
        assert_eq!(state([letter(), dropped.clone(), letter()]), Some(DeadLetterState::Dropped));
        assert_eq!(state([dropped]), None);
    }
}
