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
    let JobExecutorDeps { store, cache, definitions, .. } = deps;
    if !definitions.is_loaded() {
        return Err(JobFailure::Transient("the budget definitions are not loaded yet".to_owned()));
    }
    let registry = store.registry().await?;
    let registry =
        registry.ok_or_else(|| JobFailure::Transient("no processor has started yet".to_owned()))?;
    let (term, count) = (registry.term(), registry.active.log.partitions);
    // An aggregate that lacks a partition is a cache miss, so budgets without submissions are published too.
    let catalog = definitions.catalog();
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
            budgets.entry(budget).or_default().push(PartitionTotals { term, partition, totals });
        }
        let (done, of) = (u64::from(partition.0) + 1, u64::from(count.get()));
        job.report_progress(done, of, format!("{done} of {of} partitions read"));
    }
    for (budget, partitions) in &budgets {
        cache.publish(budget, count, partitions).await?;
    }
    let names: Vec<BudgetId> = known.into_keys().collect();
    let shown = cache.read(&names).await?;
    let lacking: Vec<&str> = names
        .iter()
        .zip(shown)
        .filter(|(_, shown)| shown.is_none())
        .map(|(budget, _)| budget.as_str())
        .collect();
    if !lacking.is_empty() {
        // The cache was emptied in between, or another generation became active.
        return Err(JobFailure::Transient(format!("the cache lacks {}", lacking.join(", "))));
    }
    let result = format!("{} budgets published, {} partitions each", budgets.len(), count.get());
    Ok(JobOutcome { verdict: Verdict::Clean, result: result.into() })
}
