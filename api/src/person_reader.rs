//! Reads one person's current allocation from the person row in the store.
//!
//! Person rows are written after the commits, so a row may lag behind the aggregate. A reader who needs a certain
//! submission passes its receipt. What the receipt requires depends on where its record is:
//! - another partition, or an older log than the active generation's: nothing. A record in another partition cannot
//!   belong to this person, and the active generation counts all of an older log;
//! - a later log: cannot be visible yet;
//! - the same partition: the row's offset shows whether the row is recent enough. A repeated submission, or another
//!   person's, moves no row of this person; for those the partition's checkpoint decides.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use schemas::{
    BudgetId, Offset, PartitionCount, PartitionId, PersonId, PersonKey, PersonKeyHasher, PersonRow,
    Receipt, Term, partition_for,
};
use storage::store::PartitionRef;
use tokio::time::{Instant, sleep_until};

use crate::active_generation::{ActiveGenerationCache, ServedGeneration};
use crate::client_limit::ClientLimit;
use crate::client_network::ClientNetwork;
use crate::consistency::AtLeast;
use crate::log_ends::LogEnds;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::person_store::{PersonStore, TIER};

/// Bounds of the pause between two reads of a row that a client waits for. In between, the pause is a quarter of the
/// time waited so far, so that a thousand clients waiting for a row that never arrives are no load.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reads person rows.
pub struct PersonReader {
    store: Arc<PersonStore>,
    generation: Arc<ActiveGenerationCache>,
    hasher: PersonKeyHasher,
    waiters: Arc<ClientLimit>,
    log_ends: Arc<LogEnds>,
    hits: IntCounter,
    misses: IntCounter,
}

/// A person row and the receipt of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedPersonRow {
    /// The row.
    pub row: PersonRow,
    /// The record that the row was derived from.
    pub receipt: Receipt,
}

impl PersonReader {
    /// Creates a reader of this deployment's person rows.
    pub fn new(
        store: Arc<PersonStore>,
        generation: Arc<ActiveGenerationCache>,
        hasher: PersonKeyHasher,
        waiters: Arc<ClientLimit>,
        log_ends: Arc<LogEnds>,
        metrics: &ApiMetrics,
    ) -> Self {
        let count = |outcome| metrics.reads.with_label_values(&[TIER, outcome]);
        let (hits, misses) = (count("hit"), count("miss"));
        Self { store, generation, hasher, waiters, log_ends, hits, misses }
    }

    /// Finds a person's row in a budget; `None` when there is none, or the person has withdrawn.
    ///
    /// # Errors
    /// [`NoAnswer::Unavailable`] when the store is unavailable; the other variants as documented.
    pub async fn find(
        &self,
        budget: &BudgetId,
        person: &PersonId,
        at_least: Option<AtLeast>,
        client: ClientNetwork,
    ) -> Result<Option<LocatedPersonRow>, NoAnswer> {
        let key = self.hasher.key(budget, person);
        let found = match at_least {
            None => self.look_up(&key).await.map(|lookup| lookup.found),
            Some(wanted) => self.find_at_least(&key, wanted, client).await,
        };
        // Without shares the row only records a withdrawal.
        let found = found.map(|found| found.filter(|found| !found.row.basis_points.is_empty()));
        match &found {
            Ok(Some(_)) => self.hits.inc(),
            // The store's reads have counted the failure.
            Err(NoAnswer::Unavailable | NoAnswer::Overloaded) => {}
            Ok(None) | Err(_) => self.misses.inc(),
        }
        found
    }

    async fn find_at_least(
        &self,
        key: &PersonKey,
        wanted: AtLeast,
        client: ClientNetwork,
    ) -> Result<Option<LocatedPersonRow>, NoAnswer> {
        let started = Instant::now();
        let end = started + wanted.wait.unwrap_or_default();
        let mut waiter = None;
        loop {
            let lookup = self.look_up(key).await?;
            let counted = match lookup.requirement(wanted.receipt) {
                ReceiptRequirement::None => true,
                ReceiptRequirement::Offset(offset) => {
                    lookup.found.as_ref().is_some_and(|found| found.row.offset >= offset)
                }
                ReceiptRequirement::NotYetVisible => false,
                ReceiptRequirement::NoSuchPartition => return Err(NoAnswer::NoSuchPartition),
            };
            if counted {
                return Ok(lookup.found);
            }
            let now = Instant::now();
            if now >= end {
                return self.check_checkpoint(key, lookup, wanted.receipt).await;
            }
            if waiter.is_none() {
                if let Some(location) = lookup.location
                    && self.log_ends.is_far_beyond(wanted.receipt, location.term).await
                {
                    return Err(NoAnswer::BeyondLog);
                }
                waiter = Some(self.waiters.try_acquire(client).map_err(NoAnswer::of_waiting)?);
            }
            let pause = ((now - started) / 4).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
            sleep_until(end.min(now + pause)).await;
        }
    }

    /// Decides by the partition's checkpoint whether the receipt's record is counted, before refusing.
    ///
    /// Most submissions move their row, so the checkpoint is read only here. All rows below its `rows_position` are
    /// in the table.
    async fn check_checkpoint(
        &self,
        key: &PersonKey,
        lookup: PersonLookup,
        receipt: Receipt,
    ) -> Result<Option<LocatedPersonRow>, NoAnswer> {
        let (ReceiptRequirement::Offset(offset), Some(location)) =
            (lookup.requirement(receipt), lookup.location)
        else {
            return Err(NoAnswer::NotYetVisible);
        };
        match self.store.rows_position(location.partition()).await? {
            Some(position) if position.includes(offset) => {
                let row = self.store.person(location.partition(), key).await?;
                Ok(row.map(|row| location.locate(row)))
            }
            _ => Err(NoAnswer::NotYetVisible),
        }
    }

    /// Looks a person up in the active generation; nothing is found before the first generation.
    async fn look_up(&self, key: &PersonKey) -> Result<PersonLookup, NoAnswer> {
        let lookup = async {
            let Some(active) = self.generation.get().await? else {
                return Ok(PersonLookup { location: None, found: None });
            };
            let location = PersonLocation::of(key, active);
            let row = self.store.store().person(location.partition(), key).await?;
            let found = row.map(|row| location.locate(row));
            Ok(PersonLookup { location: Some(location), found })
        };
        self.store.read(lookup).await
    }
}

/// The log and partition of a person in the active generation.
#[derive(Debug, Clone, Copy)]
struct PersonLocation {
    term: Term,
    partition: PartitionId,
    partitions: PartitionCount,
}

impl PersonLocation {
    fn of(key: &PersonKey, ServedGeneration { term, partitions, .. }: ServedGeneration) -> Self {
        Self { term, partition: partition_for(key, partitions), partitions }
    }

    fn partition(&self) -> PartitionRef {
        PartitionRef { generation: self.term.generation, partition: self.partition }
    }

    fn locate(self, row: PersonRow) -> LocatedPersonRow {
        let (log, partition) = (self.term.log, self.partition);
        LocatedPersonRow { receipt: Receipt { log, partition, offset: row.offset }, row }
    }
}

/// The result of one lookup.
struct PersonLookup {
    /// `None` before the first generation.
    location: Option<PersonLocation>,
    found: Option<LocatedPersonRow>,
}

/// What a receipt requires of the person's partition.
enum ReceiptRequirement {
    None,
    /// The record at this offset, or a later one.
    Offset(Offset),
    /// A record of a log that the active generation does not count yet.
    NotYetVisible,
    /// A record that cannot exist.
    NoSuchPartition,
}

impl PersonLookup {
    fn requirement(&self, receipt: Receipt) -> ReceiptRequirement {
        let Some(location) = self.location else { return ReceiptRequirement::NotYetVisible };
        match receipt.log.cmp(&location.term.log) {
            Ordering::Less => ReceiptRequirement::None,
            Ordering::Equal if receipt.partition.0 >= location.partitions.get() => {
                ReceiptRequirement::NoSuchPartition
            }
            Ordering::Equal if receipt.partition != location.partition => ReceiptRequirement::None,
            Ordering::Equal => ReceiptRequirement::Offset(receipt.offset),
            Ordering::Greater => ReceiptRequirement::NotYetVisible,
        }
    }
}
