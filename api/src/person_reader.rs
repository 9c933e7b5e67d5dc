//! Reads one person's current allocation from the person row in the store.
//!
//! Person rows are written after the commits, so a row may lag behind the aggregate. A reader who needs a certain
//! submission passes its receipt. What the receipt requires depends on where its record is:
//! - another partition, or an older log than the active generation's: nothing. A record in another partition cannot
//!   belong to this person, and the active generation counts all of an older log;
//! - a later log: cannot be visible yet;
//! - the same partition: the row's offset shows whether the row is recent enough. A repeated submission, or another
//!   person's, moves no row of this person; for those the partition's checkpoint decides, unless the budget's results
//!   are withheld and the receipt is unsigned: it can be made up, and the checkpoint counts everyone's submissions.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use runtime::client::ClientNetwork;
use schemas::{
    Budget, BudgetPersonHasher, Offset, PartitionCount, PartitionId, PersonId, PersonKey,
    PersonRow, PersonSecret, PersonsForgotten, ReceiptProof, ReceiptSigner, RecordAddress, Term,
    partition_for,
};
use serde::Serialize;
use storage::store::PartitionRef;
use tokio::time::{Instant, sleep_until};

use crate::active_generation::{ActiveGenerationCache, ServedGeneration};
use crate::consistency::AtLeast;
use crate::log_ends::LogEnds;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::person_store::{PersonStore, TIER};
use crate::wait_limits::WaitLimits;

/// Bounds of the pause between two reads of a row that a client waits for. In between, the pause is a quarter of the
/// time waited so far, so that a thousand clients waiting for a row that never arrives are no load.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a receipt is waited for before the partition's checkpoint is read, too: most submissions move their row.
const CHECKPOINT_DELAY: Duration = Duration::from_millis(500);

/// Reads person rows.
pub struct PersonReader {
    store: Arc<PersonStore>,
    generation: Arc<ActiveGenerationCache>,
    person_secret: PersonSecret,
    receipt_signer: ReceiptSigner,
    waits: WaitLimits,
    log_ends: Arc<LogEnds>,
    hits: IntCounter,
    misses: IntCounter,
}

/// A person row and the address of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedPersonRow {
    /// The row.
    pub row: PersonRow,
    /// The record that the row was derived from.
    pub address: RecordAddress,
}

/// What became of the submission that a receipt names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionStatus {
    /// It is the person's current submission.
    Counted,
    /// A newer submission of the person is the current one.
    Superseded,
    /// It changed nothing: its submission id had been used before.
    Duplicate,
}

/// What decides whether a receipt's submission is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptCheck {
    /// The person's row; if the submission moved no row, the partition's checkpoint.
    RowOrCheckpoint,
    /// The person's row alone, so that nobody learns by made-up receipts how many records a partition has.
    RowOnly,
}

/// A person's row and what became of the submission that the reader asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonAnswer {
    /// The row; `None` when there is none, or the person has withdrawn.
    pub row: Option<LocatedPersonRow>,
    /// Whether there is a row that only says that the person has withdrawn.
    pub has_withdrawn: bool,
    /// `None` without a receipt, or if the receipt cannot be of this person.
    pub submission: Option<SubmissionStatus>,
}

impl PersonReader {
    /// Creates a reader of this deployment's person rows.
    pub fn new(
        store: Arc<PersonStore>,
        generation: Arc<ActiveGenerationCache>,
        person_secret: PersonSecret,
        waits: WaitLimits,
        log_ends: Arc<LogEnds>,
        metrics: &ApiMetrics,
    ) -> Self {
        let count = |outcome| metrics.reads.with_label_values(&[TIER, outcome]);
        let (hits, misses) = (count("hit"), count("miss"));
        let receipt_signer = person_secret.receipt_signer();
        Self { store, generation, person_secret, receipt_signer, waits, log_ends, hits, misses }
    }

    /// Returns what computes the keys of a budget's persons, with which they are found.
    ///
    /// # Errors
    /// When they are forgotten.
    pub fn persons(&self, budget: &Budget) -> Result<BudgetPersonHasher, PersonsForgotten> {
        self.person_secret.for_budget(budget)
    }

    /// Finds a person's row in a budget, and what became of the submission that a receipt names.
    ///
    /// # Errors
    /// [`NoAnswer::Unavailable`] when the store is unavailable; the other variants as documented.
    pub async fn find(
        &self,
        persons: &BudgetPersonHasher,
        person: &PersonId,
        at_least: Option<AtLeast>,
        check: ReceiptCheck,
        client: ClientNetwork,
    ) -> Result<PersonAnswer, NoAnswer> {
        let key = persons.key(person);
        let lookup = match at_least {
            None => self.look_up(&key).await,
            Some(wanted) => {
                let proof = self.receipt_signer.proof(persons.budget(), wanted.receipt);
                self.find_at_least(&key, (wanted, proof), check, client).await
            }
        };
        let answer = lookup.map(|lookup| {
            let submission =
                at_least.and_then(|wanted| lookup.submission_status(wanted.receipt.address));
            // Without shares the row only records a withdrawal.
            let has_withdrawn = lookup.found.as_ref().is_some_and(LocatedPersonRow::is_withdrawal);
            let row = lookup.found.filter(|_| !has_withdrawn);
            PersonAnswer { row, has_withdrawn, submission }
        });
        match &answer {
            Ok(PersonAnswer { row: Some(_), .. }) => self.hits.inc(),
            // The store's reads have counted the failure.
            Err(NoAnswer::Unavailable | NoAnswer::Overloaded) => {}
            Ok(_) | Err(_) => self.misses.inc(),
        }
        answer
    }

    async fn find_at_least(
        &self,
        key: &PersonKey,
        (wanted, proof): (AtLeast, ReceiptProof),
        check: ReceiptCheck,
        client: ClientNetwork,
    ) -> Result<PersonLookup, NoAnswer> {
        let started = Instant::now();
        let end = started + wanted.wait.unwrap_or_default();
        let mut waiter = None;
        loop {
            let lookup = self.look_up(key).await?;
            let counted = match lookup.requirement(wanted.receipt.address) {
                ReceiptRequirement::None => true,
                ReceiptRequirement::Offset(offset) => {
                    lookup.found.as_ref().is_some_and(|found| found.row.offset >= offset)
                }
                ReceiptRequirement::NotYetVisible => false,
                ReceiptRequirement::NoSuchPartition => return Err(NoAnswer::NoSuchPartition),
            };
            if counted {
                return Ok(lookup);
            }
            let now = Instant::now();
            match check {
                ReceiptCheck::RowOnly if now >= end => return Err(NoAnswer::NotYetVisible),
                ReceiptCheck::RowOrCheckpoint
                    if now >= end || now - started >= CHECKPOINT_DELAY =>
                {
                    match self.check_checkpoint(key, &lookup, wanted.receipt.address).await {
                        Err(NoAnswer::NotYetVisible) if now < end => {}
                        checked => return checked,
                    }
                }
                _ => {}
            }
            if waiter.is_none() {
                if let Some(location) = lookup.location
                    && self.log_ends.is_far_beyond(wanted.receipt.address, location.term).await
                {
                    return Err(NoAnswer::BeyondLog);
                }
                waiter = Some(self.waits.try_acquire(proof, client)?);
            }
            let pause = ((now - started) / 4).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
            sleep_until(end.min(now + pause)).await;
        }
    }

    /// Decides by the partition's checkpoint whether the receipt's record is counted, before refusing.
    ///
    /// All rows below its `rows_position` are in the table.
    async fn check_checkpoint(
        &self,
        key: &PersonKey,
        lookup: &PersonLookup,
        address: RecordAddress,
    ) -> Result<PersonLookup, NoAnswer> {
        let (ReceiptRequirement::Offset(offset), Some(location)) =
            (lookup.requirement(address), lookup.location)
        else {
            return Err(NoAnswer::NotYetVisible);
        };
        match self.store.rows_position(location.partition()).await? {
            Some(position) if position.includes(offset) => {
                let row = self.store.person(location.partition(), key).await?;
                let found = row.map(|row| location.locate(row));
                Ok(PersonLookup { location: Some(location), found })
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
        LocatedPersonRow { address: RecordAddress { log, partition, offset: row.offset }, row }
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

impl LocatedPersonRow {
    fn is_withdrawal(&self) -> bool {
        self.row.basis_points.is_empty()
    }
}

impl PersonLookup {
    /// Says what became of the submission, once the row includes it.
    fn submission_status(&self, address: RecordAddress) -> Option<SubmissionStatus> {
        let ReceiptRequirement::Offset(offset) = self.requirement(address) else { return None };
        let row = self.found.as_ref().map(|found| found.row.offset);
        Some(match row.map(|row| row.cmp(&offset)) {
            Some(Ordering::Equal) => SubmissionStatus::Counted,
            Some(Ordering::Greater) => SubmissionStatus::Superseded,
            Some(Ordering::Less) | None => SubmissionStatus::Duplicate,
        })
    }

    fn requirement(&self, address: RecordAddress) -> ReceiptRequirement {
        let Some(location) = self.location else { return ReceiptRequirement::NotYetVisible };
        match address.log.cmp(&location.term.log) {
            Ordering::Less => ReceiptRequirement::None,
            Ordering::Equal if address.partition.0 >= location.partitions.get() => {
                ReceiptRequirement::NoSuchPartition
            }
            Ordering::Equal if address.partition != location.partition => ReceiptRequirement::None,
            Ordering::Equal => ReceiptRequirement::Offset(address.offset),
            Ordering::Greater => ReceiptRequirement::NotYetVisible,
        }
    }
}
