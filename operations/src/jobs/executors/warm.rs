//! Publishes all committed totals to the cache, of every partition.
//!
//! The cache only moves forward, so newer totals that the owners publish meanwhile stay.

use std::collections::BTreeMap;

use schemas::job::Verdict;
use schemas::{BudgetId, BudgetTotals, PartitionTotals};
use storage::cache::CacheError;
use storage::store::PartitionRef;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome};

impl From<CacheError> for JobFailure {
    fn from(error: CacheError) -> Self {
        Self::Transient(error.to_string())
    }
}

pub(super) async fn run(deps: &JobExecutorDeps, job: &JobLease) -> Result<JobOutcome, JobFailure> {
    let JobExecutorDeps { store, cache, .. } = deps;
    let catalog = deps.catalog()?;
    let registry = deps.registry().await?;
    let (term, count) = (registry.term(), registry.active.log.partitions);
    // An aggregate that lacks a partition is a cache miss, so budgets without submissions are published too.
    let known: BTreeMap<BudgetId, Vec<PartitionTotals>> =
        catalog.iter().map(|budget| (budget.id.clone(), Vec::new())).collect();
    let mut budgets = known.clone();
    for partition in count.partitions() {
        let id = PartitionRef { generation: term.generation, partition };
        let stored = store.read_partition(id).await?;
        let stored = stored.ok_or_else(|| {
            JobFailure::Transient(format!("partition {partition} has no commit yet"))
        })?;
        let mut totals: BTreeMap<BudgetId, BudgetTotals> = stored.totals.into_iter().collect();
        for budget in known.keys() {
            totals.entry(budget.clone()).or_default();
        }
        for (budget, totals) in totals {
            budgets
                .entry(budget)
                .or_default()
                .push(PartitionTotals::shown(term, partition, totals));
        }
        let (done, total) = (u64::from(partition.0) + 1, u64::from(count.get()));
        job.report_progress(done, total, format!("{done} of {total} partitions read"));
    }
    for (budget, partitions) in &budgets {
        cache.publish(budget, count, partitions).await?;
    }
    let names: Vec<BudgetId> = known.into_keys().collect();
    let cached = cache.read(&names).await?;
    let missing: Vec<&str> = names
        .iter()
        .zip(cached)
        .filter(|(_, cached)| cached.is_none())
        .map(|(budget, _)| budget.as_str())
        .collect();
    if !missing.is_empty() {
        // The cache was emptied in between, or another generation became active.
        return Err(JobFailure::Transient(format!("the cache lacks {}", missing.join(", "))));
    }
    let result = format!("{} budgets published, {} partitions each", budgets.len(), count.get());
    Ok(JobOutcome { verdict: Verdict::Clean, result: result.into() })
}
