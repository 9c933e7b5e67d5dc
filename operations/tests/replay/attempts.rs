//! A record is appended exactly once, however its replay attempts end.

use std::sync::Arc;

use operations::dead_letters::{ReplayError, ReplayRefusal, replay};
use schemas::partition_for;
use storage::log::AppendError;
use storage::log::dead_letters::DeadLetterState;

use crate::fixture::{AppendMode, Fixture, count, person, refusal};

#[tokio::test]
async fn a_record_is_replayed_to_its_own_partition_once_for_any_number_of_requests() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    let address = fixture.replay(dead_letter).await.unwrap();
    assert_eq!(address.partition, partition_for(&person(1), count()));
    assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Replayed(address));
    assert_eq!(fixture.replay(dead_letter).await, Ok(address));
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test]
async fn resuming_an_attempt_with_unknown_outcome_appends_nothing_twice() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.set_append_mode(AppendMode::LoseResponse);
    let lost = fixture.replay(dead_letter).await;
    assert!(matches!(lost, Err(ReplayError::Append(AppendError::Unknown(_)))), "{lost:?}");
    assert!(matches!(fixture.state(dead_letter).await, DeadLetterState::Replaying { .. }));
    fixture.set_append_mode(AppendMode::Acknowledge);
    assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Busy);
    let address = fixture.resume(dead_letter).await.unwrap();
    assert_eq!(
        (fixture.appended(1).await, fixture.state(dead_letter).await),
        (1, DeadLetterState::Replayed(address))
    );
}

#[tokio::test]
async fn a_repeated_attempt_resumes_its_own_replay() {
    let fixture = Fixture::new().await;
    for mode in [AppendMode::LoseResponse, AppendMode::Reject] {
        let number = mode as u64;
        let dead_letter = fixture.misplaced(number).await;
        let own_attempt = fixture.fail_replay(dead_letter, mode).await;
        assert_eq!(refusal(fixture.replay(dead_letter).await), ReplayRefusal::Busy);
        let address = replay(&fixture.deps, dead_letter, own_attempt).await.unwrap();
        assert_eq!(fixture.state(dead_letter).await, DeadLetterState::Replayed(address));
        assert_eq!(fixture.appended(number).await, 1);
    }
}

#[tokio::test]
async fn resuming_an_attempt_that_appended_nothing_appends_the_record() {
    let fixture = Fixture::new().await;
    let dead_letter = fixture.misplaced(1).await;
    fixture.fail_replay(dead_letter, AppendMode::Reject).await;
    assert_eq!(fixture.appended(1).await, 0);
    fixture.resume(dead_letter).await.unwrap();
    assert_eq!(fixture.appended(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_concurrent_replays_appends_the_record() {
    let fixture = Arc::new(Fixture::new().await);
    let dead_letter = fixture.misplaced(1).await;
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.replay(dead_letter).await })
        })
        .collect();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) | Err(ReplayError::Refused(ReplayRefusal::Busy)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fixture.appended(1).await, 1);
    assert!(matches!(fixture.state(dead_letter).await, DeadLetterState::Replayed(_)));
}
