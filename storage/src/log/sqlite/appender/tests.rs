//! Failed and full appends of the embedded log, and what is closed in it.
#![allow(clippy::expect_used)]

use schemas::{
    Action, BudgetId, LogNumber, Marker, MarkerKind, PersonKey, RecordEncoder, Submission,
    SubmissionId,
};

use super::*;
use crate::log::sqlite::SCHEMA;
use crate::sqlite::{Durability, open};

fn record(partition: u32) -> Write {
    let key = PersonKey::from_bytes([1; PersonKey::BYTES]);
    let value = vec![7; 3_000];
    Write::Records(vec![(PartitionId(partition), NewRecord { key, value })])
}

/// The receipts of one record at `offset` in each of both partitions.
fn receipts(offset: u64) -> Vec<Appended> {
    let receipt = |partition| RecordAddress {
        log: LogNumber::FIRST,
        partition: PartitionId(partition),
        offset: Offset(offset),
    };
    vec![vec![Ok(receipt(0))], vec![Ok(receipt(1))]]
}

#[test]
fn a_full_log_refuses_submissions_and_takes_dead_letters_and_markers() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection =
        open(&directory.path().join("log"), &SCHEMA, Durability::PowerLoss).expect("a database");
    let partitions = PartitionCount::new(2).expect("a count");
    let max_bytes = 200_000;
    let mut appender =
        SqliteAppender::new(connection, partitions).expect("an appender").with_max_bytes(max_bytes);
    let full = || AppendError::Full { max_bytes };
    let mut appended = 0;
    while appender.commit([record(0)].iter()).expect("space")[0][0].is_ok() {
        appended += 1;
    }
    assert!((20..66).contains(&appended), "{appended} records of 3,000 bytes");
    let letter = || {
        let source = receipts(0)[0][0].clone().expect("a receipt");
        let (key, value) = (vec![1], vec![2; 10_000]);
        Write::DeadLetters(vec![DeadLetter { source, reason: "no".into(), key, value }])
    };
    let writes = [record(0), letter(), record(1)];
    assert_eq!(
        appender.commit(writes.iter()),
        Ok(vec![vec![Err(full())], vec![], vec![Err(full())]])
    );
    let close = marker(MarkerKind::Close, 2);
    assert!(appender.commit([close].iter()).expect("space")[0][0].is_ok());
    let letters = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let query = "SELECT count(*) FROM dead_letters";
    assert_eq!(appender.connection.query_row(query, [], letters), Ok(1));
    assert_eq!(appender.probe(), Err(full()));
    let mut appender = appender.with_max_bytes(10_000_000);
    assert_eq!(appender.probe(), Ok(()));
    assert!(appender.commit([record(0)].iter()).expect("space")[0][0].is_ok());
}

fn marker(kind: MarkerKind, revision: u64) -> Write {
    let partitions = PartitionCount::new(2).expect("a count");
    let (budget, id) =
        (budget(), SubmissionId(uuid::Uuid::from_u128(1_000 + u128::from(revision))));
    let value = RecordEncoder::default().encode_marker(&budget, Marker { kind, revision }, id, 3);
    let key = Marker::key(&budget, PartitionId(0), partitions);
    Write::Records(vec![(PartitionId(0), NewRecord { key, value })])
}

fn submission(id: u128) -> Write {
    let submission = Submission {
        budget: budget(),
        person: PersonKey::from_bytes([1; PersonKey::BYTES]),
        id: SubmissionId(uuid::Uuid::from_u128(id)),
        accepted_at_ms: 0,
        action: Action::Withdraw,
    };
    let value = RecordEncoder::default().encode(&submission);
    Write::Submissions(vec![(PartitionId(0), NewRecord { key: submission.person, value })])
}

fn budget() -> BudgetId {
    BudgetId::parse("taxes").expect("a slug")
}

#[test]
fn a_budget_is_closed_by_committed_markers_alone_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let open = || open(&path, &SCHEMA, Durability::PowerLoss).expect("a database");
    let partitions = PartitionCount::new(2).expect("a count");
    let mut appender = SqliteAppender::new(open(), partitions).expect("an appender");
    let append = |appender: &mut SqliteAppender, id| {
        appender.commit([submission(id)].iter()).expect("space")[0][0].clone()
    };
    assert!(append(&mut appender, 1).is_ok());

    // The marker of a transaction that fails closes nothing.
    appender.connection.pragma_update(None, "max_page_count", 40).expect("a limit");
    let large =
        NewRecord { key: PersonKey::from_bytes([2; PersonKey::BYTES]), value: vec![7; 200_000] };
    let writes = [marker(MarkerKind::Close, 2), Write::Records(vec![(PartitionId(1), large)])];
    assert!(appender.commit(writes.iter()).is_err());
    appender.connection.pragma_update(None, "max_page_count", 1_000).expect("a higher limit");
    assert!(append(&mut appender, 2).is_ok());

    let commit = |appender: &mut SqliteAppender, write| {
        assert!(appender.commit([write].iter()).expect("space")[0][0].is_ok());
    };
    commit(&mut appender, marker(MarkerKind::Close, 3));
    assert_eq!(append(&mut appender, 3), Err(AppendError::Closed));
    commit(&mut appender, marker(MarkerKind::Reopen, 2));
    drop(appender);
    let mut appender = SqliteAppender::new(open(), partitions).expect("an appender");
    assert_eq!(append(&mut appender, 3), Err(AppendError::Closed), "an older marker has no effect");
    commit(&mut appender, marker(MarkerKind::Reopen, 4));
    assert!(append(&mut appender, 3).is_ok());
}

#[test]
fn a_full_disk_refuses_appends_and_leaves_no_gap_in_the_offsets() {
    let directory = tempfile::tempdir().expect("a directory");
    let connection =
        open(&directory.path().join("log"), &SCHEMA, Durability::PowerLoss).expect("a database");
    connection.pragma_update(None, "max_page_count", 40).expect("a limit");
    let partitions = PartitionCount::new(2).expect("a count");
    let mut appender = SqliteAppender::new(connection, partitions).expect("an appender");

    let mut next = 0;
    let error = loop {
        match appender.commit([record(0), record(1)].iter()) {
            Ok(appended) => {
                assert_eq!(appended, receipts(next));
                next += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Unavailable(_)), "{error}");
    assert!(appender.commit([record(0), record(1)].iter()).is_err());

    appender.connection.pragma_update(None, "max_page_count", 1_000).expect("a higher limit");
    let appended = appender.commit([record(0), record(1)].iter());
    assert_eq!(appended, Ok(receipts(next)));
}
