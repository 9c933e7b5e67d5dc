//! Replaying dead letters: each once, whatever ends an attempt, and never against what its person has said since.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use processor::dead_letters::{
    Attempt, Kept, LetterLog, Refusal, ReplayError, ReplayParts, Unfinished, discard, replay,
};
use schemas::{
    Action, Allocation, BudgetId, BudgetTotals, CategoryTotals, Generation, LogNumber, LogRef,
    Offset, PartitionCount, PartitionId, PersonKey, Position, Receipt, Roster, Submission,
    SubmissionId, encode_record, partition_for,
};
use storage::log::letters::{LetterState, Letters};
use storage::log::sqlite::{SqliteLetterBook, SqliteLog, SqliteReader};
use storage::log::{AppendError, DeadLetter, DeadLetters, Decision, LogWriter, NewRecord};
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoint, Commit, Epoch, PartitionRef, Store};
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

/// One that was accepted so many seconds later than others.
fn submission_at(number: u64, second: u64) -> Vec<u8> {
    encode_record(&Submission {
        budget: BudgetId::parse("b").unwrap(),
        person: person(number),
        id: SubmissionId(Uuid::from_u128(u128::from(number * 1_000 + second))),
        accepted_at_ms: 1_700_000_000_000 + second * 1_000,
        action: Action::Allocate(Allocation::new(&[4_000, 6_000]).unwrap()),
    })
}

/// How the log treats what is appended to it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Answers {
    All,
    /// It is there, and nobody is told.
    None,
    /// It is not there.
    Refusals,
}

struct Writer {
    log: Arc<SqliteLog>,
    answers: AtomicU8,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        let answers = self.answers.load(Ordering::Relaxed);
        if answers == Answers::Refusals as u8 {
            return vec![Err(AppendError::Unavailable("away".into())); records.len()];
        }
        let appended = self.log.append(records).await;
        if answers == Answers::None as u8 {
            return vec![Err(AppendError::Unknown("lost".into())); appended.len()];
        }
        appended
    }

    fn available(&self) -> Result<(), AppendError> {
        Ok(())
    }
}

struct Fixture {
    parts: ReplayParts,
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
        let writer =
            Arc::new(Writer { log: Arc::clone(&log), answers: AtomicU8::new(Answers::All as u8) });
        let store = Arc::new(MemoryStore::new());
        store.change_roster(&Roster::first(LogRef::first("submissions", count()))).await.unwrap();
        let parts = ReplayParts {
            at: LetterLog {
                number: LogNumber::FIRST,
                book: Arc::new(SqliteLetterBook::open(&path).unwrap()),
                log: Arc::new(SqliteReader::open(&path, count()).unwrap()),
            },
            writer: Arc::clone(&writer) as _,
            store: Arc::clone(&store) as _,
        };
        Self { parts, writer, log, store, _dir: dir }
    }

    /// A letter of a record that stands in the log with that value.
    async fn letter(&self, partition: PartitionId, number: u64, value: Vec<u8>) -> Receipt {
        let record = NewRecord { key: person(number), value: value.clone() };
        let place = self.log.append_to(vec![(partition, record)]).await.remove(0).unwrap();
        let key = person(number).as_bytes().to_vec();
        let reason = "a bug of that day".to_owned();
        self.log.put(&[DeadLetter { place, reason, key, value }]).await.unwrap();
        place
    }

    /// Of a good submission that was written to the other partition than its own.
    async fn misplaced(&self, number: u64) -> Receipt {
        let other = PartitionId(1 - partition_for(&person(number), count()).0);
        self.letter(other, number, submission(number)).await
    }

    async fn replay(&self, letter: Receipt) -> Result<Receipt, ReplayError> {
        replay(&self.parts, letter, attempt(Unfinished::Leave)).await
    }

    async fn resume(&self, letter: Receipt) -> Result<Receipt, ReplayError> {
        replay(&self.parts, letter, attempt(Unfinished::Resume)).await
    }

    fn answer(&self, answers: Answers) {
        self.writer.answers.store(answers as u8, Ordering::Relaxed);
    }

    async fn state(&self, letter: Receipt) -> LetterState {
        Letters::read(self.parts.at.book.as_ref()).await.unwrap().get(letter).unwrap().state
    }

    /// A person submits, in the usual way.
    async fn says(&self, number: u64, value: Vec<u8>) -> Receipt {
        let record = NewRecord { key: person(number), value };
        self.log.append(vec![record]).await.remove(0).unwrap()
    }

    /// A person's records in the partition where they belong.
    async fn records(&self, number: u64) -> Vec<Vec<u8>> {
        let home = partition_for(&person(number), count());
        let high = self.parts.at.log.bounds(home).await.unwrap().high;
        let mut stretch = self.parts.at.log.read(home, Position::START..high);
        let mut values = Vec::new();
        while let Some(batch) = stretch.recv().await {
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

/// Somebody who has begun nothing yet.
fn attempt(unfinished: Unfinished) -> Attempt {
    Attempt { id: Uuid::new_v4(), unfinished }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ReplayError>) -> Refusal {
    match outcome {
        Err(ReplayError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_replayed_record_stands_where_it_belongs_once_however_often_it_is_asked_for() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    let place = fixture.replay(letter).await.unwrap();
    assert_eq!(place.partition, partition_for(&person(1), count()));
    assert_eq!(fixture.state(letter).await, LetterState::Replayed(place));
    assert_eq!(fixture.replay(letter).await, Ok(place));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn an_attempt_whose_outcome_is_unknown_is_taken_up_and_appends_nothing_twice() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.answer(Answers::None);
    let lost = fixture.replay(letter).await;
    assert!(matches!(lost, Err(ReplayError::Append(AppendError::Unknown(_)))), "{lost:?}");
    assert!(matches!(fixture.state(letter).await, LetterState::Replaying { .. }));
    fixture.answer(Answers::All);
    assert_eq!(refusal(fixture.replay(letter).await), Refusal::Busy);
    let place = fixture.resume(letter).await.unwrap();
    assert_eq!(
        (fixture.appended(1).await, fixture.state(letter).await),
        (1, LetterState::Replayed(place))
    );
}

#[tokio::test]
async fn an_attempt_goes_on_with_what_it_has_begun_itself() {
    let fixture = Fixture::new().await;
    let itself = attempt(Unfinished::Leave);
    for answers in [Answers::None, Answers::Refusals] {
        let number = answers as u64;
        let letter = fixture.misplaced(number).await;
        fixture.answer(answers);
        replay(&fixture.parts, letter, itself).await.unwrap_err();
        fixture.answer(Answers::All);
        assert_eq!(refusal(fixture.replay(letter).await), Refusal::Busy);
        let place = replay(&fixture.parts, letter, itself).await.unwrap();
        assert_eq!(fixture.state(letter).await, LetterState::Replayed(place));
        assert_eq!(fixture.appended(number).await, 1);
    }
}

#[tokio::test]
async fn a_letter_that_is_dropped_after_its_record_was_appended_is_one_that_was_replayed() {
    let fixture = Fixture::new().await;
    let itself = attempt(Unfinished::Leave);
    for answers in [Answers::None, Answers::Refusals] {
        let number = answers as u64;
        let letter = fixture.misplaced(number).await;
        fixture.answer(answers);
        replay(&fixture.parts, letter, itself).await.unwrap_err();
        fixture.answer(Answers::All);
        // Entered by somebody who had looked before.
        fixture.parts.at.book.decide(letter, Decision::Dropped).await.unwrap();
        let again = replay(&fixture.parts, letter, itself).await;
        match answers {
            Answers::None => {
                assert_eq!(fixture.state(letter).await, LetterState::Replayed(again.unwrap()));
            }
            _ => assert_eq!(refusal(again), Refusal::Dropped),
        }
    }
}

#[tokio::test]
async fn a_letter_whose_record_stands_there_is_not_dropped_though_nobody_came_to_say_so() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.answer(Answers::None);
    fixture.replay(letter).await.unwrap_err();
    let found = Letters::one(fixture.parts.at.book.as_ref(), letter).await.unwrap().unwrap();
    assert!(matches!(found.state, LetterState::Replaying { .. }));
    let said = discard(&fixture.parts.at, &[letter]).await.unwrap().remove(0);
    let LetterState::Replayed(place) = fixture.state(letter).await else { panic!("{said:?}") };
    assert_eq!(said, Err(Kept::Replayed(place)));
    assert_eq!(fixture.parts.at.replayed(letter, &found).await, Ok(Some(place)));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn an_attempt_that_appended_nothing_is_taken_up_and_appends() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.answer(Answers::Refusals);
    fixture.replay(letter).await.unwrap_err();
    assert_eq!(fixture.appended(1).await, 0);
    fixture.answer(Answers::All);
    fixture.resume(letter).await.unwrap();
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_replay_a_letter_at_once_one_appends_it() {
    let fixture = Arc::new(Fixture::new().await);
    let letter = fixture.misplaced(1).await;
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.replay(letter).await })
        })
        .collect();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) | Err(ReplayError::Refused(Refusal::Busy)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fixture.appended(1).await, 1);
    assert!(matches!(fixture.state(letter).await, LetterState::Replayed(_)));
}

#[tokio::test]
async fn a_letter_that_somebody_began_to_replay_can_be_dropped() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.answer(Answers::Refusals);
    fixture.replay(letter).await.unwrap_err();
    assert_eq!(discard(&fixture.parts.at, &[letter]).await, Ok(vec![Ok(())]));
    assert_eq!(refusal(fixture.resume(letter).await), Refusal::Dropped);
}

#[tokio::test]
async fn what_was_dropped_stays_dropped_and_what_was_replayed_or_never_was_is_not_dropped() {
    let fixture = Fixture::new().await;
    let at = &fixture.parts.at;
    let dropped = fixture.misplaced(1).await;
    let replayed = fixture.misplaced(2).await;
    let place = fixture.replay(replayed).await.unwrap();
    let nothing = Receipt { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(99) };
    for _ in 0..2 {
        let said = discard(at, &[dropped, replayed, nothing]).await;
        let expected = vec![Ok(()), Err(Kept::Replayed(place)), Err(Kept::Unknown)];
        assert_eq!(said, Ok(expected));
        assert_eq!(fixture.state(dropped).await, LetterState::Dropped);
        assert_eq!(fixture.state(replayed).await, LetterState::Replayed(place));
    }
}

#[tokio::test]
async fn what_still_cannot_be_taken_is_refused_and_stays_open() {
    let fixture = Fixture::new().await;
    let letter = fixture.letter(PartitionId(0), 1, b"garbage".to_vec()).await;
    let refused = refusal(fixture.replay(letter).await);
    assert_eq!(refused, Refusal::StillDead("the value is not a SubmissionRecord".into()));
    assert_eq!(fixture.state(letter).await, LetterState::Open);

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
    let letter = fixture.misplaced(2).await;
    let refused = refusal(fixture.replay(letter).await);
    assert_eq!(refused, Refusal::StillDead("2 categories, where the budget has 3".into()));
}

#[tokio::test]
async fn what_its_person_has_said_since_is_not_undone() {
    let fixture = Fixture::new().await;
    let home = partition_for(&person(1), count());
    let letter = fixture.letter(home, 1, submission_at(1, 5)).await;
    let since = fixture.says(1, submission_at(1, 6)).await;
    assert_eq!(refusal(fixture.replay(letter).await), Refusal::Superseded(since));
    assert_eq!(fixture.state(letter).await, LetterState::Open);
}

#[tokio::test]
async fn what_was_written_to_a_wrong_partition_is_older_or_newer_by_its_time() {
    let fixture = Fixture::new().await;
    let other = PartitionId(1 - partition_for(&person(1), count()).0);
    let older = fixture.letter(other, 1, submission_at(1, 5)).await;
    let since = fixture.says(1, submission_at(1, 6)).await;
    let newer = fixture.letter(other, 1, submission_at(1, 7)).await;
    assert_eq!(refusal(fixture.replay(older).await), Refusal::Superseded(since));
    fixture.replay(newer).await.unwrap();
}

#[tokio::test]
async fn of_two_letters_of_one_person_the_newer_one_is_what_counts_in_whatever_order_they_are_replayed()
 {
    for newer_first in [false, true] {
        let fixture = Fixture::new().await;
        let other = PartitionId(1 - partition_for(&person(1), count()).0);
        let older = fixture.letter(other, 1, submission_at(1, 5)).await;
        let newer = fixture.letter(other, 1, submission_at(1, 6)).await;
        if newer_first {
            let place = fixture.replay(newer).await.unwrap();
            assert_eq!(refusal(fixture.replay(older).await), Refusal::Superseded(place));
        } else {
            fixture.replay(older).await.unwrap();
            fixture.replay(newer).await.unwrap();
        }
        assert_eq!(fixture.latest(1).await, submission_at(1, 6));
    }
}

#[tokio::test]
async fn another_record_in_the_place_of_the_letters_is_not_replayed() {
    let fixture = Fixture::new().await;
    let place = fixture.says(1, submission(1)).await;
    let (key, value, reason) = (vec![1; 16], vec![2; 5], "of another log".to_owned());
    fixture.log.put(&[DeadLetter { place, reason, key, value }]).await.unwrap();
    let refused = refusal(fixture.replay(place).await);
    assert_eq!(refused, Refusal::OtherRecord);
}

#[tokio::test]
async fn a_dropped_letter_and_one_that_is_none_are_not_replayed() {
    let fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.parts.at.book.decide(letter, Decision::Dropped).await.unwrap();
    assert_eq!(refusal(fixture.replay(letter).await), Refusal::Dropped);
    assert_eq!(fixture.appended(1).await, 0);
    let none = Receipt { offset: Offset(99), ..letter };
    assert_eq!(refusal(fixture.replay(none).await), Refusal::Unknown);
}

#[tokio::test]
async fn a_letter_of_a_log_that_has_been_replaced_is_not_replayed() {
    let mut fixture = Fixture::new().await;
    let letter = fixture.misplaced(1).await;
    fixture.parts.at.number = LogNumber(2);
    assert_eq!(refusal(fixture.replay(letter).await), Refusal::OtherLog);
    assert_eq!(fixture.appended(1).await, 0);
}
