//! Notices that the cache has totals of a later term than the registry's.
//!
//! After the loss of the store, or of a switch by a restored backup, the registry's term is an earlier one. The cache and
//! the readers keep what they have of the later term, so that readers see no change any more.

use std::sync::Arc;
use std::time::Duration;

use schemas::{BudgetId, Term};
use storage::cache::Cache;
use storage::store::Store;
use tokio_util::sync::CancellationToken;

use crate::metrics::GenerationMetrics;

/// Bounds the size of a response.
const BUDGETS_A_READ: usize = 16;
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Polls in a row that find a later term, before it is reported: a switch may lie between the two reads, or the store may
/// return an earlier revision for a moment.
const REPORTED_AFTER_POLLS: u32 = 2;

/// Compares the term of cached totals of `budgets` with the registry's until `stop` is cancelled.
///
/// While the store cannot be read, nothing is known: another process may have switched the generation.
pub async fn watch_cache_term(
    cache: Arc<dyn Cache>,
    budgets: impl Fn() -> Vec<BudgetId> + Send,
    store: Arc<dyn Store>,
    metrics: GenerationMetrics,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut polls_on_later_term = 0_u32;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let cached = cached_term(cache.as_ref(), &budgets()).await;
        let Ok(Some(registry)) = store.registry().await else { continue };
        let term = registry.term();
        let later = cached.filter(|cached| cached.number > term.number);
        polls_on_later_term = later.map_or(0, |_| polls_on_later_term.saturating_add(1));
        metrics.set_cache_on_later_term(polls_on_later_term >= REPORTED_AFTER_POLLS);
        if let (Some(later), REPORTED_AFTER_POLLS) = (later, polls_on_later_term) {
            report(later, term);
        }
    }
}

/// Returns the latest term of the first budgets that have cached totals. While the cache is away, nothing is known.
async fn cached_term(cache: &dyn Cache, budgets: &[BudgetId]) -> Option<Term> {
    for some in budgets.chunks(BUDGETS_A_READ) {
        let read = cache.read(some).await.ok()?;
        let terms = read.into_iter().flatten().map(|totals| totals.term);
        if let Some(latest) = terms.max_by_key(|term| term.number) {
            return Some(latest);
        }
    }
    None
}

fn report(cached: Term, registry: Term) {
    tracing::error!(
        cached_term = cached.number,
        cached_generation = %cached.generation,
        term = registry.number,
        generation = %registry.generation,
        "the cache has totals of a later term than the generation registry's, and readers see no change: the store was \
         lost, or restored from a backup",
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use runtime::metrics::Metrics;
    use schemas::{
        BudgetTotals, Generation, GenerationRegistry, LogRef, PartitionCount, PartitionId,
        PartitionTotals,
    };
    use storage::cache::memory::MemoryCache;
    use storage::store::Generations;
    use storage::store::memory::MemoryStore;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn totals_of_a_later_term_are_reported_unless_the_registry_follows() {
        let (one, budget) = (PartitionCount::new(1).unwrap(), BudgetId::parse("taxes").unwrap());
        let first = GenerationRegistry::first(LogRef::first("submissions", one));
        let store = Arc::new(MemoryStore::default());
        let (cache, metrics) = (Arc::new(MemoryCache::new()), Metrics::new("test"));
        let stop = CancellationToken::new();
        let known = budget.clone();
        tokio::spawn(watch_cache_term(
            Arc::clone(&cache) as _,
            move || vec![BudgetId::parse("empty").unwrap(), known.clone()],
            Arc::clone(&store) as _,
            GenerationMetrics::new(&metrics).unwrap(),
            stop.clone(),
        ));
        let is_reported = async |seconds| {
            sleep(Duration::from_secs(seconds)).await;
            let text = String::from_utf8(metrics.render()).unwrap();
            text.contains("allocator_processor_cache_on_later_term 1\n")
        };
        let publish = async |number| {
            let term = Term { number, generation: Generation(number), ..first.term() };
            let totals = BudgetTotals::default();
            let part = PartitionTotals { partition: PartitionId(0), term, totals };
            cache.publish(&budget, one, &[part]).await.unwrap();
        };
        let write = async |term| {
            let registry = GenerationRegistry { term, revision: term.into(), ..first.clone() };
            store.change_registry(&registry).await.unwrap();
        };
        assert!(!is_reported(100).await, "nothing is cached");
        publish(1).await;
        assert!(!is_reported(100).await);
        publish(2).await;
        assert!(!is_reported(100).await, "the store has no registry");
        write(1).await;
        assert!(!is_reported(29).await, "the registry may follow");
        assert!(is_reported(60).await);
        write(2).await;
        assert!(!is_reported(31).await);
        stop.cancel();
    }
}
