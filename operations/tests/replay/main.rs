//! Replays of dead letters: exactly once under any failure, and never over a later submission of the person.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use operations::dead_letters::{
    DeadLetterLog, DropRefused, ReplayAttempt, ReplayDeps, ReplayError, ReplayRefusal,
    UnfinishedReplay, drop_dead_letters, replay,
};
use schemas::{
    Action, Allocation, BudgetId, BudgetTotals, CategoryTotals, Generation, GenerationRegistry,
    LogNumber, LogRef, Offset, PartitionCount, PartitionId, PersonKey, Position, Receipt,
    Submission, SubmissionId, encode_record, partition_for,
};
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState};
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::log::{AppendError, DeadLetter, DeadLetterWriter, Decision, LogWriter, NewRecord};
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoint, Checkpoints, Commit, Epoch, Generations, PartitionRef};
use tempfile::TempDir;
use uuid::Uuid;

fn count() -> PartitionCount {
    PartitionCount::new(2).unwrap()
}

fn person(number: u64) -> PersonKey {
    let key = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PersonKey::from_bytes(key.to_le_bytes())
}

fn submission(number: u64) -> Vec<u8> {
    submission_at(number, 0)
}

/// Encodes a submission that was accepted this many seconds after the first ones.
fn submission_at(number: u64, second: u64) -> Vec<u8> {
    encode_record(&Submission {
        budget: BudgetId::parse("b").unwrap(),
        person: person(number),
        id: SubmissionId(Uuid::from_u128(u128::from(number * 1_000 + second))),
        accepted_at_ms: 1_700_000_000_000 + second * 1_000,
        action: Action::Allocate(Allocation::new(&[4_000, 6_000]).unwrap()),
    })
}

/// How the log handles appends.
#[derive(Clone, Copy)]
#[repr(u8)]
enum AppendMode {
    Acknowledge,
    /// The record is appended, and the response is lost.
    LoseResponse,
    /// The record is not appended.
    Reject,
}

struct Writer {
    log: Arc<SqliteLog>,
    mode: AtomicU8,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode == AppendMode::Reject as u8 {
            return vec![Err(AppendError::Unavailable("unreachable".into())); records.len()];
        }
        let appended = LogWriter::append(&*self.log, records).await;
        if mode == AppendMode::LoseResponse as u8 {
            return vec![Err(AppendError::Unknown("lost".into())); appended.len()];
        }
        appended
    }

    fn available(&self) -> Result<(), AppendError> {
        Ok(())
    }
}

struct Fixture {
    deps: ReplayDeps,
    writer: Arc<Writer>,
    log: Arc<SqliteLog>,
    store: Arc<MemoryStore>,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db");
        let log = Arc::new(SqliteLog::open(&path, count()).unwrap());
        let writer = Arc::new(Writer {
            log: Arc::clone(&log),
            mode: AtomicU8::new(AppendMode::Acknowledge as u8),
        });
        let store = Arc::new(MemoryStore::new());
        store
            .change_registry(&GenerationRegistry::first(LogRef::first("submissions", count())))
            .await
            .unwrap();
        let deps = ReplayDeps {
            dead_letters: DeadLetterLog {
                number: LogNumber::FIRST,
                journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
                log: Arc::new(SqliteReader::open(&path, count()).unwrap()),
            },
            writer: Arc::clone(&writer) as _,
            store: Arc::clone(&store) as _,
        };
        Self { deps, writer, log, store, _dir: dir }
    }

    /// Appends a record with this value, and its dead letter.
    async fn append_dead_letter(
        &self,
        partition: PartitionId,
        number: u64,
        value: Vec<u8>,
    ) -> Receipt {
        let record = NewRecord { key: person(number), value: value.clone() };
        let address = self.log.append_to(vec![(partition, record)]).await.remove(0).unwrap();
        let key = person(number).as_bytes().to_vec();
        let reason = "a former bug".to_owned();
        DeadLetterWriter::append(&*self.log, &[DeadLetter { source: address, reason, key, value }])
            .await
            .unwrap();
        address
    }

    /// Appends a valid submission to the wrong partition, and its dead letter.
    async fn misplaced(&self, number: u64) -> Receipt {
        let other = PartitionId(1 - partition_for(&person(number), count()).0);
        self.append_dead_letter(other, number, submission(number)).await
    }

    async fn replay(&self, dead_letter: Receipt) -> Result<Receipt, ReplayError> {
        replay(&self.deps, dead_letter, attempt(UnfinishedReplay::Leave)).await
    }

    async fn resume(&self, dead_letter: Receipt) -> Result<Receipt, ReplayError> {
        replay(&self.deps, dead_letter, attempt(UnfinishedReplay::Resume)).await
    }

    fn set_append_mode(&self, mode: AppendMode) {
        self.writer.mode.store(mode as u8, Ordering::Relaxed);
    }

    async fn state(&self, dead_letter: Receipt) -> DeadLetterState {
        DeadLetterIndex::read(self.deps.dead_letters.journal.as_ref())
            .await
            .unwrap()
            .get(dead_letter)
            .unwrap()
            .state
    }

    /// Appends a person's submission to their own partition.
    async fn submit(&self, number: u64, value: Vec<u8>) -> Receipt {
        let record = NewRecord { key: person(number), value };
        LogWriter::append(&*self.log, vec![record]).await.remove(0).unwrap()
    }

    /// Reads a person's records in their own partition.
    async fn records(&self, number: u64) -> Vec<Vec<u8>> {
        let home = partition_for(&person(number), count());
        let high = self.deps.dead_letters.log.bounds(home).await.unwrap().high;
        let mut stream = self.deps.dead_letters.log.read(home, Position::START..high);
        let mut values = Vec::new();
        while let Some(batch) = stream.recv().await {
            let batch = batch.unwrap();
            let theirs = batch.iter().filter(|record| record.key == person(number).as_bytes());
            values.extend(theirs.map(|record| record.value.to_vec()));
        }
        values
    }

    async fn appended(&self, number: u64) -> usize {
        self.records(number).await.len()
    }

    async fn latest(&self, number: u64) -> Vec<u8> {
        self.records(number).await.pop().unwrap()
    }
}

/// Creates a new attempt.
fn attempt(unfinished: UnfinishedReplay) -> ReplayAttempt {
    ReplayAttempt { id: Uuid::new_v4(), unfinished }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ReplayError>) -> ReplayRefusal {
    match outcome {
        Err(ReplayError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_is_replayed_to_its_own_partition_once_for_any_number_of_requests() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    let address = fixture.replay(dead_letter).await.unwrap();
    assert_eq!(address.partition, partition_for(&person(1), count()));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Replayed(address));
    assert_eq!(fixture.replay(dead_letter).await, Ok(address));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn resuming_an_attempt_with_unknown_outcome_appends_nothing_twice() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.set_append_mode(AppendMode::LoseResponse);
    let lost = fixture.replay(dead_letter).await;
    assert!(matches!(lost, Err(ReplayError::Append(AppendError::Unknown(_)))), "{lost:?}");
    assert!(matches!(fixture.state(dead_letter).await, DeadLetterState::Replaying { .. }));
    fixture.set_append_mode(AppendMode::Acknowledge);
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Busy);
    let address = fixture.resume(dead_letter).await.unwrap();
    assert_eq!(
        (fixture.appended(1).await, fixture.state(dead_letter).await),
        (1, DeadLetterState::Replayed(address))
    );
}

#[tokio::test]
async fn a_repeated_attempt_resumes_its_own_replay() {
    let fixture = Fixture::new().await;
    let own_attempt = attempt(UnfinishedReplay::Leave);
    for mode in [AppendMode::LoseResponse, AppendMode::Reject] {
        let number = mode as u64;
        let dead_letter = fixture.misplaced(number).await;
        fixture.set_append_mode(mode);
        replay(&fixture.deps, dead_letter, own_attempt).await.unwrap_err();
        fixture.set_append_mode(AppendMode::Acknowledge);
        assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Busy);
        let address = replay(&fixture.deps, dead_letter, own_attempt).await.unwrap();
        assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Replayed(address));
        assert_eq!(fixture.appended(number).await, 1);
    }
}

#[tokio::test]
async fn a_dead_letter_dropped_after_its_record_was_appended_counts_as_replayed() {
    let fixture = Fixture::new().await;
    let own_attempt = attempt(UnfinishedReplay::Leave);
    for mode in [AppendMode::LoseResponse, AppendMode::Reject] {
        let number = mode as u64;
        let dead_letter = fixture.misplaced(number).await;
        fixture.set_append_mode(mode);
        replay(&fixture.deps, dead_letter, own_attempt).await.unwrap_err();
        fixture.set_append_mode(AppendMode::Acknowledge);
        // Written by an operator who had read the journal before the attempt.
        fixture.deps.dead_letters.journal.decide(dead_letter, Decision::Dropped).await.unwrap();
        let again = replay(&fixture.deps, dead_letter, own_attempt).await;
        match mode {
            AppendMode::LoseResponse => {
                assert_eq!(
                    fixture.state(dead_letter).await,
                    DeadLetterState::Replayed(again.unwrap())
                );
            }
            _ => assert_eq!(refusal(again), ReplayRefusal::Dropped),
        }
    }
}

#[tokio::test]
async fn a_dead_letter_whose_copy_is_in_the_log_is_not_dropped_even_if_unrecorded() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.set_append_mode(AppendMode::LoseResponse);
    fixture.replay(dead_letter).await.unwrap_err();
    let found = DeadLetterIndex::read_one(fixture.deps.dead_letters.journal.as_ref(), dead_letter)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(found.state, DeadLetterState::Replaying { .. }));
    let result =
        drop_dead_letters(&fixture.deps.dead_letters, &[dead_letter]).await.unwrap().remove(0);
    let DeadLetterState::Replayed(address) = fixture.state(dead_letter).await else {
        panic!("{result:?}")
    };
    assert_eq!(result, Err(DropRefused::Replayed(address)));
    assert_eq!(fixture.deps.dead_letters.replayed(dead_letter, &found).await, Ok(Some(address)));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn resuming_an_attempt_that_appended_nothing_appends_the_record() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.set_append_mode(AppendMode::Reject);
    fixture.replay(dead_letter).await.unwrap_err();
    assert_eq!(fixture.appended(1).await, 0);
    fixture.set_append_mode(AppendMode::Acknowledge);
    fixture.resume(dead_letter).await.unwrap();
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_concurrent_replays_appends_the_record() {
    let fixture = Arc::new(Fixture::new().await);
    let dead_letter = fixture.misplaced(1).await;
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.replay(dead_letter).await })
        })
        .collect();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) | Err(ReplayError::Refused(ReplayRefusal::Busy)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fixture.appended(1).await, 1);
    assert!(matches!(fixture.state(dead_letter).await, DeadLetterState::Replayed(_)));
}

#[tokio::test]
async fn a_dead_letter_with_an_unfinished_replay_can_be_dropped() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.set_append_mode(AppendMode::Reject);
    fixture.replay(dead_letter).await.unwrap_err();
    assert_eq!(
        drop_dead_letters(&fixture.deps.dead_letters, &[dead_letter]).await,
        Ok(vec![Ok(())])
    );
    assert_eq!(refusal(fixture.resume(dead_letter).await), ReplayRefusal::Dropped);
}

#[tokio::test]
async fn dropped_dead_letters_stay_dropped_and_replayed_or_unknown_ones_are_refused() {
    let fixture = Fixture::new().await;
    let at = &fixture.deps.dead_letters;
    let dropped = fixture.misplaced(1).await;
    let replayed = fixture.misplaced(2).await;
    let address = fixture.replay(replayed).await.unwrap();
    let nothing = Receipt { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(99) };
    for _ in 0..2 {
        let result = drop_dead_letters(at, &[dropped, replayed, nothing]).await;
        let expected = vec![Ok(()), Err(DropRefused::Replayed(address)), Err(DropRefused::Unknown)];
        assert_eq!(result, Ok(expected));
        assert_eq!(fixture.state(dropped).await, DeadLetterState::Dropped);
        assert_eq!(fixture.state(replayed).await, DeadLetterState::Replayed(address));
    }
}

#[tokio::test]
async fn a_record_that_the_fold_still_rejects_is_refused_and_stays_open() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.append_dead_letter(PartitionId(0), 1, b"garbage".to_vec()).await;
    let refused = refusal(fixture.replay(dead_letter).await);
    assert_eq!(refused, ReplayRefusal::StillRejected("the value is not a SubmissionRecord".into()));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Open);

    let totals =
        BudgetTotals { categories: vec![CategoryTotals::default(); 3], ..BudgetTotals::default() };
    let home = partition_for(&person(2), count());
    let id = PartitionRef { generation: Generation::FIRST, partition: home };
    fixture.store.claim(id, None, Epoch(1), "owner").await.unwrap();
    let commit = Commit {
        epoch: Epoch(1),
        from: Position::START,
        checkpoint: Checkpoint { position: Position(9), ..Checkpoint::START },
        totals: vec![(BudgetId::parse("b").unwrap(), totals)],
    };
    fixture.store.commit(id, &commit).await.unwrap();
    let dead_letter = fixture.misplaced(2).await;
    let refused = refusal(fixture.replay(dead_letter).await);
    assert_eq!(
        refused,
        ReplayRefusal::StillRejected("2 categories, where the budget has 3".into())
    );
}

#[tokio::test]
async fn a_later_submission_of_the_person_is_not_undone() {
    let fixture = Fixture::new().await;
    let home = partition_for(&person(1), count());
    let dead_letter = fixture.append_dead_letter(home, 1, submission_at(1, 5)).await;
    let since = fixture.submit(1, submission_at(1, 6)).await;
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Superseded(since));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Open);
}

#[tokio::test]
async fn misplaced_records_are_ordered_by_their_acceptance_time() {
    let fixture = Fixture::new().await;
    let other = PartitionId(1 - partition_for(&person(1), count()).0);
    let older = fixture.append_dead_letter(other, 1, submission_at(1, 5)).await;
    let since = fixture.submit(1, submission_at(1, 6)).await;
    let newer = fixture.append_dead_letter(other, 1, submission_at(1, 7)).await;
    assert_eq!(refusal(fixture.replay(older).await), ReplayRefusal::Superseded(since));
    fixture.replay(newer).await.unwrap();
}

#[tokio::test]
async fn the_newer_of_two_dead_letters_of_a_person_wins_in_any_order_of_replays() {
    for newer_first in [false, true] {
        let fixture = Fixture::new().await;
        let other = PartitionId(1 - partition_for(&person(1), count()).0);
        let older = fixture.append_dead_letter(other, 1, submission_at(1, 5)).await;
        let newer = fixture.append_dead_letter(other, 1, submission_at(1, 6)).await;
        if newer_first {
            let address = fixture.replay(newer).await.unwrap();
            assert_eq!(refusal(fixture.replay(older).await), ReplayRefusal::Superseded(address));
        } else {
            fixture.replay(older).await.unwrap();
            fixture.replay(newer).await.unwrap();
        }
        assert_eq!(fixture.latest(1).await, submission_at(1, 6));
    }
}

#[tokio::test]
async fn another_record_at_the_address_of_a_dead_letter_is_not_replayed() {
    let fixture = Fixture::new().await;
    let address = fixture.submit(1, submission(1)).await;
    let (key, value, reason) = (vec![1; 16], vec![2; 5], "from another log".to_owned());
    DeadLetterWriter::append(&*fixture.log, &[DeadLetter { source: address, reason, key, value }])
        .await
        .unwrap();
    let refused = refusal(fixture.replay(address).await);
    assert_eq!(refused, ReplayRefusal::OtherRecord);
}

#[tokio::test]
async fn dropped_and_unknown_dead_letters_are_not_replayed() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.deps.dead_letters.journal.decide(dead_letter, Decision::Dropped).await.unwrap();
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Dropped);
    assert_eq!(fixture.appended(1).await, 0);
    let none = Receipt { offset: Offset(99), ..dead_letter };
    assert_eq!(refusal(fixture.replay(none).await), ReplayRefusal::Unknown);
}

#[tokio::test]
async fn a_dead_letter_of_a_replaced_log_is_not_replayed() {
    let mut fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.deps.dead_letters.number = LogNumber(2);
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::OtherLog);
    assert_eq!(fixture.appended(1).await, 0);
}
