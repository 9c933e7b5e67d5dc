//! The Redis keys, and the script that updates them. The braces in a key are the cluster's hash tag: all keys of a budget
//! are on one node, so that one script can update them atomically.

use serde::Deserialize;

use crate::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, DISTRIBUTION_BINS, Generation,
    LogNumber, PartitionCount, PartitionTotals, Position, SubmissionId, Term,
};

/// The script that publishes totals; documented in its header.
pub const PUBLISH_SCRIPT: &str = include_str!("../lua/publish.lua");

/// The channel on which a budget's id is published whenever its aggregate has changed.
pub const UPDATES_CHANNEL: &str = "aggregate_updates";

/// Key of the hash of each partition's last published totals.
pub fn partitions_key(budget: &BudgetId) -> String {
    format!("aggregate_partitions:{{{budget}}}")
}

/// Key of the sum over all partitions, as JSON.
pub fn aggregate_key(budget: &BudgetId) -> String {
    format!("aggregate_allocations_v2:{{{budget}}}")
}

/// Key of the number of people in the aggregate.
pub fn people_key(budget: &BudgetId) -> String {
    format!("aggregate_total_submissions:{{{budget}}}")
}

/// Key of a submission id's receipt, which ingest returns for duplicates.
pub fn idempotency_key(budget: &BudgetId, submission: SubmissionId) -> String {
    format!("idempotency:{{{budget}}}:{submission}")
}

/// Builds the script's arguments for one budget's committed totals in some partitions.
pub fn publish_arguments(
    budget: &BudgetId,
    term: Term,
    count: PartitionCount,
    partitions: &[PartitionTotals],
) -> Vec<String> {
    let mut arguments = vec![
        UPDATES_CHANNEL.to_owned(),
        budget.to_string(),
        term.number.to_string(),
        term.generation.to_string(),
        term.log.to_string(),
        count.get().to_string(),
    ];
    for part in partitions {
        arguments.extend([
            part.partition.to_string(),
            part.totals.position.to_string(),
            part.totals.people.to_string(),
            part.totals.updated_at_ms.to_string(),
            numbers(&part.totals),
        ]);
    }
    arguments
}

fn numbers(totals: &BudgetTotals) -> String {
    let mut text = String::with_capacity(totals.categories.len() * (DISTRIBUTION_BINS + 1) * 3);
    for category in &totals.categories {
        for number in std::iter::once(&category.basis_points).chain(&*category.people_by_percent) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&number.to_string());
        }
    }
    text
}

/// Parses the aggregate's JSON; `None` if it is damaged, which readers treat as a cache miss.
pub fn parse_aggregate(json: &[u8]) -> Option<CombinedTotals> {
    #[derive(Deserialize)]
    struct Aggregate {
        term: u32,
        generation: Generation,
        log: LogNumber,
        people: u64,
        updated_at_ms: u64,
        positions: Vec<Position>,
        categories: Vec<Category>,
    }
    #[derive(Deserialize)]
    struct Category {
        basis_points: u64,
        people_by_percent: Vec<u64>,
    }

    let aggregate: Aggregate = serde_json::from_slice(json).ok()?;
    let categories = aggregate
        .categories
        .into_iter()
        .map(|category| {
            let people_by_percent = category.people_by_percent.try_into().ok()?;
            Some(CategoryTotals { basis_points: category.basis_points, people_by_percent })
        })
        .collect::<Option<_>>()?;
    Some(CombinedTotals {
        term: Term { number: aggregate.term, generation: aggregate.generation, log: aggregate.log },
        positions: aggregate.positions,
        people: aggregate.people,
        updated_at_ms: aggregate.updated_at_ms,
        categories,
    })
}
