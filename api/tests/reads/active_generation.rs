//! The active generation: which one is served, and how often the registry is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fakes::Mode;
use crate::test_server::*;

#[tokio::test(start_paused = true)]
async fn the_registry_is_read_once_a_second_for_any_number_of_reads() {
    let server = TestServer::new();
    for person in 0..100 {
        let path = format!("/v1/budgets/town/submissions/p-{person}");
        assert_eq!(server.get(&path).await.status, 404);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reads = server.store.registry_reads.load(Ordering::SeqCst);
    assert!((5..=6).contains(&reads), "{reads} in 5 s");
}

#[tokio::test(start_paused = true)]
async fn after_a_switch_the_latest_term_is_served_even_if_the_registry_returns_an_older_one() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(1, [2_500, 7_500])]);
    server.cache.switch.set(Mode::Fails);
    let terms = [((1, 1), 1), ((2, 2), 2), ((1, 1), 2), ((3, 1), 1), ((2, 2), 1), ((4, 2), 2)];
    for ((term, generation), shown) in terms {
        server.store.switch_generation(term, generation);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        // Longer than an answer in memory is fresh, and than the active generation is cached.
        for _ in 0..40 {
            let got = server.aggregate("town").await;
            assert_eq!((&got.json()["generation"], got.people()), (&shown.into(), 1));
            assert_ne!(got.tier(), "stale");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}
