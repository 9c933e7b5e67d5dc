//! Dropping dead letters, also those whose replay is unfinished.

use operations::dead_letters::{DropRefused, ReplayRefusal, drop_dead_letters, replay};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress};
use storage::log::Decision;
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState};

use crate::fixture::{AppendMode, Fixture, refusal};

#[tokio::test]
async fn a_dead_letter_dropped_after_its_record_was_appended_counts_as_replayed() {
    let fixture = Fixture::new().await;
    for mode in [AppendMode::LoseResponse, AppendMode::Reject] {
        let number = mode as u64;
        let dead_letter = fixture.misplaced(number).await;
        let own_attempt = fixture.fail_replay(dead_letter, mode).await;
        // Written by an operator who had read the journal before the attempt.
        fixture.deps.dead_letters.journal.decide(dead_letter, Decision::Dropped).await.unwrap();
        let again = replay(&fixture.deps, dead_letter, own_attempt).await;
        match mode {
            AppendMode::LoseResponse => {
                assert_eq!(
                    fixture.state(dead_letter).await,
                    DeadLetterState::Replayed(again.unwrap())
                );
            }
            _ => assert_eq!(refusal(again), ReplayRefusal::Dropped),
        }
    }
}

#[tokio::test]
async fn a_dead_letter_whose_copy_is_in_the_log_is_not_dropped_even_if_unrecorded() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.fail_replay(dead_letter, AppendMode::LoseResponse).await;
    let found = DeadLetterIndex::read_one(fixture.deps.dead_letters.journal.as_ref(), dead_letter)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(found.state, DeadLetterState::Replaying { .. }));
    let result =
        drop_dead_letters(&fixture.deps.dead_letters, &[dead_letter]).await.unwrap().remove(0);
    let DeadLetterState::Replayed(address) = fixture.state(dead_letter).await else {
        panic!("{result:?}")
    };
    assert_eq!(result, Err(DropRefused::Replayed(address)));
    assert_eq!(fixture.deps.dead_letters.replayed(dead_letter, &found).await, Ok(Some(address)));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn a_dead_letter_with_an_unfinished_replay_can_be_dropped() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.fail_replay(dead_letter, AppendMode::Reject).await;
    assert_eq!(
        drop_dead_letters(&fixture.deps.dead_letters, &[dead_letter]).await,
        Ok(vec![Ok(())])
    );
    assert_eq!(refusal(fixture.resume(dead_letter).await), ReplayRefusal::Dropped);
}

#[tokio::test]
async fn dropped_dead_letters_stay_dropped_and_replayed_or_unknown_ones_are_refused() {
    let fixture = Fixture::new().await;
    let at = &fixture.deps.dead_letters;
    let dropped = fixture.misplaced(1).await;
    let replayed = fixture.misplaced(2).await;
    let address = fixture.replay(replayed).await.unwrap();
    let nothing =
        RecordAddress { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(99) };
    for _ in 0..2 {
        let result = drop_dead_letters(at, &[dropped, replayed, nothing]).await;
        let expected = vec![Ok(()), Err(DropRefused::Replayed(address)), Err(DropRefused::Unknown)];
        assert_eq!(result, Ok(expected));
        assert_eq!(fixture.state(dropped).await, DeadLetterState::Dropped);
        assert_eq!(fixture.state(replayed).await, DeadLetterState::Replayed(address));
    }
}

#[tokio::test]
async fn dropped_and_unknown_dead_letters_are_not_replayed() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.deps.dead_letters.journal.decide(dead_letter, Decision::Dropped).await.unwrap();
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Dropped);
    assert_eq!(fixture.appended(1).await, 0);
    let none = RecordAddress { offset: Offset(99), ..dead_letter };
    assert_eq!(refusal(fixture.replay(none).await), ReplayRefusal::Unknown);
}
