//! Dead letters of one commit: buffered until the commit that passes their records, appended in bounded chunks. Which
//! records become dead letters is decided by the fold.

use backon::Retryable;
use storage::log::{DeadLetter, DeadLetterWriter};

use super::OWNER_RETRY;

/// Bounds of one append call: less than any producer buffers, however many dead letters a commit has.
const MAX_CHUNK_DEAD_LETTERS: usize = 500;
const MAX_CHUNK_BYTES: usize = 1 << 20;

/// The dead letters of one commit.
#[derive(Debug, Default)]
pub(super) struct DeadLetterBuffer {
    dead_letters: Vec<DeadLetter>,
    bytes: usize,
}

impl DeadLetterBuffer {
    pub fn push(&mut self, dead_letter: DeadLetter) {
        self.bytes += size_in_memory(&dead_letter);
        self.dead_letters.push(dead_letter);
    }

    /// Memory that the buffered dead letters take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends every dead letter, retrying without a limit. A chunk that was appended is not appended again.
    pub async fn append_all(&self, writer: &dyn DeadLetterWriter) {
        for chunk in chunks(&self.dead_letters) {
            // Cannot fail: the backoff never ends.
            let _ = (|| writer.append(chunk))
                .retry(OWNER_RETRY)
                .notify(|error, pause| {
                    tracing::warn!(
                        dead_letters = chunk.len(),
                        %error,
                        retry_in_ms = pause.as_millis() as u64,
                        "failed to append dead letters, retrying",
                    );
                })
                .await;
        }
    }
}

fn size_in_memory(dead_letter: &DeadLetter) -> usize {
    size_of::<DeadLetter>()
        + dead_letter.reason.len()
        + dead_letter.key.len()
        + dead_letter.value.len()
}

/// Splits dead letters into chunks within the bounds, in order. A dead letter that exceeds them gets its own chunk.
fn chunks(mut dead_letters: &[DeadLetter]) -> impl Iterator<Item = &[DeadLetter]> {
    std::iter::from_fn(move || {
        let (chunk, rest) = dead_letters.split_at(first_chunk_len(dead_letters));
        dead_letters = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn first_chunk_len(dead_letters: &[DeadLetter]) -> usize {
    let mut bytes = 0;
    let fitting = dead_letters.iter().take(MAX_CHUNK_DEAD_LETTERS).take_while(|dead_letter| {
        bytes += size_in_memory(dead_letter);
        bytes <= MAX_CHUNK_BYTES
    });
    fitting.count().max(1).min(dead_letters.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use schemas::{LogNumber, Offset, PartitionId, RecordAddress};
    use storage::log::AppendError;

    use super::*;

    fn dead_letter(offset: u64, value_bytes: usize) -> DeadLetter {
        DeadLetter {
            source: RecordAddress {
                log: LogNumber::FIRST,
                partition: PartitionId(0),
                offset: Offset(offset),
            },
            reason: "unknown record version 9".into(),
            key: vec![7; 16],
            value: vec![0; value_bytes],
        }
    }

    fn dead_letters(value_bytes: &[usize]) -> Vec<DeadLetter> {
        (0..).zip(value_bytes).map(|(offset, bytes)| dead_letter(offset, *bytes)).collect()
    }

    proptest! {
        #[test]
        fn chunks_contain_every_dead_letter_once_in_order_within_the_bounds(
            value_bytes in prop_oneof![
                prop::collection::vec(0..200_usize, 0..1_600),
                prop::collection::vec(0..1_500_000_usize, 0..12),
            ],
        ) {
            let dead_letters = dead_letters(&value_bytes);
            for chunk in chunks(&dead_letters) {
                let bytes: usize = chunk.iter().map(size_in_memory).sum();
                prop_assert!(chunk.len() <= MAX_CHUNK_DEAD_LETTERS);
                prop_assert!(bytes <= MAX_CHUNK_BYTES || chunk.len() == 1);
            }
            prop_assert_eq!(chunks(&dead_letters).collect::<Vec<_>>().concat(), dead_letters);
        }
    }

    /// Accepts every second call, and counts how often each dead letter was accepted.
    #[derive(Default)]
    struct FlakyWriter(Mutex<(u64, BTreeMap<Offset, u64>)>);

    #[async_trait]
    impl DeadLetterWriter for FlakyWriter {
        async fn append(&self, dead_letters: &[DeadLetter]) -> Result<(), AppendError> {
            let (calls, accepted) = &mut *self.0.lock();
            *calls += 1;
            if calls.is_multiple_of(2) {
                dead_letters.iter().for_each(|dead_letter| {
                    *accepted.entry(dead_letter.source.offset).or_default() += 1
                });
                Ok(())
            } else {
                Err(AppendError::Unavailable("the queue is full".into()))
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_appended_chunk_is_not_appended_again_when_a_later_one_fails() {
        let mut buffer = DeadLetterBuffer::default();
        dead_letters(&[10; 1_234]).into_iter().for_each(|dead_letter| buffer.push(dead_letter));
        let writer = FlakyWriter::default();
        buffer.append_all(&writer).await;
        let (calls, accepted) = writer.0.into_inner();
        assert_eq!(calls, 2 * 1_234_u64.div_ceil(MAX_CHUNK_DEAD_LETTERS as u64));
        assert_eq!(accepted, (0..1_234).map(|offset| (Offset(offset), 1)).collect());
    }
}
