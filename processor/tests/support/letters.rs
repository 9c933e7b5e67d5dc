//! Dead letters of tests that have none.

use async_trait::async_trait;
use storage::log::{AppendError, DeadLetter, DeadLetters};

pub struct NoLetters;

#[async_trait]
impl DeadLetters for NoLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        panic!("no record of these tests is a dead letter: {letters:?}");
    }
}
