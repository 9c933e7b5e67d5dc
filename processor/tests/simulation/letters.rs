//! Where dead letters go: at least once, always with the record's own bytes, and before the commit that passes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemas::{Offset, PartitionId, Position};
use storage::log::{AppendError, DeadLetter, DeadLetters};

use crate::network::{Link, Service};
use crate::oracle::{Checked, require};
use crate::world::{World, lock};

pub struct LettersServer {
    world: Arc<World>,
    letters: Mutex<BTreeMap<(PartitionId, Offset), DeadLetter>>,
}

impl LettersServer {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, letters: Mutex::default() }
    }

    /// How many different letters there are.
    pub fn len(&self) -> usize {
        lock(&self.letters).len()
    }

    /// Whether every letter below a position is there.
    pub fn check_complete(&self, partition: PartitionId, position: Position) -> Checked {
        let letters = lock(&self.letters);
        for offset in self.world.oracle.dead_below(partition, position) {
            require(letters.contains_key(&(partition, offset)), || {
                format!("the dead letter of {offset} is not there, but the position is {position}")
            })?;
        }
        Ok(())
    }

    fn put(&self, new: Vec<DeadLetter>) {
        let mut letters = lock(&self.letters);
        for letter in new {
            self.world.check(self.world.oracle.check_letter(&letter));
            let place = (letter.place.partition, letter.place.offset);
            let known = letters.entry(place).or_insert_with(|| letter.clone());
            self.world.check(require(*known == letter, || {
                format!("the letter {letter:?} was {known:?} before")
            }));
        }
    }
}

/// One process's way to the dead letters.
pub struct LettersClient {
    pub server: Arc<LettersServer>,
    pub link: Link,
}

#[async_trait]
impl DeadLetters for LettersClient {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let (server, letters) = (Arc::clone(&self.server), letters.to_vec());
        let put = self.link.call(Service::Letters, async move { server.put(letters) });
        put.await.map_err(AppendError::Unknown)
    }
}
