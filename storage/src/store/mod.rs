//! The store of derived data: checkpoints and totals, person rows, and generations.
//!
//! | trait | data |
//! |---|---|
//! | [`Checkpoints`] | totals and checkpoint of each partition, committed together and fenced by epochs |
//! | [`People`] | person rows, written after the commit |
//! | [`Histories`] | history points, written before the commit that passes them |
//! | [`Generations`] | the generation registry, and progress reports of shadow partitions |
//!
//! The traits offer conditional writes and reads. Handling rejected writes and unknown outcomes is up to the engine:
//! see its `commit` module.

mod history;
mod intercept;
pub mod memory;
pub mod scylla;
pub mod sqlite;

use std::ops::Range;

use async_trait::async_trait;
use schemas::{
    BudgetId, BudgetTotals, Generation, GenerationRegistry, HistoryInstant, HistoryPoint,
    HistoryStep, Offset, PartitionCount, PartitionId, PartitionReport, PersonKey, PersonRow,
    Position,
};

pub use self::history::read_history;
pub use self::intercept::{InterceptedStore, Interceptor, StoreOperation};
use crate::log_identity::LogIdentity;
use crate::open_error::OpenError;

/// A partition of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionRef {
    /// The generation.
    pub generation: Generation,
    /// The partition of the generation's log.
    pub partition: PartitionId,
}

/// A partition that the store has data of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KnownPartition {
    /// The partition.
    pub id: PartitionRef,
    /// Whether it was retired ([`Generations::retire_partition`]).
    pub is_retired: bool,
}

/// The number of a claim of a partition. Only the owner with the latest epoch can commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Fingerprint of a record, by which a recreated log is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFingerprint {
    /// Offset of the record.
    pub offset: Offset,
    /// Digest of its key and value.
    pub fingerprint: u64,
}

/// Numbers of folded records by outcome. Their sum is the position minus the start of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Records that changed totals, and markers.
    pub applied: u64,
    /// Records that were ignored: with a repeated submission id, or behind the close marker of their budget.
    pub duplicates: u64,
    /// Records that were dead-lettered.
    pub dead_lettered: u64,
}

/// The progress of a partition's fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Position of the totals: they include exactly the records below it.
    pub position: Position,
    /// Position up to which person rows are written; rows may also be newer. Never above `position`.
    pub rows_position: Position,
    /// Identity of the folded log; `None` before the first record.
    pub identity: Option<LogIdentity>,
    /// The last record before `position`; `None` before the first.
    pub last_record: Option<RecordFingerprint>,
    /// Numbers of folded records by outcome.
    pub tally: RecordCounts,
}

impl Checkpoint {
    /// The checkpoint of a partition that was never committed.
    pub const START: Checkpoint = Checkpoint {
        position: Position::START,
        rows_position: Position::START,
        identity: None,
        last_record: None,
        tally: RecordCounts { applied: 0, duplicates: 0, dead_lettered: 0 },
    };
}

/// A stored partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartition {
    /// Epoch of the latest claim.
    pub epoch: Epoch,
    /// Name of the process that made the claim.
    pub owner: String,
    /// The committed checkpoint.
    pub checkpoint: Checkpoint,
    /// The committed totals of each budget that has any.
    pub totals: Vec<(BudgetId, BudgetTotals)>,
}

/// A commit: the next checkpoint and the changed totals, as absolute values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Expected epoch.
    pub epoch: Epoch,
    /// Expected position.
    pub from: Position,
    /// The next checkpoint.
    pub checkpoint: Checkpoint,
    /// Totals of the budgets that changed.
    pub totals: Vec<(BudgetId, BudgetTotals)>,
}

/// Outcome of a conditional write (compare-and-set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CasOutcome {
    /// The condition held, and the write was applied.
    Applied,
    /// The condition did not hold, and nothing changed.
    Refused,
}

/// Why a store operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store timed out or is overloaded. A write may have been applied, or may still be: read to find out, or
    /// repeat the same bytes.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The stored data is damaged: halt, and alert an operator.
    #[error("the store holds damaged data: {0}")]
    Corrupt(String),
}

/// Returns the error of a claim of a retired partition.
fn retired(PartitionRef { generation, partition }: PartitionRef) -> StoreError {
    StoreError::Corrupt(format!(
        "generation {generation} was retired, and partition {partition} of it is deleted: the generation registry is \
         older than the rest of the store. Restore both from one backup, or delete everything in the store: it is \
         derived from the log again"
    ))
}

/// Committed totals of a budget in each partition, in order: `None` for a partition that was never claimed, empty
/// totals for a partition without submissions to the budget.
pub type BudgetSummary = Vec<Option<BudgetTotals>>;

/// The stored totals of one budget are damaged; other budgets are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DamagedTotals(pub String);

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        let (backend, reason) = ("the store", error.to_string());
        match error {
            StoreError::Unavailable(_) => Self::Unavailable { backend, reason },
            StoreError::Corrupt(_) => Self::Invalid { backend, reason },
        }
    }
}

/// Totals and checkpoint of each partition: written together, conditionally on epoch and position.
#[async_trait]
pub trait Checkpoints: Send + Sync + 'static {
    /// Reads a partition; `None` before its first claim, and once it is retired.
    ///
    /// Linearizable: it sees every acknowledged write, and settles the unacknowledged ones.
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError>;

    /// Claims a partition: sets owner and epoch `next` if the stored epoch is `expected` (`None`: never claimed).
    /// [`StoreError::Corrupt`] if the partition is retired.
    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError>;

    /// Applies a commit, atomically, if the stored epoch and position are the expected ones.
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError>;

    /// Reads the summaries of budgets, in the given order, with one read for each partition. Not linearizable: may lack
    /// the latest commits.
    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError>;

    /// Reads only [`Checkpoint::rows_position`] of a partition; `None` before its first claim. Not linearizable: may be
    /// lower than the committed one.
    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError>;

    /// Reads only the epoch of a partition; `None` before its first claim, and once it is retired. Not linearizable:
    /// may be that of an earlier claim.
    async fn epoch(&self, partition: PartitionRef) -> Result<Option<Epoch>, StoreError>;
}

/// Person rows: the current allocation of each person.
#[async_trait]
pub trait People: Send + Sync + 'static {
    /// Writes person rows. Of two writes of one row the higher offset wins, in whichever order they arrive.
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError>;

    /// Reads all rows of a bucket, in any order, in bounded memory.
    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError>;

    /// Reads one person's row.
    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError>;
}

/// History points: what the totals of a budget were at full minutes, hours and days.
///
/// A point's key is its partition, budget, step and first instant. Its value is a function of the log, so a point may
/// be written again, by any owner and at any time.
#[async_trait]
pub trait Histories: Send + Sync + 'static {
    /// Writes points of a partition, all or any part of them. Points that have expired at `now_ms` are deleted sooner
    /// or later, unless their step is kept for ever.
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError>;

    /// Reads the points of a budget in one partition that hold at any of `instants`, in order. May include expired
    /// ones.
    ///
    /// Not linearizable, but includes every point whose write was acknowledged.
    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError>;

    /// Reads all points of a step in one partition, ordered by budget and instant, in bounded memory.
    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError>;
}

/// The generation registry, and progress reports of shadow partitions.
#[async_trait]
pub trait Generations: Send + Sync + 'static {
    /// Reads the generation registry; `None` before the first processor started. Not linearizable: during a change, a
    /// later read may return the older revision. A caller that must not go back remembers the highest revision.
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError>;

    /// Replaces the registry of the previous revision; revision 1 replaces none.
    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError>;

    /// Lists the partitions that were ever claimed or retired, in all generations and in any order. Not linearizable.
    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError>;

    /// Deletes checkpoint, totals, person rows and history of a partition permanently. Later claims fail with
    /// [`StoreError::Corrupt`]; later commits and writes of rows and history have no effect. A repeated call continues
    /// an interrupted one.
    ///
    /// In this order: the partition can no longer be claimed, then rows are deleted. So no owner ever resumes from
    /// totals whose people are gone.
    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError>;

    /// Writes the progress report of a shadow partition, replacing the previous one.
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError>;

    /// Reads the latest report of each partition of a generation, in order. Not linearizable.
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError>;
}

/// A store of all derived data.
pub trait Store: Checkpoints + People + Histories + Generations {}

impl<S: Checkpoints + People + Histories + Generations> Store for S {}
