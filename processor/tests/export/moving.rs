//! A partition that moves on whenever somebody reads people of it: records are committed, rows are written behind, some
//! of them, in any order. The owner's own fold makes the rows; what an export makes of them is what is tested.

use std::sync::Arc;

use async_trait::async_trait;
use fastrand::Rng;
use processor::fold::{PartitionState, Reach, RowScan};
use schemas::{
    Action, Allocation, BudgetId, Generation, LogRef, Offset, PartitionCount, PartitionId,
    PersonKey, Position, Roster, Submission, SubmissionId, encode_record, record_fingerprint,
};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, Record, RecordBatch, Stretch};
use storage::store::memory::MemoryStore;
use storage::store::{
    Checkpoint, Commit, Conditional, Epoch, PartitionRef, RecordMark, Store, Tally,
};
use tokio::sync::{Mutex, mpsc, watch};

use crate::passing::{Around, Call, Passing};

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

/// A log that never changes.
pub struct FixedLog(pub Vec<(PersonKey, Vec<u8>)>);

impl FixedLog {
    /// Submissions, repeated ones, withdrawals and garbage.
    pub fn of(records: u64, random: &mut Rng) -> Self {
        let record = |number: u64| {
            let who = random.u64(0..PEOPLE);
            let key = u128::from(who + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let person = PersonKey::from_bytes(key.to_le_bytes());
            if random.u8(0..20) == 0 {
                return (person, b"no submission".to_vec());
            }
            let share = random.u32(0..=10_000);
            let shares = Allocation::new(&[share, 10_000 - share]).unwrap();
            // A person's last few ids come again.
            let id = u128::from(who) << 64 | u128::from(number / 400);
            let submission = Submission {
                budget: BudgetId::parse(BUDGETS[(who % 2) as usize]).unwrap(),
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
    fn follow(&self, _: PartitionId, start: Position, end: watch::Receiver<Position>) -> Stretch {
        let (sender, batches) = mpsc::channel(1_000);
        let end = end.borrow().0;
        for from in (start.0..end).step_by(50) {
            sender.try_send(Ok(self.batch(from, end.min(from + 50)))).unwrap();
        }
        batches
    }
}

/// What is stored while its owner goes on.
pub type Moving = Passing<Mutex<Owner>>;

pub struct Owner {
    log: Arc<FixedLog>,
    random: Rng,
    state: PartitionState,
    checkpoint: Checkpoint,
    /// A round of writing rows, and up to where they are all there once it is through.
    round: Option<(RowScan, Position)>,
}

impl Moving {
    /// With so many steps behind it.
    pub async fn after(log: Arc<FixedLog>, mut random: Rng, steps: u32) -> Self {
        let state = PartitionState::new(PARTITION.partition, one(), Vec::new());
        let checkpoint = Checkpoint { identity: Some(identity()), ..Checkpoint::START };
        let mut owner = Owner { log, random: random.fork(), state, checkpoint, round: None };
        let inner = MemoryStore::new();
        inner.change_roster(&Roster::first(LogRef::first("submissions", one()))).await.unwrap();
        inner.claim(PARTITION, None, EPOCH, "owner").await.unwrap();
        for _ in 0..steps {
            owner.step(&inner).await;
        }
        Self::new(Arc::new(inner), Mutex::new(owner))
    }

    pub async fn checkpoint(&self) -> Checkpoint {
        self.around.lock().await.checkpoint.clone()
    }
}

impl Around for Mutex<Owner> {
    async fn around<T: Send>(
        &self,
        store: &MemoryStore,
        call: Call,
        answer: impl Future<Output = T> + Send,
    ) -> T {
        assert!(!call.changes_something(), "an export changes nothing, and this does: {call:?}");
        if call == Call::ReadPeople {
            self.lock().await.step(store).await;
        }
        answer.await
    }
}

impl Owner {
    async fn step(&mut self, store: &MemoryStore) {
        match self.random.u8(0..3) {
            0 => self.commit(store).await,
            _ => self.write_rows(store).await,
        }
    }

    /// Folds a few more records, and commits.
    async fn commit(&mut self, store: &MemoryStore) {
        let from = self.checkpoint.position;
        let to = (from.0 + self.random.u64(1..60)).min(self.log.0.len() as u64);
        for record in self.log.batch(from.0, to).iter() {
            let _ = self.state.fold(record, Reach::Everything);
            let fingerprint = record_fingerprint(record.key, record.value);
            self.checkpoint.last_record = Some(RecordMark { offset: record.offset, fingerprint });
        }
        self.checkpoint.position = Position(to);
        self.checkpoint.tally = Tally { applied: to, ..Tally::default() };
        self.put(store, from).await;
    }

    /// Writes some of the rows that have changed: none is of anything that is not committed.
    async fn write_rows(&mut self, store: &MemoryStore) {
        let state = &mut self.state;
        let (scan, covers) =
            self.round.get_or_insert_with(|| (state.begin_row_scan(), self.checkpoint.position));
        match state.take_changed_rows(scan, 1) {
            Some(rows) => store.write_people(PARTITION, &rows).await.unwrap(),
            None => {
                self.checkpoint.state_position = *covers;
                self.round = None;
                self.put(store, self.checkpoint.position).await;
            }
        }
    }

    async fn put(&mut self, store: &MemoryStore, from: Position) {
        let (checkpoint, totals) = (self.checkpoint.clone(), self.state.take_changed());
        let commit = Commit { epoch: EPOCH, from, checkpoint, totals };
        assert_eq!(store.commit(PARTITION, &commit).await, Ok(Conditional::Applied));
    }
}
