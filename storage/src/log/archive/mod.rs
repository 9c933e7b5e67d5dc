//! The archive: a directory of copies of the log's records from the first one, so that the log can be truncated.
//!
//! Each file is an immutable segment of one partition, and a partition's segments are contiguous. There is no other
//! state: the names of the segments describe the archive's content, and each segment can be verified by itself.

mod check;
mod first_positions;
mod reader;
mod segment;
mod trim;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use schemas::{LogNumber, LogRef, PartitionId, Position};
use serde::{Deserialize, Serialize};

use super::{LogIdentity, LogReader, ReadError};

pub use check::ArchiveCheckReport;
pub use reader::ArchivedReader;
pub use segment::{Segment, SegmentFault};
pub use trim::TrimError;
pub use write::{ArchiveWriteError, ArchiveWriter, ArchivedPartition};

/// Identifies the log that an archive belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogName {
    cluster_id: String,
    topic_id: String,
    topic: String,
}

impl LogName {
    /// Returns the name of the log that `reader` reads, and whose topic is `topic`.
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

/// Returns the directory of a log's archive: the configured one for the first log, a subdirectory for a later log.
pub fn archive_dir_for(dir: &Path, log: &LogRef) -> PathBuf {
    if log.number == LogNumber::FIRST { dir.to_owned() } else { dir.join(&log.topic) }
}

/// Reads the archive of one log.
#[derive(Debug, Clone)]
pub struct Archive {
    dir: PathBuf,
    log: LogName,
}

impl Archive {
    /// Uses the archive of a log in a directory. A missing directory is an empty archive.
    pub fn new(dir: &Path, log: LogName) -> Self {
        Self { dir: dir.to_owned(), log }
    }

    /// Lists a partition's segments, in order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn segments(&self, partition: PartitionId) -> io::Result<Vec<Segment>> {
        let mut segments = self.all_segments()?;
        segments.retain(|segment| segment.partition == partition);
        Ok(segments)
    }

    /// Lists all partitions' segments, ordered by partition and position.
    fn all_segments(&self) -> io::Result<Vec<Segment>> {
        let files = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut segments = Vec::new();
        for file in files {
            segments.extend(Segment::from_path(file?.path()));
        }
        segments.sort_by_key(|segment| (segment.partition, segment.first));
        Ok(segments)
    }
}

/// Returns the contiguous segments that continue in a log whose first position is `low`; empty if there are none.
fn contiguous_up_to(segments: &[Segment], low: Position) -> &[Segment] {
    let runs = segments.chunk_by(|one, next| one.end == next.first);
    let reaches_log = |run: &&[Segment]| match run {
        [first, .., last] => first.first < low && low <= last.end,
        [only] => only.first < low && low <= only.end,
        [] => false,
    };
    runs.into_iter().find(reaches_log).unwrap_or_default()
}

/// Returns the ranges from a partition's start up to `low` that no segment has.
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

    fn segments(ranges: &[(u64, u64)]) -> Vec<Segment> {
        let segment = |(first, end): &(u64, u64)| Segment {
            path: PathBuf::new(),
            partition: PartitionId(0),
            first: Position(*first),
            end: Position(*end),
        };
        ranges.iter().map(segment).collect()
    }

    fn contiguous(ranges: &[(u64, u64)], low: u64) -> Option<(u64, u64)> {
        let segments = segments(ranges);
        let run = contiguous_up_to(&segments, Position(low));
        Some((run.first()?.first.0, run.last()?.end.0))
    }

    #[test]
    fn only_segments_that_reach_the_logs_first_position_without_a_gap_continue_in_it() {
        let whole = [(0, 10), (10, 30), (30, 40)];
        assert_eq!(contiguous(&whole, 35), Some((0, 40)));
        assert_eq!(contiguous(&whole, 40), Some((0, 40)));
        assert_eq!(contiguous(&whole, 41), None);
        assert_eq!(contiguous(&whole, 0), None);
        let broken = [(0, 10), (30, 40)];
        assert_eq!(contiguous(&broken, 35), Some((30, 40)));
        assert_eq!(contiguous(&broken, 20), None);
        assert_eq!(contiguous(&broken, 10), Some((0, 10)));
        assert_eq!(contiguous(&[], 5), None);
    }

    proptest! {
        #[test]
        fn a_position_is_missing_if_and_only_if_no_segment_has_it(
            lengths in prop::collection::vec((0..3_u64, 1..4_u64), 0..6),
            low in 0..20_u64,
        ) {
            let (mut next, mut ranges) = (0, Vec::new());
            for (gap, length) in lengths {
                ranges.push((next + gap, next + gap + length));
                next += gap + length;
            }
            let missing = missing_before(&segments(&ranges), Position(low));
            for position in 0..low {
                let archived = ranges.iter().any(|(first, end)| (*first..*end).contains(&position));
                let reported = missing.iter().any(|gap| gap.contains(&Position(position)));
                prop_assert_eq!(reported, !archived, "{}", position);
            }
            let from_start = contiguous(&ranges, low).is_some_and(|(first, _)| first == 0);
            prop_assert_eq!(missing.is_empty(), low == 0 || from_start);
        }
    }
}
