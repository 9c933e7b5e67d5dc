//! The last resort: everyone's rows, counted one by one. One scan for all budgets asked for.
//!
//! **What it reflects.** People's rows are written behind the commits, in batches, each person's by itself. A recount
//! counts every row that was in the table when its bucket was read, and each person once, by one of the allocations
//! that were committed for them. As a partition's position it gives the highest offset of the budget's rows plus one;
//! a row with a lower offset may still have been on its way, and a repeated or refused submission moves no row. So a
//! recount is near the committed totals and equal to them once the rows have caught up, but two recounts at the same
//! positions may differ, and none can promise that a certain submission is counted. Rows carry no time: `updated_at`
//! is null.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{TryStreamExt, stream};
use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, PartitionId, PersonRow, buckets,
};
use storage::store::{PartitionRef, Store, StoreError};

use super::{Found, TierError, damaged};
use crate::generation::{Current, CurrentGeneration};

/// Buckets that are read at the same time: enough to keep the store busy, few enough to leave it room for commits.
const SCANS: usize = 16;

/// Counts the rows of the current generation.
pub async fn read(
    store: &Arc<dyn Store>,
    generation: &CurrentGeneration,
    budgets: &[BudgetId],
) -> Result<Found, TierError> {
    let current = generation.get().await.map_err(unavailable)?;
    let Some(current) = current else {
        return Ok(vec![None; budgets.len()]);
    };
    let counted = Mutex::new(Counted::default());
    let scans = current.partitions.partitions().flat_map(|partition| {
        let partition = PartitionRef { generation: current.term.generation, partition };
        buckets().map(move |bucket| Ok((partition, bucket)))
    });
    stream::iter(scans)
        .try_for_each_concurrent(SCANS, async |(partition, bucket)| {
            let bucket = scan(store, partition, bucket, budgets).await.map_err(unavailable)?;
            counted.lock().unwrap_or_else(PoisonError::into_inner).add(bucket);
            Ok(())
        })
        .await?;
    let mut counted = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((0..).zip(budgets).map(|(place, budget)| counted.take(place, budget, &current)).collect())
}

async fn scan(
    store: &Arc<dyn Store>,
    partition: PartitionRef,
    bucket: u8,
    budgets: &[BudgetId],
) -> Result<Counted, StoreError> {
    let mut counted = Counted::default();
    let mut count = |row: PersonRow| {
        if let Some(place) = budgets.iter().position(|budget| *budget == row.budget) {
            counted.count(place, partition.partition, &row);
        }
    };
    store.read_people(partition, bucket, &mut count).await?;
    Ok(counted)
}

fn unavailable(error: StoreError) -> TierError {
    TierError(error.to_string())
}

/// Budgets are named by their place among those asked for.
#[derive(Debug, Default)]
struct Counted {
    totals: BTreeMap<(usize, PartitionId), BudgetTotals>,
    /// Budgets with rows that do not fit each other.
    damaged: BTreeSet<usize>,
}

impl Counted {
    fn count(&mut self, place: usize, partition: PartitionId, row: &PersonRow) {
        let totals = self.totals.entry((place, partition)).or_default();
        totals.position = totals.position.max(row.offset.next());
        // Withdrawn: the row only says that its record was taken in.
        if row.basis_points.is_empty() {
            return;
        }
        if !make_room(totals, row.basis_points.len()) {
            self.damaged.insert(place);
            return;
        }
        totals.people += 1;
        for (category, share) in totals.categories.iter_mut().zip(&row.basis_points) {
            category.basis_points += u64::from(*share);
            if let Some(people) = category.people_by_percent.get_mut(usize::from(share / 100)) {
                *people += 1;
            }
        }
    }

    fn add(&mut self, other: Counted) {
        self.damaged.extend(other.damaged);
        for ((place, partition), more) in other.totals {
            let totals = self.totals.entry((place, partition)).or_default();
            totals.position = totals.position.max(more.position);
            if more.categories.is_empty() {
                continue;
            }
            if !make_room(totals, more.categories.len()) {
                self.damaged.insert(place);
                continue;
            }
            totals.people += more.people;
            for (mine, theirs) in totals.categories.iter_mut().zip(&more.categories) {
                mine.basis_points += theirs.basis_points;
                let bins = mine.people_by_percent.iter_mut().zip(&*theirs.people_by_percent);
                bins.for_each(|(mine, theirs)| *mine += theirs);
            }
        }
    }

    fn take(
        &mut self,
        place: usize,
        budget: &BudgetId,
        current: &Current,
    ) -> Option<CombinedTotals> {
        if self.damaged.contains(&place) {
            damaged(budget, &"rows with different numbers of categories");
            return None;
        }
        let parts: Vec<_> = current
            .partitions
            .partitions()
            .map(|partition| Some(self.totals.remove(&(place, partition)).unwrap_or_default()))
            .collect();
        CombinedTotals::merge(current.term, current.partitions, &parts)
            .inspect_err(|fault| damaged(budget, fault))
            .ok()
    }
}

/// Gives totals their categories at the first row; whether later ones have as many.
fn make_room(totals: &mut BudgetTotals, categories: usize) -> bool {
    if totals.categories.is_empty() {
        totals.categories = vec![CategoryTotals::default(); categories];
    }
    totals.categories.len() == categories
}
