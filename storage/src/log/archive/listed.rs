//! What an archive is known to have before a log's beginning: asked for often, and looked up rarely.
//!
//! A folder that cannot be read is nobody's trouble who needs nothing of it: the log then begins where it did when the
//! folder could be read, or where it begins itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::{PartitionId, Position};

use super::{Archive, Segment, SegmentFault, leading_to};
use crate::log::ReadError;

/// How long what was found in the folder is taken to be there.
const FOUND_FOR: Duration = Duration::from_secs(30);
/// When a folder is looked at again that could not be read.
const FAULTY_FOR: Duration = Duration::from_secs(1);

/// An archive that remembers where each partition begins in it.
pub(super) struct Listed {
    archive: Archive,
    known: Mutex<HashMap<PartitionId, Known>>,
}

/// Where a partition begins with its archive before it.
#[derive(Debug, Clone)]
struct Known {
    first: Position,
    /// It is known of a log that begins no later than here.
    reaches: Position,
    until: Instant,
    /// Why it was not found out anew.
    fault: Option<String>,
}

impl Known {
    fn is_of(&self, low: Position) -> bool {
        (self.first..=self.reaches).contains(&low)
    }
}

impl Listed {
    pub fn new(archive: Archive) -> Self {
        Self { archive, known: Mutex::default() }
    }

    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Where a partition begins, whose log begins at `low`.
    pub async fn first(&self, partition: PartitionId, low: Position) -> Position {
        let before = self.known().get(&partition).cloned();
        let known = match before {
            Some(known) if known.is_of(low) && Instant::now() < known.until => return known.first,
            before => self.look(partition, low, before).await,
        };
        let first = known.first;
        self.known().insert(partition, known);
        first
    }

    async fn look(&self, partition: PartitionId, low: Position, before: Option<Known>) -> Known {
        let fault = match self.archive.leading_to(partition, low).await {
            Ok(leading) => {
                let first = leading.first().map_or(low, |first| first.first);
                let reaches = leading.last().map_or(low, |last| last.end);
                let until = Instant::now() + FOUND_FOR;
                return Known { first, reaches, until, fault: None };
            }
            Err(fault) => fault,
        };
        let said = fault.to_string();
        if before.as_ref().and_then(|before| before.fault.as_ref()) != Some(&said) {
            tracing::warn!(%partition, fault = said, "the log's archive cannot be used now");
        }
        // What only cannot be read now is there all the same.
        let still =
            before.filter(|before| matches!(fault, ReadError::Unavailable(_)) && before.is_of(low));
        let (first, reaches) = still.map_or((low, low), |still| (still.first, still.reaches));
        Known { first, reaches, until: Instant::now() + FAULTY_FOR, fault: Some(said) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PartitionId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archive {
    /// The segments that lead to where a log begins, which have to be of it.
    pub(super) async fn leading_to(
        &self,
        partition: PartitionId,
        low: Position,
    ) -> Result<Vec<Segment>, ReadError> {
        let archive = self.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let segments = archive.segments(partition).map_err(ReadError::unavailable)?;
            let leading = leading_to(&segments, low).to_vec();
            // What is wrong with a segment besides is for whoever reads from it.
            if let Some(Err(other @ SegmentFault::OtherLog { .. })) =
                leading.last().map(|last| last.is_of(&archive.log))
            {
                return Err(other.into());
            }
            Ok(leading)
        });
        listed.await.map_err(ReadError::unavailable)?
    }
}
