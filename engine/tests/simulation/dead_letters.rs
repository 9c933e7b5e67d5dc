//! The dead letter server. Checks that each dead letter arrives at least once, with its record's bytes, before the
//! commit that passes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Offset, PartitionId, Position};
use storage::log::{AppendError, DeadLetter, DeadLetterWriter};

use crate::network::{Link, Service};
use crate::oracle::{CheckResult, require};
use crate::world::World;

pub struct DeadLetterServer {
    world: Arc<World>,
    letters: Mutex<BTreeMap<(PartitionId, Offset), DeadLetter>>,
}

impl DeadLetterServer {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, letters: Mutex::default() }
    }

    /// The number of distinct dead letters.
    pub fn len(&self) -> usize {
        self.letters.lock().len()
    }

    /// Checks that every dead letter below a position is stored.
    pub fn check_complete(&self, partition: PartitionId, position: Position) -> CheckResult {
        let letters = self.letters.lock();
        for offset in self.world.oracle.rejected_below(partition, position) {
            require(letters.contains_key(&(partition, offset)), || {
                format!(
                    "the dead letter of offset {offset} is missing, but the position is {position}"
                )
            })?;
        }
        Ok(())
    }

    fn append(&self, new: Vec<DeadLetter>) {
        let mut letters = self.letters.lock();
        for letter in new {
            self.world.check(self.world.oracle.check_dead_letter(&letter));
            let source = (letter.source.partition, letter.source.offset);
            let stored = letters.entry(source).or_insert_with(|| letter.clone());
            self.world.check(require(*stored == letter, || {
                format!("the dead letter {letter:?} was {stored:?} before")
            }));
        }
    }
}

/// One process's client of the dead letter server.
pub struct DeadLetterClient {
    pub server: Arc<DeadLetterServer>,
    pub link: Link,
}

#[async_trait]
impl DeadLetterWriter for DeadLetterClient {
    async fn append(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let (server, letters) = (Arc::clone(&self.server), letters.to_vec());
        let append = self.link.call(Service::DeadLetters, async move { server.append(letters) });
        append.await.map_err(AppendError::Unknown)
    }
}
