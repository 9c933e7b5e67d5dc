//! A log with dead letters whose appends can fail, and the replays of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use operations::dead_letters::{
    DeadLetterLog, ReplayAttempt, ReplayDeps, ReplayError, ReplayRefusal, UnfinishedReplay, replay,
};
use schemas::{
    Action, Allocation, BudgetId, GenerationRegistry, LogNumber, LogRef, PartitionCount,
    PartitionId, PersonKey, Position, RecordAddress, Submission, SubmissionId, encode_record,
    partition_for,
};
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState};
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::log::{AppendError, DeadLetter, DeadLetterWriter, LogWriter, NewRecord};
use storage::store::Generations;
use storage::store::memory::MemoryStore;
use tempfile::TempDir;
use uuid::Uuid;

pub fn count() -> PartitionCount {
    PartitionCount::new(2).unwrap()
}

pub fn person(number: u64) -> PersonKey {
    let key = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PersonKey::from_bytes(key.to_le_bytes())
}

pub fn submission(number: u64) -> Vec<u8> {
    submission_at(number, 0)
}

/// Encodes a submission that was accepted this many seconds after the first ones.
pub fn submission_at(number: u64, second: u64) -> Vec<u8> {
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
pub enum AppendMode {
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
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
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

pub struct Fixture {
    pub deps: ReplayDeps,
    writer: Arc<Writer>,
    pub log: Arc<SqliteLog>,
    pub store: Arc<MemoryStore>,
    _dir: TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
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
    pub async fn append_dead_letter(
        &self,
        partition: PartitionId,
        number: u64,
        value: Vec<u8>,
    ) -> RecordAddress {
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
    pub async fn misplaced(&self, number: u64) -> RecordAddress {
        let other = PartitionId(1 - partition_for(&person(number), count()).0);
        self.append_dead_letter(other, number, submission(number)).await
    }

    pub async fn replay(&self, dead_letter: RecordAddress) -> Result<RecordAddress, ReplayError> {
        replay(&self.deps, dead_letter, attempt(UnfinishedReplay::Leave)).await
    }

    pub async fn resume(&self, dead_letter: RecordAddress) -> Result<RecordAddress, ReplayError> {
        replay(&self.deps, dead_letter, attempt(UnfinishedReplay::Resume)).await
    }

    /// Runs an attempt whose append fails in this mode, and returns it. Later appends are acknowledged.
    pub async fn fail_replay(&self, dead_letter: RecordAddress, mode: AppendMode) -> ReplayAttempt {
        let attempt = attempt(UnfinishedReplay::Leave);
        self.set_append_mode(mode);
        replay(&self.deps, dead_letter, attempt).await.unwrap_err();
        self.set_append_mode(AppendMode::Acknowledge);
        attempt
    }

    pub fn set_append_mode(&self, mode: AppendMode) {
        self.writer.mode.store(mode as u8, Ordering::Relaxed);
    }

    pub async fn state(&self, dead_letter: RecordAddress) -> DeadLetterState {
        DeadLetterIndex::read(self.deps.dead_letters.journal.as_ref())
            .await
            .unwrap()
            .get(dead_letter)
            .unwrap()
            .state
    }

    /// Appends a person's submission to their own partition.
    pub async fn submit(&self, number: u64, value: Vec<u8>) -> RecordAddress {
        let record = NewRecord { key: person(number), value };
        LogWriter::append(&*self.log, vec![record]).await.remove(0).unwrap()
    }

    /// Reads a person's records in their own partition.
    pub async fn records(&self, number: u64) -> Vec<Vec<u8>> {
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

    pub async fn appended(&self, number: u64) -> usize {
        self.records(number).await.len()
    }

    pub async fn latest(&self, number: u64) -> Vec<u8> {
        self.records(number).await.pop().unwrap()
    }
}

/// Creates a new attempt.
pub fn attempt(unfinished: UnfinishedReplay) -> ReplayAttempt {
    ReplayAttempt { id: Uuid::new_v4(), unfinished }
}

pub fn refusal<T: std::fmt::Debug>(outcome: Result<T, ReplayError>) -> ReplayRefusal {
    match outcome {
        Err(ReplayError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}
