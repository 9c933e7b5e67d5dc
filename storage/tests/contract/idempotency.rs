//! The contract of every idempotency store.

use std::sync::Arc;
use std::time::Duration;

use schemas::{LogNumber, Offset, PartitionId, PersonKey, RecordAddress, SubmissionId};
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use uuid::Uuid;

use super::build::new_budget_id;

pub type Fixture = Arc<dyn Idempotency>;

macro_rules! idempotency_contract {
    ($fixture:expr) => {
        crate::contract::properties! { idempotency, $fixture;
            a_new_attempt_is_first_and_then_in_flight,
            an_accepted_attempt_repeats_its_receipt,
            a_refused_attempt_can_be_repeated,
            an_id_with_other_content_is_reused,
            a_repetition_within_one_call_is_in_flight,
            exactly_one_of_many_concurrent_attempts_is_first,
            a_refusal_does_not_remove_an_accepted_attempt,
            a_refusal_does_not_remove_an_attempt_with_other_content,
            an_attempt_with_an_unknown_outcome_can_be_repeated_with_the_same_content_alone,
            a_refusal_does_not_remove_an_attempt_with_an_unknown_outcome,
            an_unknown_outcome_does_not_replace_an_accepted_attempt_or_other_content,
            an_outcome_is_also_stored_of_an_attempt_that_was_not_begun,
            one_id_in_two_budgets_is_two_attempts,
            one_id_of_two_persons_is_two_attempts,
        }
    };
}
pub(crate) use idempotency_contract;

const RECEIPT: RecordAddress =
    RecordAddress { log: LogNumber(2), partition: PartitionId(3), offset: Offset(1_042) };

fn new_attempt() -> IdempotentSubmission {
    IdempotentSubmission {
        budget: new_budget_id(),
        person: PersonKey::from_bytes([1; 16]),
        submission: SubmissionId(Uuid::new_v4()),
        digest: u64::MAX,
    }
}

fn with_other_content(attempt: &IdempotentSubmission) -> IdempotentSubmission {
    IdempotentSubmission { digest: attempt.digest ^ 1, ..attempt.clone() }
}

async fn begin_all(store: &Fixture, attempts: &[IdempotentSubmission]) -> Vec<BeginOutcome> {
    store.begin(attempts, Duration::ZERO).await
}

async fn begin(store: &Fixture, attempt: &IdempotentSubmission) -> BeginOutcome {
    begin_all(store, std::slice::from_ref(attempt)).await[0]
}

async fn accept(store: &Fixture, attempt: &IdempotentSubmission) {
    store.finish(&[(attempt.clone(), AttemptOutcome::Accepted(RECEIPT))]).await;
}

async fn refuse(store: &Fixture, attempt: &IdempotentSubmission) {
    store.finish(&[(attempt.clone(), AttemptOutcome::NotAppended)]).await;
}

async fn lose_the_outcome(store: &Fixture, attempt: &IdempotentSubmission) {
    store.finish(&[(attempt.clone(), AttemptOutcome::Unknown)]).await;
}

pub async fn a_new_attempt_is_first_and_then_in_flight(store: &Fixture) {
    let attempt = new_attempt();
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::InFlight);
}

pub async fn an_accepted_attempt_repeats_its_receipt(store: &Fixture) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    accept(store, &attempt).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}

pub async fn a_refused_attempt_can_be_repeated(store: &Fixture) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    refuse(store, &attempt).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
}

pub async fn an_id_with_other_content_is_reused(store: &Fixture) {
    let attempt = new_attempt();
    let other = with_other_content(&attempt);
    begin(store, &attempt).await;
    assert_eq!(begin(store, &other).await, BeginOutcome::Reused);
    accept(store, &attempt).await;
    assert_eq!(begin(store, &other).await, BeginOutcome::Reused);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}

pub async fn a_repetition_within_one_call_is_in_flight(store: &Fixture) {
    let (one, two) = (new_attempt(), new_attempt());
    let attempts = [one.clone(), two.clone(), one.clone(), with_other_content(&two)];
    let expected = vec![
        BeginOutcome::First,
        BeginOutcome::First,
        BeginOutcome::InFlight,
        BeginOutcome::Reused,
    ];
    assert_eq!(begin_all(store, &attempts).await, expected);
}

pub async fn exactly_one_of_many_concurrent_attempts_is_first(store: &Fixture) {
    let attempts: Vec<IdempotentSubmission> = (0..20).map(|_| new_attempt()).collect();
    let rivals: Vec<_> = (0..16)
        .map(|_| {
            let (store, attempts) = (Arc::clone(store), attempts.clone());
            tokio::spawn(async move { begin_all(&store, &attempts).await })
        })
        .collect();
    let mut firsts = vec![0; attempts.len()];
    for rival in rivals {
        for (first, outcome) in firsts.iter_mut().zip(rival.await.unwrap()) {
            match outcome {
                BeginOutcome::First => *first += 1,
                other => assert_eq!(other, BeginOutcome::InFlight),
            }
        }
    }
    assert_eq!(firsts, vec![1; attempts.len()]);
}

pub async fn a_refusal_does_not_remove_an_accepted_attempt(store: &Fixture) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    accept(store, &attempt).await;
    refuse(store, &attempt).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}

pub async fn a_refusal_does_not_remove_an_attempt_with_other_content(store: &Fixture) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    refuse(store, &with_other_content(&attempt)).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::InFlight);
}

pub async fn an_attempt_with_an_unknown_outcome_can_be_repeated_with_the_same_content_alone(
    store: &Fixture,
) {
    let attempt = new_attempt();
    let other = with_other_content(&attempt);
    begin(store, &attempt).await;
    lose_the_outcome(store, &attempt).await;
    for _ in 0..2 {
        assert_eq!(begin(store, &other).await, BeginOutcome::Reused);
        assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
        lose_the_outcome(store, &attempt).await;
    }
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
    accept(store, &attempt).await;
    assert_eq!(begin(store, &other).await, BeginOutcome::Reused);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}

pub async fn a_refusal_does_not_remove_an_attempt_with_an_unknown_outcome(store: &Fixture) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    lose_the_outcome(store, &attempt).await;
    begin(store, &attempt).await;
    refuse(store, &attempt).await;
    refuse(store, &with_other_content(&attempt)).await;
    assert_eq!(begin(store, &with_other_content(&attempt)).await, BeginOutcome::Reused);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
}

pub async fn an_unknown_outcome_does_not_replace_an_accepted_attempt_or_other_content(
    store: &Fixture,
) {
    let attempt = new_attempt();
    begin(store, &attempt).await;
    lose_the_outcome(store, &with_other_content(&attempt)).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::InFlight);
    accept(store, &attempt).await;
    lose_the_outcome(store, &attempt).await;
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}

pub async fn an_outcome_is_also_stored_of_an_attempt_that_was_not_begun(store: &Fixture) {
    let attempt = new_attempt();
    lose_the_outcome(store, &attempt).await;
    assert_eq!(begin(store, &with_other_content(&attempt)).await, BeginOutcome::Reused);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
}

pub async fn one_id_in_two_budgets_is_two_attempts(store: &Fixture) {
    let attempt = new_attempt();
    let elsewhere = IdempotentSubmission { budget: new_budget_id(), ..attempt.clone() };
    begin(store, &attempt).await;
    accept(store, &attempt).await;
    assert_eq!(begin(store, &elsewhere).await, BeginOutcome::First);
}

pub async fn one_id_of_two_persons_is_two_attempts(store: &Fixture) {
    let attempt = new_attempt();
    let of_another = IdempotentSubmission {
        person: PersonKey::from_bytes([2; 16]),
        digest: attempt.digest ^ 1,
        ..attempt.clone()
    };
    assert_eq!(begin(store, &attempt).await, BeginOutcome::First);
    assert_eq!(begin(store, &of_another).await, BeginOutcome::First);
    accept(store, &attempt).await;
    assert_eq!(begin(store, &of_another).await, BeginOutcome::InFlight);
    refuse(store, &of_another).await;
    assert_eq!(begin(store, &of_another).await, BeginOutcome::First);
    assert_eq!(begin(store, &attempt).await, BeginOutcome::Repeat(RECEIPT));
}
