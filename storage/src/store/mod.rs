//! The store: totals and checkpoints, committed together and fenced by epochs, and people's rows behind them.
//!
//! The trait offers the conditional writes and reads that a store of this kind has. What to do with a refusal or an
//! unknown outcome is the processor's: see its `commit` module.

pub mod memory;
pub mod scylla;
pub mod sqlite;

use async_trait::async_trait;
use schemas::{
    BudgetId, BudgetTotals, Generation, Offset, PartitionCount, PartitionId, PartitionReport,
    PersonKey, PersonRow, Position, Roster,
};

use crate::log::LogIdentity;

/// One partition of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionRef {
    /// The derivation.
    pub generation: Generation,
    /// The partition of its topic.
    pub partition: PartitionId,
}

/// Counts the owners of a partition. Only the latest can commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A record by which a log is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMark {
    /// Where it stands.
    pub offset: Offset,
    /// A fingerprint of its key and value.
    pub fingerprint: u64,
}

/// How many records a partition has folded, by what came of them. Their sum is the position less the log's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Took effect.
    pub applied: u64,
    /// Repeated an id, and changed nothing.
    pub duplicates: u64,
    /// Could not be taken.
    pub dead_lettered: u64,
}

/// What is true of a partition as of its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The totals reflect exactly the records below it.
    pub position: Position,
    /// Every person's row as of this position, or a later one, is in the table. Never above `position`.
    pub state_position: Position,
    /// The log that was folded; `None` before the first record.
    pub identity: Option<LogIdentity>,
    /// The last record before `position`; `None` before the first.
    pub last_record: Option<RecordMark>,
    /// What came of the records.
    pub tally: Tally,
}

impl Checkpoint {
    /// Where every partition begins.
    pub const START: Checkpoint = Checkpoint {
        position: Position::START,
        state_position: Position::START,
        identity: None,
        last_record: None,
        tally: Tally { applied: 0, duplicates: 0, dead_lettered: 0 },
    };
}

/// A partition as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartition {
    /// The latest claim.
    pub epoch: Epoch,
    /// Who made it.
    pub owner: String,
    /// What is committed.
    pub checkpoint: Checkpoint,
    /// The committed totals of every budget that has any.
    pub totals: Vec<(BudgetId, BudgetTotals)>,
}

/// One step forward: the new checkpoint and the totals of the budgets that changed, all absolute values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The epoch under which it may happen.
    pub epoch: Epoch,
    /// The position from which it goes on.
    pub from: Position,
    /// What is true afterwards.
    pub checkpoint: Checkpoint,
    /// The changed totals.
    pub totals: Vec<(BudgetId, BudgetTotals)>,
}

/// What a conditional write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// It happened.
    Applied,
    /// Its condition did not hold; nothing changed.
    Refused,
}

/// What went wrong, by what the caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer in time, or said that it cannot now. A write may have happened, or happen yet:
    /// read to find out, or repeat the same bytes.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// What it holds cannot be: halt and call an operator.
    #[error("the store holds what cannot be: {0}")]
    Corrupt(String),
}

/// A budget's committed totals in each of the partitions, in their order: `None` where the partition was never
/// claimed, empty totals where it knows nothing of the budget.
pub type Summary = Vec<Option<BudgetTotals>>;

/// What is stored of one budget cannot be; the others are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

/// Where totals and people rest.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A partition as committed; `None` before its first claim. Linearizable: it sees every write that was answered,
    /// and settles those that were not.
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError>;

    /// Makes `owner` the owner with epoch `next`, if the stored epoch is `expected` (`None`: never claimed).
    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError>;

    /// Takes the commit, whole or not at all, if the stored epoch and position are the ones it names.
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError>;

    /// The summaries of budgets, in the order given: one read a partition, however many budgets. Not linearizable:
    /// fast, maybe a step behind.
    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError>;

    /// Writes people's rows. Of two writes of one person's row the one with the higher offset stays, whatever the
    /// order in which they come.
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError>;

    /// Reads all rows of one bucket, in no order, in bounded memory.
    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError>;

    /// One person's row.
    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError>;

    /// A partition's [`Checkpoint::state_position`] and nothing else; `None` before its first claim. Not linearizable:
    /// fast, maybe a step behind, and a step behind is still true.
    async fn state_position(&self, partition: PartitionRef)
    -> Result<Option<Position>, StoreError>;

    /// The roster of generations; `None` before the first processor began. Not linearizable: fast, and while it changes,
    /// of two reads the later may see the older. Who must not go back remembers the highest revision.
    async fn roster(&self) -> Result<Option<Roster>, StoreError>;

    /// Puts a roster in the place of the one whose revision comes just before its own; revision 1 in the place of none.
    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError>;

    /// Says how a partition comes on that is folded beside the one that answers. The latest stays.
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError>;

    /// What was said last of each of a generation's partitions, in their order. Not linearizable.
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError>;

    /// Deletes all people's rows of a partition, for good: what is written there later stays away. The checkpoint stays,
    /// and with it the epoch that keeps late commits out.
    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError>;
}
