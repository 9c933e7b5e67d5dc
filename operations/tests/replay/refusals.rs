//! Records that must not be appended again: rejected ones, other ones, and those that would undo a later submission.

use operations::dead_letters::ReplayRefusal;
use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, Generation, LogNumber, PartitionId, Position,
    partition_for,
};
use storage::log::dead_letters::DeadLetterState;
use storage::log::{DeadLetter, DeadLetterWriter};
use storage::store::{Checkpoint, Checkpoints, Commit, Epoch, PartitionRef};

use crate::fixture::{Fixture, count, person, refusal, submission, submission_at};

#[tokio::test]
async fn a_record_that_the_fold_still_rejects_is_refused_and_stays_open() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.append_dead_letter(PartitionId(0), 1, b"garbage".to_vec()).await;
    let refused = refusal(fixture.replay(dead_letter).await);
    assert_eq!(refused, ReplayRefusal::StillRejected("the value is not a SubmissionRecord".into()));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Open);

    let totals =
        BudgetTotals { categories: vec![CategoryTotals::default(); 3], ..BudgetTotals::default() };
    let home = partition_for(&person(2), count());
    let id = PartitionRef { generation: Generation::FIRST, partition: home };
    fixture.store.claim(id, None, Epoch(1), "owner").await.unwrap();
    let commit = Commit {
        epoch: Epoch(1),
        from: Position::START,
        checkpoint: Checkpoint { position: Position(9), ..Checkpoint::START },
        totals: vec![(BudgetId::parse("b").unwrap(), totals)],
    };
    fixture.store.commit(id, &commit).await.unwrap();
    let dead_letter = fixture.misplaced(2).await;
    let refused = refusal(fixture.replay(dead_letter).await);
    assert_eq!(
        refused,
        ReplayRefusal::StillRejected("2 categories, where the budget has 3".into())
    );
}

#[tokio::test]
async fn a_later_submission_of_the_person_is_not_undone() {
    let fixture = Fixture::new().await;
    let home = partition_for(&person(1), count());
    let dead_letter = fixture.append_dead_letter(home, 1, submission_at(1, 5)).await;
    let since = fixture.submit(1, submission_at(1, 6)).await;
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Superseded(since));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Open);
}

#[tokio::test]
async fn misplaced_records_are_ordered_by_their_acceptance_time() {
    let fixture = Fixture::new().await;
    let other = PartitionId(1 - partition_for(&person(1), count()).0);
    let older = fixture.append_dead_letter(other, 1, submission_at(1, 5)).await;
    let since = fixture.submit(1, submission_at(1, 6)).await;
    let newer = fixture.append_dead_letter(other, 1, submission_at(1, 7)).await;
    assert_eq!(refusal(fixture.replay(older).await), ReplayRefusal::Superseded(since));
    fixture.replay(newer).await.unwrap();
}

#[tokio::test]
async fn the_newer_of_two_dead_letters_of_a_person_wins_in_any_order_of_replays() {
    for newer_first in [false, true] {
        let fixture = Fixture::new().await;
        let other = PartitionId(1 - partition_for(&person(1), count()).0);
        let older = fixture.append_dead_letter(other, 1, submission_at(1, 5)).await;
        let newer = fixture.append_dead_letter(other, 1, submission_at(1, 6)).await;
        if newer_first {
            let address = fixture.replay(newer).await.unwrap();
            assert_eq!(refusal(fixture.replay(older).await), ReplayRefusal::Superseded(address));
        } else {
            fixture.replay(older).await.unwrap();
            fixture.replay(newer).await.unwrap();
        }
        assert_eq!(fixture.latest(1).await, submission_at(1, 6));
    }
}

#[tokio::test]
async fn another_record_at_the_address_of_a_dead_letter_is_not_replayed() {
    let fixture = Fixture::new().await;
    let address = fixture.submit(1, submission(1)).await;
    let (key, value, reason) = (vec![1; 16], vec![2; 5], "from another log".to_owned());
    DeadLetterWriter::append(&*fixture.log, &[DeadLetter { source: address, reason, key, value }])
        .await
        .unwrap();
    let refused = refusal(fixture.replay(address).await);
    assert_eq!(refused, ReplayRefusal::OtherRecord);
}

#[tokio::test]
async fn a_dead_letter_of_a_replaced_log_is_not_replayed() {
    let mut fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.deps.dead_letters.number = LogNumber(2);
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::OtherLog);
    assert_eq!(fixture.appended(1).await, 0);
}
