//! The archive: a folder with copies of the log's records, from its first on, so that the log itself may be shortened.
//!
//! A file is a segment of one partition, and never changes; a partition's segments follow each other without a gap. The
//! files are all there is: what is in the archive is what their names say, and each can be checked by itself.

mod check;
mod listed;
mod reader;
mod segment;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use schemas::{LogNumber, LogRef, PartitionId, Position};
use serde::{Deserialize, Serialize};

use super::{LogIdentity, LogReader, ReadError};

pub use check::Found;
pub use reader::ArchivedReader;
pub use segment::{Segment, SegmentFault};
pub use write::{ArchiveWriter, Archived, WriteError};

/// Of which log an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogName {
    cluster_id: String,
    topic_id: String,
    topic: String,
}

impl LogName {
    /// The name of the log that `reader` reads, whose topic is called so.
    pub fn of(reader: &dyn LogReader, topic: &str) -> Self {
        let LogIdentity { cluster_id, topic_id } = reader.identity();
        Self { cluster_id, topic_id, topic: topic.to_owned() }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster_id, topic_id, topic } = self;
        write!(f, "topic `{topic}` of cluster `{cluster_id}`")?;
        if topic_id.is_empty() { Ok(()) } else { write!(f, ", topic id `{topic_id}`") }
    }
}

/// The folder of a log's archive: the first log's is what is configured, and each later one has a folder of its own in it.
pub fn folder_of(dir: &Path, log: &LogRef) -> PathBuf {
    if log.number == LogNumber::FIRST { dir.to_owned() } else { dir.join(&log.topic) }
}

/// An archive, for reading.
#[derive(Debug, Clone)]
pub struct Archive {
    dir: PathBuf,
    log: LogName,
}

impl Archive {
    /// The archive of a log in a folder. One that is not there is an archive of nothing.
    pub fn new(dir: &Path, log: LogName) -> Self {
        Self { dir: dir.to_owned(), log }
    }

    /// A partition's segments, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn segments(&self, partition: PartitionId) -> io::Result<Vec<Segment>> {
        let mut segments = self.all_segments()?;
        segments.retain(|segment| segment.partition == partition);
        Ok(segments)
    }

    /// Every partition's segments, partition by partition, in order.
    fn all_segments(&self) -> io::Result<Vec<Segment>> {
        let files = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut segments = Vec::new();
        for file in files {
            segments.extend(Segment::of(file?.path()));
        }
        segments.sort_by_key(|segment| (segment.partition, segment.first));
        Ok(segments)
    }
}

/// The segments that lead to `low` without a gap: where a log goes on that begins there. None, if they do not.
fn leading_to(segments: &[Segment], low: Position) -> &[Segment] {
    let runs = segments.chunk_by(|one, next| one.end == next.first);
    let leads = |run: &&[Segment]| match run {
        [first, .., last] => first.first < low && low <= last.end,
        [only] => only.first < low && low <= only.end,
        [] => false,
    };
    runs.into_iter().find(leads).unwrap_or_default()
}

/// What of a partition from its start up to `low` no segment has.
fn missing_before(segments: &[Segment], low: Position) -> Vec<std::ops::Range<Position>> {
    let mut missing = Vec::new();
    let mut next = Position::START;
    for segment in segments.iter().filter(|segment| segment.first < low) {
        if segment.first > next {
            missing.push(next..segment.first);
        }
        next = next.max(segment.end);
    }
    if next < low {
        missing.push(next..low);
    }
    missing
}

impl From<SegmentFault> for ReadError {
    fn from(fault: SegmentFault) -> Self {
        match fault {
            SegmentFault::Unreadable(..) => Self::Unavailable(fault.to_string()),
            SegmentFault::Damaged(..) | SegmentFault::OtherLog { .. } => {
                Self::Damaged(fault.to_string())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segments(stretches: &[(u64, u64)]) -> Vec<Segment> {
        let segment = |(first, end): &(u64, u64)| Segment {
            path: PathBuf::new(),
            partition: PartitionId(0),
            first: Position(*first),
            end: Position(*end),
        };
        stretches.iter().map(segment).collect()
    }

    fn leading(stretches: &[(u64, u64)], low: u64) -> Option<(u64, u64)> {
        let segments = segments(stretches);
        let run = leading_to(&segments, Position(low));
        Some((run.first()?.first.0, run.last()?.end.0))
    }

    #[test]
    fn only_what_reaches_the_logs_beginning_without_a_gap_leads_to_it() {
        let whole = [(0, 10), (10, 30), (30, 40)];
        assert_eq!(leading(&whole, 35), Some((0, 40)));
        assert_eq!(leading(&whole, 40), Some((0, 40)));
        assert_eq!(leading(&whole, 41), None);
        assert_eq!(leading(&whole, 0), None);
        let broken = [(0, 10), (30, 40)];
        assert_eq!(leading(&broken, 35), Some((30, 40)));
        assert_eq!(leading(&broken, 20), None);
        assert_eq!(leading(&broken, 10), Some((0, 10)));
        assert_eq!(leading(&[], 5), None);
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_no_segment_has(
            lengths in prop::collection::vec((0..3_u64, 1..4_u64), 0..6),
            low in 0..20_u64,
        ) {
            let (mut next, mut stretches) = (0, Vec::new());
            for (gap, length) in lengths {
                stretches.push((next + gap, next + gap + length));
                next += gap + length;
            }
            let missing = missing_before(&segments(&stretches), Position(low));
            for position in 0..low {
                let there = stretches.iter().any(|(first, end)| (*first..*end).contains(&position));
                let named = missing.iter().any(|gap| gap.contains(&Position(position)));
                prop_assert_eq!(named, !there, "{}", position);
            }
            let from_the_start = leading(&stretches, low).is_some_and(|(first, _)| first == 0);
            prop_assert_eq!(missing.is_empty(), low == 0 || from_the_start);
        }
    }
}
