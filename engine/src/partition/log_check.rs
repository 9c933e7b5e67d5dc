//! Checks at a takeover that the log is the one that was folded, and finds where to resume. Person rows are restored by
//! the `restore` module.

use schemas::{Position, record_fingerprint};
use storage::log::{LogBounds, LogIdentity, Record};
use storage::store::{Checkpoint, RecordFingerprint};

use super::HaltReason;

/// Where to resume a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The first position in the log.
    pub log_start: Position,
    /// The first record to read.
    pub from: Position,
    /// The record that must be read, unchanged, before any new one.
    pub expected_record: Option<RecordFingerprint>,
}

/// Finds where to resume from a checkpoint. Checks that the checkpoint was made from this log.
///
/// # Errors
/// When it is another log, or it does not reach back far enough.
pub fn check_log(
    checkpoint: &Checkpoint,
    identity: &LogIdentity,
    bounds: LogBounds,
) -> Result<ResumePoint, HaltReason> {
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
    let Checkpoint { position, rows_position, last_record, .. } = *checkpoint;
    // Retention may have deleted the last folded record, as it does in the end on an idle partition. Then no record can
    // identify the log; a recreated one is still noticed, because it begins at offset 0.
    let expected_record = last_record.filter(|last| bounds.low <= Position(last.offset.0));
    let from = match (last_record, expected_record) {
        (None, _) => position,
        (Some(_), None) => rows_position,
        // Reading starts early enough to read the expected record.
        (Some(_), Some(expected)) => rows_position.min(Position(expected.offset.0)),
    };
    if position < bounds.low {
        return Err(HaltReason::RecordsLost { low: bounds.low, position });
    }
    if from < bounds.low || position > bounds.high {
        return Err(HaltReason::OutOfRange {
            low: bounds.low,
            high: bounds.high,
            resume: from,
            position,
        });
    }
    Ok(ResumePoint { log_start: bounds.low, from, expected_record })
}

/// Whether a fingerprint was made of this record.
pub fn matches_fingerprint(expected: RecordFingerprint, record: Record<'_>) -> bool {
    expected.fingerprint == record_fingerprint(record.key, record.value)
}

#[cfg(test)]
mod tests {
    use schemas::Offset;
    use storage::store::RecordCounts;

    use super::*;

    fn identity(cluster: &str) -> LogIdentity {
        LogIdentity { cluster_id: cluster.into(), topic_id: String::new() }
    }

    fn bounds(low: u64, high: u64) -> LogBounds {
        LogBounds { low: Position(low), high: Position(high) }
    }

    fn checkpoint(position: u64, rows_position: u64) -> Checkpoint {
        Checkpoint {
            position: Position(position),
            rows_position: Position(rows_position),
            identity: Some(identity("a")),
            last_record: Some(RecordFingerprint { offset: Offset(position - 1), fingerprint: 1 }),
            tally: RecordCounts::default(),
        }
    }

    #[test]
    fn the_first_owner_starts_at_the_beginning_of_the_log() {
        let resume = check_log(&Checkpoint::START, &identity("a"), bounds(0, 10));
        assert_eq!(
            resume.map(|resume| (resume.from, resume.expected_record)),
            Ok((Position(0), None))
        );
    }

    #[test]
    fn a_log_without_its_first_records_is_not_folded_from_the_middle() {
        let halted = check_log(&Checkpoint::START, &identity("a"), bounds(3, 10));
        let (low, position) = (Position(3), Position(0));
        assert_eq!(halted, Err(HaltReason::RecordsLost { low, position }));
    }

    #[test]
    fn reading_resumes_at_the_rows_position_or_the_expected_record_whichever_is_earlier() {
        let from = |rows_position| {
            check_log(&checkpoint(8, rows_position), &identity("a"), bounds(0, 10)).map(|r| r.from)
        };
        assert_eq!(from(3), Ok(Position(3)));
        assert_eq!(from(8), Ok(Position(7)));
    }

    #[test]
    fn a_partition_whose_records_were_all_deleted_resumes_at_its_position() {
        let resumed = |rows_position, low| {
            check_log(&checkpoint(8, rows_position), &identity("a"), bounds(low, 8))
        };
        let log_start = Position(8);
        assert_eq!(
            resumed(8, 8),
            Ok(ResumePoint { log_start, from: Position(8), expected_record: None })
        );
        assert!(resumed(8, 7).is_ok_and(|resume| resume.expected_record.is_some()));
        // Not when deleted records would have to be replayed.
        assert!(matches!(resumed(7, 8), Err(HaltReason::OutOfRange { .. })));
    }

    #[test]
    fn another_cluster_a_shorter_log_and_a_truncated_log_halt_the_partition() {
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
