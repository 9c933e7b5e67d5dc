//! The active generation: which one is served, and how often the registry is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{CombinedTotals, Generation, LogNumber, Term};
use tokio::time::Instant;

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

/// What was shown counted a record that the rebuilt generation does not: forged totals, or a newer fold.
#[tokio::test(start_paused = true)]
async fn rebuilt_totals_that_end_earlier_are_shown_a_minute_after_the_switch_by_every_tier() {
    for from_redis in [false, true] {
        let server = TestServer::new().until_ready().await;
        server.commit("town", &[(0, [5_000, 5_000]), (1, [5_000, 5_000]), (1, [0, 10_000])]);
        let before = server.aggregate("town").await;
        assert_eq!(before.people(), 3);

        let rebuilt = partition_totals(&[(0, [5_000, 5_000]), (1, [5_000, 5_000])]);
        server.store.switch_generation(2, 2);
        if from_redis {
            let term = Term { number: 2, generation: Generation(2), log: LogNumber::FIRST };
            let totals = CombinedTotals { term, ..combined(&rebuilt) };
            server.cache.put("town", Some(totals));
            server.store.totals_switch.set(Mode::Fails);
        } else {
            server.store.put("town", rebuilt);
            server.cache.switch.set(Mode::Fails);
        }
        // A generation that is only a moment behind is waited for.
        let switched = Instant::now();
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(server.aggregate("town").await.people(), 3);
        let after = loop {
            let got = server.aggregate("town").await;
            if got.people() == 2 {
                break got;
            }
            assert!(switched.elapsed() < Duration::from_secs(70), "the correction is never shown");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let version = |body: &serde_json::Value| body["version"].as_str().unwrap().to_owned();
        assert!(version(&after.json()) > version(&before.json()), "a stream resumes by versions");
        assert_eq!(after.json()["generation"], 2);
        // A late answer of the earlier term does not bring the wrong number back.
        server.cache.switch.set(Mode::Works);
        server.commit("town", &[(0, [5_000, 5_000]); 9]);
        server.store.totals_switch.set(Mode::Fails);
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(server.aggregate("town").await.people(), 2);
    }
}
