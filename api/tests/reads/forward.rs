//! Forward only, and how news keeps memory up.

use std::time::Duration;

use proptest::prelude::*;
use storage::cache::CacheUpdate;
use tokio::time::{Instant, advance};

use crate::fakes::{Mode, id};
use crate::world::*;

const NO_LONGER_FRESH: Duration = Duration::from_millis(30);

fn moved(budget: &str) -> CacheUpdate {
    CacheUpdate::Moved(id(budget))
}

/// A world in which news flows and somebody has just read `town`, which counts one person.
async fn with_news() -> World {
    listening(World::new()).await
}

async fn listening(world: World) -> World {
    let world = world.settled().await;
    world.commit("town", &[(0, [5_000, 5_000])]);
    assert_eq!(world.aggregate("town").await.people(), 1);
    world.cache.tell(CacheUpdate::Resumed);
    let asked = world.cache.asked("town");
    until("looked at anew", || world.cache.asked("town") > asked).await;
    world
}

#[tokio::test(start_paused = true)]
async fn after_news_of_a_move_memory_has_the_new_answer_before_anyone_asks() {
    let world = with_news().await;
    world.commit("town", &[(0, [5_000, 5_000]), (2, [0, 10_000])]);
    world.cache.tell(moved("town"));
    advance(Duration::from_millis(10)).await;
    until("refreshed", || {
        world.metric("allocator_api_reads_total{outcome=\"hit\",tier=\"redis\"}") >= 3.0
    })
    .await;
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "memory"));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_news_costs_few_fetches() {
    let world = with_news().await;
    let before = world.cache.asked("town");
    for _ in 0..200 {
        world.cache.tell(moved("town"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let fetches = world.cache.asked("town") - before;
    assert!((20..=45).contains(&fetches), "{fetches} fetches in 200 ms");
}

#[tokio::test(start_paused = true)]
async fn news_about_what_nobody_reads_costs_nothing() {
    let world = with_news().await;
    world.cache.tell(moved("park"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.cache.asked("park"), 0);
}

/// The same, with a memory that trusts the news as long as can be.
async fn with_news_long_trusted() -> World {
    listening(World::with(&[("api.freshness_ms", "10000")])).await
}

/// Around the moment from which what was last read is not kept up any more, in milliseconds after that read.
const FORGOTTEN: std::ops::Range<u64> = 28_500..31_500;

#[tokio::test(start_paused = true)]
async fn a_move_is_not_missed_because_nobody_read_for_a_while() {
    for moment in FORGOTTEN.step_by(100) {
        let world = with_news_long_trusted().await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        world.commit("town", &[(0, [5_000, 5_000]), (2, [0, 10_000])]);
        world.cache.tell(moved("town"));
        tokio::time::sleep(NO_LONGER_FRESH).await;
        assert_eq!(world.aggregate("town").await.people(), 2, "after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_still_followed_does_not_hide_the_next_that_is_not() {
    for moment in FORGOTTEN.step_by(100) {
        let world = with_news_long_trusted().await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let mut people = vec![(0, [5_000, 5_000])];
        for _ in 0..3 {
            people.push((2, [0, 10_000]));
            world.commit("town", &people);
            world.cache.tell(moved("town"));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert_eq!(world.aggregate("town").await.people(), 4, "after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn with_news_memory_is_trusted_and_without_only_briefly() {
    let world = with_news().await;
    world.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    advance(NO_LONGER_FRESH).await;
    assert_eq!(world.aggregate("town").await.people(), 1, "nobody told of a move");
    world.cache.tell(CacheUpdate::Interrupted);
    tokio::time::sleep(NO_LONGER_FRESH).await;
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "redis"));
}

#[tokio::test(start_paused = true)]
async fn news_of_what_memory_knows_does_not_wait_for_what_it_does_not() {
    let world = with_news().await;
    // The one that the process has looked up by itself.
    world.commit("taxes", &[]);
    world.store.totals_switch.set(Mode::Hangs);
    world.store.people_switch.set(Mode::Fails);
    let cold = tokio::spawn({
        let world = world.clone();
        async move { world.aggregate("park").await }
    });
    let mut people = vec![(0, [5_000, 5_000])];
    // Long enough for the timer to mark both again and again, and for the store's breaker to open and try it anew.
    for _ in 0..100 {
        people.push((2, [0, 10_000]));
        world.commit("town", &people);
        world.cache.tell(moved("town"));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(world.aggregate("town").await.people(), people.len() as u64);
    }
    assert_eq!(cold.await.unwrap().status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_news_makes_everything_be_read_anew() {
    let world = with_news().await;
    world.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    // More than the subscriber's channel holds, and none of it about `town`.
    for _ in 0..20 {
        world.cache.tell(moved("park"));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.aggregate("town").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_any_news_what_is_read_is_still_confirmed_on_a_timer() {
    let world = with_news().await;
    world.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "memory"));
}

#[tokio::test(start_paused = true)]
async fn news_is_not_answered_with_a_fetch_that_began_before_it() {
    let world = with_news().await;
    world.cache.tell(CacheUpdate::Interrupted);
    tokio::time::sleep(NO_LONGER_FRESH).await;
    // A fetch is under way when the totals move.
    world.cache.switch.set(Mode::Hangs);
    let asked = world.cache.asked("town");
    let reader = tokio::spawn({
        let world = world.clone();
        async move { world.aggregate("town").await }
    });
    while world.cache.asked("town") == asked {
        tokio::task::yield_now().await;
    }
    world.commit("town", &[(0, [5_000, 5_000]), (0, [5_000, 5_000])]);
    world.cache.tell(moved("town"));
    world.cache.switch.set(Mode::Works);
    let told = Instant::now();
    assert_eq!(reader.await.unwrap().people(), 1);
    until("fetched again", || world.cache.asked("town") >= asked + 2).await;
    assert!(told.elapsed() < Duration::from_millis(20), "by the timer only");
    assert_eq!(world.aggregate("town").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_older_or_incomparable_confirms_nothing() {
    for copy in [vec![(0, [5_000, 5_000])], vec![(0, [5_000, 5_000]); 2]] {
        let world = World::new().settled().await;
        world.commit("town", &[(0, [5_000, 5_000]), (1, [5_000, 5_000])]);
        world.aggregate("town").await;
        world.cache.put("town", Some(merged(&parts(&copy))));
        world.store.totals_switch.set(Mode::Fails);
        advance(NO_LONGER_FRESH).await;
        assert_eq!(world.aggregate("town").await.tier(), "stale");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The copy shows the log's first records of each partition.
    Redis(Option<[usize; 3]>),
    /// The committed totals do.
    Summary([usize; 3]),
    RedisIs(Mode),
    SummaryIs(Mode),
    News,
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
        Just(Step::News),
        Just(Step::Interrupted),
        (0..1_500_u64).prop_map(Step::Wait),
        Just(Step::Read),
        Just(Step::Read),
    ]
}

/// What the first records of each partition come to.
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
    /// Copies and totals may jump back and forth as they like; whoever reads may not notice.
    #[test]
    fn no_reader_sees_a_number_or_version_go_back(steps in prop::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World::new();
            let (mut people, mut version) = (0, String::new());
            for step in steps {
                match step {
                    Step::Redis(lengths) => {
                        let totals = lengths.map(|lengths| merged(&parts(&prefix(lengths))));
                        world.cache.put("town", totals);
                    }
                    Step::Summary(lengths) => world.store.put("town", parts(&prefix(lengths))),
                    Step::RedisIs(mode) => world.cache.switch.set(mode),
                    Step::SummaryIs(mode) => world.store.totals_switch.set(mode),
                    Step::News => world.cache.tell(moved("town")),
                    Step::Interrupted => world.cache.tell(CacheUpdate::Interrupted),
                    Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Step::Read => {
                        let body = world.aggregate("town").await.json();
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
