//! Which generation is shown, and how often the store is asked for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fakes::Mode;
use crate::world::*;

#[tokio::test(start_paused = true)]
async fn the_current_generation_is_asked_for_once_a_second_however_many_read() {
    let world = World::new();
    for person in 0..100 {
        let path = format!("/v1/budgets/town/submissions/p-{person}");
        assert_eq!(world.get(&path).await.status, 404);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = world.store.generation_asked.load(Ordering::SeqCst);
    assert!((5..=6).contains(&asked), "{asked} in 5 s");
}

#[tokio::test(start_paused = true)]
async fn after_a_flip_the_later_term_is_shown_whatever_the_store_says_next() {
    let world = World::new().settled().await;
    world.commit("town", &[(1, [2_500, 7_500])]);
    world.cache.switch.set(Mode::Fails);
    let terms = [((1, 1), 1), ((2, 2), 2), ((1, 1), 2), ((3, 1), 1), ((2, 2), 1), ((4, 2), 2)];
    for ((term, generation), shown) in terms {
        world.store.flip(term, generation);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        // Longer than the answer in memory is trusted, and than the pointer is.
        for _ in 0..40 {
            let got = world.aggregate("town").await;
            assert_eq!((&got.json()["generation"], got.people()), (&shown.into(), 1));
            assert_ne!(got.tier(), "stale");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}
