//! One person's allocation as counted now: the row that the partition's owner has written for it.
//!
//! Rows are written behind the commits, so a row may be a moment behind the aggregate. Whoever needs their own
//! submission says so with its receipt. A record in another partition cannot be about this person, so a receipt from
//! there asks for nothing; nor does one of a log before the one that answers, all of which is counted in it. One of a later
//! log is not visible yet. In the same partition the row itself shows that it is recent enough, or else (for the
//! receipt of a repetition, which moves no row, or of somebody else) the partition's checkpoint.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use schemas::{
    BudgetId, LogNumber, Offset, PersonKey, PersonKeyHasher, PersonName, PersonRow, Receipt,
    partition_for,
};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::time::{Instant, sleep_until};

use crate::breaker::Admission;
use crate::config::ApiConfig;
use crate::consistency::AtLeast;
use crate::generation::{Current, CurrentGeneration};
use crate::metrics::ApiMetrics;
use crate::reader::NoAnswer;
use crate::tiers::TierError;
use crate::tiers::guard::Guard;
use crate::waiters::Waiters;

/// Between two looks at a row that somebody waits for: a quarter of the time that it has taken so far, and between these.
/// A thousand who wait for what never comes are no load then.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What reads of rows are called in metrics and logs.
const TIER: &str = "people";

/// Finds people's rows.
pub struct People {
    store: Arc<dyn Store>,
    generation: Arc<CurrentGeneration>,
    hasher: PersonKeyHasher,
    guard: Guard,
    waiters: Arc<Waiters>,
    hits: IntCounter,
    misses: IntCounter,
}

/// A person's row and where its record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row.
    pub row: PersonRow,
    /// The record that it follows from.
    pub receipt: Receipt,
}

impl People {
    /// People of a deployment with this secret.
    pub fn new(
        config: &ApiConfig,
        store: Arc<dyn Store>,
        generation: Arc<CurrentGeneration>,
        hasher: PersonKeyHasher,
        waiters: Arc<Waiters>,
        metrics: &ApiMetrics,
    ) -> Self {
        let guard = Guard::new(TIER, config.summary_deadline, config.breaker, metrics);
        let count = |outcome| metrics.reads.with_label_values(&[TIER, outcome]);
        let (hits, misses) = (count("hit"), count("miss"));
        Self { store, generation, hasher, guard, waiters, hits, misses }
    }

    /// A person's row in a budget; `None` when there is none, or the person has withdrawn.
    ///
    /// # Errors
    /// [`NoAnswer::Unknown`] when the store does not answer; the others as they say.
    pub async fn find(
        &self,
        budget: &BudgetId,
        person: &PersonName,
        at_least: Option<AtLeast>,
    ) -> Result<Option<Found>, NoAnswer> {
        let key = self.hasher.key(budget, person);
        let found = match at_least {
            None => self.look(&key).await.map(|look| look.found),
            Some(wanted) => self.found_at_least(&key, wanted).await,
        };
        // Withdrawn: the row only says that its record was taken in.
        let found = found.map(|found| found.filter(|found| !found.row.basis_points.is_empty()));
        match &found {
            Ok(Some(_)) => self.hits.inc(),
            Ok(None) | Err(NoAnswer::NotYetVisible | NoAnswer::TooManyWaiters) => self.misses.inc(),
            // The guard has counted how it came to that.
            Err(NoAnswer::Unknown) => {}
        }
        found
    }

    async fn found_at_least(
        &self,
        key: &PersonKey,
        wanted: AtLeast,
    ) -> Result<Option<Found>, NoAnswer> {
        let began = Instant::now();
        let end = began + wanted.wait.unwrap_or_default();
        let mut waiting = None;
        loop {
            let look = self.look(key).await?;
            let counted = match look.asks(wanted.receipt) {
                Asks::Nothing => true,
                Asks::For(offset) => look.found.as_ref().is_some_and(|it| it.row.offset >= offset),
                Asks::ForLater => false,
            };
            if counted {
                return Ok(look.found);
            }
            let now = Instant::now();
            if now >= end {
                return self.settled(key, look, wanted.receipt).await;
            }
            if waiting.is_none() {
                waiting = Some(self.waiters.enter().ok_or(NoAnswer::TooManyWaiters)?);
            }
            let pause = ((now - began) / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            sleep_until(end.min(now + pause)).await;
        }
    }

    /// Most rows come by themselves, so the partition's checkpoint is asked only before saying no. Whatever it includes is in
    /// the table already.
    async fn settled(
        &self,
        key: &PersonKey,
        look: Look,
        receipt: Receipt,
    ) -> Result<Option<Found>, NoAnswer> {
        let (Asks::For(offset), Some(home)) = (look.asks(receipt), look.home) else {
            return Err(NoAnswer::NotYetVisible);
        };
        match self.guarded(self.store.state_position(home.partition)).await? {
            Some(position) if position.includes(offset) => {
                let row = self.guarded(self.store.person(home.partition, key)).await?;
                Ok(row.map(|row| home.found(row)))
            }
            _ => Err(NoAnswer::NotYetVisible),
        }
    }

    /// Looks for a person in the generation that answers now; before the first there is nobody.
    async fn look(&self, key: &PersonKey) -> Result<Look, NoAnswer> {
        self.guarded(async {
            let Some(Current { term, partitions }) = self.generation.get().await? else {
                return Ok(Look { home: None, found: None });
            };
            let partition = partition_for(key, partitions);
            let partition = PartitionRef { generation: term.generation, partition };
            let home = Home { log: term.log, partition };
            let row = self.store.person(partition, key).await?;
            Ok(Look { home: Some(home), found: row.map(|row| home.found(row)) })
        })
        .await
    }

    /// Reads something, if the store is worth asking.
    async fn guarded<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, NoAnswer> {
        let admission = self.guard.admit();
        if admission == Admission::Refused {
            return Err(NoAnswer::Unknown);
        }
        let answer = self.guard.run(admission, async {
            match read.await {
                Err(StoreError::Unavailable(reason)) => Err(TierError(reason)),
                answered => Ok(answered),
            }
        });
        match answer.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(damage)) => {
                tracing::error!(error = %damage, "a person's row cannot be read");
                Err(NoAnswer::Unknown)
            }
            Err(_) => Err(NoAnswer::Unknown),
        }
    }
}

/// Where a person's row is, in the generation that answers.
#[derive(Debug, Clone, Copy)]
struct Home {
    log: LogNumber,
    partition: PartitionRef,
}

impl Home {
    fn found(self, row: PersonRow) -> Found {
        let (log, partition) = (self.log, self.partition.partition);
        Found { receipt: Receipt { log, partition, offset: row.offset }, row }
    }
}

/// What one look has found.
struct Look {
    home: Option<Home>,
    found: Option<Found>,
}

/// What a receipt asks for of the place where it was looked.
enum Asks {
    Nothing,
    /// The record at this offset, or what is after it.
    For(Offset),
    /// Something that cannot be there yet.
    ForLater,
}

impl Look {
    fn asks(&self, receipt: Receipt) -> Asks {
        let Some(home) = self.home else { return Asks::ForLater };
        match receipt.log.cmp(&home.log) {
            Ordering::Less => Asks::Nothing,
            Ordering::Equal if receipt.partition != home.partition.partition => Asks::Nothing,
            Ordering::Equal => Asks::For(receipt.offset),
            Ordering::Greater => Asks::ForLater,
        }
    }
}
