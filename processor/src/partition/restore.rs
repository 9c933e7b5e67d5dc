//! What a checkpoint says about the log: where to resume, and whether it is still the same log.

use schemas::{Offset, Position, record_fingerprint};
use storage::log::{LogBounds, LogIdentity, Record};
use storage::store::{Checkpoint, RecordMark};

use super::Storm;

/// Why a partition cannot be folded on. The text says what an operator needs to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The checkpoint is of another log.
    #[error(
        "the checkpoint is of cluster `{expected}`, topic `{expected_topic}`, but this is `{found}`, `{found_topic}`"
    )]
    OtherLog {
        /// The checkpoint's cluster.
        expected: String,
        /// The checkpoint's topic id.
        expected_topic: String,
        /// The cluster that answers now.
        found: String,
        /// The topic id now.
        found_topic: String,
    },
    /// The log does not reach from where people's rows end to the totals' position.
    #[error(
        "the log holds {low}..{high}, but folding resumes at {resume} and the totals are at {position}: \
             it was truncated or created anew"
    )]
    OutOfRange {
        /// First record there.
        low: Position,
        /// Next record to come.
        high: Position,
        /// Where reading would resume.
        resume: Position,
        /// The totals' position.
        position: Position,
    },
    /// The record before the position is another than the one that was folded.
    #[error("the record at offset {0} is not the one that was folded: the topic was created anew")]
    OtherRecord(Offset),
    /// The log skips the record by which it would be known again.
    #[error("the record at offset {0} is gone: the log has a gap where the totals end")]
    MarkMissing(Offset),
    /// Too many records cannot be taken.
    #[error(
        "{storm}, the last at offset {offset}: {reason}. Stop whoever writes them, or run a release that can take them; \
             or let them go to the dead letters: raise processor.dead_letter_run or processor.dead_letter_percent"
    )]
    DeadLetters {
        /// How many.
        storm: Storm,
        /// The last of them.
        offset: Offset,
        /// What is wrong with it.
        reason: String,
    },
    /// The log's source cannot read on.
    #[error("{0}")]
    Log(String),
    /// Totals that contradict themselves.
    #[error("an invariant does not hold: {0}")]
    Invariant(String),
    /// The store holds what cannot be.
    #[error("{0}")]
    Store(String),
    /// A bug.
    #[error("the owner failed: {0}")]
    Failed(String),
}

/// How to take a partition up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The first record to read.
    pub from: Position,
    /// The record that must be met on the way, before any new one.
    pub mark: Option<RecordMark>,
}

/// Decides where to resume from a checkpoint, if the log is the one it was made from.
///
/// # Errors
/// When it is not, or does not reach back far enough.
pub fn check_log(
    checkpoint: &Checkpoint,
    identity: &LogIdentity,
    bounds: LogBounds,
) -> Result<Resume, HaltReason> {
    if let Some(expected) = &checkpoint.identity
        && expected != identity
    {
        return Err(HaltReason::OtherLog {
            expected: expected.cluster_id.clone(),
            expected_topic: expected.topic_id.clone(),
            found: identity.cluster_id.clone(),
            found_topic: identity.topic_id.clone(),
        });
    }
    let Checkpoint { position, state_position, last_record, .. } = *checkpoint;
    // Where all of it was deleted, as of a quiet partition it is in the end, there is no record to know the log by. It is
    // no new one all the same: that begins at its start.
    let mark = last_record.filter(|mark| bounds.low <= Position(mark.offset.0));
    let from = match (last_record, mark) {
        (None, _) => position,
        (Some(_), None) => state_position,
        // Reading starts early enough to meet the mark.
        (Some(_), Some(mark)) => state_position.min(Position(mark.offset.0)),
    };
    if from < bounds.low || position > bounds.high {
        return Err(HaltReason::OutOfRange {
            low: bounds.low,
            high: bounds.high,
            resume: from,
            position,
        });
    }
    Ok(Resume { from, mark })
}

/// Whether a record is the one that a mark was made of.
pub(crate) fn matches_mark(mark: RecordMark, record: Record<'_>) -> bool {
    mark.fingerprint == record_fingerprint(record.key, record.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::store::Tally;

    fn identity(cluster: &str) -> LogIdentity {
        LogIdentity { cluster_id: cluster.into(), topic_id: String::new() }
    }

    fn bounds(low: u64, high: u64) -> LogBounds {
        LogBounds { low: Position(low), high: Position(high) }
    }

    fn checkpoint(position: u64, state_position: u64) -> Checkpoint {
        Checkpoint {
            position: Position(position),
            state_position: Position(state_position),
            identity: Some(identity("a")),
            last_record: Some(RecordMark { offset: Offset(position - 1), fingerprint: 1 }),
            tally: Tally::default(),
        }
    }

    #[test]
    fn a_first_owner_begins_at_the_start_of_the_log() {
        let resume = check_log(&Checkpoint::START, &identity("a"), bounds(0, 10));
        assert_eq!(resume, Ok(Resume { from: Position(0), mark: None }));
    }

    #[test]
    fn a_log_that_lost_its_beginning_is_not_folded_from_the_middle() {
        let halted = check_log(&Checkpoint::START, &identity("a"), bounds(3, 10));
        assert!(matches!(halted, Err(HaltReason::OutOfRange { .. })), "{halted:?}");
    }

    #[test]
    fn reading_resumes_where_the_rows_end_or_at_the_mark_whichever_is_earlier() {
        let from =
            |state| check_log(&checkpoint(8, state), &identity("a"), bounds(0, 10)).map(|r| r.from);
        assert_eq!(from(3), Ok(Position(3)));
        assert_eq!(from(8), Ok(Position(7)));
    }

    #[test]
    fn a_partition_whose_records_were_all_deleted_is_taken_up_where_it_ended() {
        let resumed = |state, low| check_log(&checkpoint(8, state), &identity("a"), bounds(low, 8));
        assert_eq!(resumed(8, 8), Ok(Resume { from: Position(8), mark: None }));
        assert!(resumed(8, 7).is_ok_and(|resume| resume.mark.is_some()));
        // Not if there are rows to come from what was deleted.
        assert!(matches!(resumed(7, 8), Err(HaltReason::OutOfRange { .. })));
    }

    #[test]
    fn another_cluster_a_shorter_log_and_a_truncated_one_are_refused() {
        let point = checkpoint(8, 4);
        assert!(matches!(
            check_log(&point, &identity("b"), bounds(0, 10)),
            Err(HaltReason::OtherLog { .. })
        ));
        assert!(matches!(
            check_log(&point, &identity("a"), bounds(0, 7)),
            Err(HaltReason::OutOfRange { .. })
        ));
        assert!(matches!(
            check_log(&point, &identity("a"), bounds(5, 10)),
            Err(HaltReason::OutOfRange { .. })
        ));
    }
}
