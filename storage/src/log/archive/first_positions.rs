//! Caches where each partition starts in the archive: requested often, and rarely changed.
//!
//! An unreadable directory is no error here: the partition starts where it did when the directory was last read, or
//! at the log's own first position.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemas::{PartitionId, Position};

use super::{Archive, Segment, SegmentFault, contiguous_up_to};
use crate::log::ReadError;

/// How long an entry is valid after the directory was read.
const ENTRY_TTL: Duration = Duration::from_secs(30);
/// How soon a directory is read again after an error.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// An archive, with a cache of each partition's first position in it.
pub(super) struct FirstPositions {
    archive: Archive,
    entries: Mutex<HashMap<PartitionId, Entry>>,
}

/// A partition's first position, in its archive or its log.
#[derive(Debug, Clone)]
struct Entry {
    first: Position,
    /// The end of the archived segments: the entry is valid for a log that starts at this position or earlier.
    archive_end: Position,
    valid_until: Instant,
    /// Why the directory could not be read.
    fault: Option<String>,
}

impl Entry {
    fn is_valid_for(&self, low: Position) -> bool {
        (self.first..=self.archive_end).contains(&low)
    }
}

impl FirstPositions {
    pub fn new(archive: Archive) -> Self {
        Self { archive, entries: Mutex::default() }
    }

    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Returns the first position of a partition whose log starts at `low`.
    pub async fn first_position(&self, partition: PartitionId, low: Position) -> Position {
        let previous = self.entries.lock().get(&partition).cloned();
        let entry = match previous {
            Some(entry) if entry.is_valid_for(low) && Instant::now() < entry.valid_until => {
                return entry.first;
            }
            previous => self.read(partition, low, previous).await,
        };
        let first = entry.first;
        self.entries.lock().insert(partition, entry);
        first
    }

    async fn read(&self, partition: PartitionId, low: Position, previous: Option<Entry>) -> Entry {
        let fault = match self.archive.segments_up_to(partition, low).await {
            Ok(segments) => {
                let first = segments.first().map_or(low, |first| first.first);
                let archive_end = segments.last().map_or(low, |last| last.end);
                let valid_until = Instant::now() + ENTRY_TTL;
                return Entry { first, archive_end, valid_until, fault: None };
            }
            Err(fault) => fault,
        };
        let text = fault.to_string();
        // Logged once per fault.
        if previous.as_ref().and_then(|previous| previous.fault.as_ref()) != Some(&text) {
            tracing::warn!(%partition, error = text, "failed to read the log archive");
        }
        // An archive that only cannot be read now still has its segments.
        let kept = previous.filter(|previous| {
            matches!(fault, ReadError::Unavailable(_)) && previous.is_valid_for(low)
        });
        let (first, archive_end) = kept.map_or((low, low), |kept| (kept.first, kept.archive_end));
        Entry { first, archive_end, valid_until: Instant::now() + RETRY_DELAY, fault: Some(text) }
    }
}

impl Archive {
    /// Lists the contiguous segments that continue in the log, which starts at `low`. Checks that they belong to it.
    pub(super) async fn segments_up_to(
        &self,
        partition: PartitionId,
        low: Position,
    ) -> Result<Vec<Segment>, ReadError> {
        let archive = self.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let segments = archive.segments(partition).map_err(ReadError::unavailable)?;
            let segments = contiguous_up_to(&segments, low).to_vec();
            // All other faults of a segment fail the reads that need it.
            if let Some(Err(other @ SegmentFault::OtherLog { .. })) =
                segments.last().map(|last| last.check_log(&archive.log))
            {
                return Err(other.into());
            }
            Ok(segments)
        });
        listed.await.map_err(ReadError::unavailable)?
    }
}
