//! Letters of the records that cannot be taken are put away by the owner in the generation that answers, before it commits
//! beyond them. Only what lies beyond that is put away here: where that owner does not come on, and its generation is
//! replaced, nobody else would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use schemas::Position;
use storage::log::{AppendError, DeadLetter, DeadLetters};

pub(super) struct LettersBeyond {
    letters: Arc<dyn DeadLetters>,
    answering: AtomicU64,
}

impl LettersBeyond {
    pub fn new(letters: Arc<dyn DeadLetters>) -> Self {
        Self { letters, answering: AtomicU64::new(0) }
    }

    /// Everything that is folded here is a copy of what the generation that answers has taken already, or will.
    pub fn all_are_copies(&self) {
        self.answering.store(u64::MAX, Ordering::Relaxed);
    }

    /// The generation that answers has committed so far.
    pub fn answering_is_at(&self, position: Position) {
        self.answering.store(position.0, Ordering::Relaxed);
    }
}

#[async_trait]
impl DeadLetters for LettersBeyond {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let position = Position(self.answering.load(Ordering::Relaxed));
        let beyond: Vec<_> = letters
            .iter()
            .filter(|letter| !position.includes(letter.place.offset))
            .cloned()
            .collect();
        if beyond.is_empty() { Ok(()) } else { self.letters.put(&beyond).await }
    }
}
