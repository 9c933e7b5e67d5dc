//! The contract of every cache.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use schemas::{
    BudgetId, BudgetTotals, CombinedTotals, Generation, LogNumber, Marker, MarkerKind, Offset,
    PartitionCount, PartitionId, PartitionTotals, Position, Term,
};
use storage::cache::{Cache, CacheUpdate};
use tokio::sync::broadcast::Receiver;

use super::build::{count, new_budget_id, totals};
use super::wait::TEST_TIMEOUT;

/// The cache after a loss of data.
pub type CacheFuture = Pin<Box<dyn Future<Output = Arc<dyn Cache>> + Send>>;

pub struct Fixture {
    pub cache: Arc<dyn Cache>,
    /// Loses a budget's data, as a flush or a restart does. Returns the cache afterwards.
    pub lose: Box<dyn Fn(BudgetId) -> CacheFuture + Sync>,
}

macro_rules! cache_contract {
    ($fixture:expr) => {
        crate::contract::properties! { cache, $fixture;
            a_budget_that_was_never_published_is_a_miss,
            an_incomplete_aggregate_is_a_miss,
            the_aggregate_is_the_sum_of_all_partitions,
            one_publication_may_contain_several_partitions,
            ten_billion_people_are_summed_exactly,
            a_budget_without_submissions_has_an_empty_aggregate,
            the_aggregate_is_final_once_every_partition_is_closed,
            older_totals_change_nothing,
            an_aggregate_never_mixes_generations,
            an_aggregate_of_a_former_partition_count_is_a_miss_until_the_new_one_is_complete,
            the_aggregate_never_moves_back_for_any_order_of_publications,
            the_aggregate_equals_the_merge_after_any_moves_of_any_partitions,
            aggregates_are_returned_in_the_requested_order,
            republishing_restores_a_lost_aggregate,
            only_missing_and_older_partitions_are_outdated,
            after_a_loss_every_partition_is_outdated,
            subscribers_are_notified_of_changes_only,
        }
    };
}
pub(crate) use cache_contract;

const FIRST: Term = Term::FIRST;
const SECOND: Term = Term { number: 2, generation: Generation(2), log: LogNumber::FIRST };
/// A rollback to the first generation.
const THIRD: Term = Term { number: 3, generation: Generation::FIRST, log: LogNumber::FIRST };

async fn publish(
    cache: &dyn Cache,
    budget: &BudgetId,
    term: Term,
    count: PartitionCount,
    parts: &[(u32, BudgetTotals)],
) {
    let parts: Vec<_> = parts
        .iter()
        .map(|(partition, totals)| PartitionTotals {
            term,
            partition: PartitionId(*partition),
            totals: totals.clone(),
        })
        .collect();
    cache.publish(budget, count, &parts).await.unwrap();
}

async fn read(cache: &dyn Cache, budget: &BudgetId) -> Option<CombinedTotals> {
    cache.read(std::slice::from_ref(budget)).await.unwrap().pop().unwrap()
}

fn sum(term: Term, parts: &[BudgetTotals]) -> CombinedTotals {
    let all: Vec<_> = parts.iter().cloned().map(Some).collect();
    CombinedTotals::merge(term, count(parts.len() as u64), &all).unwrap()
}

pub async fn a_budget_that_was_never_published_is_a_miss(fixture: &Fixture) {
    assert_eq!(read(&*fixture.cache, &new_budget_id()).await, None);
}

pub async fn an_incomplete_aggregate_is_a_miss(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    for partition in [0, 2] {
        let part = (partition, totals(9, 5, 3));
        publish(cache, &budget, FIRST, count(3), &[part]).await;
        assert_eq!(read(cache, &budget).await, None);
    }
    publish(cache, &budget, FIRST, count(3), &[(1, totals(9, 5, 3))]).await;
    assert!(read(cache, &budget).await.is_some());
}

pub async fn the_aggregate_is_the_sum_of_all_partitions(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let parts = [totals(10, 7, 64), totals(0, 0, 64), totals(12, 1, 64)];
    for (partition, part) in (0..).zip(&parts) {
        publish(cache, &budget, FIRST, count(3), &[(partition, part.clone())]).await;
    }
    assert_eq!(read(cache, &budget).await, Some(sum(FIRST, &parts)));
}

pub async fn one_publication_may_contain_several_partitions(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let parts = [totals(3, 2, 2), totals(4, 3, 2)];
    let together = [(0, parts[0].clone()), (1, parts[1].clone())];
    publish(cache, &budget, FIRST, count(2), &together).await;
    assert_eq!(read(cache, &budget).await, Some(sum(FIRST, &parts)));
}

pub async fn ten_billion_people_are_summed_exactly(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let parts = [totals(8_000_000_001, 4_999_999_999, 3), totals(8_000_000_003, 4_999_999_998, 3)];
    let together = [(0, parts[0].clone()), (1, parts[1].clone())];
    publish(cache, &budget, FIRST, count(2), &together).await;
    assert_eq!(read(cache, &budget).await, Some(sum(FIRST, &parts)));
}

pub async fn a_budget_without_submissions_has_an_empty_aggregate(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let parts = [BudgetTotals::default(), BudgetTotals::default()];
    let together = [(0, parts[0].clone()), (1, parts[1].clone())];
    publish(cache, &budget, FIRST, count(2), &together).await;
    assert_eq!(read(cache, &budget).await, Some(sum(FIRST, &parts)));
    // The first submission changes one partition only.
    let parts = [totals(1, 1, 2), BudgetTotals::default()];
    publish(cache, &budget, FIRST, count(2), &[(0, parts[0].clone())]).await;
    assert_eq!(read(cache, &budget).await, Some(sum(FIRST, &parts)));
}

pub async fn the_aggregate_is_final_once_every_partition_is_closed(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    // One of the partitions has no submission, and one was reopened meanwhile.
    let mut parts = [totals(5, 4, 3), totals(6, 2, 3), BudgetTotals::default()];
    let all = (0..).zip(parts.clone()).collect::<Vec<_>>();
    publish(cache, &budget, FIRST, count(3), &all).await;
    for (revision, partition, is_final) in
        [(2, 0, false), (2, 2, false), (2, 1, true), (3, 0, false), (4, 0, true)]
    {
        let part = &mut parts[partition];
        let kind = if revision == 3 { MarkerKind::Reopen } else { MarkerKind::Close };
        part.closing.fold(Marker { kind, revision }, Offset(part.position.0));
        part.position.0 += 1;
        publish(cache, &budget, FIRST, count(3), &[(partition as u32, part.clone())]).await;
        let aggregate = read(cache, &budget).await.unwrap();
        assert_eq!(aggregate.is_final(), is_final, "revision {revision} of {partition}");
        assert_eq!(aggregate, sum(FIRST, &parts));
    }
}

pub async fn an_aggregate_of_a_former_partition_count_is_a_miss_until_the_new_one_is_complete(
    fixture: &Fixture,
) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    for (term, partitions) in [(FIRST, 3), (SECOND, 5), (THIRD, 2)] {
        let parts: Vec<_> = (0..partitions).map(|partition| totals(9 + partition, 5, 3)).collect();
        let numbered = || (0..).zip(parts.iter().cloned());
        for (partition, part) in numbered() {
            publish(cache, &budget, term, count(partitions), &[(partition, part)]).await;
            let is_complete = u64::from(partition) + 1 == partitions;
            assert_eq!(read(cache, &budget).await.is_some(), is_complete, "{term:?} {partition}");
        }
        assert_eq!(read(cache, &budget).await, Some(sum(term, &parts)));
        // A late publication of a former term, with its own partition count.
        publish(cache, &budget, FIRST, count(3), &[(0, totals(900, 800, 3))]).await;
        if term != FIRST {
            assert_eq!(read(cache, &budget).await, Some(sum(term, &parts)));
        }
    }
}

pub async fn older_totals_change_nothing(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let parts = [totals(20, 9, 2)];
    publish(cache, &budget, SECOND, count(1), &[(0, parts[0].clone())]).await;
    for (term, position) in [(SECOND, 19), (SECOND, 20), (FIRST, 900)] {
        publish(cache, &budget, term, count(1), &[(0, totals(position, 1, 2))]).await;
        assert_eq!(read(cache, &budget).await, Some(sum(SECOND, &parts)));
    }
}

pub async fn an_aggregate_never_mixes_generations(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let old = [totals(50, 30, 2), totals(60, 40, 2)];
    let new = [totals(5, 3, 2), totals(6, 4, 2)];
    for (partition, part) in (0..).zip(&old) {
        publish(cache, &budget, FIRST, count(2), &[(partition, part.clone())]).await;
    }
    // The new generation is incomplete: reads miss, and publications of the old generation change nothing.
    publish(cache, &budget, SECOND, count(2), &[(0, new[0].clone())]).await;
    assert_eq!(read(cache, &budget).await, None);
    publish(cache, &budget, FIRST, count(2), &[(1, totals(61, 41, 2))]).await;
    assert_eq!(read(cache, &budget).await, None);
    publish(cache, &budget, SECOND, count(2), &[(1, new[1].clone())]).await;
    assert_eq!(read(cache, &budget).await, Some(sum(SECOND, &new)));
    publish(cache, &budget, FIRST, count(2), &[(0, totals(90, 50, 2))]).await;
    assert_eq!(read(cache, &budget).await, Some(sum(SECOND, &new)));
    // A rollback makes the old generation active again.
    for (partition, part) in (0..).zip(&old) {
        publish(cache, &budget, THIRD, count(2), &[(partition, part.clone())]).await;
    }
    assert_eq!(read(cache, &budget).await, Some(sum(THIRD, &old)));
}

pub async fn the_aggregate_never_moves_back_for_any_order_of_publications(fixture: &Fixture) {
    let mut runner = TestRunner::deterministic();
    let publications: Vec<(u32, u64)> =
        (0..3).flat_map(|partition| (1..=6).map(move |position| (partition, position))).collect();
    let shuffled = Just(publications).prop_shuffle();
    for _ in 0..20 {
        let order = shuffled.new_tree(&mut runner).unwrap().current();
        let (cache, budget) = (&*fixture.cache, new_budget_id());
        let mut last: Option<CombinedTotals> = None;
        for (partition, position) in order {
            let part = (partition, totals(position, 10 * position, 2));
            publish(cache, &budget, FIRST, count(3), &[part]).await;
            let now = read(cache, &budget).await;
            if let Some(before) = &last {
                assert!(now.as_ref().is_some_and(|now| now.includes(before)));
            }
            last = now;
        }
        let newest = [totals(6, 60, 2), totals(6, 60, 2), totals(6, 60, 2)];
        assert_eq!(last, Some(sum(FIRST, &newest)));
    }
}

pub async fn the_aggregate_equals_the_merge_after_any_moves_of_any_partitions(fixture: &Fixture) {
    const PARTITIONS: u32 = 4;
    // Which partition, by how many records, and its people then; several of these are one publication.
    let part = (0..PARTITIONS, 0..3_u64, 0..2_000_000_000_u64);
    let publications = prop::collection::vec((prop::collection::vec(part, 1..4), 0..20_u8), 40);
    let mut runner = TestRunner::deterministic();
    for _ in 0..10 {
        let (cache, budget) = (&*fixture.cache, new_budget_id());
        let (mut term, mut newest) = (FIRST, BTreeMap::<u32, BudgetTotals>::new());
        for (parts, switch) in publications.new_tree(&mut runner).unwrap().current() {
            if switch == 0 {
                // Another generation: its positions are unrelated to the former one's.
                term = Term { number: term.number + 1, ..term };
                newest.clear();
            }
            let mut sent = Vec::new();
            for (partition, records, people) in parts {
                let position = newest.get(&partition).map_or(0, |totals| totals.position.0);
                let position = position + records;
                let part = match position {
                    0 => BudgetTotals::default(),
                    _ => totals(position, people, 3),
                };
                if newest.get(&partition).is_none_or(|newest| newest.position < part.position) {
                    newest.insert(partition, part.clone());
                }
                sent.push((partition, part));
            }
            publish(cache, &budget, term, count(PARTITIONS.into()), &sent).await;
            let newest: Vec<_> = newest.values().cloned().collect();
            let complete = newest.len() == PARTITIONS as usize;
            assert_eq!(read(cache, &budget).await, complete.then(|| sum(term, &newest)));
        }
    }
}

pub async fn aggregates_are_returned_in_the_requested_order(fixture: &Fixture) {
    let cache = &*fixture.cache;
    let (one, missing, two) = (new_budget_id(), new_budget_id(), new_budget_id());
    publish(cache, &one, FIRST, count(1), &[(0, totals(1, 1, 2))]).await;
    publish(cache, &two, FIRST, count(1), &[(0, totals(2, 2, 2))]).await;
    let aggregates = cache.read(&[two, missing, one]).await.unwrap();
    let people: Vec<_> =
        aggregates.iter().map(|totals| totals.as_ref().map(|totals| totals.people)).collect();
    assert_eq!(people, [Some(2), None, Some(1)]);
    assert_eq!(cache.read(&[]).await, Ok(Vec::new()));
}

pub async fn republishing_restores_a_lost_aggregate(fixture: &Fixture) {
    let budget = new_budget_id();
    let parts = [totals(3, 2, 2), totals(4, 3, 2)];
    let together = [(0, parts[0].clone()), (1, parts[1].clone())];
    publish(&*fixture.cache, &budget, FIRST, count(2), &together).await;
    let cache = (fixture.lose)(budget.clone()).await;
    assert_eq!(read(&*cache, &budget).await, None);
    for part in together {
        publish(&*cache, &budget, FIRST, count(2), &[part]).await;
    }
    assert_eq!(read(&*cache, &budget).await, Some(sum(FIRST, &parts)));
}

async fn outdated(
    cache: &dyn Cache,
    budget: &BudgetId,
    term: Term,
    positions: &[(u32, u64)],
) -> Vec<u32> {
    let positions: Vec<_> = positions
        .iter()
        .map(|(partition, position)| (PartitionId(*partition), Position(*position)))
        .collect();
    let outdated = cache.outdated_partitions(budget, term, count(3), &positions).await.unwrap();
    outdated.into_iter().map(|partition| partition.0).collect()
}

pub async fn only_missing_and_older_partitions_are_outdated(fixture: &Fixture) {
    let (cache, budget) = (&*fixture.cache, new_budget_id());
    let all = [(0, 5), (1, 5), (2, 5)];
    assert_eq!(outdated(cache, &budget, SECOND, &all).await, [0, 1, 2]);
    publish(cache, &budget, SECOND, count(3), &[(0, totals(5, 1, 2))]).await;
    publish(cache, &budget, FIRST, count(3), &[(2, totals(9, 1, 2))]).await;
    assert_eq!(outdated(cache, &budget, SECOND, &all).await, [1, 2]);
    publish(cache, &budget, SECOND, count(3), &[(1, totals(4, 1, 2)), (2, totals(6, 1, 2))]).await;
    assert_eq!(outdated(cache, &budget, SECOND, &all).await, [1]);
    assert_eq!(outdated(cache, &budget, SECOND, &[(0, 6), (2, 6)]).await, [0]);
    assert_eq!(outdated(cache, &budget, FIRST, &[(0, 900)]).await, [0; 0]);
    assert_eq!(outdated(cache, &budget, THIRD, &[(0, 1)]).await, [0]);
}

pub async fn after_a_loss_every_partition_is_outdated(fixture: &Fixture) {
    let budget = new_budget_id();
    let parts = [(0, totals(5, 1, 2)), (1, BudgetTotals::default()), (2, totals(6, 1, 2))];
    publish(&*fixture.cache, &budget, FIRST, count(3), &parts).await;
    let positions = [(0, 5), (1, 0), (2, 6)];
    assert_eq!(outdated(&*fixture.cache, &budget, FIRST, &positions).await, [0; 0]);
    let cache = (fixture.lose)(budget.clone()).await;
    assert_eq!(outdated(&*cache, &budget, FIRST, &positions).await, [0, 1, 2]);
}

pub async fn subscribers_are_notified_of_changes_only(fixture: &Fixture) {
    let (cache, one, two) = (&*fixture.cache, new_budget_id(), new_budget_id());
    let ours = [one.clone(), two.clone()];
    let mut subscribers = [cache.subscribe(), cache.subscribe()];
    publish(cache, &one, FIRST, count(2), &[(0, totals(1, 1, 2))]).await; // incomplete
    publish(cache, &one, FIRST, count(2), &[(1, totals(1, 1, 2))]).await; // a change
    publish(cache, &one, FIRST, count(2), &[(1, totals(1, 1, 2))]).await; // no change
    publish(cache, &two, FIRST, count(1), &[(0, totals(1, 1, 2))]).await; // a change
    publish(cache, &one, FIRST, count(2), &[(0, totals(2, 2, 2))]).await; // a change
    for subscriber in &mut subscribers {
        let mut changed = Vec::new();
        for _ in 0..3 {
            changed.push(next_change(subscriber, &ours).await);
        }
        assert_eq!(changed, [one.clone(), two.clone(), one.clone()]);
    }
}

/// Waits for the next change of one of this test's budgets: other tests may change theirs in the same cache.
async fn next_change(subscriber: &mut Receiver<CacheUpdate>, ours: &[BudgetId]) -> BudgetId {
    loop {
        let update = tokio::time::timeout(TEST_TIMEOUT, subscriber.recv()).await;
        if let CacheUpdate::Changed(budget) = update.expect("no update arrived").unwrap()
            && ours.contains(&budget)
        {
            return budget;
        }
    }
}
