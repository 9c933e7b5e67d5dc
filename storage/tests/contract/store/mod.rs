//! The contract of `Store`, in particular of `Checkpoints`.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use schemas::{
    BudgetId, BudgetTotals, Closing, Generation, Offset, PartitionCount, PartitionId, Position,
    PublishStep,
};
use storage::log::LogIdentity;
use storage::store::memory::MemoryStore;
use storage::store::{
    BudgetSummary, CasOutcome, Checkpoint, Commit, Epoch, PartitionRef, RecordCounts,
    RecordFingerprint, Store, StoreError, StoredPartition,
};

use super::build::{count, new_budget_id, person, row, totals};

pub struct Fixture {
    pub store: Arc<dyn Store>,
    /// A generation that no other test uses.
    pub generation: Generation,
    /// Dropped with the fixture: a folder, topics.
    pub _kept: Box<dyn Any + Send + Sync>,
}

/// `$fixture` may share its store with other tests; `$empty` is an unused store.
macro_rules! store_contract {
    ($fixture:expr, $empty:expr) => {
        crate::contract::properties! { store, $fixture;
            an_unclaimed_partition_does_not_exist,
            a_claim_is_applied_only_at_the_expected_epoch,
            exactly_one_of_concurrent_claims_is_applied,
            a_second_claimer_fences_the_first,
            a_claim_does_not_change_committed_data,
            a_commit_from_another_position_is_rejected_and_changes_nothing,
            a_commit_under_another_epoch_is_rejected_and_changes_nothing,
            a_commit_writes_checkpoint_and_changed_totals_together,
            a_repeated_commit_is_rejected_and_changes_nothing,
            a_commit_without_totals_writes_the_checkpoint,
            sixty_four_categories_and_large_numbers_survive_the_round_trip,
            totals_of_unclaimed_partitions_are_none_and_of_unknown_budgets_empty,
            generations_do_not_see_each_other,
            every_sequence_of_claims_and_commits_gives_the_same_result_as_in_memory,
            the_row_with_the_highest_offset_wins_in_any_order_of_writes,
            the_row_with_the_highest_offset_wins_within_one_write,
            a_withdrawn_person_has_a_row_without_shares,
            a_bucket_is_read_completely_and_without_other_buckets,
            a_person_is_found_in_their_own_partition_only,
            history_points_are_found_by_the_instants_at_which_they_hold,
            a_history_point_written_again_stays_the_same,
            histories_of_other_partitions_budgets_and_steps_are_not_seen,
            a_long_history_is_scanned_completely_and_in_order,
            an_expired_history_point_is_deleted_or_not_written,
            a_retired_partition_has_no_history_and_nobody_can_bring_it_back,
            the_rows_position_is_that_of_the_latest_commit,
            the_epoch_is_that_of_the_latest_claim,
            the_latest_report_of_each_partition_is_returned,
            a_retired_partition_has_no_data_and_nobody_can_bring_it_back,
            a_partition_can_be_retired_before_its_first_claim,
            a_partition_is_retired_under_the_commits_of_its_owner,
            claimed_and_retired_partitions_are_listed,
        }
        crate::contract::properties! { store, $empty;
            one_of_two_concurrent_registry_changes_is_applied,
        }
    };
}
pub(crate) use store_contract;

mod generations;
mod histories;
mod people;
pub use generations::*;
pub use histories::*;
pub use people::*;

impl Fixture {
    fn partition(&self, number: u32) -> PartitionRef {
        PartitionRef { generation: self.generation, partition: PartitionId(number) }
    }

    async fn read(&self, number: u32) -> Option<StoredPartition> {
        let mut stored = self.store.read_partition(self.partition(number)).await.unwrap();
        if let Some(stored) = &mut stored {
            stored.totals.sort_by(|one, two| one.0.cmp(&two.0));
        }
        stored
    }

    async fn claim(&self, number: u32, expected: Option<u64>, next: u64) -> CasOutcome {
        let (partition, owner) = (self.partition(number), format!("owner-{next}"));
        self.store.claim(partition, expected.map(Epoch), Epoch(next), &owner).await.unwrap()
    }

    async fn commit(&self, number: u32, commit: &Commit) -> CasOutcome {
        self.store.commit(self.partition(number), commit).await.unwrap()
    }

    async fn summaries(
        &self,
        partitions: PartitionCount,
        budgets: &[&BudgetId],
    ) -> Vec<BudgetSummary> {
        let budgets: Vec<BudgetId> = budgets.iter().copied().cloned().collect();
        let read = self.store.summaries(self.generation, partitions, &budgets).await.unwrap();
        read.into_iter().map(Result::unwrap).collect()
    }
}

fn commit(epoch: u64, from: u64, to: u64, totals: &[(&BudgetId, BudgetTotals)]) -> Commit {
    Commit {
        epoch: Epoch(epoch),
        from: Position(from),
        checkpoint: checkpoint(to),
        totals: totals.iter().map(|(budget, totals)| ((*budget).clone(), totals.clone())).collect(),
    }
}

fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint {
        position: Position(position),
        rows_position: Position(position / 2),
        identity: Some(LogIdentity { cluster_id: "cluster".into(), topic_id: "topic".into() }),
        last_record: Some(RecordFingerprint {
            offset: Offset(position - 1),
            fingerprint: position,
        }),
        tally: RecordCounts { applied: position, duplicates: 0, dead_lettered: 0 },
    }
}

fn two_budgets() -> (BudgetId, BudgetId) {
    let (one, two) = (new_budget_id(), new_budget_id());
    if one < two { (one, two) } else { (two, one) }
}

pub async fn an_unclaimed_partition_does_not_exist(store: &Fixture) {
    let budget = new_budget_id();
    assert_eq!(store.read(0).await, None);
    let committed = store.commit(0, &commit(1, 0, 5, &[(&budget, totals(5, 5, 2))])).await;
    assert_eq!(committed, CasOutcome::Refused);
    assert_eq!(store.claim(0, Some(1), 2).await, CasOutcome::Refused);
    assert_eq!(store.read(0).await, None);
}

pub async fn a_claim_is_applied_only_at_the_expected_epoch(store: &Fixture) {
    assert_eq!(store.claim(0, None, 1).await, CasOutcome::Applied);
    let (epoch, owner) = (Epoch(1), "owner-1".to_owned());
    let totals = Vec::new();
    let first = StoredPartition { epoch, owner, checkpoint: Checkpoint::START, totals };
    assert_eq!(store.read(0).await, Some(first.clone()));
    for expected in [None, Some(0), Some(2)] {
        assert_eq!(store.claim(0, expected, 3).await, CasOutcome::Refused);
        assert_eq!(store.read(0).await, Some(first.clone()));
    }
    assert_eq!(store.claim(0, Some(1), 2).await, CasOutcome::Applied);
    let second = StoredPartition { epoch: Epoch(2), owner: "owner-2".into(), ..first };
    assert_eq!(store.read(0).await, Some(second));
}

pub async fn exactly_one_of_concurrent_claims_is_applied(store: &Fixture) {
    let partition = store.partition(0);
    let mut expected = None;
    for next in [Epoch(1), Epoch(2)] {
        let owners: Vec<String> = (0..4).map(|owner| format!("owner-{owner}")).collect();
        let claims = owners.iter().map(|owner| store.store.claim(partition, expected, next, owner));
        let mut winners = Vec::new();
        let mut unsettled = Vec::new();
        for (owner, outcome) in owners.iter().zip(join_all(claims).await) {
            match outcome {
                Ok(CasOutcome::Applied) => winners.push(owner.clone()),
                Ok(CasOutcome::Refused) => {}
                Err(StoreError::Unavailable(_)) => unsettled.push(owner.clone()),
                Err(corrupt) => panic!("{corrupt}"),
            }
        }
        // A claim with a lost response is settled by reading.
        let stored = store.read(0).await.unwrap();
        winners.extend(unsettled.into_iter().filter(|owner| *owner == stored.owner));
        assert_eq!((winners, stored.epoch), (vec![stored.owner], next));
        expected = Some(next);
    }
}

pub async fn a_second_claimer_fences_the_first(store: &Fixture) {
    let budget = new_budget_id();
    store.claim(0, None, 1).await;
    let first = commit(1, 0, 5, &[(&budget, totals(5, 5, 2))]);
    assert_eq!(store.commit(0, &first).await, CasOutcome::Applied);
    store.claim(0, Some(1), 2).await;
    let taken_over = store.read(0).await;
    let late = commit(1, 5, 8, &[(&budget, totals(8, 8, 2))]);
    assert_eq!(store.commit(0, &late).await, CasOutcome::Refused);
    assert_eq!(store.read(0).await, taken_over);
    let second = commit(2, 5, 9, &[(&budget, totals(9, 9, 2))]);
    assert_eq!(store.commit(0, &second).await, CasOutcome::Applied);
    assert_eq!(store.read(0).await.unwrap().checkpoint, checkpoint(9));
}

pub async fn a_claim_does_not_change_committed_data(store: &Fixture) {
    let budget = new_budget_id();
    store.claim(0, None, 1).await;
    store.commit(0, &commit(1, 0, 5, &[(&budget, totals(5, 5, 2))])).await;
    store.claim(0, Some(1), 2).await;
    let expected = StoredPartition {
        epoch: Epoch(2),
        owner: "owner-2".into(),
        checkpoint: checkpoint(5),
        totals: vec![(budget, totals(5, 5, 2))],
    };
    assert_eq!(store.read(0).await, Some(expected));
}

pub async fn a_commit_from_another_position_is_rejected_and_changes_nothing(store: &Fixture) {
    assert_rejected(store, &[(1, 4), (1, 6), (1, 0)]).await;
}

pub async fn a_commit_under_another_epoch_is_rejected_and_changes_nothing(store: &Fixture) {
    assert_rejected(store, &[(0, 5), (2, 5), (7, 5)]).await;
}

/// Asserts that commits under these epochs and positions are rejected as a whole. The partition is at epoch 1 and
/// position 5.
async fn assert_rejected(store: &Fixture, wrong: &[(u64, u64)]) {
    let (known, new) = two_budgets();
    store.claim(0, None, 1).await;
    store.commit(0, &commit(1, 0, 5, &[(&known, totals(5, 5, 2))])).await;
    let before = store.read(0).await;
    for (epoch, from) in wrong {
        let changes = [(&known, totals(9, 9, 2)), (&new, totals(8, 1, 2))];
        let refused = store.commit(0, &commit(*epoch, *from, 9, &changes)).await;
        assert_eq!(refused, CasOutcome::Refused, "epoch {epoch}, position {from}");
        assert_eq!(store.read(0).await, before);
    }
}

pub async fn a_commit_writes_checkpoint_and_changed_totals_together(store: &Fixture) {
    let (one, two) = two_budgets();
    store.claim(0, None, 1).await;
    store.commit(0, &commit(1, 0, 5, &[(&one, totals(4, 3, 2)), (&two, totals(5, 2, 3))])).await;
    // Absolute values replace the stored ones; the other budget is unchanged.
    let second = commit(1, 5, 7, &[(&two, totals(7, 1, 3))]);
    assert_eq!(store.commit(0, &second).await, CasOutcome::Applied);
    let stored = store.read(0).await.unwrap();
    assert_eq!(stored.checkpoint, checkpoint(7));
    assert_eq!(stored.totals, [(one, totals(4, 3, 2)), (two, totals(7, 1, 3))]);
}

pub async fn a_repeated_commit_is_rejected_and_changes_nothing(store: &Fixture) {
    let budget = new_budget_id();
    store.claim(0, None, 1).await;
    let same_bytes = commit(1, 0, 5, &[(&budget, totals(5, 5, 2))]);
    assert_eq!(store.commit(0, &same_bytes).await, CasOutcome::Applied);
    let before = store.read(0).await;
    assert_eq!(store.commit(0, &same_bytes).await, CasOutcome::Refused);
    assert_eq!(store.read(0).await, before);
}

pub async fn a_commit_without_totals_writes_the_checkpoint(store: &Fixture) {
    store.claim(0, None, 1).await;
    assert_eq!(store.commit(0, &commit(1, 0, 5, &[])).await, CasOutcome::Applied);
    let stored = store.read(0).await.unwrap();
    assert_eq!((stored.checkpoint, stored.totals), (checkpoint(5), Vec::new()));
}

pub async fn sixty_four_categories_and_large_numbers_survive_the_round_trip(store: &Fixture) {
    const LARGE: u64 = 1 << 60;
    let budget = new_budget_id();
    let mut large = totals(LARGE, 900_000_000_000_000, 64);
    let changes = vec![Offset(3), Offset(1 << 40), Offset(LARGE - 1)];
    large.closing = Closing::new(LARGE, changes).unwrap();
    // What readers are shown while two people's changes are pending.
    for number in 0..2 {
        large.hold_back(&person(number, 0), PublishStep::MAX, false);
    }
    // Closed before its first submission.
    let closing = Closing::new(2, vec![Offset(0)]).unwrap();
    let empty = BudgetTotals { position: Position(1), closing, ..BudgetTotals::default() };
    let other = new_budget_id();
    let (epoch, next) = (Epoch(LARGE), Epoch(LARGE + 1));
    let partition = store.partition(0);
    let owner = "an owner with spaces, 'quotes' and ünïcödé";
    store.store.claim(partition, None, epoch, "first").await.unwrap();
    store.store.claim(partition, Some(epoch), next, owner).await.unwrap();
    let checkpoint = Checkpoint {
        position: Position(LARGE),
        rows_position: Position(LARGE - 1),
        identity: Some(LogIdentity { cluster_id: "ünïcödé".into(), topic_id: String::new() }),
        last_record: Some(RecordFingerprint { offset: Offset(LARGE - 1), fingerprint: u64::MAX }),
        tally: RecordCounts { applied: LARGE - 3, duplicates: 2, dead_lettered: 1 },
    };
    let commit = Commit {
        epoch: next,
        from: Position::START,
        checkpoint: checkpoint.clone(),
        totals: vec![(budget.clone(), large.clone()), (other.clone(), empty.clone())],
    };
    assert_eq!(store.commit(0, &commit).await, CasOutcome::Applied);
    let mut totals = vec![(budget.clone(), large.clone()), (other.clone(), empty.clone())];
    totals.sort_by(|(one, _), (next, _)| one.cmp(next));
    let expected = StoredPartition { epoch: next, owner: owner.into(), checkpoint, totals };
    assert_eq!(store.read(0).await, Some(expected));
    let summaries = store.summaries(count(1), &[&budget, &other]).await;
    assert_eq!(summaries, [vec![Some(large)], vec![Some(empty)]]);
}

pub async fn totals_of_unclaimed_partitions_are_none_and_of_unknown_budgets_empty(store: &Fixture) {
    let (known, unknown) = two_budgets();
    for partition in [0, 2, 3, 11] {
        store.claim(partition, None, 1).await;
    }
    store.commit(2, &commit(1, 0, 5, &[(&known, totals(5, 5, 2))])).await;
    store.commit(11, &commit(1, 0, 7, &[(&known, totals(7, 6, 2))])).await;

    let mut empty = vec![None; 12];
    for partition in [0, 2, 3, 11] {
        empty[partition] = Some(BudgetTotals::default());
    }
    assert_eq!(store.summaries(count(12), &[&unknown]).await, [empty.clone()]);

    let mut full = empty.clone();
    full[2] = Some(totals(5, 5, 2));
    full[11] = Some(totals(7, 6, 2));
    assert_eq!(store.summaries(count(12), &[&known]).await, [full.clone()]);
    let both = store.summaries(count(12), &[&unknown, &known, &unknown]).await;
    assert_eq!(both, [empty.clone(), full, empty]);
    assert!(store.summaries(count(12), &[]).await.is_empty());
}

pub async fn generations_do_not_see_each_other(store: &Fixture) {
    let budget = new_budget_id();
    store.claim(0, None, 1).await;
    store.commit(0, &commit(1, 0, 5, &[(&budget, totals(5, 5, 2))])).await;
    let rows = [row(person(1, 0), 3)];
    store.store.write_people(store.partition(0), &rows).await.unwrap();

    let generation = Generation(store.generation.0 + 1);
    let other = PartitionRef { generation, partition: PartitionId(0) };
    assert_eq!(store.store.read_partition(other).await, Ok(None));
    let unseen = store.store.summaries(generation, count(1), &[budget]).await;
    assert_eq!(unseen, Ok(vec![Ok(vec![None])]));
    assert_eq!(store.store.person(other, &person(1, 0)).await, Ok(None));
}

#[derive(Debug, Clone)]
enum Step {
    Claim { expected: Option<u64>, next: u64 },
    Commit { epoch: u64, from: u64, length: u64, budget: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = (proptest::option::of(1..4_u64), 1..4_u64)
        .prop_map(|(expected, next)| Step::Claim { expected, next });
    let commit = (1..4_u64, 0..4_u64, 1..3_u64, 0..2_usize)
        .prop_map(|(epoch, from, length, budget)| Step::Commit { epoch, from, length, budget });
    // Starts with a claim, so that most sequences change something.
    proptest::collection::vec(prop_oneof![1 => claim, 3 => commit], 20).prop_map(|mut steps| {
        steps.insert(0, Step::Claim { expected: None, next: 1 });
        steps
    })
}

pub async fn every_sequence_of_claims_and_commits_gives_the_same_result_as_in_memory(
    store: &Fixture,
) {
    let mut runner = TestRunner::deterministic();
    let budgets = [new_budget_id(), new_budget_id()];
    for partition in 0..12 {
        let model = Fixture {
            store: Arc::new(MemoryStore::new()),
            generation: store.generation,
            _kept: Box::new(()),
        };
        let steps = steps().new_tree(&mut runner).unwrap().current();
        for step in &steps {
            let (actual, expected) = match step {
                Step::Claim { expected, next } => (
                    store.claim(partition, *expected, *next).await,
                    model.claim(partition, *expected, *next).await,
                ),
                Step::Commit { epoch, from, length, budget } => {
                    let to = from + length;
                    let changed = [(&budgets[*budget], totals(to, to, 2))];
                    let commit = commit(*epoch, *from, to, &changed);
                    let actual = store.commit(partition, &commit).await;
                    (actual, model.commit(partition, &commit).await)
                }
            };
            assert_eq!(actual, expected, "{step:?} of {steps:?}");
        }
        assert_eq!(store.read(partition).await, model.read(partition).await, "{steps:?}");
    }
}
