//! A partition that advances at every read of person rows: records are committed, and some changed rows are written
//! behind them, in any order. The rows come from the engine's own fold; the tests cover their export.

use std::sync::Arc;

use async_trait::async_trait;
use engine::fold::{FoldMode, PartitionState, RowScan};
use fastrand::Rng;
use schemas::{
    Action, Allocation, BudgetId, Generation, GenerationRegistry, LogRef, Offset, PartitionCount,
    PartitionId, PersonKey, Position, Submission, SubmissionId, encode_record, record_fingerprint,
};
use storage::log::{
    LogBounds, LogIdentity, LogReader, ReadError, Record, RecordBatch, RecordStream,
};
use storage::store::memory::MemoryStore;
use storage::store::{
    CasOutcome, Checkpoint, Checkpoints, Commit, Epoch, Generations, InterceptedStore, Interceptor,
    PartitionRef, People, RecordCounts, RecordFingerprint, Store, StoreError, StoreOperation,
};
use tokio::sync::{Mutex, mpsc, watch};

pub const PARTITION: PartitionRef =
    PartitionRef { generation: Generation::FIRST, partition: PartitionId(0) };
pub const BUDGETS: [&str; 2] = ["roads", "schools"];
const PEOPLE: u64 = 300;
const EPOCH: Epoch = Epoch(1);

fn one() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

fn identity() -> LogIdentity {
    LogIdentity { cluster_id: "moving".into(), topic_id: String::new() }
}

/// An immutable log.
pub struct FixedLog(pub Vec<(PersonKey, Vec<u8>)>);

impl FixedLog {
    /// Generates submissions, repeated ones, withdrawals and garbage.
    pub fn generate(records: u64, random: &mut Rng) -> Self {
        let record = |number: u64| {
            let person_number = random.u64(0..PEOPLE);
            let key = u128::from(person_number + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let person = PersonKey::from_bytes(key.to_le_bytes());
            if random.u8(0..20) == 0 {
                return (person, b"no submission".to_vec());
            }
            let share = random.u32(0..=10_000);
            let shares = Allocation::new(&[share, 10_000 - share]).unwrap();
            // A person's latest submission ids are repeated.
            let id = u128::from(person_number) << 64 | u128::from(number / 400);
            let submission = Submission {
                budget: BudgetId::parse(BUDGETS[(person_number % 2) as usize]).unwrap(),
                person,
                id: SubmissionId(uuid::Uuid::from_u128(id)),
                accepted_at_ms: number,
                action: match random.u8(0..8) {
                    0 => Action::Withdraw,
                    _ => Action::Allocate(shares),
                },
            };
            (person, encode_record(&submission))
        };
        Self((0..records).map(record).collect())
    }

    fn batch(&self, from: u64, to: u64) -> RecordBatch {
        let mut batch = RecordBatch::new(PARTITION.partition);
        for (offset, (person, value)) in (from..to).zip(&self.0[from as usize..to as usize]) {
            batch.push(Record { offset: Offset(offset), key: person.as_bytes(), value });
        }
        batch
    }
}

#[async_trait]
impl LogReader for FixedLog {
    fn partitions(&self) -> PartitionCount {
        one()
    }
    fn identity(&self) -> LogIdentity {
        identity()
    }
    async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
        Ok(LogBounds { low: Position::START, high: Position(self.0.len() as u64) })
    }
    fn follow(
        &self,
        _: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        let (sender, batches) = mpsc::channel(1_000);
        let end = end.borrow().0;
        for from in (start.0..end).step_by(50) {
            sender.try_send(Ok(self.batch(from, end.min(from + 50)))).unwrap();
        }
        batches
    }
}

/// A store whose owner commits and writes rows while people are read.
pub type MovingStore = InterceptedStore<MovingOwner>;

/// Advances its partition at every read of person rows.
pub struct MovingOwner {
    inner: MemoryStore,
    owner: Mutex<Owner>,
}

pub struct Owner {
    log: Arc<FixedLog>,
    random: Rng,
    state: PartitionState,
    checkpoint: Checkpoint,
    /// The current scan of changed rows, and the position that it writes rows up to.
    round: Option<(RowScan, Position)>,
}

/// Creates a store whose owner has made `steps` steps.
pub async fn moving_store(log: Arc<FixedLog>, mut random: Rng, steps: u32) -> MovingStore {
    let state = PartitionState::new(PARTITION.partition, one(), Vec::new());
    let checkpoint = Checkpoint { identity: Some(identity()), ..Checkpoint::START };
    let mut owner = Owner { log, random: random.fork(), state, checkpoint, round: None };
    let inner = MemoryStore::new();
    let registry = GenerationRegistry::first(LogRef::first("submissions", one()));
    inner.change_registry(&registry).await.unwrap();
    inner.claim(PARTITION, None, EPOCH, "owner").await.unwrap();
    for _ in 0..steps {
        owner.step(&inner).await;
    }
    MovingStore::with(MovingOwner { inner, owner: Mutex::new(owner) })
}

impl MovingOwner {
    pub async fn checkpoint(&self) -> Checkpoint {
        self.owner.lock().await.checkpoint.clone()
    }
}

impl Interceptor for MovingOwner {
    fn store(&self) -> Result<&dyn Store, StoreError> {
        Ok(&self.inner)
    }

    async fn intercept<T: Send>(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        assert!(!operation.is_write(), "an export must not write: {operation:?}");
        if matches!(operation, StoreOperation::ReadPeople(..) | StoreOperation::ReadPerson(_)) {
            self.owner.lock().await.step(&self.inner).await;
        }
        call.await
    }
}

impl Owner {
    async fn step(&mut self, store: &MemoryStore) {
        match self.random.u8(0..3) {
            0 => self.commit(store).await,
            _ => self.write_rows(store).await,
        }
    }

    /// Folds a few more records and commits.
    async fn commit(&mut self, store: &MemoryStore) {
        let from = self.checkpoint.position;
        let to = (from.0 + self.random.u64(1..60)).min(self.log.0.len() as u64);
        for record in self.log.batch(from.0, to).iter() {
            self.state.fold(record, FoldMode::Live).unwrap();
            let fingerprint = record_fingerprint(record.key, record.value);
            self.checkpoint.last_record =
                Some(RecordFingerprint { offset: record.offset, fingerprint });
        }
        self.checkpoint.position = Position(to);
        self.checkpoint.tally = RecordCounts { applied: to, ..RecordCounts::default() };
        self.commit_state(store, from).await;
    }

    /// Writes some of the changed rows; all of them are committed.
    async fn write_rows(&mut self, store: &MemoryStore) {
        let state = &mut self.state;
        let (scan, rows_position) =
            self.round.get_or_insert_with(|| (state.begin_row_scan(), self.checkpoint.position));
        match state.take_changed_rows(scan, 1) {
            Some(rows) => store.write_people(PARTITION, &rows).await.unwrap(),
            None => {
                self.checkpoint.rows_position = *rows_position;
                self.round = None;
                self.commit_state(store, self.checkpoint.position).await;
            }
        }
    }

    async fn commit_state(&mut self, store: &MemoryStore, from: Position) {
        let (checkpoint, totals) = (self.checkpoint.clone(), self.state.take_changed());
        let commit = Commit { epoch: EPOCH, from, checkpoint, totals };
        assert_eq!(store.commit(PARTITION, &commit).await, Ok(CasOutcome::Applied));
    }
}
