//! The cap on a budget's people: refuses submissions of new people once it is reached.
//!
//! Below the cap, a submission costs a comparison with the number that [`follow`](follow::follow) has read last. At the
//! cap, the person's row is read. How people are counted is up to the fold, which knows no cap: whatever is accepted
//! here is counted. A number that is not known refuses nobody.

mod counted_people;
mod follow;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{BudgetId, PersonKey, partition_for};
use storage::control::BudgetDefinitions;
use storage::store::{PartitionRef, Store, StoreError};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use counted_people::CountedPeople;

/// Bounds the person rows that are read at the same time.
const MAX_CONCURRENT_READS: usize = 32;
/// Bounds the rows that one request reads at the same time, so that a batch leaves some to others.
const MAX_CONCURRENT_READS_PER_REQUEST: usize = 8;
/// Bounds the reads of one request, including the wait for its turn.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The last known number of people of each open budget with a cap.
type PeopleCounts = HashMap<BudgetId, u64>;

/// Whether a person has a row: everyone who was ever counted, also after a withdrawal or an annulment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PersonStanding {
    /// The person has a row.
    Known,
    /// The person has no row. One whose first submission was accepted moments ago may have none yet.
    New,
    /// The store did not answer in time.
    Unknown,
}

/// Knows which budgets have reached their caps, and who is counted in them.
pub(crate) struct PeopleCap {
    people: Arc<CountedPeople>,
    counts: Arc<ArcSwap<PeopleCounts>>,
    reads: Semaphore,
    _stop_following: DropGuard,
}

impl PeopleCap {
    /// Starts reading numbers of people, until it is dropped. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When a metric name is already registered.
    pub fn start(
        people: Arc<CountedPeople>,
        definitions: Arc<dyn BudgetDefinitions>,
        metrics: &Metrics,
    ) -> Result<Self, MetricsError> {
        let unknown = metrics.gauge(
            "ingest_people_caps_unknown",
            "Open budgets with a cap on people that is not enforced, because their number of people is not known.",
        )?;
        let counts = Arc::new(ArcSwap::default());
        let stop = CancellationToken::new();
        let follow = follow::follow(Arc::clone(&people), definitions, Arc::clone(&counts), unknown);
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
        let reads = Semaphore::new(MAX_CONCURRENT_READS);
        Ok(Self { people, counts, reads, _stop_following: stop.drop_guard() })
    }

    /// Whether so many people are counted that no new ones are accepted.
    pub fn is_reached(&self, budget: &BudgetId, max_people: u64) -> bool {
        self.counts.load().get(budget).is_some_and(|people| *people >= max_people)
    }

    /// Looks up which persons are counted already, in order.
    pub async fn standings(&self, persons: &[PersonKey]) -> Vec<PersonStanding> {
        let read = async {
            let Some(store) = self.people.store() else { return Err(not_opened()) };
            let Some(registry) = store.registry().await? else { return Err(not_opened()) };
            let active = registry.active;
            let mut reads = Vec::with_capacity(persons.len());
            for person in persons {
                let partition = partition_for(person, active.log.partitions);
                let partition = PartitionRef { generation: active.generation, partition };
                reads.push(self.standing(store.as_ref(), partition, person));
            }
            let reads = stream::iter(reads).buffered(MAX_CONCURRENT_READS_PER_REQUEST);
            Ok(reads.collect().await)
        };
        let error = match timeout(READ_TIMEOUT, read).await {
            Ok(Ok(standings)) => return standings,
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::debug!(%error, "failed to read person rows of a budget at its cap");
        vec![PersonStanding::Unknown; persons.len()]
    }

    async fn standing(
        &self,
        store: &dyn Store,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> PersonStanding {
        // The semaphore is never closed.
        let Ok(_permit) = self.reads.acquire().await else { return PersonStanding::Unknown };
        match store.person(partition, person).await {
            Ok(Some(_)) => PersonStanding::Known,
            Ok(None) => PersonStanding::New,
            Err(error) => {
                tracing::debug!(%error, "failed to read a person row of a budget at its cap");
                PersonStanding::Unknown
            }
        }
    }
}

fn not_opened() -> StoreError {
    StoreError::Unavailable("it has not been opened yet".into())
}
