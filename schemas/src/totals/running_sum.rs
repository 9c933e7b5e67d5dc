//! The running sum of the totals of all partitions. It always equals a sum that is computed from scratch.

use proptest::prelude::*;

use super::*;
use crate::Offset;

const PARTITIONS: u32 = 4;
const CATEGORIES: usize = 3;

/// What a partition becomes: records folded since, and the percents of everyone in the first category.
#[derive(Debug, Clone)]
struct Step {
    partition: u32,
    records: u64,
    first_percents: Vec<usize>,
    closed: bool,
    annulled: u64,
}

fn any_step() -> impl Strategy<Value = Step> {
    let percents = prop::collection::vec(0..=100_usize, 0..6);
    (0..PARTITIONS, 0..3_u64, percents, any::<bool>(), 0..5_u64).prop_map(
        |(partition, records, first_percents, closed, annulled)| Step {
            partition,
            records,
            first_percents,
            closed,
            annulled,
        },
    )
}

/// Totals of one partition. The first category gets each person's percents, the second the rest.
fn totals(position: u64, first_percents: &[usize]) -> BudgetTotals {
    let mut categories = vec![CategoryTotals::default(); CATEGORIES];
    for first in first_percents {
        for (category, percent) in categories.iter_mut().zip([*first, 100 - first, 0]) {
            category.basis_points += 100 * percent as u64;
            category.people_by_percent[percent] += 1;
        }
    }
    let people = first_percents.len() as u64;
    let totals = BudgetTotals {
        position: Position(position),
        people,
        updated_at_ms: position / 2,
        categories,
        ..BudgetTotals::default()
    };
    assert!(totals.is_consistent());
    totals
}

fn merged(parts: &[BudgetTotals]) -> CombinedTotals {
    let parts: Vec<_> = parts.iter().cloned().map(Some).collect();
    let count = PartitionCount::new(u64::from(PARTITIONS)).unwrap();
    CombinedTotals::merge(Term::FIRST, count, &parts).unwrap()
}

proptest! {
    #[test]
    fn the_running_sum_equals_the_merge_after_any_order_of_moves(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut parts = vec![BudgetTotals::default(); PARTITIONS as usize];
        let mut sum = merged(&parts);
        for Step { partition, records, first_percents, closed, annulled } in steps {
            let former = &mut parts[partition as usize];
            let mut newer = totals(former.position.0 + records, &first_percents);
            newer.annulled = annulled;
            newer.closing = Closing::new(1, if closed { vec![Offset(0)] } else { Vec::new() }).unwrap();
            sum = sum.replace(PartitionId(partition), former, &newer).unwrap();
            *former = newer;
            prop_assert_eq!(&sum, &merged(&parts));
            prop_assert_eq!(sum.is_final(), parts.iter().all(|part| part.closing.is_closed()));
        }
    }

    #[test]
    fn totals_that_the_sum_does_not_contain_are_never_subtracted(
        contained in 1..10_u64, claimed in 0..10_u64, newer in 0..12_u64,
    ) {
        let mut parts = vec![BudgetTotals::default(); PARTITIONS as usize];
        parts[1] = totals(contained, &[40, 50]);
        let (claimed, newer) = (totals(claimed, &[40]), totals(newer, &[40, 50, 60]));
        let replaced = merged(&parts).replace(PartitionId(1), &claimed, &newer);
        let may_replace = claimed.position == parts[1].position && newer.position >= claimed.position;
        prop_assert_eq!(replaced.is_some(), may_replace);
    }
}

#[test]
fn a_sum_of_other_categories_or_fewer_people_is_not_replaced() {
    let mut parts = vec![BudgetTotals::default(); PARTITIONS as usize];
    parts[0] = totals(5, &[10, 20]);
    let replace = |partition, former: &BudgetTotals, newer: &BudgetTotals| {
        merged(&parts).replace(PartitionId(partition), former, newer)
    };
    let mut fewer_categories = totals(6, &[10]);
    fewer_categories.categories.truncate(2);
    assert_eq!(replace(0, &parts[0], &fewer_categories), None);
    assert_eq!(replace(0, &totals(5, &[10, 20, 30]), &totals(6, &[])), None);
    assert_eq!(replace(0, &totals(5, &[10, 21]), &totals(6, &[])), None);
    assert_eq!(
        replace(0, &parts[0], &BudgetTotals { position: Position(6), ..Default::default() }),
        None
    );
    assert_eq!(replace(PARTITIONS, &BudgetTotals::default(), &totals(6, &[10])), None);
}

#[test]
fn ten_billion_people_move_exactly() {
    let billions = |position, people: u64| {
        let mut category = CategoryTotals { basis_points: people * 10_000, ..Default::default() };
        category.people_by_percent[100] = people;
        let categories = vec![category];
        BudgetTotals {
            position: Position(position),
            people,
            updated_at_ms: 1,
            categories,
            ..BudgetTotals::default()
        }
    };
    let mut parts = vec![BudgetTotals::default(); PARTITIONS as usize];
    parts[0] = billions(1, 4_999_999_999);
    parts[1] = billions(1, 4_999_999_999);
    let newer = billions(2, 5_000_000_001);
    let sum = merged(&parts).replace(PartitionId(0), &parts[0], &newer).unwrap();
    assert_eq!(sum.people, 10_000_000_000);
    assert_eq!(sum.categories[0].basis_points, 100_000_000_000_000);
}
