//! The store in memory, for simulation and unit tests. Deterministic: no clock, no randomness, ordered maps only.
//!
//! Of two writes of one person row at the same offset the greater bytes win, as on a server that resolves equal
//! timestamps by value. Retired partitions stay deleted, as under a tombstone that is newer than every row.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, BudgetTotals, Generation, GenerationRegistry, HistoryInstant, HistoryPoint,
    HistoryStep, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, bucket_of,
};

use super::{
    BudgetSummary, CasOutcome, Checkpoint, Checkpoints, Commit, DamagedTotals, Epoch, Generations,
    Histories, KnownPartition, PartitionRef, People, StoreError, StoredPartition, retired,
};
use crate::jobs::{JobRows, JobStore};

/// The store in memory. Every call is atomic.
#[derive(Default)]
pub struct MemoryStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    registry: Option<GenerationRegistry>,
    reports: BTreeMap<PartitionRef, PartitionReport>,
    jobs: BTreeMap<JobId, Job>,
    /// Partitions that are deleted permanently.
    retired: BTreeSet<PartitionRef>,
    partitions: BTreeMap<PartitionRef, Partition>,
    people: BTreeMap<(PartitionRef, u8), BTreeMap<PersonKey, PersonRow>>,
    /// Points by partition, step, budget and first instant.
    history:
        BTreeMap<(PartitionRef, HistoryStep), BTreeMap<(BudgetId, HistoryInstant), HistoryPoint>>,
}

/// A partition of the store at an earlier moment. See [`MemoryStore::go_back`].
#[derive(Clone)]
pub struct PartitionSnapshot {
    stored: Option<Partition>,
    people: BTreeMap<u8, BTreeMap<PersonKey, PersonRow>>,
}

#[derive(Clone)]
struct Partition {
    epoch: Epoch,
    owner: String,
    checkpoint: Checkpoint,
    totals: BTreeMap<BudgetId, BudgetTotals>,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses the person rows for which `is_lost` holds, like a server that loses acknowledged writes. Returns how many.
    pub fn lose_people(
        &self,
        partition: PartitionRef,
        mut is_lost: impl FnMut(&PersonRow) -> bool,
    ) -> usize {
        let mut lost = 0;
        for ((of, _), bucket) in &mut self.0.lock().people {
            if *of == partition {
                let before = bucket.len();
                bucket.retain(|_, row| !is_lost(row));
                lost += before - bucket.len();
            }
        }
        lost
    }

    /// Copies claim, commits and person rows of a partition.
    pub fn snapshot(&self, partition: PartitionRef) -> PartitionSnapshot {
        let tables = self.0.lock();
        let people = tables.people.iter().filter(|((of, _), _)| *of == partition);
        PartitionSnapshot {
            stored: tables.partitions.get(&partition).cloned(),
            people: people.map(|((_, bucket), rows)| (*bucket, rows.clone())).collect(),
        }
    }

    /// Replaces claim and commits of a partition by those of one snapshot, and its person rows by those of another,
    /// like a server that is restored from backups of its tables. Histories stay. Returns the people whose row changes.
    pub fn go_back(
        &self,
        partition: PartitionRef,
        commits: &PartitionSnapshot,
        rows: &PartitionSnapshot,
    ) -> BTreeSet<PersonKey> {
        let mut tables = self.0.lock();
        match &commits.stored {
            Some(stored) => tables.partitions.insert(partition, stored.clone()),
            None => tables.partitions.remove(&partition),
        };
        let of_partition = tables.people.extract_if(.., |(of, _), _| *of == partition);
        let former: BTreeMap<_, _> = of_partition.flat_map(|(_, bucket)| bucket).collect();
        let restored = rows.people.values().flatten();
        let restored: BTreeMap<_, _> = restored.map(|(key, row)| (*key, row.clone())).collect();
        for (bucket, people) in &rows.people {
            tables.people.insert((partition, *bucket), people.clone());
        }
        let everyone = former.keys().chain(restored.keys()).copied();
        everyone.filter(|person| former.get(person) != restored.get(person)).collect()
    }
}

/// Whether a write replaces the stored row.
fn wins(row: &PersonRow, stored: &PersonRow) -> bool {
    row.offset > stored.offset
        || (row.offset == stored.offset && row.encode_state() > stored.encode_state())
}

#[async_trait]
impl Checkpoints for MemoryStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        Ok(self.0.lock().partitions.get(&partition).map(|stored| StoredPartition {
            epoch: stored.epoch,
            owner: stored.owner.clone(),
            checkpoint: stored.checkpoint.clone(),
            totals: stored.totals.clone().into_iter().collect(),
        }))
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let mut tables = self.0.lock();
        if tables.retired.contains(&partition) {
            return Err(retired(partition));
        }
        if tables.partitions.get(&partition).map(|stored| stored.epoch) != expected {
            return Ok(CasOutcome::Refused);
        }
        let stored = tables.partitions.entry(partition).or_insert_with(|| Partition {
            epoch: next,
            owner: String::new(),
            checkpoint: Checkpoint::START,
            totals: BTreeMap::new(),
        });
        stored.epoch = next;
        stored.owner = owner.to_owned();
        Ok(CasOutcome::Applied)
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        let mut tables = self.0.lock();
        let stored = tables.partitions.get_mut(&partition).filter(|stored| {
            (stored.epoch, stored.checkpoint.position) == (commit.epoch, commit.from)
        });
        let Some(stored) = stored else { return Ok(CasOutcome::Refused) };
        stored.checkpoint = commit.checkpoint.clone();
        stored.totals.extend(commit.totals.iter().cloned());
        Ok(CasOutcome::Applied)
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        let tables = self.0.lock();
        let totals = |partition, budget| {
            let stored = tables.partitions.get(&PartitionRef { generation, partition })?;
            Some(stored.totals.get(budget).cloned().unwrap_or_default())
        };
        let summary = |budget| partitions.partitions().map(|at| totals(at, budget)).collect();
        Ok(budgets.iter().map(|budget| Ok(summary(budget))).collect())
    }

    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError> {
        let tables = self.0.lock();
        Ok(tables.partitions.get(&partition).map(|stored| stored.checkpoint.rows_position))
    }

    async fn epoch(&self, partition: PartitionRef) -> Result<Option<Epoch>, StoreError> {
        Ok(self.0.lock().partitions.get(&partition).map(|stored| stored.epoch))
    }
}

#[async_trait]
impl People for MemoryStore {
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let mut tables = self.0.lock();
        if tables.retired.contains(&partition) {
            return Ok(());
        }
        for row in rows {
            let bucket = tables.people.entry((partition, bucket_of(&row.person))).or_default();
            if bucket.get(&row.person).is_none_or(|stored| wins(row, stored)) {
                bucket.insert(row.person, row.clone());
            }
        }
        Ok(())
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        // Not under the lock: the callback may call the store.
        let rows: Vec<PersonRow> = self
            .0
            .lock()
            .people
            .get(&(partition, bucket))
            .map(|bucket| bucket.values().cloned().collect())
            .unwrap_or_default();
        rows.into_iter().for_each(row);
        Ok(())
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        let tables = self.0.lock();
        let bucket = tables.people.get(&(partition, bucket_of(person)));
        Ok(bucket.and_then(|bucket| bucket.get(person)).cloned())
    }
}

#[async_trait]
impl Histories for MemoryStore {
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut tables = self.0.lock();
        if tables.retired.contains(&partition) {
            return Ok(());
        }
        for (budget, point) in points {
            let history = tables.history.entry((partition, point.step)).or_default();
            history.insert((budget.clone(), point.first), point.clone());
            history.retain(|(of, _), point| of != budget || !point.is_expired(now_ms));
        }
        Ok(())
    }

    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        let tables = self.0.lock();
        let history = tables.history.get(&(partition, step)).into_iter().flatten();
        let found = history.filter(|((of, _), point)| of == budget && point.overlaps(&instants));
        Ok(found.map(|(_, point)| point.clone()).collect())
    }

    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        // Not under the lock: the callback may call the store.
        let history = self.0.lock().history.get(&(partition, step)).cloned().unwrap_or_default();
        history.into_iter().for_each(|((budget, _), found)| point(budget, found));
        Ok(())
    }
}

#[async_trait]
impl Generations for MemoryStore {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        Ok(self.0.lock().registry.clone())
    }

    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        let mut tables = self.0.lock();
        let revision = tables.registry.as_ref().map_or(0, |registry| registry.revision);
        if next.revision != revision + 1 {
            return Ok(CasOutcome::Refused);
        }
        tables.registry = Some(next.clone());
        Ok(CasOutcome::Applied)
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        let tables = self.0.lock();
        let claimed =
            tables.partitions.keys().map(|id| KnownPartition { id: *id, is_retired: false });
        let retired = tables.retired.iter().map(|id| KnownPartition { id: *id, is_retired: true });
        Ok(claimed.chain(retired).collect())
    }

    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError> {
        let mut tables = self.0.lock();
        tables.retired.insert(partition);
        tables.partitions.remove(&partition);
        tables.people.retain(|(of, _), _| *of != partition);
        tables.history.retain(|(of, _), _| *of != partition);
        Ok(())
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.0.lock().reports.insert(partition, report.clone());
        Ok(())
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let tables = self.0.lock();
        let report = |partition| tables.reports.get(&PartitionRef { generation, partition });
        Ok(partitions.partitions().map(|partition| report(partition).cloned()).collect())
    }
}

#[async_trait]
impl JobStore for MemoryStore {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        let tables = self.0.lock();
        let rows = tables.jobs.values().map(|job| (job.id.0, job.revision, job.to_json()));
        Ok(JobRows::of(rows))
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.0.lock().jobs.get(&id).cloned())
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        let mut tables = self.0.lock();
        let revision = tables.jobs.get(&next.id).map_or(0, |job| job.revision);
        if next.revision != revision + 1 {
            return Ok(CasOutcome::Refused);
        }
        tables.jobs.insert(next.id, next.clone());
        Ok(CasOutcome::Applied)
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        let mut tables = self.0.lock();
        if tables.jobs.get(&id).map(|stored| stored.revision) != Some(revision) {
            return Ok(CasOutcome::Refused);
        }
        tables.jobs.remove(&id);
        Ok(CasOutcome::Applied)
    }
}
