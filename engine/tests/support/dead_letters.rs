//! A dead letter writer for tests without rejected records.

use async_trait::async_trait;
use storage::log::{AppendError, DeadLetter, DeadLetterWriter};

pub struct NoDeadLetters;

#[async_trait]
impl DeadLetterWriter for NoDeadLetters {
    async fn append(&self, dead_letters: &[DeadLetter]) -> Result<(), AppendError> {
        panic!("these tests have no rejected records: {dead_letters:?}");
    }
}
