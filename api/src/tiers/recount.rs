//! The last tier: counts all person rows. One scan for all requested budgets.
//!
//! **What a recount reflects.** Person rows are written after the commits, in batches, each person's separately. A
//! recount counts every row that was in the table when its bucket was read, and each person once, with one of their
//! committed allocations. The position of a partition is the highest offset of the budget's rows plus one; a row with
//! a lower offset may not have been written yet, and a repeated or dead-lettered submission moves no row. So a recount
//! is close to the committed totals, and equal once the rows have caught up. But two recounts at the same positions
//! may differ, and no recount guarantees that a certain submission is counted. Rows have no timestamp: `updated_at` is
//! null.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{TryStreamExt, stream};
use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, PartitionId, PersonRow, buckets,
};
use storage::store::{PartitionRef, Store, StoreError};

use super::{TierAnswers, TierError, log_damaged};
use crate::active_generation::{ActiveGenerationCache, ServedGeneration};

/// Maximum concurrent bucket reads. Enough to keep the store busy, few enough to leave capacity for commits.
const MAX_CONCURRENT_SCANS: usize = 16;

/// Counts the person rows of the active generation.
pub async fn read(
    store: &Arc<dyn Store>,
    generation: &ActiveGenerationCache,
    budgets: &[BudgetId],
) -> Result<TierAnswers, TierError> {
    let active = generation.get().await.map_err(unavailable)?;
    let Some(active) = active else {
        return Ok(vec![None; budgets.len()]);
    };
    let counted = Mutex::new(RecountTotals::default());
    let scans = active.partitions.partitions().flat_map(|partition| {
        let partition = PartitionRef { generation: active.term.generation, partition };
        buckets().map(move |bucket| Ok((partition, bucket)))
    });
    stream::iter(scans)
        .try_for_each_concurrent(MAX_CONCURRENT_SCANS, async |(partition, bucket)| {
            let bucket = scan(store, partition, bucket, budgets).await.map_err(unavailable)?;
            counted.lock().unwrap_or_else(PoisonError::into_inner).add(bucket);
            Ok(())
        })
        .await?;
    let mut counted = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((0..)
        .zip(budgets)
        .map(|(index, budget)| counted.take_combined(index, budget, &active))
        .collect())
}

async fn scan(
    store: &Arc<dyn Store>,
    partition: PartitionRef,
    bucket: u8,
    budgets: &[BudgetId],
) -> Result<RecountTotals, StoreError> {
    let mut counted = RecountTotals::default();
    let mut count = |row: PersonRow| {
        if let Some(index) = budgets.iter().position(|budget| *budget == row.budget) {
            counted.count(index, partition.partition, &row);
        }
    };
    store.read_people(partition, bucket, &mut count).await?;
    Ok(counted)
}

fn unavailable(error: StoreError) -> TierError {
    TierError(error.to_string())
}

/// Totals counted from person rows. Budgets are identified by their index in the request.
#[derive(Debug, Default)]
struct RecountTotals {
    totals: BTreeMap<(usize, PartitionId), BudgetTotals>,
    /// Budgets whose rows have different numbers of categories.
    damaged: BTreeSet<usize>,
}

impl RecountTotals {
    fn count(&mut self, index: usize, partition: PartitionId, row: &PersonRow) {
        let totals = self.totals.entry((index, partition)).or_default();
        totals.position = totals.position.max(row.offset.next());
        // Without shares the row only records a withdrawal.
        if row.basis_points.is_empty() {
            return;
        }
        if !init_categories(totals, row.basis_points.len()) {
            self.damaged.insert(index);
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

    fn add(&mut self, other: RecountTotals) {
        self.damaged.extend(other.damaged);
        for ((index, partition), more) in other.totals {
            let totals = self.totals.entry((index, partition)).or_default();
            totals.position = totals.position.max(more.position);
            if more.categories.is_empty() {
                continue;
            }
            if !init_categories(totals, more.categories.len()) {
                self.damaged.insert(index);
                continue;
            }
            totals.people += more.people;
            for (mine, theirs) in totals.categories.iter_mut().zip(&more.categories) {
                mine.add(theirs);
            }
        }
    }

    fn take_combined(
        &mut self,
        index: usize,
        budget: &BudgetId,
        active: &ServedGeneration,
    ) -> Option<CombinedTotals> {
        if self.damaged.contains(&index) {
            log_damaged(budget, &"rows with different numbers of categories");
            return None;
        }
        let parts: Vec<_> = active
            .partitions
            .partitions()
            .map(|partition| Some(self.totals.remove(&(index, partition)).unwrap_or_default()))
            .collect();
        CombinedTotals::merge(active.term, active.partitions, &parts)
            .inspect_err(|fault| log_damaged(budget, fault))
            .ok()
    }
}

/// Initializes the categories at the first row; returns whether later rows have as many.
fn init_categories(totals: &mut BudgetTotals, categories: usize) -> bool {
    if totals.categories.is_empty() {
        totals.categories = vec![CategoryTotals::default(); categories];
    }
    totals.categories.len() == categories
}
