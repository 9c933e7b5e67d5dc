//! Archives: they return the log's records and continue where they end. Missing, damaged and foreign segments are
//! detected before their records are read. Trimming deletes from the log only what the archive has.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod fixture;
mod trimming;
mod truncated_log;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use fixture::{At, Fixture, ONE, TEST_TIMEOUT, TOPIC, ZERO, read};
use parking_lot::Mutex;
use schemas::{PartitionCount, PartitionId, Position};
use storage::log::archive::{
    Archive, ArchiveWriteError, ArchiveWriter, ArchivedPartition, ArchivedReader,
};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordStream};
use tokio::sync::{mpsc, watch};
use truncated_log::{TruncatedLog, TruncationPoint};

#[tokio::test(flavor = "multi_thread")]
async fn records_read_from_archive_and_log_equal_the_appended_ones() {
    let fixture = Fixture::with(1_000).await;
    fixture.archive(ZERO, 700).await.unwrap();
    let log = fixture.reader();
    for low in [1, 350, 699, 700] {
        let archived = fixture.archived(low).await;
        let bounds = LogBounds { low: Position(0), high: Position(1_000) };
        assert_eq!(archived.bounds(ZERO).await, Ok(bounds), "from {low}");
        for range in [0..1_000, 0..1, 100..101, 0..700, 350..900, 699..701, 999..1_000, 5..5] {
            let (expected, actual) =
                tokio::join!(read(&*log, ZERO, range.clone()), read(&archived, ZERO, range));
            assert!(actual == expected && actual.is_ok(), "from {low}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_continues_at_its_end_in_segments_of_bounded_size() {
    let fixture = Fixture::with(1_000).await;
    let first = fixture.archive(ZERO, 300).await.unwrap();
    assert_eq!((first.end, first.records), (Position(300), 300));
    assert!(first.segments > 2, "{first:?}");
    let again = fixture.archive(ZERO, 300).await.unwrap();
    assert_eq!(again, ArchivedPartition { end: Position(300), records: 0, segments: 0 });
    let continued = fixture.archive(ZERO, 1_000).await.unwrap();
    assert_eq!((continued.end, continued.records), (Position(1_000), 700));
    let segments = fixture.segments(ZERO);
    assert_eq!(segments.len() as u64, first.segments + continued.segments);
    assert_eq!(fixture.faults(1_000), Vec::<String>::new());
    assert!(fixture.segments(ONE).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_write_leaves_no_partial_segment_and_is_continued() {
    let fixture = Fixture::with(5_000).await;
    {
        let (writer, log) = (fixture.writer(), fixture.reader());
        let writing = writer.extend_from_log(&*log, ZERO, Position(5_000), |_| {});
        // Dropped midway: only some of the batches are written.
        let interrupted = tokio::time::timeout(std::time::Duration::from_millis(2), writing).await;
        drop(interrupted);
    }
    drop(fixture.free_writer().await);
    fs::write(fixture.folder().join("00000-00000000000000000000.part"), b"partial content")
        .unwrap();
    let before: u64 = fixture.segments(ZERO).iter().map(|it| it.end.0 - it.first.0).sum();
    let continued = fixture.archive(ZERO, 5_000).await.unwrap();
    assert_eq!(before + continued.records, 5_000);
    assert_eq!(fixture.faults(5_000), Vec::<String>::new());
    let archived = fixture.archived(5_000).await;
    let expected = read(&*fixture.reader(), ZERO, 0..5_000).await;
    assert!(read(&archived, ZERO, 0..5_000).await == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_private_to_its_owner_and_has_one_writer() {
    let fixture = Fixture::with(100).await;
    fixture.archive(ZERO, 100).await.unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(fixture.folder()), 0o700);
    for segment in fixture.segments(ZERO) {
        assert_eq!(mode(segment.path), 0o600);
    }
    let _writer = fixture.writer();
    let second = ArchiveWriter::open(&fixture.folder(), fixture.name());
    assert!(matches!(second, Err(ArchiveWriteError::InUse(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_moves_the_first_position_and_stops_the_writer() {
    let fixture = Fixture::with(1_000).await;
    fixture.archive(ZERO, 1_000).await.unwrap();
    let missing = fixture.segments(ZERO).remove(3);
    fs::remove_file(&missing.path).unwrap();
    let archived = fixture.archived(900).await;
    assert_eq!(archived.bounds(ZERO).await.map(|bounds| bounds.low), Ok(missing.end));
    let start = missing.first.0;
    assert_eq!(read(&archived, ZERO, 0..1_000).await, Err(ReadError::Missing(Position(0))));
    assert_eq!(read(&archived, ZERO, start..1_000).await, Err(ReadError::Missing(missing.first)));
    assert!(read(&archived, ZERO, missing.end.0..1_000).await.is_ok());
    let (from, to) = (missing.first, missing.end);
    let gap =
        format!("partition 0: the archive has no records {from}..{to}, and the log begins at 900");
    assert_eq!(fixture.faults(900), [gap]);
    let refused = fixture.archive(ZERO, 1_000).await.unwrap_err().to_string();
    assert_eq!(refused, format!("partition 0: the archive has no records {from}..{to}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_with_a_gap_to_the_log_is_neither_read_nor_extended() {
    let fixture = Fixture::with(1_000).await;
    fixture.archive(ZERO, 500).await.unwrap();
    let archived = fixture.archived(600).await;
    assert_eq!(archived.bounds(ZERO).await.map(|bounds| bounds.low), Ok(Position(600)));
    assert_eq!(read(&archived, ZERO, 0..10).await, Err(ReadError::Missing(Position(0))));
    let gap = "partition 0: the archive has no records 500..600, and the log begins at 600";
    assert_eq!(fixture.faults(600), [gap]);
    let truncated = TruncatedLog::new(fixture.reader(), At(Position(600)));
    for (partition, end) in [(ZERO, 500), (ONE, 0)] {
        let refused =
            fixture.writer().extend_from_log(&truncated, partition, Position(900), |_| {}).await;
        assert!(
            matches!(refused, Err(ArchiveWriteError::Gap { end: Position(at), low: Position(600), .. }) if at == end),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_detected_before_any_record_of_its_segment_is_read() {
    let fixture = Fixture::with(200).await;
    fixture.archive(ZERO, 200).await.unwrap();
    let segment = fixture.segments(ZERO).remove(1);
    let intact = fs::read(&segment.path).unwrap();
    let name = segment.path.display().to_string();
    for index in (0..intact.len()).step_by(29).chain([intact.len() - 1]) {
        let mut damaged = intact.clone();
        damaged[index] ^= 0x10;
        fs::write(&segment.path, damaged).unwrap();
        let faults = fixture.faults(200);
        assert!(faults.len() == 1 && faults[0].contains(&name), "byte {index}: {faults:?}");
        let archived = fixture.archived(200).await;
        let mut batches = archived.read(ZERO, segment.first..Position(200));
        let first = batches.recv().await.unwrap();
        assert!(matches!(first, Err(ReadError::Damaged(_))), "byte {index}");
    }
    for length in [0, 7, 60, intact.len() - 1] {
        fs::write(&segment.path, &intact[..length]).unwrap();
        let faults = fixture.faults(200);
        assert!(faults.len() == 1 && faults[0].contains(&name), "{length} bytes: {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_log_is_neither_read_nor_extended() {
    let (fixture, other) = (Fixture::with(300).await, Fixture::with(300).await);
    fixture.archive(ZERO, 300).await.unwrap();
    let low = Position(250);
    for (topic, log) in [(TOPIC, other.reader()), ("others", fixture.reader())] {
        let log = Arc::new(TruncatedLog::new(log, At(low)));
        let opened = ArchivedReader::open(&fixture.folder(), topic, log).await;
        // Reads that need no archived record succeed.
        let bounds = LogBounds { low, high: Position(300) };
        assert_eq!(opened.bounds(ZERO).await, Ok(bounds));
        assert_eq!(read(&opened, ZERO, 250..300).await.map(|records| records.len()), Ok(50));
        let refused = read(&opened, ZERO, 249..300).await.unwrap_err();
        let reason = "is of another log: topic `submissions` of cluster `";
        assert!(matches!(&refused, ReadError::Damaged(why) if why.contains(reason)), "{refused}");
    }
    let foreign = Archive::new(&fixture.folder(), other.name());
    assert_eq!(foreign.check(ZERO, low, |_| true).faults.len(), fixture.segments(ZERO).len());

    let writer = ArchiveWriter::open(&fixture.folder(), other.name()).unwrap();
    let refused = writer.extend_from_log(&*other.reader(), ZERO, Position(300), |_| {}).await;
    assert!(matches!(refused, Err(ArchiveWriteError::Segment(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_a_log_that_was_recreated_is_not_extended() {
    let fixture = Fixture::with(300).await;
    fixture.archive(ZERO, 250).await.unwrap();
    let log = rusqlite::Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"UPDATE records SET value = x'00' WHERE "offset" = 249"#, []).unwrap();
    let refused = fixture.archive(ZERO, 300).await.unwrap_err().to_string();
    assert!(refused.ends_with("another record is at offset 249"), "{refused}");
    let mismatch = async |archive: Archive, log: Arc<dyn LogReader>| {
        archive.tail_mismatch(&*log, ZERO).await.unwrap()
    };
    let archive = Archive::new(&fixture.folder(), fixture.name());
    assert_eq!(mismatch(archive.clone(), fixture.reader()).await, Some(refused));
    // Records that the log no longer has cannot be compared.
    let truncated = Arc::new(TruncatedLog::new(fixture.reader(), At(Position(250))));
    assert_eq!(mismatch(archive, truncated).await, None);
    let shorter = Fixture::with(100).await;
    fs::create_dir(shorter.folder()).unwrap();
    for segment in fixture.segments(ZERO) {
        fs::copy(&segment.path, shorter.folder().join(segment.path.file_name().unwrap())).unwrap();
    }
    let writer = ArchiveWriter::open(&shorter.folder(), fixture.name()).unwrap();
    let refused = writer.extend_from_log(&*shorter.reader(), ZERO, Position(100), |_| {}).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.ends_with("it ends at 100, and the archive at 250"), "{refused}");
    let archive = Archive::new(&shorter.folder(), fixture.name());
    assert_eq!(mismatch(archive, shorter.reader()).await, Some(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_extracts_the_records_of_a_segment() {
    let fixture = Fixture::with(50).await;
    fixture.archive(ZERO, 50).await.unwrap();
    let mut expected = Vec::new();
    for (offset, key, value) in read(&*fixture.reader(), ZERO, 0..50).await.unwrap() {
        expected.extend(offset.to_le_bytes());
        expected.extend((key.len() as u32).to_le_bytes());
        expected.extend((value.len() as u32).to_le_bytes());
        expected.extend(key.iter().chain(&value));
    }
    let mut extracted = Vec::new();
    for segment in fixture.segments(ZERO) {
        extracted.extend(zstd::decode_all(&fs::read(segment.path).unwrap()[..]).unwrap());
    }
    assert!(extracted == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_does_not_prevent_reading_the_log() {
    let fixture = Fixture::with(300).await;
    fixture.archive(ZERO, 200).await.unwrap();
    let last = fixture.segments(ZERO).pop().unwrap();
    fs::write(&last.path, b"nothing").unwrap();
    let archived = fixture.archived(150).await;
    let expected = read(&*fixture.reader(), ZERO, 150..300).await;
    assert!(read(&archived, ZERO, 150..300).await == expected && expected.is_ok());
    let damaged = read(&archived, ZERO, last.first.0.min(149)..300).await;
    assert!(matches!(damaged, Err(ReadError::Damaged(_))), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_archive_does_not_prevent_reading_the_log() {
    let fixture = Fixture::with(300).await;
    fixture.archive(ZERO, 200).await.unwrap();
    let (cached, uncached) = (fixture.archived(150).await, fixture.archived(150).await);
    let whole = LogBounds { low: Position(0), high: Position(300) };
    assert_eq!(cached.bounds(ZERO).await, Ok(whole));
    let moved = fixture.dir.path().join("moved");
    fs::rename(fixture.folder(), &moved).unwrap();
    fs::write(fixture.folder(), b"a file").unwrap();

    let own = LogBounds { low: Position(150), ..whole };
    assert_eq!(uncached.bounds(ZERO).await, Ok(own));
    assert_eq!(cached.bounds(ZERO).await, Ok(whole));
    let expected = read(&*fixture.reader(), ZERO, 150..300).await;
    for archived in [&cached, &uncached, &fixture.archived(150).await] {
        assert!(read(archived, ZERO, 150..300).await == expected && expected.is_ok());
        let before = read(archived, ZERO, 149..300).await;
        assert!(matches!(before, Err(ReadError::Unavailable(_))), "{before:?}");
    }

    fs::remove_file(fixture.folder()).unwrap();
    fs::rename(&moved, fixture.folder()).unwrap();
    let deadline = Instant::now() + TEST_TIMEOUT;
    while uncached.bounds(ZERO).await != Ok(whole) {
        assert!(Instant::now() < deadline, "the folder is not read again");
        tokio::task::yield_now().await;
    }
}

/// A log that is truncated during the test.
struct Moving(Arc<AtomicU64>);

#[async_trait]
impl TruncationPoint for Moving {
    async fn low(&self, _: &dyn LogReader, _: PartitionId, _: Position) -> Position {
        Position(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_listed_again_only_when_the_log_starts_after_the_cached_range() {
    let fixture = Fixture::with(1_000).await;
    fixture.archive(ZERO, 500).await.unwrap();
    let low = Arc::new(AtomicU64::new(300));
    let log = TruncatedLog::new(fixture.reader(), Moving(Arc::clone(&low)));
    let archived = ArchivedReader::open(&fixture.folder(), TOPIC, Arc::new(log)).await;
    let first = async || archived.bounds(ZERO).await.unwrap().low;
    assert_eq!(first().await, Position(0));
    let removed = fixture.segments(ZERO).remove(0);
    let moved = fixture.dir.path().join("moved");
    fs::rename(&removed.path, &moved).unwrap();
    // A listing of the folder would notice the missing segment.
    low.store(500, Ordering::Relaxed);
    assert_eq!(first().await, Position(0));
    low.store(501, Ordering::Relaxed);
    assert_eq!(first().await, Position(501));
    fs::rename(&moved, &removed.path).unwrap();
    fixture.archive(ZERO, 1_000).await.unwrap();
    low.store(700, Ordering::Relaxed);
    assert_eq!(first().await, Position(0));
}

/// A log whose next stream is given by the test.
struct GivenStream {
    log: Arc<dyn LogReader>,
    stream: Mutex<Option<RecordStream>>,
}

#[async_trait]
impl LogReader for GivenStream {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }
    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        self.log.bounds(partition).await
    }
    fn follow(&self, _: PartitionId, _: Position, _: watch::Receiver<Position>) -> RecordStream {
        self.stream.lock().take().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_outlives_its_dropped_writer_keeps_the_archive_locked() {
    let fixture = Fixture::with(10).await;
    let writer = fixture.writer();
    // Opening a FIFO for writing blocks until it has a reader.
    let part = fixture.folder().join("00000-00000000000000000000.part");
    assert!(Command::new("mkfifo").arg(&part).status().unwrap().success());
    let batch = fixture.reader().read(ZERO, Position(0)..Position(10)).recv().await.unwrap();
    let (batches, stream) = mpsc::channel(1);
    batches.try_send(batch).unwrap();
    let log = GivenStream { log: fixture.reader(), stream: Mutex::new(Some(stream)) };
    {
        let mut writing = Box::pin(writer.extend_from_log(&log, ZERO, Position(10), |_| {}));
        // Once the batch is received it is being written.
        while batches.capacity() == 0 {
            tokio::select! {
                biased;
                done = &mut writing => panic!("the write did not block: {done:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    drop(writer);
    let second = ArchiveWriter::open(&fixture.folder(), fixture.name());
    let refused = matches!(second, Err(ArchiveWriteError::InUse(_)));
    let _reader = fs::File::open(&part).unwrap();
    assert!(refused, "the archive has two writers");
    fixture.free_writer().await;
}
