//! The archive: what is in it is what the log had, it is gone on with where it ends, and whatever is missing, damaged or of
//! another log is noticed before anybody reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod shortened;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, PersonKey, Position};
use shortened::{Shorten, Shortened};
use storage::log::archive::{
    Archive, ArchiveWriter, Archived, ArchivedReader, LogName, Segment, WriteError,
};
use storage::log::sqlite::{SqliteLog, SqliteReader};
use storage::log::{LogBounds, LogIdentity, LogReader, NewRecord, ReadError, Stretch};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

const TOPIC: &str = "submissions";
const ZERO: PartitionId = PartitionId(0);
const ONE: PartitionId = PartitionId(1);
/// A few dozen records.
const SMALL: u64 = 4_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// A log of two partitions, and an archive.
struct World {
    dir: TempDir,
    log: SqliteLog,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let log = SqliteLog::open(&dir.path().join("log.db"), two()).unwrap();
        Self { dir, log }
    }

    async fn with(records: u64) -> Self {
        let world = Self::new();
        world.append(0..records).await;
        world
    }

    /// Appends these records to both partitions.
    async fn append(&self, numbers: Range<u64>) {
        let record = |partition, number: u64| {
            let key = PersonKey::from_bytes(u128::from(number).to_be_bytes());
            (partition, NewRecord { key, value: vec![number as u8; number as usize % 200] })
        };
        for partition in [ZERO, ONE] {
            let records = numbers.clone().map(|number| record(partition, number)).collect();
            let answers = self.log.append_to(records).await;
            answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        }
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(SqliteReader::open(&self.dir.path().join("log.db"), two()).unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn name(&self) -> LogName {
        LogName::of(&*self.reader(), TOPIC)
    }

    fn writer(&self) -> ArchiveWriter {
        ArchiveWriter::open(&self.folder(), self.name()).unwrap().with_segments_of(SMALL)
    }

    /// Once nobody else writes.
    async fn free_writer(&self) -> ArchiveWriter {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ArchiveWriter::open(&self.folder(), self.name()) {
                Ok(writer) => return writer,
                Err(WriteError::InUse(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "it is in use for ever");
            tokio::task::yield_now().await;
        }
    }

    async fn archive(&self, partition: PartitionId, to: u64) -> Result<Archived, WriteError> {
        self.writer().write_on(&*self.reader(), partition, Position(to), |_| {}).await
    }

    fn segments(&self, partition: PartitionId) -> Vec<Segment> {
        Archive::new(&self.folder(), self.name()).segments(partition).unwrap()
    }

    /// What a check says of partition 0, whose log begins at `low`.
    fn faults(&self, low: u64) -> Vec<String> {
        let archive = Archive::new(&self.folder(), self.name());
        archive.check(ZERO, Position(low), |_| true).faults
    }

    /// The log with its archive before it, after everything below `low` was deleted.
    async fn archived(&self, low: u64) -> ArchivedReader {
        let shortened = Shortened::new(self.reader(), At(Position(low)));
        ArchivedReader::open(&self.folder(), TOPIC, Arc::new(shortened)).await
    }
}

struct At(Position);

#[async_trait]
impl Shorten for At {
    async fn low(&self, _: &dyn LogReader, _: PartitionId, _: Position) -> Position {
        self.0
    }
}

fn two() -> PartitionCount {
    PartitionCount::new(2).unwrap()
}

type Read = (u64, Vec<u8>, Vec<u8>);

async fn read(
    log: &dyn LogReader,
    partition: PartitionId,
    stretch: Range<u64>,
) -> Result<Vec<Read>, ReadError> {
    let mut batches = log.read(partition, Position(stretch.start)..Position(stretch.end));
    let mut read = Vec::new();
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        read.extend(batch.iter().map(|it| (it.offset.0, it.key.to_vec(), it.value.to_vec())));
    }
    Ok(read)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_from_the_archive_and_on_from_the_log_is_what_was_appended() {
    let world = World::with(1_000).await;
    world.archive(ZERO, 700).await.unwrap();
    let log = world.reader();
    for low in [1, 350, 699, 700] {
        let archived = world.archived(low).await;
        let bounds = LogBounds { low: Position(0), high: Position(1_000) };
        assert_eq!(archived.bounds(ZERO).await, Ok(bounds), "from {low}");
        for stretch in [0..1_000, 0..1, 100..101, 0..700, 350..900, 699..701, 999..1_000, 5..5] {
            let (expected, found) =
                tokio::join!(read(&*log, ZERO, stretch.clone()), read(&archived, ZERO, stretch));
            assert!(found == expected && found.is_ok(), "from {low}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_on_where_it_ended_in_segments_of_bounded_size() {
    let world = World::with(1_000).await;
    let first = world.archive(ZERO, 300).await.unwrap();
    assert_eq!((first.end, first.records), (Position(300), 300));
    assert!(first.segments > 2, "{first:?}");
    let again = world.archive(ZERO, 300).await.unwrap();
    assert_eq!(again, Archived { end: Position(300), records: 0, segments: 0 });
    let on = world.archive(ZERO, 1_000).await.unwrap();
    assert_eq!((on.end, on.records), (Position(1_000), 700));
    let segments = world.segments(ZERO);
    assert_eq!(segments.len() as u64, first.segments + on.segments);
    assert_eq!(world.faults(1_000), Vec::<String>::new());
    assert!(world.segments(ONE).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_off_does_not_count_and_is_gone_on_with() {
    let world = World::with(5_000).await;
    {
        let (writer, log) = (world.writer(), world.reader());
        let writing = writer.write_on(&*log, ZERO, Position(5_000), |_| {});
        // Dropped in the middle: only as many batches as fit are written.
        let broken = tokio::time::timeout(std::time::Duration::from_millis(2), writing).await;
        drop(broken);
    }
    drop(world.free_writer().await);
    fs::write(world.folder().join("00000-00000000000000000000.part"), b"half of it").unwrap();
    let before: u64 = world.segments(ZERO).iter().map(|it| it.end.0 - it.first.0).sum();
    let on = world.archive(ZERO, 5_000).await.unwrap();
    assert_eq!(before + on.records, 5_000);
    assert_eq!(world.faults(5_000), Vec::<String>::new());
    let archived = world.archived(5_000).await;
    let expected = read(&*world.reader(), ZERO, 0..5_000).await;
    assert!(read(&archived, ZERO, 0..5_000).await == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_read_an_archive_and_only_one_writes_to_it() {
    let world = World::with(100).await;
    world.archive(ZERO, 100).await.unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.folder()), 0o700);
    for segment in world.segments(ZERO) {
        assert_eq!(mode(segment.path), 0o600);
    }
    let _writer = world.writer();
    let second = ArchiveWriter::open(&world.folder(), world.name());
    assert!(matches!(second, Err(WriteError::InUse(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_of_its_segments_the_log_begins_after_it_and_nothing_is_written_on() {
    let world = World::with(1_000).await;
    world.archive(ZERO, 1_000).await.unwrap();
    let missing = world.segments(ZERO).remove(3);
    fs::remove_file(&missing.path).unwrap();
    let archived = world.archived(900).await;
    assert_eq!(archived.bounds(ZERO).await.map(|bounds| bounds.low), Ok(missing.end));
    let start = missing.first.0;
    assert_eq!(read(&archived, ZERO, 0..1_000).await, Err(ReadError::Missing(Position(0))));
    assert_eq!(read(&archived, ZERO, start..1_000).await, Err(ReadError::Missing(missing.first)));
    assert!(read(&archived, ZERO, missing.end.0..1_000).await.is_ok());
    let (from, to) = (missing.first, missing.end);
    let gap =
        format!("partition 0: the archive has no records {from}..{to}, and the log begins at 900");
    assert_eq!(world.faults(900), [gap]);
    let refused = world.archive(ZERO, 1_000).await.unwrap_err().to_string();
    assert_eq!(refused, format!("partition 0: the archive has no records {from}..{to}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_does_not_reach_the_log_helps_nobody_and_is_not_gone_on_with() {
    let world = World::with(1_000).await;
    world.archive(ZERO, 500).await.unwrap();
    let archived = world.archived(600).await;
    assert_eq!(archived.bounds(ZERO).await.map(|bounds| bounds.low), Ok(Position(600)));
    assert_eq!(read(&archived, ZERO, 0..10).await, Err(ReadError::Missing(Position(0))));
    let gap = "partition 0: the archive has no records 500..600, and the log begins at 600";
    assert_eq!(world.faults(600), [gap]);
    let shortened = Shortened::new(world.reader(), At(Position(600)));
    for (partition, end) in [(ZERO, 500), (ONE, 0)] {
        let refused = world.writer().write_on(&shortened, partition, Position(900), |_| {}).await;
        assert!(
            matches!(refused, Err(WriteError::Gap { end: Position(at), low: Position(600), .. }) if at == end),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_is_another_is_found_before_any_record_of_its_segment_is_read() {
    let world = World::with(200).await;
    world.archive(ZERO, 200).await.unwrap();
    let segment = world.segments(ZERO).remove(1);
    let sound = fs::read(&segment.path).unwrap();
    let name = segment.path.display().to_string();
    for place in (0..sound.len()).step_by(29).chain([sound.len() - 1]) {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        fs::write(&segment.path, damaged).unwrap();
        let faults = world.faults(200);
        assert!(faults.len() == 1 && faults[0].contains(&name), "byte {place}: {faults:?}");
        let archived = world.archived(200).await;
        let mut batches = archived.read(ZERO, segment.first..Position(200));
        let first = batches.recv().await.unwrap();
        assert!(matches!(first, Err(ReadError::Damaged(_))), "byte {place}");
    }
    for length in [0, 7, 60, sound.len() - 1] {
        fs::write(&segment.path, &sound[..length]).unwrap();
        let faults = world.faults(200);
        assert!(faults.len() == 1 && faults[0].contains(&name), "{length} bytes: {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_log_is_neither_read_nor_written_on() {
    let (world, other) = (World::with(300).await, World::with(300).await);
    world.archive(ZERO, 300).await.unwrap();
    let low = Position(250);
    for (topic, log) in [(TOPIC, other.reader()), ("others", world.reader())] {
        let log = Arc::new(Shortened::new(log, At(low)));
        let opened = ArchivedReader::open(&world.folder(), topic, log).await;
        // Who needs nothing of it reads the log.
        let bounds = LogBounds { low, high: Position(300) };
        assert_eq!(opened.bounds(ZERO).await, Ok(bounds));
        assert_eq!(read(&opened, ZERO, 250..300).await.map(|records| records.len()), Ok(50));
        let refused = read(&opened, ZERO, 249..300).await.unwrap_err();
        let said = "is of another log: topic `submissions` of cluster `";
        assert!(matches!(&refused, ReadError::Damaged(why) if why.contains(said)), "{refused}");
    }
    let foreign = Archive::new(&world.folder(), other.name());
    assert_eq!(foreign.check(ZERO, low, |_| true).faults.len(), world.segments(ZERO).len());

    let writer = ArchiveWriter::open(&world.folder(), other.name()).unwrap();
    let refused = writer.write_on(&*other.reader(), ZERO, Position(300), |_| {}).await;
    assert!(matches!(refused, Err(WriteError::Segment(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_created_anew_under_its_old_name_is_not_archived_after_the_old_one() {
    let world = World::with(300).await;
    world.archive(ZERO, 250).await.unwrap();
    let log = rusqlite::Connection::open(world.dir.path().join("log.db")).unwrap();
    log.execute(r#"UPDATE records SET value = x'00' WHERE "offset" = 249"#, []).unwrap();
    let refused = world.archive(ZERO, 300).await.unwrap_err().to_string();
    assert!(refused.ends_with("another record is at offset 249"), "{refused}");
    let at_its_end = async |archive: Archive, log: Arc<dyn LogReader>| {
        archive.fault_at_its_end(&*log, ZERO).await.unwrap()
    };
    let archive = Archive::new(&world.folder(), world.name());
    assert_eq!(at_its_end(archive.clone(), world.reader()).await, Some(refused));
    // It cannot be known of what the log has no more.
    let shortened = Arc::new(Shortened::new(world.reader(), At(Position(250))));
    assert_eq!(at_its_end(archive, shortened).await, None);
    let shorter = World::with(100).await;
    fs::create_dir(shorter.folder()).unwrap();
    for segment in world.segments(ZERO) {
        fs::copy(&segment.path, shorter.folder().join(segment.path.file_name().unwrap())).unwrap();
    }
    let writer = ArchiveWriter::open(&shorter.folder(), world.name()).unwrap();
    let refused = writer.write_on(&*shorter.reader(), ZERO, Position(100), |_| {}).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.ends_with("it ends at 100, and the archive at 250"), "{refused}");
    let archive = Archive::new(&shorter.folder(), world.name());
    assert_eq!(at_its_end(archive, shorter.reader()).await, Some(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_are_what_zstd_makes_of_the_file() {
    let world = World::with(50).await;
    world.archive(ZERO, 50).await.unwrap();
    let mut expected = Vec::new();
    for (offset, key, value) in read(&*world.reader(), ZERO, 0..50).await.unwrap() {
        expected.extend(offset.to_le_bytes());
        expected.extend((key.len() as u32).to_le_bytes());
        expected.extend((value.len() as u32).to_le_bytes());
        expected.extend(key.iter().chain(&value));
    }
    let mut found = Vec::new();
    for segment in world.segments(ZERO) {
        found.extend(zstd::decode_all(&fs::read(segment.path).unwrap()[..]).unwrap());
    }
    assert!(found == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_keeps_nobody_from_what_the_log_has() {
    let world = World::with(300).await;
    world.archive(ZERO, 200).await.unwrap();
    let last = world.segments(ZERO).pop().unwrap();
    fs::write(&last.path, b"nothing").unwrap();
    let archived = world.archived(150).await;
    let expected = read(&*world.reader(), ZERO, 150..300).await;
    assert!(read(&archived, ZERO, 150..300).await == expected && expected.is_ok());
    let damaged = read(&archived, ZERO, last.first.0.min(149)..300).await;
    assert!(matches!(damaged, Err(ReadError::Damaged(_))), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_read_keeps_nobody_from_what_the_log_has() {
    let world = World::with(300).await;
    world.archive(ZERO, 200).await.unwrap();
    let (known, unknown) = (world.archived(150).await, world.archived(150).await);
    let whole = LogBounds { low: Position(0), high: Position(300) };
    assert_eq!(known.bounds(ZERO).await, Ok(whole));
    let away = world.dir.path().join("away");
    fs::rename(world.folder(), &away).unwrap();
    fs::write(world.folder(), b"no folder").unwrap();

    let own = LogBounds { low: Position(150), ..whole };
    assert_eq!(unknown.bounds(ZERO).await, Ok(own));
    assert_eq!(known.bounds(ZERO).await, Ok(whole));
    let expected = read(&*world.reader(), ZERO, 150..300).await;
    for archived in [&known, &unknown, &world.archived(150).await] {
        assert!(read(archived, ZERO, 150..300).await == expected && expected.is_ok());
        let before = read(archived, ZERO, 149..300).await;
        assert!(matches!(before, Err(ReadError::Unavailable(_))), "{before:?}");
    }

    fs::remove_file(world.folder()).unwrap();
    fs::rename(&away, world.folder()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while unknown.bounds(ZERO).await != Ok(whole) {
        assert!(Instant::now() < deadline, "it is not looked at again");
        tokio::task::yield_now().await;
    }
}

/// A log that is shortened on the way.
struct Moving(Arc<AtomicU64>);

#[async_trait]
impl Shorten for Moving {
    async fn low(&self, _: &dyn LogReader, _: PartitionId, _: Position) -> Position {
        Position(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_listed_for_every_look_and_is_once_the_log_begins_after_what_is_known() {
    let world = World::with(1_000).await;
    world.archive(ZERO, 500).await.unwrap();
    let low = Arc::new(AtomicU64::new(300));
    let shortened = Shortened::new(world.reader(), Moving(Arc::clone(&low)));
    let archived = ArchivedReader::open(&world.folder(), TOPIC, Arc::new(shortened)).await;
    let begins = async || archived.bounds(ZERO).await.unwrap().low;
    assert_eq!(begins().await, Position(0));
    let removed = world.segments(ZERO).remove(0);
    let aside = world.dir.path().join("aside");
    fs::rename(&removed.path, &aside).unwrap();
    // Not looked at: it would be missed.
    low.store(500, Ordering::Relaxed);
    assert_eq!(begins().await, Position(0));
    low.store(501, Ordering::Relaxed);
    assert_eq!(begins().await, Position(501));
    fs::rename(&aside, &removed.path).unwrap();
    world.archive(ZERO, 1_000).await.unwrap();
    low.store(700, Ordering::Relaxed);
    assert_eq!(begins().await, Position(0));
}

/// A log whose next stretch is given.
struct Given {
    log: Arc<dyn LogReader>,
    stretch: Mutex<Option<Stretch>>,
}

#[async_trait]
impl LogReader for Given {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }
    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        self.log.bounds(partition).await
    }
    fn follow(&self, _: PartitionId, _: Position, _: watch::Receiver<Position>) -> Stretch {
        self.stretch.lock().unwrap().take().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_writes_after_it_was_dropped_keeps_others_from_writing() {
    let world = World::with(10).await;
    let writer = world.writer();
    // Whoever opens it for writing waits for a reader.
    let part = world.folder().join("00000-00000000000000000000.part");
    assert!(Command::new("mkfifo").arg(&part).status().unwrap().success());
    let batch = world.reader().read(ZERO, Position(0)..Position(10)).recv().await.unwrap();
    let (batches, stretch) = mpsc::channel(1);
    batches.try_send(batch).unwrap();
    let log = Given { log: world.reader(), stretch: Mutex::new(Some(stretch)) };
    {
        let mut writing = Box::pin(writer.write_on(&log, ZERO, Position(10), |_| {}));
        // Once the batch is taken it is being written.
        while batches.capacity() == 0 {
            tokio::select! {
                biased;
                done = &mut writing => panic!("nobody reads it: {done:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    drop(writer);
    let second = ArchiveWriter::open(&world.folder(), world.name());
    let refused = matches!(second, Err(WriteError::InUse(_)));
    let _reader = fs::File::open(&part).unwrap();
    assert!(refused, "two write to it");
    world.free_writer().await;
}
