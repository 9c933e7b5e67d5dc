//! Filters dead letters that the active generation's owner appends itself.
//!
//! An owner appends the dead letters of rejected records before it commits beyond them. A shadow
//! partition appends only those beyond the active generation's position: if the active owner
//! stalls and its generation is replaced, no other owner would append them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use schemas::Position;
use storage::log::{AppendError, DeadLetter, DeadLetterWriter};

/// Appends only dead letters beyond the active generation's position.
pub(super) struct DeadLetterFilter {
    writer: Arc<dyn DeadLetterWriter>,
    active_position: AtomicU64,
}

impl DeadLetterFilter {
    pub fn new(writer: Arc<dyn DeadLetterWriter>) -> Self {
        Self { writer, active_position: AtomicU64::new(0) }
    }

    /// Drops all dead letters: every folded record is a copy of one in the active log.
    pub fn drop_all(&self) {
        self.active_position.store(u64::MAX, Ordering::Relaxed);
    }

    /// Sets the committed position of the active generation.
    pub fn set_active_position(&self, position: Position) {
        self.active_position.store(position.0, Ordering::Relaxed);
    }
}

#[async_trait]
impl DeadLetterWriter for DeadLetterFilter {
    async fn append(&self, dead_letters: &[DeadLetter]) -> Result<(), AppendError> {
        let position = Position(self.active_position.load(Ordering::Relaxed));
        let beyond: Vec<_> = dead_letters
            .iter()
            .filter(|dead_letter| !position.includes(dead_letter.source.offset))
            .cloned()
            .collect();
        if beyond.is_empty() { Ok(()) } else { self.writer.append(&beyond).await }
    }
}
