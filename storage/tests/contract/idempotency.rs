//! What every memory of submission ids must hold.

use std::sync::Arc;

use schemas::{LogNumber, Offset, PartitionId, Receipt, SubmissionId};
use storage::idempotency::{Attempt, Begun, Idempotency};
use uuid::Uuid;

use super::build::new_budget_id;

pub type Fixture = Arc<dyn Idempotency>;

macro_rules! idempotency_contract {
    ($fixture:expr) => {
        crate::contract::properties! { idempotency, $fixture;
            an_attempt_is_the_first_and_then_in_flight,
            an_accepted_attempt_is_a_repeat_with_its_receipt,
            a_refused_attempt_may_be_made_again,
            a_name_used_for_other_content_is_reused,
            a_repetition_in_one_slice_is_in_flight,
            of_many_at_once_exactly_one_is_the_first,
            forgetting_does_not_reach_what_was_accepted,
            forgetting_does_not_reach_an_attempt_with_other_content,
            one_name_in_two_budgets_is_two_attempts,
        }
    };
}
pub(crate) use idempotency_contract;

const RECEIPT: Receipt =
    Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(1_042) };

fn new_attempt() -> Attempt {
    Attempt { budget: new_budget_id(), submission: SubmissionId(Uuid::new_v4()), digest: u64::MAX }
}

fn with_other_content(attempt: &Attempt) -> Attempt {
    Attempt { digest: attempt.digest ^ 1, ..attempt.clone() }
}

async fn begin(memory: &Fixture, attempt: &Attempt) -> Begun {
    memory.begin(std::slice::from_ref(attempt)).await[0]
}

async fn accept(memory: &Fixture, attempt: &Attempt) {
    memory.finish(&[(attempt.clone(), Some(RECEIPT))]).await;
}

async fn refuse(memory: &Fixture, attempt: &Attempt) {
    memory.finish(&[(attempt.clone(), None)]).await;
}

pub async fn an_attempt_is_the_first_and_then_in_flight(memory: &Fixture) {
    let attempt = new_attempt();
    assert_eq!(begin(memory, &attempt).await, Begun::First);
    assert_eq!(begin(memory, &attempt).await, Begun::InFlight);
}

pub async fn an_accepted_attempt_is_a_repeat_with_its_receipt(memory: &Fixture) {
    let attempt = new_attempt();
    begin(memory, &attempt).await;
    accept(memory, &attempt).await;
    assert_eq!(begin(memory, &attempt).await, Begun::Repeat(RECEIPT));
    assert_eq!(begin(memory, &attempt).await, Begun::Repeat(RECEIPT));
}

pub async fn a_refused_attempt_may_be_made_again(memory: &Fixture) {
    let attempt = new_attempt();
    begin(memory, &attempt).await;
    refuse(memory, &attempt).await;
    assert_eq!(begin(memory, &attempt).await, Begun::First);
}

pub async fn a_name_used_for_other_content_is_reused(memory: &Fixture) {
    let attempt = new_attempt();
    let other = with_other_content(&attempt);
    begin(memory, &attempt).await;
    assert_eq!(begin(memory, &other).await, Begun::Reused);
    accept(memory, &attempt).await;
    assert_eq!(begin(memory, &other).await, Begun::Reused);
    assert_eq!(begin(memory, &attempt).await, Begun::Repeat(RECEIPT));
}

pub async fn a_repetition_in_one_slice_is_in_flight(memory: &Fixture) {
    let (one, two) = (new_attempt(), new_attempt());
    let attempts = [one.clone(), two.clone(), one.clone(), with_other_content(&two)];
    let expected = vec![Begun::First, Begun::First, Begun::InFlight, Begun::Reused];
    assert_eq!(memory.begin(&attempts).await, expected);
}

pub async fn of_many_at_once_exactly_one_is_the_first(memory: &Fixture) {
    let attempts: Vec<Attempt> = (0..20).map(|_| new_attempt()).collect();
    let rivals: Vec<_> = (0..16)
        .map(|_| {
            let (memory, attempts) = (Arc::clone(memory), attempts.clone());
            tokio::spawn(async move { memory.begin(&attempts).await })
        })
        .collect();
    let mut firsts = vec![0; attempts.len()];
    for rival in rivals {
        for (first, begun) in firsts.iter_mut().zip(rival.await.unwrap()) {
            match begun {
                Begun::First => *first += 1,
                other => assert_eq!(other, Begun::InFlight),
            }
        }
    }
    assert_eq!(firsts, vec![1; attempts.len()]);
}

pub async fn forgetting_does_not_reach_what_was_accepted(memory: &Fixture) {
    let attempt = new_attempt();
    begin(memory, &attempt).await;
    accept(memory, &attempt).await;
    refuse(memory, &attempt).await;
    assert_eq!(begin(memory, &attempt).await, Begun::Repeat(RECEIPT));
}

pub async fn forgetting_does_not_reach_an_attempt_with_other_content(memory: &Fixture) {
    let attempt = new_attempt();
    begin(memory, &attempt).await;
    refuse(memory, &with_other_content(&attempt)).await;
    assert_eq!(begin(memory, &attempt).await, Begun::InFlight);
}

pub async fn one_name_in_two_budgets_is_two_attempts(memory: &Fixture) {
    let attempt = new_attempt();
    let elsewhere = Attempt { budget: new_budget_id(), ..attempt.clone() };
    begin(memory, &attempt).await;
    accept(memory, &attempt).await;
    assert_eq!(begin(memory, &elsewhere).await, Begun::First);
}
