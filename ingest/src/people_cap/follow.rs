//! Keeps the numbers of people of capped budgets up to date, in the background. Opens the backends once they are needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::IntGauge;
use schemas::{BudgetId, Openness};
use storage::cache::CacheError;
use storage::control::BudgetDefinitions;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{CountedPeople, PeopleCounts};

/// How often the numbers are read. By what is accepted in between, a cap may be exceeded.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds a read of the numbers.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed attempt to open the store.
const OPEN_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Reads the numbers of people of all open budgets with a cap into `counts`, about once a second. Never ends.
pub(super) async fn follow(
    people: Arc<CountedPeople>,
    definitions: Arc<dyn BudgetDefinitions>,
    counts: Arc<ArcSwap<PeopleCounts>>,
    unknown: IntGauge,
) {
    let read = read_counts(&people, definitions.as_ref(), &counts, &unknown);
    tokio::join!(read, open_store(&people, definitions.as_ref()));
}

async fn read_counts(
    people: &CountedPeople,
    definitions: &dyn BudgetDefinitions,
    counts: &ArcSwap<PeopleCounts>,
    unknown: &IntGauge,
) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_unknown = false;
    loop {
        ticks.tick().await;
        let capped = capped_budgets(definitions);
        let read = if capped.is_empty() { Ok(HashMap::new()) } else { read(people, &capped).await };
        let (known, error) = match read {
            Ok(known) => (known, None),
            Err(error) => (HashMap::new(), Some(error)),
        };
        let budgets = capped.len() - known.len();
        unknown.set(i64::try_from(budgets).unwrap_or(i64::MAX));
        counts.store(Arc::new(known));
        // Once for each time that a number is missing.
        let is_unknown = budgets > 0;
        if is_unknown && !was_unknown {
            let error = error.map(|error| error.to_string());
            tracing::warn!(budgets, error, "number of people is not known, accepting new people");
        } else if was_unknown && !is_unknown {
            tracing::info!("the numbers of people of all capped budgets are known again");
        }
        was_unknown = is_unknown;
    }
}

/// Lists the open budgets with a cap.
fn capped_budgets(definitions: &dyn BudgetDefinitions) -> Vec<BudgetId> {
    let now = Timestamp::now();
    let catalog = definitions.catalog();
    let capped = catalog
        .iter()
        .filter(|budget| budget.max_people.is_some() && budget.openness(now) == Openness::Open);
    capped.map(|budget| budget.id.clone()).collect()
}

async fn read(people: &CountedPeople, budgets: &[BudgetId]) -> Result<PeopleCounts, CacheError> {
    let Some(cache) = people.open_cache().await else {
        return Err(CacheError("no other process can reach it".into()));
    };
    let totals = match timeout(READ_TIMEOUT, cache.read(budgets)).await {
        Ok(totals) => totals?,
        Err(elapsed) => return Err(CacheError(elapsed.to_string())),
    };
    let known = budgets.iter().zip(totals);
    Ok(known.filter_map(|(budget, totals)| Some((budget.clone(), totals?.people))).collect())
}

/// Opens the store once a budget has a cap. Whatever fails may be mended later, and stops nothing else.
async fn open_store(people: &CountedPeople, definitions: &dyn BudgetDefinitions) {
    while capped_budgets(definitions).is_empty() {
        sleep(POLL_INTERVAL).await;
    }
    while let Err(error) = people.open_store().await {
        let retry_in_ms = OPEN_RETRY_DELAY.as_millis() as u64;
        tracing::warn!(%error, retry_in_ms, "failed to open the store for caps on people, retrying");
        sleep(OPEN_RETRY_DELAY).await;
    }
}
