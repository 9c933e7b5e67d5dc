//! Changes of the generation registry on a store that loses responses.

use std::sync::atomic::Ordering;

use generations::registry::{
    TransitionRefused, begin, load_or_create, roll_back, switch_active, update_registry,
};
use schemas::{Generation, GenerationRegistry, LogNumber, LogRef, PartitionCount, Term};
use storage::store::{Generations, StoreError};

use crate::support::store::{Faults, FaultyStore};

fn first() -> GenerationRegistry {
    GenerationRegistry::first(LogRef::first("submissions", PartitionCount::new(1).unwrap()))
}

/// Prepares a second, active generation, with the first to roll back to.
async fn switch_to_second(store: &FaultyStore) {
    store.inner.change_registry(&first()).await.unwrap();
    update_registry(&store.inner, |registry| begin(registry, false, 5)).await.unwrap();
    update_registry(&store.inner, |registry| switch_active(registry, Generation(2))).await.unwrap();
}

/// Rolls back to the previous generation, whichever that is at each attempt.
fn roll_back_to_previous(
    registry: &GenerationRegistry,
) -> Result<GenerationRegistry, TransitionRefused> {
    let previous = registry.previous.as_ref().map(|record| record.generation);
    roll_back(registry, previous.unwrap())
}

async fn term(store: &FaultyStore) -> Term {
    store.inner.registry().await.unwrap().unwrap().term()
}

#[tokio::test(start_paused = true)]
async fn a_change_applied_after_its_caller_gave_up_is_applied_once() {
    let store = FaultyStore::default();
    switch_to_second(&store).await;
    store.defer_next_registry_change.store(true, Ordering::Relaxed);
    let rolled_back = update_registry(&store, roll_back_to_previous).await.unwrap();
    let back = Term { number: 3, generation: Generation(1), log: LogNumber::FIRST };
    assert_eq!((rolled_back.term(), term(&store).await), (back, back));
}

#[tokio::test(start_paused = true)]
async fn changes_whose_responses_are_lost_are_each_applied_once() {
    let store = Faults::losing_responses();
    switch_to_second(&store).await;
    for number in 3..40 {
        update_registry(&store, roll_back_to_previous).await.unwrap();
        assert_eq!(term(&store).await.number, number);
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_starters_create_and_see_the_same_registry() {
    let store = Faults::losing_responses();
    let begin = |topic: &'static str| {
        let store = &store;
        async move {
            loop {
                match load_or_create(store, &LogRef::first(topic, PartitionCount::new(1).unwrap()))
                    .await
                {
                    Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
                    begun => return begun.unwrap(),
                }
            }
        }
    };
    let (one, two) = tokio::join!(begin("one"), begin("two"));
    assert_eq!(one, two);
    assert_eq!(store.inner.registry().await, Ok(Some(one)));
}
