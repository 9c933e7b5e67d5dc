//! Tells the readers' copy everything that is committed, of all partitions, whoever owns them. It only moves forward: what
//! the owners tell meanwhile stays.

use std::collections::BTreeMap;

use schemas::job::Verdict;
use schemas::{BudgetId, BudgetTotals, PartitionTotals};
use storage::cache::CacheError;
use storage::store::PartitionRef;

use super::{Done, Failure, Held, KindsParts};

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Again(error.to_string())
    }
}

pub(super) async fn run(parts: &KindsParts, job: &Held) -> Result<Done, Failure> {
    let KindsParts { store, cache, definitions, .. } = parts;
    if !definitions.is_loaded() {
        return Err(Failure::Again("the budgets are not known yet".to_owned()));
    }
    let roster = store.roster().await?;
    let roster = roster.ok_or_else(|| Failure::Again("no processor ever started".to_owned()))?;
    let (term, count) = (roster.term(), roster.current.log.partitions);
    // An aggregate that lacks a partition is no answer: budgets that nobody has said anything about are told, too.
    let catalog = definitions.catalog();
    let known: BTreeMap<BudgetId, Vec<PartitionTotals>> =
        catalog.iter().map(|budget| (budget.id.clone(), Vec::new())).collect();
    let mut budgets = known.clone();
    for partition in count.partitions() {
        let id = PartitionRef { generation: term.generation, partition };
        let stored = store.read_partition(id).await?;
        let stored = stored.ok_or_else(|| {
            Failure::Again(format!("nothing is committed of partition {partition} yet"))
        })?;
        let mut totals: BTreeMap<BudgetId, BudgetTotals> = stored.totals.into_iter().collect();
        for budget in known.keys() {
            totals.entry(budget.clone()).or_default();
        }
        for (budget, totals) in totals {
            budgets.entry(budget).or_default().push(PartitionTotals { term, partition, totals });
        }
        let (done, of) = (u64::from(partition.0) + 1, u64::from(count.get()));
        job.tell(done, of, format!("{done} of {of} partitions read"));
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
        // Emptied in between, or the generation that answers has changed.
        return Err(Failure::Again(format!("the cache lacks {}", lacking.join(", "))));
    }
    let result = format!("{} budgets told, {} partitions each", budgets.len(), count.get());
    Ok(Done { verdict: Verdict::Clean, result: result.into() })
}
