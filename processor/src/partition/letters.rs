//! Dead letters on their way: those that wait for the commit that passes their records, and how they are put away. What
//! makes a record a dead letter is the fold's to say.

use storage::log::{DeadLetter, DeadLetters};

use super::RETRY_PAUSE;

/// What is put away in one call: less than any producer holds, however many letters a commit has.
const CHUNK_LETTERS: usize = 500;
const CHUNK_BYTES: usize = 1 << 20;

/// The letters of one commit.
#[derive(Debug, Default)]
pub(super) struct Letters {
    letters: Vec<DeadLetter>,
    bytes: usize,
}

impl Letters {
    pub fn push(&mut self, letter: DeadLetter) {
        self.bytes += size_in_memory(&letter);
        self.letters.push(letter);
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts them away, however long that takes: chunk by chunk, and none again once it is there.
    pub async fn put_away(&self, dead_letters: &dyn DeadLetters) {
        for chunk in chunks(&self.letters) {
            while let Err(error) = dead_letters.put(chunk).await {
                tracing::warn!(%error, letters = chunk.len(), "dead letters cannot be put away yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn size_in_memory(letter: &DeadLetter) -> usize {
    size_of::<DeadLetter>() + letter.reason.len() + letter.key.len() + letter.value.len()
}

/// All letters in order, as few at a time as the bounds have it. One that is too large goes alone.
fn chunks(mut letters: &[DeadLetter]) -> impl Iterator<Item = &[DeadLetter]> {
    std::iter::from_fn(move || {
        let (chunk, rest) = letters.split_at(first_chunk(letters));
        letters = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn first_chunk(letters: &[DeadLetter]) -> usize {
    let mut bytes = 0;
    let fitting = letters.iter().take(CHUNK_LETTERS).take_while(|letter| {
        bytes += size_in_memory(letter);
        bytes <= CHUNK_BYTES
    });
    fitting.count().max(1).min(letters.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use proptest::prelude::*;
    use schemas::{LogNumber, Offset, PartitionId, Receipt};
    use storage::log::AppendError;

    use super::*;

    fn letter(offset: u64, value_bytes: usize) -> DeadLetter {
        DeadLetter {
            place: Receipt {
                log: LogNumber::FIRST,
                partition: PartitionId(0),
                offset: Offset(offset),
            },
            reason: "unknown record version 9".into(),
            key: vec![7; 16],
            value: vec![0; value_bytes],
        }
    }

    fn letters(value_bytes: &[usize]) -> Vec<DeadLetter> {
        (0..).zip(value_bytes).map(|(offset, bytes)| letter(offset, *bytes)).collect()
    }

    proptest! {
        #[test]
        fn chunks_hold_every_letter_once_in_order_and_keep_their_bounds(
            value_bytes in prop_oneof![
                prop::collection::vec(0..200_usize, 0..1_600),
                prop::collection::vec(0..1_500_000_usize, 0..12),
            ],
        ) {
            let letters = letters(&value_bytes);
            for chunk in chunks(&letters) {
                let bytes: usize = chunk.iter().map(size_in_memory).sum();
                prop_assert!(chunk.len() <= CHUNK_LETTERS);
                prop_assert!(bytes <= CHUNK_BYTES || chunk.len() == 1);
            }
            prop_assert_eq!(chunks(&letters).collect::<Vec<_>>().concat(), letters);
        }
    }

    /// Takes every second call, and counts how often each letter was taken.
    #[derive(Default)]
    struct Flaky(Mutex<(u64, BTreeMap<Offset, u64>)>);

    #[async_trait]
    impl DeadLetters for Flaky {
        async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
            let (calls, taken) = &mut *self.0.lock().unwrap();
            *calls += 1;
            if calls.is_multiple_of(2) {
                letters
                    .iter()
                    .for_each(|letter| *taken.entry(letter.place.offset).or_default() += 1);
                Ok(())
            } else {
                Err(AppendError::Unavailable("the queue is full".into()))
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_is_put_away_is_not_sent_again_when_another_fails() {
        let mut waiting = Letters::default();
        letters(&[10; 1_234]).into_iter().for_each(|letter| waiting.push(letter));
        let flaky = Flaky::default();
        waiting.put_away(&flaky).await;
        let (calls, taken) = flaky.0.into_inner().unwrap();
        assert_eq!(calls, 2 * 1_234_u64.div_ceil(CHUNK_LETTERS as u64));
        assert_eq!(taken, (0..1_234).map(|offset| (Offset(offset), 1)).collect());
    }
}
