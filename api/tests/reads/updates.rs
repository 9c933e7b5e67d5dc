//! Cache updates keep memory current, and no reader sees totals go backwards.

use std::time::Duration;

use proptest::prelude::*;
use storage::cache::CacheUpdate;
use tokio::time::{Instant, advance};

use crate::fakes::{Mode, id};
use crate::test_server::*;

const AFTER_FRESHNESS: Duration = Duration::from_millis(30);

pub fn changed(budget: &str) -> CacheUpdate {
    CacheUpdate::Changed(id(budget))
}

/// Creates a server with live cache updates. `town` counts one person and was recently read.
pub async fn server_with_live_updates() -> TestServer {
    with_live_updates(TestServer::new()).await
}

async fn with_live_updates(server: TestServer) -> TestServer {
    let server = server.until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    assert_eq!(server.aggregate("town").await.people(), 1);
    server.cache.send_update(CacheUpdate::Resumed);
    let reads_before = server.cache.reads_of("town");
    wait_until("town is read again", || server.cache.reads_of("town") > reads_before).await;
    server
}

#[tokio::test(start_paused = true)]
async fn a_cache_update_refreshes_memory_before_the_next_read() {
    let server = server_with_live_updates().await;
    server.commit("town", &[(0, [5_000, 5_000]), (2, [0, 10_000])]);
    server.cache.send_update(changed("town"));
    advance(Duration::from_millis(10)).await;
    wait_until("refreshed", || {
        server.metric("allocator_api_reads_total{outcome=\"hit\",tier=\"redis\"}") >= 3.0
    })
    .await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "memory"));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_updates_costs_few_fetches() {
    let server = server_with_live_updates().await;
    let before = server.cache.reads_of("town");
    for _ in 0..200 {
        server.cache.send_update(changed("town"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let fetches = server.cache.reads_of("town") - before;
    assert!((20..=45).contains(&fetches), "{fetches} fetches in 200 ms");
}

#[tokio::test(start_paused = true)]
async fn an_update_of_an_unread_budget_costs_no_fetch() {
    let server = server_with_live_updates().await;
    server.cache.send_update(changed("park"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.cache.reads_of("park"), 0);
}

/// The same, with the longest configurable freshness.
async fn server_with_long_freshness() -> TestServer {
    with_live_updates(TestServer::with_settings(&[("api.freshness_ms", "10000")])).await
}

/// Milliseconds after a read, around the end of the background refresh of the read budget.
const REFRESH_END_MS: std::ops::Range<u64> = 28_500..31_500;

#[tokio::test(start_paused = true)]
async fn an_update_of_a_budget_not_read_for_a_while_is_not_missed() {
    for moment in REFRESH_END_MS.step_by(100) {
        let server = server_with_long_freshness().await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.commit("town", &[(0, [5_000, 5_000]), (2, [0, 10_000])]);
        server.cache.send_update(changed("town"));
        tokio::time::sleep(AFTER_FRESHNESS).await;
        assert_eq!(server.aggregate("town").await.people(), 2, "after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetched_update_does_not_hide_a_later_unfetched_one() {
    for moment in REFRESH_END_MS.step_by(100) {
        let server = server_with_long_freshness().await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let mut people = vec![(0, [5_000, 5_000])];
        for _ in 0..3 {
            people.push((2, [0, 10_000]));
            server.commit("town", &people);
            server.cache.send_update(changed("town"));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert_eq!(server.aggregate("town").await.people(), 4, "after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_fresh_with_live_updates_and_only_briefly_without() {
    let server = server_with_live_updates().await;
    server.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    advance(AFTER_FRESHNESS).await;
    assert_eq!(server.aggregate("town").await.people(), 1, "no update was sent");
    server.cache.send_update(CacheUpdate::Interrupted);
    tokio::time::sleep(AFTER_FRESHNESS).await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "redis"));
}

#[tokio::test(start_paused = true)]
async fn updates_of_warm_budgets_do_not_wait_for_cold_ones() {
    let server = server_with_live_updates().await;
    // The default budget, which the readiness check has fetched.
    server.commit("taxes", &[]);
    server.store.totals_switch.set(Mode::Hangs);
    server.store.people_switch.set(Mode::Fails);
    let cold = tokio::spawn({
        let server = server.clone();
        async move { server.aggregate("park").await }
    });
    let mut people = vec![(0, [5_000, 5_000])];
    // Long enough for many confirmation rounds, and for the store's breaker to open and probe.
    for _ in 0..100 {
        people.push((2, [0, 10_000]));
        server.commit("town", &people);
        server.cache.send_update(changed("town"));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(server.aggregate("town").await.people(), people.len() as u64);
    }
    assert_eq!(cold.await.unwrap().status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_updates_makes_every_budget_be_read_again() {
    let server = server_with_live_updates().await;
    server.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    // More updates than the subscription's channel holds, none of them of `town`.
    for _ in 0..20 {
        server.cache.send_update(changed("park"));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(server.aggregate("town").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_updates_recently_read_budgets_are_confirmed_on_a_timer() {
    let server = server_with_live_updates().await;
    server.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "memory"));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_not_satisfied_by_a_fetch_that_began_before_it() {
    let server = server_with_live_updates().await;
    server.cache.send_update(CacheUpdate::Interrupted);
    tokio::time::sleep(AFTER_FRESHNESS).await;
    // A fetch is running when the totals change.
    server.cache.switch.set(Mode::Hangs);
    let reads_before = server.cache.reads_of("town");
    let reader = tokio::spawn({
        let server = server.clone();
        async move { server.aggregate("town").await }
    });
    while server.cache.reads_of("town") == reads_before {
        tokio::task::yield_now().await;
    }
    server.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    server.cache.send_update(changed("town"));
    server.cache.switch.set(Mode::Works);
    let updated_at = Instant::now();
    assert_eq!(reader.await.unwrap().people(), 1);
    wait_until("fetched again", || server.cache.reads_of("town") >= reads_before + 2).await;
    assert!(updated_at.elapsed() < Duration::from_millis(20), "refreshed only by the timer");
    assert_eq!(server.aggregate("town").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn older_or_incomparable_totals_in_redis_confirm_nothing() {
    for cached in [vec![(0, [5_000, 5_000])], vec![(0, [5_000, 5_000]); 2]] {
        let server = TestServer::new().until_ready().await;
        server.commit("town", &[(0, [5_000, 5_000]), (1, [5_000, 5_000])]);
        server.aggregate("town").await;
        server.cache.put("town", Some(combined(&partition_totals(&cached))));
        server.store.totals_switch.set(Mode::Fails);
        advance(AFTER_FRESHNESS).await;
        assert_eq!(server.aggregate("town").await.tier(), "stale");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The cache holds the totals of the first records of each partition.
    Redis(Option<[usize; 3]>),
    /// The store holds the totals of the first records of each partition.
    Summary([usize; 3]),
    RedisIs(Mode),
    SummaryIs(Mode),
    Update,
    Interrupted,
    Wait(u64),
    Read,
}

fn any_step() -> impl Strategy<Value = Step> {
    let prefix = || prop::array::uniform3(0..6_usize);
    let mode = || prop_oneof![Just(Mode::Works), Just(Mode::Fails), Just(Mode::Hangs)];
    prop_oneof![
        prop::option::of(prefix()).prop_map(Step::Redis),
        prefix().prop_map(Step::Summary),
        mode().prop_map(Step::RedisIs),
        mode().prop_map(Step::SummaryIs),
        Just(Step::Update),
        Just(Step::Interrupted),
        (0..1_500_u64).prop_map(Step::Wait),
        Just(Step::Read),
        Just(Step::Read),
    ]
}

/// Builds the submissions of the first records of each partition.
fn prefix(lengths: [usize; 3]) -> Vec<(u32, [u16; 2])> {
    (0..3)
        .zip(lengths)
        .flat_map(|(partition, length)| {
            (0..length as u16).map(move |record| (partition, [record * 100, 10_000 - record * 100]))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Cache and store may jump back and forth arbitrarily; readers must not notice.
    #[test]
    fn no_reader_sees_a_total_or_version_go_back(steps in prop::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = TestServer::new();
            let (mut people, mut version) = (0, String::new());
            for step in steps {
                match step {
                    Step::Redis(lengths) => {
                        let totals = lengths.map(|lengths| combined(&partition_totals(&prefix(lengths))));
                        server.cache.put("town", totals);
                    }
                    Step::Summary(lengths) => server.store.put("town", partition_totals(&prefix(lengths))),
                    Step::RedisIs(mode) => server.cache.switch.set(mode),
                    Step::SummaryIs(mode) => server.store.totals_switch.set(mode),
                    Step::Update => server.cache.send_update(changed("town")),
                    Step::Interrupted => server.cache.send_update(CacheUpdate::Interrupted),
                    Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Step::Read => {
                        let body = server.aggregate("town").await.json();
                        let now = (body["people"].as_u64(), body["version"].as_str());
                        let (Some(now_people), Some(now_version)) = now else { continue };
                        let sum: u64 = body["categories"].as_array().unwrap().iter()
                            .map(|category| category["total_basis_points"].as_u64().unwrap())
                            .sum();
                        assert_eq!(sum, now_people * 10_000);
                        assert!(now_people >= people && now_version >= version.as_str());
                        (people, version) = (now_people, now_version.to_owned());
                    }
                }
            }
        });
    }
}
