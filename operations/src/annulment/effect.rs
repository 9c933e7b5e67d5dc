//! What an annulment or a restoration changes, computed from the committed totals and the person rows.
//!
//! Rows are written shortly after the totals, and people may submit meanwhile: on a budget that takes submissions, the
//! numbers are those of a moment ago. The records do not depend on them.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use schemas::{
    AnnulmentAction, AnnulmentEffect, BudgetId, CombinedTotals, GenerationRegistry, PersonKey,
    PersonRow, ResultsSummary, partition_for,
};
use storage::retry::retry;
use storage::store::{PartitionRef, Store, StoreError};

use crate::BackendError;
use crate::progress::Progress;

/// Person rows read at the same time.
const ROW_CONCURRENCY: usize = 16;

/// Dependencies of [`effect`].
pub struct EffectDeps {
    /// Totals and person rows.
    pub store: Arc<dyn Store>,
}

/// Computes what an action on people of a budget would change. The progress counts people.
///
/// # Errors
/// When the store stays unavailable after retries, or holds damaged data.
pub async fn effect(
    deps: &EffectDeps,
    budget: &BudgetId,
    people: &[PersonKey],
    action: AnnulmentAction,
    progress: &Progress,
) -> Result<AnnulmentEffect, BackendError> {
    progress.set_total(people.len() as u64);
    progress.set_done(0);
    let registry = retry(|| deps.store.registry()).await?;
    let registry = registry
        .ok_or_else(|| BackendError::Unavailable("no processor has started yet".to_owned()))?;
    let before = committed_totals(deps, &registry, budget).await?;
    let mut counted = CountedRows::new(budget, action);
    let mut reading = stream::iter(people.iter().copied())
        .map(|person| read_row(deps, &registry, person))
        .buffer_unordered(ROW_CONCURRENCY);
    while let Some(row) = reading.next().await {
        counted.add(row?.as_ref());
        progress.add_done(1);
    }
    Ok(counted.effect_on(&before))
}

async fn committed_totals(
    deps: &EffectDeps,
    registry: &GenerationRegistry,
    budget: &BudgetId,
) -> Result<CombinedTotals, BackendError> {
    let (generation, partitions) = (registry.active.generation, registry.active.log.partitions);
    let budgets = std::slice::from_ref(budget);
    let summaries = retry(|| deps.store.summaries(generation, partitions, budgets)).await?;
    let summary = summaries.into_iter().next().unwrap_or_else(|| Ok(Vec::new()));
    let summary = summary.map_err(|damaged| BackendError::Invalid(damaged.to_string()))?;
    let totals = CombinedTotals::merge(registry.term(), partitions, &summary);
    totals.map_err(|fault| BackendError::Unavailable(fault.to_string()))
}

async fn read_row(
    deps: &EffectDeps,
    registry: &GenerationRegistry,
    person: PersonKey,
) -> Result<Option<PersonRow>, StoreError> {
    let partition = partition_for(&person, registry.active.log.partitions);
    let id = PartitionRef { generation: registry.active.generation, partition };
    retry(|| deps.store.person(id, &person)).await
}

/// The selected people by what an action does to them.
struct CountedRows<'b> {
    budget: &'b BudgetId,
    action: AnnulmentAction,
    effect: AnnulmentEffect,
    /// Sum of the shares of those who change, by category, in basis points.
    basis_points: Vec<u64>,
}

impl<'b> CountedRows<'b> {
    fn new(budget: &'b BudgetId, action: AnnulmentAction) -> Self {
        let effect = AnnulmentEffect {
            selected: 0,
            unknown: 0,
            unchanged: 0,
            without_ballot: 0,
            changed: 0,
            before: ResultsSummary::default(),
            after: ResultsSummary::default(),
        };
        Self { budget, action, effect, basis_points: Vec::new() }
    }

    /// Counts a selected person by the person's row.
    fn add(&mut self, row: Option<&PersonRow>) {
        let effect = &mut self.effect;
        effect.selected += 1;
        // The key may be that of a person in another budget.
        let Some(row) = row.filter(|row| row.budget == *self.budget) else {
            effect.unknown += 1;
            return;
        };
        if row.annulled == (self.action == AnnulmentAction::Annul) {
            effect.unchanged += 1;
        } else if row.basis_points.is_empty() {
            effect.without_ballot += 1;
        } else {
            effect.changed += 1;
            let categories = self.basis_points.len().max(row.basis_points.len());
            self.basis_points.resize(categories, 0);
            for (sum, share) in self.basis_points.iter_mut().zip(&row.basis_points) {
                *sum += u64::from(*share);
            }
        }
    }

    fn effect_on(self, before: &CombinedTotals) -> AnnulmentEffect {
        let sums = ResultsSummary::sums(&before.categories);
        // Rows may be of another moment than the totals.
        let apply = |number: u64, change: u64| match self.action {
            AnnulmentAction::Annul => number.saturating_sub(change),
            AnnulmentAction::Restore => number.saturating_add(change),
        };
        let change = |category: usize| self.basis_points.get(category).copied().unwrap_or_default();
        let categories = sums.len().max(self.basis_points.len());
        let sum = |category: usize| sums.get(category).copied().unwrap_or_default();
        let after: Vec<u64> =
            (0..categories).map(|category| apply(sum(category), change(category))).collect();
        AnnulmentEffect {
            before: ResultsSummary::of(before.people, &sums),
            after: ResultsSummary::of(apply(before.people, self.effect.changed), &after),
            ..self.effect
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{BudgetTotals, CategoryTotals, Offset, PartitionCount, Term};

    use super::*;

    fn budget(id: &str) -> BudgetId {
        BudgetId::parse(id).unwrap()
    }

    fn row(id: &str, shares: &[u16], annulled: bool) -> PersonRow {
        PersonRow {
            person: PersonKey::from_bytes([7; 16]),
            budget: budget(id),
            offset: Offset(1),
            basis_points: shares.to_vec(),
            recent: [None; 3],
            annulled,
        }
    }

    /// Totals of people with these shares.
    fn totals(people: &[[u16; 2]]) -> CombinedTotals {
        let mut totals = BudgetTotals { people: people.len() as u64, ..BudgetTotals::default() };
        totals.categories = vec![CategoryTotals::default(); 2];
        for shares in people {
            for (category, share) in totals.categories.iter_mut().zip(shares) {
                category.add_share(*share);
            }
        }
        let one = PartitionCount::new(1).unwrap();
        CombinedTotals::merge(Term::FIRST, one, &[Some(totals)]).unwrap()
    }

    #[test]
    fn selected_people_are_counted_once_each_and_only_those_who_change_move_the_results() {
        let parks = budget("parks");
        let rows = [
            Some(row("parks", &[10_000, 0], false)),
            Some(row("parks", &[4_000, 6_000], false)),
            Some(row("parks", &[10_000, 0], true)),
            Some(row("parks", &[], false)),
            Some(row("roads", &[10_000, 0], false)),
            None,
        ];
        let before = totals(&[[10_000, 0], [4_000, 6_000], [0, 10_000]]);
        let mut counted = CountedRows::new(&parks, AnnulmentAction::Annul);
        rows.iter().for_each(|row| counted.add(row.as_ref()));
        let annulled = counted.effect_on(&before);
        assert_eq!(
            annulled,
            AnnulmentEffect {
                selected: 6,
                unknown: 2,
                unchanged: 1,
                without_ballot: 1,
                changed: 2,
                before: ResultsSummary { people: 3, averages: vec![4_667, 5_333] },
                after: ResultsSummary { people: 1, averages: vec![0, 10_000] },
            }
        );
    }

    #[test]
    fn a_restoration_adds_those_who_are_annulled_and_have_an_allocation() {
        let parks = budget("parks");
        let mut counted = CountedRows::new(&parks, AnnulmentAction::Restore);
        for row in [
            row("parks", &[10_000, 0], true),
            row("parks", &[], true),
            row("parks", &[5_000, 5_000], false),
        ] {
            counted.add(Some(&row));
        }
        let restored = counted.effect_on(&totals(&[]));
        assert_eq!((restored.changed, restored.without_ballot, restored.unchanged), (1, 1, 1));
        assert_eq!(restored.before, ResultsSummary::default());
        assert_eq!(restored.after, ResultsSummary { people: 1, averages: vec![10_000, 0] });
    }

    #[test]
    fn rows_ahead_of_the_totals_do_not_overflow() {
        let parks = budget("parks");
        let mut counted = CountedRows::new(&parks, AnnulmentAction::Annul);
        counted.add(Some(&row("parks", &[10_000, 0], false)));
        assert_eq!(counted.effect_on(&totals(&[])).after, ResultsSummary::default());
    }
}
