//! The store's server, which checks every write at the moment it takes effect, and each process's client of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionId, PartitionReport, PersonKey, PersonRow,
    Position, Roster, bucket_of,
};
use storage::store::memory::MemoryStore;
use storage::store::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};

use crate::letters::LettersServer;
use crate::network::{Link, Service};
use crate::oracle::{Checked, require};
use crate::world::{Sabotage, World, lock};

/// Of a hundred commits, so many are forgotten in a world whose store forgets.
const FORGOTTEN_PERCENT: u32 = 4;

pub struct StoreServer {
    tables: MemoryStore,
    letters: Arc<LettersServer>,
    world: Arc<World>,
    /// The furthest position of each partition whose commit was acknowledged.
    acknowledged: Mutex<BTreeMap<PartitionId, Position>>,
}

impl StoreServer {
    pub fn new(world: Arc<World>, letters: Arc<LettersServer>) -> Self {
        Self { tables: MemoryStore::new(), letters, world, acknowledged: Mutex::default() }
    }

    /// A partition as it is stored, without the way there.
    pub async fn stored(&self, id: PartitionRef) -> Option<StoredPartition> {
        self.tables.read_partition(id).await.unwrap()
    }

    /// How far a partition's commits were acknowledged: nothing beyond may be written or told.
    pub fn acknowledged(&self, partition: PartitionId) -> Position {
        lock(&self.acknowledged).get(&partition).copied().unwrap_or_default()
    }

    /// Whether everyone's row is as the whole log has it.
    pub async fn check_all_rows(&self, id: PartitionRef, end: Position) -> Checked {
        for expected in self.world.oracle.people_at(id.partition, end) {
            let found = self.tables.person(id, &expected.person).await.unwrap();
            require(found.as_ref() == Some(expected), || {
                format!("row at {}: found {found:?}, expected {expected:?}", id.partition)
            })?;
        }
        Ok(())
    }

    async fn claim(
        self: Arc<Self>,
        id: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: String,
    ) -> Result<Conditional, StoreError> {
        let outcome = self.tables.claim(id, expected, next, &owner).await;
        let (partition, epoch) = (id.partition, next.0);
        self.world.note(format_args!("{partition}: {owner} claims epoch {epoch}: {outcome:?}"));
        outcome
    }

    async fn commit(
        self: Arc<Self>,
        id: PartitionRef,
        mut commit: Commit,
    ) -> Result<Conditional, StoreError> {
        let (partition, before) = (id.partition, self.stored(id).await);
        if let Some(before) = &before
            && self.world.plan.sabotage == Some(Sabotage::UnconditionalCommits)
        {
            (commit.epoch, commit.from) = (before.epoch, before.checkpoint.position);
        }
        let Commit { epoch, from, checkpoint, .. } = &commit;
        let to = checkpoint.position;
        let holds = before
            .as_ref()
            .is_some_and(|stored| (stored.epoch, stored.checkpoint.position) == (*epoch, *from));
        let forgets = self.world.plan.forgets
            && holds
            && to > *from
            && !self.world.is_healed()
            && self.world.chance(FORGOTTEN_PERCENT);
        let outcome =
            if forgets { Ok(Conditional::Applied) } else { self.tables.commit(id, &commit).await };
        self.world.note(format_args!(
            "{partition}: commit under {} from {from} to {to}, rows to {}: {outcome:?}{}",
            epoch.0,
            checkpoint.state_position,
            if forgets { ", forgotten" } else { "" }
        ));
        if outcome == Ok(Conditional::Applied) {
            let mut acknowledged = lock(&self.acknowledged);
            let known = acknowledged.entry(partition).or_default();
            *known = to.max(*known);
        }
        if forgets {
            self.world.count(|counts| counts.forgotten_commits += 1);
        } else if outcome == Ok(Conditional::Applied) {
            self.world.count(|counts| counts.commits += 1);
            let checked = self.check_commit(id, before.as_ref()).await;
            self.world.check(checked.map_err(|wrong| format!("after a commit: {wrong}")));
        }
        outcome
    }

    async fn check_commit(&self, id: PartitionRef, before: Option<&StoredPartition>) -> Checked {
        let stored = self.stored(id).await.ok_or("a commit to a partition that nobody claimed")?;
        let checkpoint = &stored.checkpoint;
        let (from, to) = (before.map(|before| before.checkpoint.position), checkpoint.position);
        require(from.is_none_or(|from| from <= to), || format!("back from {from:?} to {to}"))?;
        self.world.oracle.check_stored(id.partition, &stored)?;
        for expected in self.world.oracle.people_at(id.partition, checkpoint.state_position) {
            let row = self.tables.person(id, &expected.person).await.unwrap();
            require(row.is_some_and(|row| row.offset >= expected.offset), || {
                format!(
                    "rows are said to be there up to {}, but the one of {} is not",
                    checkpoint.state_position, expected.offset
                )
            })?;
        }
        self.letters.check_complete(id.partition, to)
    }

    async fn write_people(
        self: Arc<Self>,
        id: PartitionRef,
        rows: Vec<PersonRow>,
    ) -> Result<(), StoreError> {
        let acknowledged = self.acknowledged(id.partition);
        for row in &rows {
            self.world.check(self.world.oracle.check_row(id.partition, row));
            self.world.check(require(acknowledged.includes(row.offset), || {
                format!("a row of {} is written while the totals are at {acknowledged}", row.offset)
            }));
        }
        let offsets: Vec<_> = rows.iter().map(|row| row.offset.0).collect();
        self.world.note(format_args!("{}: rows {offsets:?}", id.partition));
        if self.world.plan.sabotage == Some(Sabotage::ForgottenRows) {
            return Ok(());
        }
        self.tables.write_people(id, &rows).await
    }
}

/// One process's way to the store.
pub struct StoreClient {
    pub server: Arc<StoreServer>,
    pub link: Link,
}

impl StoreClient {
    async fn call<T: Send + 'static>(
        &self,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.link.call(Service::Store, effect).await.map_err(StoreError::Unavailable)?
    }
}

#[async_trait]
impl Store for StoreClient {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        let server = Arc::clone(&self.server);
        self.call(async move { server.tables.read_partition(partition).await }).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        let server = Arc::clone(&self.server);
        self.call(server.claim(partition, expected, next, owner.to_owned())).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.call(Arc::clone(&self.server).commit(partition, commit.clone())).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        self.server.tables.summaries(generation, partitions, budgets).await
    }

    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let mut batches: BTreeMap<u8, Vec<PersonRow>> = BTreeMap::new();
        for row in rows {
            let batch = if self.link.world.plan.splits_rows { bucket_of(&row.person) } else { 0 };
            batches.entry(batch).or_default().push(row.clone());
        }
        let writes = batches.into_values().map(|rows| {
            let server = Arc::clone(&self.server);
            self.call(server.write_people(partition, rows))
        });
        try_join_all(writes).await.map(|_| ())
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let server = Arc::clone(&self.server);
        let read = async move {
            let mut rows = Vec::new();
            server.tables.read_people(partition, bucket, &mut |row| rows.push(row)).await?;
            Ok(rows)
        };
        self.call(read).await?.into_iter().for_each(row);
        Ok(())
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.server.tables.person(partition, person).await
    }

    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        self.server.tables.state_position(partition).await
    }

    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.server.tables.roster().await
    }
    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.server.tables.change_roster(next).await
    }
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.server.tables.write_report(partition, report).await
    }
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.server.tables.reports(generation, partitions).await
    }
    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.server.tables.delete_people(partition).await
    }
}
