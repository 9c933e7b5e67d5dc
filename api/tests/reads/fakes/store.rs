//! A fake store of totals, person rows and the generation registry.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::*;
use storage::store::*;

use super::{Switch, id, partitions};

#[derive(Default)]
pub struct FakeStore {
    pub totals_switch: Switch,
    pub people_switch: Switch,
    pub reads: AtomicUsize,
    pub rows_position: AtomicUsize,
    pub scans: AtomicUsize,
    pub row_reads: AtomicUsize,
    pub registry_reads: AtomicUsize,
    term: Mutex<Option<Term>>,
    /// The whole registry, for tests that need more than the term.
    pub registry: Mutex<Option<GenerationRegistry>>,
    pub reports: Mutex<BTreeMap<Generation, Vec<Option<PartitionReport>>>>,
    pub registry_switch: Switch,
    totals: Mutex<BTreeMap<BudgetId, Vec<Option<BudgetTotals>>>>,
    reads_by_budget: Mutex<BTreeMap<BudgetId, usize>>,
    rows: Mutex<Vec<(PartitionId, PersonRow)>>,
    history: Mutex<Vec<(PartitionId, HistoryPoint)>>,
    pub history_reads: AtomicUsize,
}

impl FakeStore {
    pub fn put(&self, budget: &str, totals: Vec<Option<BudgetTotals>>) {
        self.totals.lock().insert(id(budget), totals);
    }

    pub fn reads_of(&self, budget: &str) -> usize {
        self.reads_by_budget.lock().get(&id(budget)).copied().unwrap_or_default()
    }

    /// Switches to a generation in a new term. Generation 1 in term 1 is active from the start.
    pub fn switch_generation(&self, number: u32, generation: u32) {
        let generation = Generation(generation);
        *self.term.lock() = Some(Term { number, generation, log: LogNumber::FIRST });
    }

    /// Writes a history point of any budget.
    pub fn put_history(&self, partition: u32, point: HistoryPoint) {
        self.history.lock().push((PartitionId(partition), point));
    }

    /// Writes a person row, replacing the previous one.
    pub fn put_row(&self, partition: PartitionId, row: PersonRow) {
        let mut rows = self.rows.lock();
        rows.retain(|(_, other)| other.person != row.person);
        rows.push((partition, row));
    }
}

pub(super) fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable(reason)
}

#[async_trait]
impl Checkpoints for FakeStore {
    async fn read_partition(&self, _: PartitionRef) -> Result<Option<StoredPartition>, StoreError> {
        Err(unavailable("the api reads no whole partition".into()))
    }

    async fn claim(
        &self,
        _: PartitionRef,
        _: Option<Epoch>,
        _: Epoch,
        _: &str,
    ) -> Result<CasOutcome, StoreError> {
        Ok(CasOutcome::Refused)
    }

    async fn commit(&self, _: PartitionRef, _: &Commit) -> Result<CasOutcome, StoreError> {
        Ok(CasOutcome::Refused)
    }

    async fn summaries(
        &self,
        _: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        for budget in budgets {
            *self.reads_by_budget.lock().entry(budget.clone()).or_default() += 1;
        }
        // Taken before waiting for the switch: a slow answer reflects the moment of the read.
        let found = {
            let unclaimed = || Ok(vec![None; partitions.get() as usize]);
            let totals = self.totals.lock();
            let summary = |budget| totals.get(budget).cloned().map_or_else(unclaimed, Ok);
            budgets.iter().map(summary).collect()
        };
        self.totals_switch.pass().await.map_err(unavailable)?;
        Ok(found)
    }

    async fn rows_position(&self, _: PartitionRef) -> Result<Option<Position>, StoreError> {
        self.people_switch.pass().await.map_err(unavailable)?;
        Ok(Some(Position(self.rows_position.load(Ordering::SeqCst) as u64)))
    }

    async fn epoch(&self, _: PartitionRef) -> Result<Option<Epoch>, StoreError> {
        Err(unavailable("the api reads no epoch".into()))
    }
}

#[async_trait]
impl People for FakeStore {
    async fn write_people(&self, _: PartitionRef, _: &[PersonRow]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        self.people_switch.pass().await.map_err(unavailable)?;
        let rows = self.rows.lock().clone();
        rows.into_iter()
            .filter(|(at, person)| {
                *at == partition.partition && bucket_of(&person.person) == bucket
            })
            .for_each(|(_, person)| row(person));
        Ok(())
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.row_reads.fetch_add(1, Ordering::SeqCst);
        self.people_switch.pass().await.map_err(unavailable)?;
        let rows = self.rows.lock();
        let mut of_partition = rows.iter().filter(|(at, _)| *at == partition.partition);
        Ok(of_partition.find(|(_, row)| row.person == *person).map(|(_, row)| row.clone()))
    }
}

#[async_trait]
impl Histories for FakeStore {
    async fn write_history(
        &self,
        _: PartitionRef,
        _: &[(BudgetId, HistoryPoint)],
        _: u64,
    ) -> Result<(), StoreError> {
        Err(unavailable("the api writes no history".into()))
    }

    async fn history(
        &self,
        partition: PartitionRef,
        _: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        self.history_reads.fetch_add(1, Ordering::SeqCst);
        self.totals_switch.pass().await.map_err(unavailable)?;
        let history = self.history.lock();
        let found = history.iter().filter(|(at, point)| {
            *at == partition.partition && point.step == step && point.overlaps(&instants)
        });
        let mut points: Vec<_> = found.map(|(_, point)| point.clone()).collect();
        points.sort_by_key(|point| point.first);
        Ok(points)
    }

    async fn scan_history(
        &self,
        _: PartitionRef,
        _: HistoryStep,
        _: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        Err(unavailable("the api reads no whole history".into()))
    }
}

#[async_trait]
impl Generations for FakeStore {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        self.registry_reads.fetch_add(1, Ordering::SeqCst);
        self.registry_switch.pass().await.map_err(unavailable)?;
        if let Some(registry) = self.registry.lock().clone() {
            return Ok(Some(registry));
        }
        let mut registry = GenerationRegistry::first(LogRef::first("submissions", partitions()));
        let term = self.term.lock().unwrap_or(Term::FIRST);
        (registry.term, registry.active.generation) = (term.number, term.generation);
        Ok(Some(registry))
    }

    async fn change_registry(&self, _: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        Ok(CasOutcome::Refused)
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        Err(unavailable("the api lists no partitions".into()))
    }

    async fn retire_partition(&self, _: PartitionRef) -> Result<(), StoreError> {
        Err(unavailable("the api deletes no rows".into()))
    }

    async fn write_report(&self, _: PartitionRef, _: &PartitionReport) -> Result<(), StoreError> {
        Err(unavailable("the api writes no reports".into()))
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let known = self.reports.lock().get(&generation).cloned();
        Ok(known.unwrap_or_else(|| vec![None; partitions.get() as usize]))
    }
}
