//! Trimming the embedded log: it deletes exactly what the archive has, and never the last record.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use schemas::{PartitionId, Position};
use storage::log::archive::{ArchivedReader, TrimError};
use storage::log::sqlite::{SqliteLogTrimmer, SqliteTrimError};
use storage::log::{LogBounds, LogReader, ReadError};

use crate::fixture::{Fixture, ONE, TOPIC, ZERO, read};

async fn trim(
    fixture: &Fixture,
    partition: PartitionId,
    to: u64,
) -> Result<(Position, Position), TrimError> {
    let trimmer = SqliteLogTrimmer::new(&fixture.dir.path().join("log.db"));
    fixture.free_writer().await.trim(trimmer, partition, Position(to), |_| {}).await
}

async fn low(fixture: &Fixture, partition: PartitionId) -> u64 {
    fixture.reader().bounds(partition).await.unwrap().low.0
}

async fn with_archive(fixture: &Fixture) -> ArchivedReader {
    ArchivedReader::open(&fixture.folder(), TOPIC, fixture.reader()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_and_trimmed_log_are_the_whole_log() {
    let fixture = Fixture::with(3_000).await;
    let whole = read(&*fixture.reader(), ZERO, 0..3_000).await.unwrap();
    fixture.archive(ZERO, 2_000).await.unwrap();
    assert_eq!(trim(&fixture, ZERO, 1_700).await.unwrap(), (Position(0), Position(1_700)));
    // Beyond the archive nothing is deleted.
    assert_eq!(trim(&fixture, ZERO, 2_500).await.unwrap(), (Position(1_700), Position(2_000)));
    assert_eq!(trim(&fixture, ZERO, 2_500).await.unwrap(), (Position(2_000), Position(2_000)));
    assert_eq!((low(&fixture, ZERO).await, low(&fixture, ONE).await), (2_000, 0));
    let archived = with_archive(&fixture).await;
    let bounds = LogBounds { low: Position(0), high: Position(3_000) };
    assert_eq!(archived.bounds(ZERO).await, Ok(bounds));
    assert_eq!(read(&archived, ZERO, 0..3_000).await.unwrap(), whole);
    // Without the archive it is not taken for a log that begins there.
    let alone = read(&*fixture.reader(), ZERO, 0..3_000).await;
    assert_eq!(alone, Err(ReadError::Missing(Position(0))));
    assert_eq!(fixture.faults(2_000), Vec::<String>::new());
    fixture.archive(ZERO, 3_000).await.unwrap();
    assert_eq!(fixture.faults(2_000), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_record_is_not_trimmed_and_offsets_continue() {
    let fixture = Fixture::with(500).await;
    fixture.archive(ZERO, 500).await.unwrap();
    fixture.archive(ONE, 500).await.unwrap();
    for partition in [ZERO, ONE] {
        let trimmed = trim(&fixture, partition, u64::MAX).await.unwrap();
        assert_eq!(trimmed, (Position(0), Position(499)));
    }
    let fixture = fixture.reopened();
    fixture.append(500..600).await;
    let bounds = LogBounds { low: Position(499), high: Position(600) };
    assert_eq!(fixture.reader().bounds(ZERO).await, Ok(bounds));
    fixture.archive(ZERO, 600).await.unwrap();
    let numbers = read(&with_archive(&fixture).await, ZERO, 0..600).await.unwrap();
    assert!(numbers.iter().map(|(offset, ..)| *offset).eq(0..600));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_trimmed_whose_archived_copy_is_not_whole_and_equal() {
    let fixture = Fixture::with(1_000).await;
    fixture.archive(ZERO, 1_000).await.unwrap();
    let damaged = fixture.segments(ZERO).remove(2);
    let intact = fs::read(&damaged.path).unwrap();
    let mut bytes = intact.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged.path, bytes).unwrap();
    let refused = trim(&fixture, ZERO, 1_000).await.unwrap_err().to_string();
    assert!(refused.contains("is damaged"), "{refused}");
    assert_eq!(low(&fixture, ZERO).await, damaged.first.0);
    fs::write(&damaged.path, intact).unwrap();

    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    let change = r#"UPDATE records SET value = x'00' WHERE partition = 0 AND "offset" = ?1"#;
    let offset = damaged.first.0 + 5;
    assert_eq!(log.execute(change, [offset as i64]), Ok(1));
    let refused = trim(&fixture, ZERO, 1_000).await.unwrap_err();
    assert!(
        matches!(&refused, TrimError::Log(SqliteTrimError::OtherRecord { offset: at, .. }) if at.0 == offset),
        "{refused}"
    );
    assert_eq!(low(&fixture, ZERO).await, damaged.first.0);

    // A gap in the archive, though it is before what the log still has.
    let gap = fixture.segments(ZERO).remove(0);
    fs::remove_file(&gap.path).unwrap();
    let refused = trim(&fixture, ZERO, 1_000).await.unwrap_err().to_string();
    assert_eq!(refused, format!("partition 0: the archive has no records 0..{}", gap.end));
    assert_eq!(low(&fixture, ZERO).await, damaged.first.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_trim_leaves_no_gap_and_is_continued() {
    let fixture = Fixture::with(20_000).await;
    let whole = read(&*fixture.reader(), ZERO, 0..20_000).await.unwrap();
    fixture.archive(ZERO, 20_000).await.unwrap();
    let reached = Arc::new(AtomicU64::new(0));
    {
        let writer = fixture.writer();
        let trimmer = SqliteLogTrimmer::new(&fixture.dir.path().join("log.db"));
        let progress = Arc::clone(&reached);
        let on_progress = move |low: Position| progress.store(low.0, Ordering::Relaxed);
        let mut trimming = Box::pin(writer.trim(trimmer, ZERO, Position(20_000), on_progress));
        while reached.load(Ordering::Relaxed) == 0 {
            tokio::select! {
                biased;
                done = &mut trimming => panic!("it was not interrupted: {done:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    // Locked until the transaction has ended.
    drop(fixture.free_writer().await);
    let interrupted = low(&fixture, ZERO).await;
    assert!(interrupted > 0 && interrupted < 19_999, "{interrupted}");
    assert_eq!(read(&with_archive(&fixture).await, ZERO, 0..20_000).await.unwrap(), whole);
    assert_eq!(trim(&fixture, ZERO, 20_000).await.unwrap().1, Position(19_999));
    assert_eq!(read(&with_archive(&fixture).await, ZERO, 0..20_000).await.unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_trimmed_while_it_is_read_is_read_on_from_its_archive() {
    let fixture = Fixture::with(20_000).await;
    let whole = read(&*fixture.reader(), ZERO, 0..20_000).await.unwrap();
    fixture.archive(ZERO, 20_000).await.unwrap();
    let archived = with_archive(&fixture).await;
    // The reader has its first records from the log, and reads the others after they were trimmed.
    let (end, ends) = tokio::sync::watch::channel(Position(1_000));
    let mut batches = archived.follow(ZERO, Position(0), ends);
    let mut records = Vec::new();
    while records.len() < 1_000 {
        let batch = batches.recv().await.unwrap().unwrap();
        records.extend(batch.iter().map(|it| (it.offset.0, it.key.to_vec(), it.value.to_vec())));
    }
    trim(&fixture, ZERO, 15_000).await.unwrap();
    end.send(Position(20_000)).unwrap();
    drop(end);
    while let Some(batch) = batches.recv().await {
        let batch = batch.unwrap();
        records.extend(batch.iter().map(|it| (it.offset.0, it.key.to_vec(), it.value.to_vec())));
    }
    assert!(records == whole, "{} records", records.len());
}
