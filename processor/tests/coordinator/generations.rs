//! Steps from one roster to the next, on a store that does not always answer.

use std::sync::atomic::Ordering;

use processor::generations::{Refused, begin, begin_first, change, flip, roll_back};
use schemas::{Generation, LogNumber, LogRef, PartitionCount, Roster, Term};
use storage::store::{Store, StoreError};

use crate::support::store::FaultyStore;

fn first() -> Roster {
    Roster::first(LogRef::first("submissions", PartitionCount::new(1).unwrap()))
}

/// With a second generation that answers, and the first to go back to.
async fn flipped(store: &FaultyStore) {
    store.inner.change_roster(&first()).await.unwrap();
    change(&store.inner, |roster| begin(roster, false, 5)).await.unwrap();
    change(&store.inner, |roster| flip(roster, Generation(2))).await.unwrap();
}

/// To whichever was before, by each attempt anew.
fn back_or_forth(roster: &Roster) -> Result<Roster, Refused> {
    let previous = roster.previous.as_ref().map(|record| record.generation);
    roll_back(roster, previous.unwrap())
}

async fn term(store: &FaultyStore) -> Term {
    store.inner.roster().await.unwrap().unwrap().term()
}

#[tokio::test(start_paused = true)]
async fn a_step_that_happens_after_its_answer_was_given_up_is_taken_once() {
    let store = FaultyStore::default();
    flipped(&store).await;
    store.hangs.store(true, Ordering::Relaxed);
    let rolled_back = change(&store, back_or_forth).await.unwrap();
    let back = Term { number: 3, generation: Generation(1), log: LogNumber::FIRST };
    assert_eq!((rolled_back.term(), term(&store).await), (back, back));
}

#[tokio::test(start_paused = true)]
async fn steps_whose_answers_get_lost_are_each_taken_once() {
    let store = FaultyStore::losing();
    flipped(&store).await;
    for number in 3..40 {
        change(&store, back_or_forth).await.unwrap();
        assert_eq!(term(&store).await.number, number);
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_begin_are_told_of_the_same_roster_whatever_is_lost() {
    let store = FaultyStore::losing();
    let begin = |topic: &'static str| {
        let store = &store;
        async move {
            loop {
                match begin_first(store, &LogRef::first(topic, PartitionCount::new(1).unwrap()))
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
    assert_eq!(store.inner.roster().await, Ok(Some(one)));
}
