//! Places to read from whose faults can be switched, and which count who reads them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::*;
use storage::cache::{Cache, CacheError, CacheUpdate};
use storage::definitions::{Catalog, Change, DefinitionError, Definitions};
use storage::jobs::{JobRows, JobStore, UnreadableJob};
use storage::log::letters::LetterPlaces;
use storage::log::{
    AppendError, Decision, Entry, LetterBook, LogBounds, LogIdentity, LogReader, PutAway,
    ReadError, Record, RecordBatch, Stretch,
};
use storage::opening::OpenError;
use storage::store::memory::MemoryStore;
use storage::store::*;
use tokio::sync::{broadcast, mpsc, watch};

/// How a place behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Works,
    Fails,
    Hangs,
}

/// A switch before a place. A read that finds it at `Hangs` goes on when it is switched.
pub struct Switch(watch::Sender<Mode>);

impl Default for Switch {
    fn default() -> Self {
        Self(watch::Sender::new(Mode::Works))
    }
}

impl Switch {
    pub fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }

    async fn pass(&self) -> Result<(), String> {
        let mut mode = self.0.subscribe();
        let mode = *mode.wait_for(|mode| *mode != Mode::Hangs).await.unwrap();
        if mode == Mode::Works { Ok(()) } else { Err("switched off".into()) }
    }
}

#[derive(Default)]
pub struct FakeCache {
    pub switch: Switch,
    pub calls: AtomicUsize,
    answers: Mutex<BTreeMap<BudgetId, CombinedTotals>>,
    asked: Mutex<BTreeMap<BudgetId, usize>>,
    news: Mutex<Option<broadcast::Sender<CacheUpdate>>>,
}

impl FakeCache {
    /// Changes the copy without a word.
    pub fn put(&self, budget: &str, totals: Option<CombinedTotals>) {
        let mut answers = self.answers.lock().unwrap();
        match totals {
            Some(totals) => answers.insert(id(budget), totals),
            None => answers.remove(&id(budget)),
        };
    }

    pub fn get(&self, budget: &str) -> Option<CombinedTotals> {
        self.answers.lock().unwrap().get(&id(budget)).cloned()
    }

    pub fn tell(&self, update: CacheUpdate) {
        if let Some(news) = &*self.news.lock().unwrap() {
            let _ = news.send(update);
        }
    }

    pub fn asked(&self, budget: &str) -> usize {
        self.asked.lock().unwrap().get(&id(budget)).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Cache for FakeCache {
    async fn publish(
        &self,
        _: &BudgetId,
        _: PartitionCount,
        _: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        Ok(())
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        for budget in budgets {
            *self.asked.lock().unwrap().entry(budget.clone()).or_default() += 1;
        }
        // What is asked is answered as it is now, however long the answer is on its way.
        let found = {
            let answers = self.answers.lock().unwrap();
            budgets.iter().map(|budget| answers.get(budget).cloned()).collect()
        };
        self.switch.pass().await.map_err(CacheError)?;
        Ok(found)
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.news.lock().unwrap().get_or_insert_with(|| broadcast::channel(8).0).subscribe()
    }
}

#[derive(Default)]
pub struct FakeStore {
    pub totals_switch: Switch,
    pub people_switch: Switch,
    pub calls: AtomicUsize,
    pub state_position: AtomicUsize,
    pub scans: AtomicUsize,
    pub rows_asked: AtomicUsize,
    pub generation_asked: AtomicUsize,
    term: Mutex<Option<Term>>,
    /// The roster as it is, where a test says more than the term.
    pub roster: Mutex<Option<Roster>>,
    pub reports: Mutex<BTreeMap<Generation, Vec<Option<PartitionReport>>>>,
    pub roster_switch: Switch,
    totals: Mutex<BTreeMap<BudgetId, Vec<Option<BudgetTotals>>>>,
    asked: Mutex<BTreeMap<BudgetId, usize>>,
    rows: Mutex<Vec<(PartitionId, PersonRow)>>,
}

impl FakeStore {
    pub fn put(&self, budget: &str, totals: Vec<Option<BudgetTotals>>) {
        self.totals.lock().unwrap().insert(id(budget), totals);
    }

    pub fn asked(&self, budget: &str) -> usize {
        self.asked.lock().unwrap().get(&id(budget)).copied().unwrap_or_default()
    }

    /// Begins a term, in which this generation answers; the first is from the start.
    pub fn flip(&self, number: u32, generation: u32) {
        let generation = Generation(generation);
        *self.term.lock().unwrap() = Some(Term { number, generation, log: LogNumber::FIRST });
    }

    /// Writes a person's row over the one before.
    pub fn put_row(&self, partition: PartitionId, row: PersonRow) {
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|(_, other)| other.person != row.person);
        rows.push((partition, row));
    }
}

fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable(reason)
}

#[async_trait]
impl Store for FakeStore {
    async fn read_partition(&self, _: PartitionRef) -> Result<Option<StoredPartition>, StoreError> {
        Err(unavailable("only owners read a whole partition".into()))
    }

    async fn claim(
        &self,
        _: PartitionRef,
        _: Option<Epoch>,
        _: Epoch,
        _: &str,
    ) -> Result<Conditional, StoreError> {
        Ok(Conditional::Refused)
    }

    async fn commit(&self, _: PartitionRef, _: &Commit) -> Result<Conditional, StoreError> {
        Ok(Conditional::Refused)
    }

    async fn summaries(
        &self,
        _: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        for budget in budgets {
            *self.asked.lock().unwrap().entry(budget.clone()).or_default() += 1;
        }
        // What is asked is answered as it is now, however long the answer is on its way.
        let found = {
            let nobody = || Ok(vec![None; partitions.get() as usize]);
            let totals = self.totals.lock().unwrap();
            let summary = |budget| totals.get(budget).cloned().map_or_else(nobody, Ok);
            budgets.iter().map(summary).collect()
        };
        self.totals_switch.pass().await.map_err(unavailable)?;
        Ok(found)
    }

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
        let rows = self.rows.lock().unwrap().clone();
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
        self.rows_asked.fetch_add(1, Ordering::SeqCst);
        self.people_switch.pass().await.map_err(unavailable)?;
        let rows = self.rows.lock().unwrap();
        let mut of_partition = rows.iter().filter(|(at, _)| *at == partition.partition);
        Ok(of_partition.find(|(_, row)| row.person == *person).map(|(_, row)| row.clone()))
    }

    async fn state_position(&self, _: PartitionRef) -> Result<Option<Position>, StoreError> {
        self.people_switch.pass().await.map_err(unavailable)?;
        Ok(Some(Position(self.state_position.load(Ordering::SeqCst) as u64)))
    }

    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.generation_asked.fetch_add(1, Ordering::SeqCst);
        self.roster_switch.pass().await.map_err(unavailable)?;
        if let Some(roster) = self.roster.lock().unwrap().clone() {
            return Ok(Some(roster));
        }
        let mut roster = Roster::first(LogRef::first("submissions", partitions()));
        let term = self.term.lock().unwrap().unwrap_or(Term::FIRST);
        (roster.term, roster.current.generation) = (term.number, term.generation);
        Ok(Some(roster))
    }

    async fn change_roster(&self, _: &Roster) -> Result<Conditional, StoreError> {
        Ok(Conditional::Refused)
    }

    async fn write_report(&self, _: PartitionRef, _: &PartitionReport) -> Result<(), StoreError> {
        Err(unavailable("an api does not report".into()))
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let known = self.reports.lock().unwrap().get(&generation).cloned();
        Ok(known.unwrap_or_else(|| vec![None; partitions.get() as usize]))
    }

    async fn delete_people(&self, _: PartitionRef) -> Result<(), StoreError> {
        Err(unavailable("an api deletes nobody".into()))
    }
}

/// Jobs in memory, behind a switch.
#[derive(Default)]
pub struct FakeJobs {
    pub switch: Switch,
    pub stored: MemoryStore,
    pub unreadable: Mutex<Vec<UnreadableJob>>,
}

#[async_trait]
impl JobStore for FakeJobs {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        let mut rows = self.stored.job_rows().await?;
        rows.unreadable.clone_from(&self.unreadable.lock().unwrap());
        Ok(rows)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.job(id).await
    }

    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.change_job(next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        self.switch.pass().await.map_err(unavailable)?;
        self.stored.delete_job(id, revision).await
    }
}

/// A record's place, key and value.
pub type Stored = (Receipt, Vec<u8>, Vec<u8>);

/// A book of dead letters, and the log that has their bytes.
#[derive(Default)]
pub struct FakeLetters {
    pub switch: Switch,
    pub entries: Mutex<Vec<Entry>>,
    /// What stands in the log.
    pub records: Mutex<Vec<Stored>>,
}

impl FakeLetters {
    /// Puts a record away.
    pub fn put(&self, place: &str, reason: &str, value: &[u8]) {
        let (place, key): (Receipt, _) = (place.parse().unwrap(), [7; 16]);
        let put_away = PutAway {
            reason: reason.into(),
            key_bytes: key.len() as u64,
            value_bytes: value.len() as u64,
            put_at_ms: 1_795_212_000_123,
        };
        self.entries.lock().unwrap().push(Entry::Letter(place, put_away));
        self.records.lock().unwrap().push((place, key.to_vec(), value.to_vec()));
    }

    pub fn decide(&self, place: &str, decision: Decision) {
        self.entries.lock().unwrap().push(Entry::Decided(place.parse().unwrap(), decision));
    }
}

/// The letters, opened.
struct OpenLetters(Arc<FakeLetters>);

#[async_trait]
impl LetterPlaces for OpenedBy {
    fn open_letter_book(&self) -> Result<Arc<dyn LetterBook>, OpenError> {
        Ok(Arc::new(OpenLetters(Arc::clone(&self.0))))
    }

    async fn open_log_reader(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::new(OpenLetters(Arc::clone(&self.0))))
    }
}

/// Opens them.
pub struct OpenedBy(pub Arc<FakeLetters>);

#[async_trait]
impl LetterBook for OpenLetters {
    fn entries(&self) -> mpsc::Receiver<Result<Entry, ReadError>> {
        let (entries, receiver) = mpsc::channel(8);
        let letters = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(reason) = letters.switch.pass().await {
                let _ = entries.send(Err(ReadError::Unavailable(reason))).await;
                return;
            }
            let all = letters.entries.lock().unwrap().clone();
            for entry in all {
                let _ = entries.send(Ok(entry)).await;
            }
        });
        receiver
    }

    async fn decide(&self, _: Receipt, _: Decision) -> Result<(), AppendError> {
        panic!("an api decides nothing");
    }
}

#[async_trait]
impl LogReader for OpenLetters {
    fn partitions(&self) -> PartitionCount {
        partitions()
    }

    fn identity(&self) -> LogIdentity {
        LogIdentity { cluster_id: String::new(), topic_id: String::new() }
    }

    async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
        Err(ReadError::Unavailable("nobody asks an api".into()))
    }

    fn follow(
        &self,
        partition: PartitionId,
        at: Position,
        _: watch::Receiver<Position>,
    ) -> Stretch {
        let (batches, receiver) = mpsc::channel(1);
        let records = self.0.records.lock().unwrap();
        let found = records
            .iter()
            .find(|(place, ..)| (place.partition, Position(place.offset.0)) == (partition, at));
        let answer = match found {
            None => Err(ReadError::Missing(at)),
            Some((place, key, value)) => {
                let mut batch = RecordBatch::new(partition);
                batch.push(Record { offset: place.offset, key, value });
                Ok(batch)
            }
        };
        batches.try_send(answer).unwrap();
        receiver
    }
}

#[derive(Default)]
pub struct FakeDefinitions {
    catalog: Mutex<Arc<Catalog>>,
    changed: watch::Sender<()>,
    /// Whether the history is still being read.
    pub loading: AtomicBool,
}

impl FakeDefinitions {
    pub fn put(&self, budget: Budget) {
        let mut catalog = self.catalog.lock().unwrap();
        *catalog = Arc::new(catalog.with(Arc::new(budget)));
        self.changed.send_replace(());
    }
}

#[async_trait]
impl Definitions for FakeDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.lock().unwrap())
    }

    fn is_loaded(&self) -> bool {
        !self.loading.load(Ordering::SeqCst)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    async fn change(&self, _: &BudgetId, _: &Change<'_>) -> Result<Arc<Budget>, DefinitionError> {
        Err(DefinitionError::Unavailable("not here".into()))
    }
}

pub fn id(text: &str) -> BudgetId {
    BudgetId::parse(text).unwrap()
}

/// Every test's log has three partitions.
pub fn partitions() -> PartitionCount {
    PartitionCount::new(3).unwrap()
}
