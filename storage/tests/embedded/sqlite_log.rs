//! The embedded log: its contract, reopening, submission ids, and what is refused.

use super::*;

async fn fixture() -> log::Fixture {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = Arc::new(SqliteLog::open(&path, build::count(PARTITIONS.into())).unwrap());
    log::Fixture {
        log: first_log(),
        source: Mutex::new(Some(Box::new(log.source().unwrap()))),
        reader: Arc::new(SqliteReader::open(&path, build::count(PARTITIONS.into())).unwrap()),
        dead_letter_writer: Arc::clone(&log) as _,
        dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
        writer: log,
        read_dead_letters: Box::new(move || {
            let letters = read_dead_letters(&path);
            Box::pin(async { letters })
        }),
        _kept: Box::new(directory),
    }
}

pub fn read_dead_letters(path: &Path) -> Vec<DeadLetter> {
    let connection = Connection::open(path).unwrap();
    let mut select = connection.prepare("SELECT * FROM dead_letters").unwrap();
    let letters = select.query_map([], |row| {
        Ok(DeadLetter {
            source: RecordAddress {
                log: LogNumber::FIRST,
                partition: PartitionId(row.get(0)?),
                offset: Offset(row.get::<_, i64>(1)? as u64),
            },
            reason: row.get(2)?,
            key: row.get(3)?,
            value: row.get(4)?,
        })
    });
    letters.unwrap().map(Result::unwrap).collect()
}

log::log_contract!(fixture());

#[tokio::test]
async fn acknowledged_records_survive_reopening_and_offsets_continue() {
    let directory = directory();
    let path = directory.path().join("a/new/folder/log.sqlite");
    let mut appended = Vec::new();
    let mut identities = Vec::new();
    for round in 0..3 {
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        identities.push(log.source().unwrap().identity());
        let records: Vec<_> = (0..50).map(|number| record(0, 50 * round + number)).collect();
        let offsets = append(&log, &records).await;
        assert!(offsets.into_iter().eq((50 * round..50 * (round + 1)).map(Offset)));
        appended.extend(records);
    }
    assert!(identities.iter().all(|identity| *identity == identities[0]));

    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    let owner = Owner::from_start();
    let running = RunningSource::start(Box::new(log.source().unwrap()), &first_log(), &owner);
    let all = async || owner.read(0).len() == appended.len();
    until("everything is read", TEST_TIMEOUT, all).await;
    assert!(owner.read(0) == as_read(&appended, 0));
    running.stop().await.1.unwrap();
}

/// A submission of one person; without shares it is a withdrawal.
fn submission(person: u8, id: u128, shares: &[u32], generated_id: bool) -> NewRecord {
    let action = match shares {
        [] => Action::Withdraw,
        shares => Action::Allocate(Allocation::new(shares).unwrap()),
    };
    let submission = Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes([person; 16]),
        id: SubmissionId(Uuid::from_u128(id)),
        accepted_at_ms: 1,
        action,
    };
    let mut encoder = RecordEncoder::default();
    let value = match generated_id {
        true => encoder.encode_with_generated_id(&submission),
        false => encoder.encode(&submission),
    };
    NewRecord { key: submission.person, value }
}

fn address(offset: u64) -> RecordAddress {
    RecordAddress { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(offset) }
}

#[tokio::test]
async fn a_submission_id_is_appended_once_also_after_reopening() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let first = submission(1, 1, &[10_000, 0], false);
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    assert_eq!(log.append_once_per_id(vec![first.clone()]).await, [Ok(address(0))]);
    drop(log);
    for _ in 0..2 {
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        let other_content = [submission(1, 1, &[0, 10_000], false), submission(1, 1, &[], false)];
        for other in other_content {
            let refused = log.append_once_per_id(vec![other]).await;
            assert_eq!(refused, [Err(AppendError::IdReused)]);
        }
        let repeated = log.append_once_per_id(vec![first.clone()]).await;
        assert_eq!(repeated, [Err(AppendError::Repeated(address(0)))]);
    }
}

#[tokio::test]
async fn an_id_means_something_to_its_person_alone_also_after_reopening_and_reindexing() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let of = |person| submission(person, 1, &[10_000, 0], false);
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    let appended = log.append_once_per_id(vec![of(1), of(2), of(3), of(2)]).await;
    let repeated = Err(AppendError::Repeated(address(1)));
    assert_eq!(appended, [Ok(address(0)), Ok(address(1)), Ok(address(2)), repeated]);
    drop(log);
    let reindex = "DROP TABLE submission_ids; DROP TABLE indexed_positions;
                   DROP TABLE submission_ids_of_further_persons";
    for sql in ["", reindex] {
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        for (offset, person) in (0..).zip(1..=3) {
            let again = log.append_once_per_id(vec![of(person)]).await;
            assert_eq!(again, [Err(AppendError::Repeated(address(offset)))]);
            let other = submission(person, 1, &[0, 10_000], false);
            assert_eq!(log.append_once_per_id(vec![other]).await, [Err(AppendError::IdReused)]);
        }
    }
}

#[tokio::test]
async fn annulments_are_appended_to_a_closed_budget_under_one_id_and_submissions_are_not() {
    let directory = directory();
    let log = SqliteLog::open(&directory.path().join("log"), build::count(1)).unwrap();
    let budget = BudgetId::parse("taxes").unwrap();
    let marker = RecordEncoder::default().encode_marker(
        &budget,
        Marker { kind: MarkerKind::Close, revision: 2 },
        SubmissionId(Uuid::from_u128(7)),
        1,
    );
    let key = Marker::key(&budget, PartitionId(0), build::count(1));
    log.append(vec![NewRecord { key, value: marker }]).await[0].clone().unwrap();
    let annulment = |person| {
        let (id, action) = (AnnulmentId(Uuid::from_u128(1)), AnnulmentAction::Annul);
        let stamp = AnnulmentStamp { appended_at_ms: 1, publish_step: PublishStep::ONE };
        let value = RecordEncoder::default().encode_annulment(&budget, id, action, stamp);
        NewRecord { key: PersonKey::from_bytes([person; 16]), value }
    };
    let batch = vec![annulment(1), submission(1, 1, &[10_000, 0], false), annulment(2)];
    let appended = log.append_once_per_id(batch).await;
    assert_eq!(appended, [Ok(address(1)), Err(AppendError::Closed), Ok(address(2))]);
}

#[tokio::test]
async fn a_repetition_within_one_append_and_after_newer_submissions_is_not_appended() {
    let directory = directory();
    let log = SqliteLog::open(&directory.path().join("log"), build::count(1)).unwrap();
    let newer = |id| submission(1, id, &[id as u32, 10_000 - id as u32], false);
    let batch = vec![newer(1), newer(2), newer(1), newer(3)];
    let appended = log.append_once_per_id(batch).await;
    let repeated = Err(AppendError::Repeated(address(0)));
    assert_eq!(appended, [Ok(address(0)), Ok(address(1)), repeated, Ok(address(2))]);
    for id in 4..20 {
        log.append_once_per_id(vec![newer(id)]).await[0].clone().unwrap();
    }
    let repeated = log.append_once_per_id(vec![newer(2)]).await;
    assert_eq!(repeated, [Err(AppendError::Repeated(address(1)))]);
    // A generated id is unique, and needs no place in the index.
    let generated = || submission(1, 99, &[10_000, 0], true);
    for _ in 0..2 {
        log.append_once_per_id(vec![generated()]).await[0].clone().unwrap();
    }
    // A dead letter is replayed under its own submission id.
    log.append(vec![newer(2)]).await[0].clone().unwrap();
}

#[tokio::test]
async fn submission_ids_that_an_earlier_release_has_appended_are_known() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    let all: Vec<_> = (0..10).map(|id| submission(1, id, &[5_000, 5_000], false)).collect();
    log.append(all.clone()).await;
    drop(log);
    // An earlier release appends records only, and knows no index.
    for sql in ["DROP TABLE submission_ids; DROP TABLE indexed_positions", ""] {
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        let insert = r#"INSERT INTO records (partition, "offset", key, value)
            SELECT 0, max("offset") + 1, ?1, ?2 FROM records"#;
        let added = submission(2, 100, &[1, 9_999], false);
        connection.execute(insert, (added.key.as_bytes(), &added.value)).unwrap();
        drop(connection);
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        for (id, record) in (0..).zip(&all) {
            let repeated = log.append_once_per_id(vec![record.clone()]).await;
            assert_eq!(repeated, [Err(AppendError::Repeated(address(id)))]);
        }
        let repeated = log.append_once_per_id(vec![added]).await;
        assert_eq!(repeated, [Err(AppendError::Repeated(address(10)))]);
    }
}

/// Archives and trims partition 0 of the log in a folder.
async fn archive_and_trim(directory: &Path, to: u64) -> Result<u64, String> {
    let path = directory.join("log.sqlite");
    let reader = SqliteReader::open(&path, build::count(1)).unwrap();
    let name = LogName::of(&reader, "submissions");
    let writer = ArchiveWriter::open(&directory.join("archive"), name).unwrap();
    let (partition, to) = (PartitionId(0), Position(to));
    writer.extend_from_log(&reader, partition, to, |_| {}).await.unwrap();
    let trimmed = writer.trim(SqliteLogTrimmer::new(&path), partition, to, |_| {}).await;
    trimmed.map(|(_, low)| low.0).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_ids_of_trimmed_submissions_are_refused_for_ever() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    let all: Vec<_> = (0..50).map(|id| submission(1, id, &[5_000, 5_000], false)).collect();
    log.append_once_per_id(all.clone()).await;
    assert_eq!(archive_and_trim(directory.path(), 40).await, Ok(40));
    let other_content = submission(1, 7, &[1, 9_999], false);
    let other_person = submission(2, 7, &[1, 9_999], false);
    let refused = async |log: &SqliteLog| {
        for (id, record) in (0..).zip(&all) {
            let repeated = log.append_once_per_id(vec![record.clone()]).await;
            assert_eq!(repeated, [Err(AppendError::Repeated(address(id)))]);
        }
        let reused = log.append_once_per_id(vec![other_content.clone()]).await;
        assert_eq!(reused, [Err(AppendError::IdReused)]);
    };
    refused(&log).await;
    drop(log);
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    refused(&log).await;
    // The id of another person is another id, before and after that record is trimmed, too.
    let first = log.append_once_per_id(vec![other_person.clone()]).await;
    assert_eq!(first, [Ok(address(50))]);
    let last = submission(3, 99, &[5_000, 5_000], false);
    assert_eq!(log.append_once_per_id(vec![last]).await, [Ok(address(51))]);
    assert_eq!(archive_and_trim(directory.path(), 51).await, Ok(51));
    refused(&log).await;
    let repeated = log.append_once_per_id(vec![other_person]).await;
    assert_eq!(repeated, [Err(AppendError::Repeated(address(50)))]);
}

/// Another process that opens the file may delete its write-ahead log unless this process has a lock on it.
#[tokio::test]
async fn every_open_database_stays_locked_whatever_else_this_process_opens_and_closes() {
    let directory = directory();
    let (log_path, store_path) =
        (directory.path().join("log.sqlite"), directory.path().join("store.sqlite"));
    let log = SqliteLog::open(&log_path, build::count(1)).unwrap();
    let _source = log.source().unwrap();
    drop(log.source().unwrap());
    let _store = SqliteStore::open(&store_path).unwrap();
    drop(SqliteStore::open(&store_path).unwrap());
    SqliteLogTrimmer::new(&log_path).with_store(store_path.clone()).sync_store().unwrap();
    for path in [&log_path, &store_path] {
        let what = format!("{} is locked", path.display());
        until(&what, TEST_TIMEOUT, async || is_locked(path)).await;
    }
}

/// Whether the kernel's list of locks has a POSIX lock on a file. A lock that is held can be missed: the list is read
/// in pieces, and each lock that is taken or dropped between two of them moves the rest.
fn is_locked(path: &Path) -> bool {
    let file = format!(":{} ", path.metadata().unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("POSIX") && line.contains(&file))
}

#[tokio::test]
async fn a_log_whose_submission_ids_are_not_indexed_is_not_trimmed() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    log.append((0..50).map(|id| submission(1, id, &[5_000, 5_000], false)).collect()).await;
    drop(log);
    // As an earlier release leaves it.
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("DROP TABLE submission_ids; DROP TABLE indexed_positions").unwrap();
    let refused = archive_and_trim(directory.path(), 40).await.unwrap_err();
    assert!(refused.contains("start `allocator run` of this release once"), "{refused}");
    drop(SqliteLog::open(&path, build::count(1)).unwrap());
    assert_eq!(archive_and_trim(directory.path(), 40).await, Ok(40));
}

#[tokio::test]
async fn a_full_log_accepts_records_again_once_it_is_trimmed_and_its_file_does_not_grow() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open_bounded(&path, build::count(1), 1 << 20).unwrap();
    let mut next = 0;
    let fill = async |next: &mut u64| {
        let first = *next;
        loop {
            let records = (0..100).map(|number| record(0, *next + number)).collect::<Vec<_>>();
            match LogWriter::append(&log, records).await.remove(0) {
                Ok(_) => *next += 100,
                Err(AppendError::Full { .. }) => return *next - first,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let filled = fill(&mut next).await;
    for _ in 0..3 {
        assert!(log.available().is_err());
        archive_and_trim(directory.path(), next).await.unwrap();
        let deadline = Instant::now() + TEST_TIMEOUT;
        while log.available().is_err() {
            assert!(Instant::now() < deadline, "the log stayed full");
            tokio::task::yield_now().await;
        }
        let again = fill(&mut next).await;
        assert!(again > filled / 2, "{again} of {filled}");
    }
    let size = path.metadata().unwrap().len();
    assert!(size < 5 << 18, "{size} bytes");
}

#[test]
fn different_logs_have_different_identities() {
    let (one, two) = (directory(), directory());
    let identity = |directory: &tempfile::TempDir| {
        let path = directory.path().join("log.sqlite");
        SqliteLog::open(&path, build::count(1)).unwrap().source().unwrap().identity()
    };
    assert_ne!(identity(&one), identity(&two));
}

#[test]
fn another_partition_count_is_rejected_with_the_stored_count() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    drop(SqliteLog::open(&path, build::count(12)).unwrap());
    let refusal = SqliteLog::open(&path, build::count(13)).err().unwrap();
    assert!(matches!(refusal, SqliteOpenError::PartitionCount { stored: 12, wanted: 13, .. }));
    assert!(refusal.to_string().contains("configure 12"), "{refusal}");
    SqliteLog::open(&path, build::count(12)).unwrap();
}

#[test]
fn a_log_in_use_is_rejected_until_it_is_closed() {
    let directory = directory();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path, build::count(1)).unwrap();
    let source = log.source().unwrap();
    let in_use =
        || matches!(SqliteLog::open(&path, build::count(1)), Err(SqliteOpenError::InUse { .. }));
    assert!(in_use());
    drop(log);
    assert!(in_use());
    drop(source);
    SqliteLog::open(&path, build::count(1)).unwrap();
}

#[test]
fn a_file_that_is_not_a_log_is_rejected_and_unchanged() {
    let directory = directory();
    let store = directory.path().join("store.sqlite");
    drop(SqliteStore::open(&store).unwrap());
    let text = directory.path().join("text");
    std::fs::write(&text, "This is not a database, and it is longer than a header.").unwrap();
    let foreign = SqliteLog::open(&store, build::count(1)).err().unwrap();
    assert!(matches!(foreign, SqliteOpenError::Foreign { .. }), "{foreign}");
    let unusable = SqliteLog::open(&text, build::count(1)).err().unwrap();
    assert!(matches!(unusable, SqliteOpenError::Unusable { .. }), "{unusable}");
    SqliteStore::open(&store).unwrap();
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("This is not a database"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_record_is_delivered_within_milliseconds() {
    let fixture = fixture().await;
    let owner = Owner::from_start();
    let source = fixture.source.lock().take().unwrap();
    let running = RunningSource::start(source, &first_log(), &owner);
    let mut delays = Vec::new();
    for number in 0..51 {
        append(&*fixture.writer, &[record(0, number)]).await;
        let durable = Instant::now();
        let come = async || owner.read(0).len() == number as usize + 1;
        until("the record is delivered", TEST_TIMEOUT, come).await;
        delays.push(durable.elapsed());
    }
    running.stop().await.1.unwrap();
    delays.sort();
    // A source that only polls would have a median delay of half its 50 ms interval.
    assert!(delays[delays.len() / 2] < Duration::from_millis(15), "{delays:?}");
}
