//! The sum that Redis keeps of all partitions: exact after evictions and damage, next to the script of the previous
//! release, and at a cost that does not grow with the partitions.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Script};
use schemas::redis::{
    AGGREGATE_COPY_KEY, PEOPLE_COPY_KEY, aggregate_key, partitions_key, people_key, publish_keys,
};
use schemas::{
    BudgetId, BudgetTotals, CombinedTotals, DEFAULT_BUDGET, PartitionId, PartitionTotals, Position,
    Term,
};
use storage::cache::Cache;
use storage::cache::redis::RedisCache;

use crate::build::{count, new_budget_id, totals};
use crate::redis_server::Server;

/// The script of the previous release, which adds up all partitions at each move.
const PREVIOUS_SCRIPT: &str = include_str!("../earlier_release/publish.lua");

const TERM: Term = Term::FIRST;

/// A budget in a cache, and what it should be.
struct Fixture {
    _server: Server,
    redis: MultiplexedConnection,
    cache: RedisCache,
    budget: BudgetId,
    parts: Vec<BudgetTotals>,
}

impl Fixture {
    /// Publishes a budget with these partitions.
    async fn new(budget: BudgetId, parts: Vec<BudgetTotals>) -> Self {
        let server = Server::running().await;
        let client = redis::Client::open(server.url()).unwrap();
        let redis = client.get_multiplexed_async_connection().await.unwrap();
        let cache = RedisCache::connect(&server.config()).await;
        let fixture = Self { _server: server, redis, cache, budget, parts };
        for (partition, part) in (0..).zip(&fixture.parts) {
            fixture.publish(partition, part.clone()).await;
        }
        assert_eq!(fixture.read().await, Some(fixture.sum()));
        fixture
    }

    async fn three_partitions() -> Self {
        Self::new(new_budget_id(), [(5, 10), (6, 20), (7, 30)].map(part).to_vec()).await
    }

    async fn publish(&self, partition: u32, totals: BudgetTotals) {
        let part = PartitionTotals { term: TERM, partition: PartitionId(partition), totals };
        let count = count(self.parts.len() as u64);
        self.cache.publish(&self.budget, count, &[part]).await.unwrap();
    }

    /// Publishes newer totals of a partition.
    async fn advance(&mut self, partition: u32, totals: BudgetTotals) {
        self.publish(partition, totals.clone()).await;
        self.parts[partition as usize] = totals;
    }

    async fn outdated(&self) -> Vec<u32> {
        let positions: Vec<(PartitionId, Position)> =
            (0..).map(PartitionId).zip(self.parts.iter().map(|part| part.position)).collect();
        let count = count(self.parts.len() as u64);
        let outdated = self.cache.outdated_partitions(&self.budget, TERM, count, &positions).await;
        outdated.unwrap().into_iter().map(|partition| partition.0).collect()
    }

    /// Does what owners do at each interval. Returns which partitions they published.
    async fn confirm(&self) -> Vec<u32> {
        let outdated = self.outdated().await;
        for partition in &outdated {
            self.publish(*partition, self.parts[*partition as usize].clone()).await;
        }
        outdated
    }

    async fn read(&self) -> Option<CombinedTotals> {
        self.cache.read(std::slice::from_ref(&self.budget)).await.unwrap().remove(0)
    }

    fn sum(&self) -> CombinedTotals {
        let parts: Vec<_> = self.parts.iter().cloned().map(Some).collect();
        CombinedTotals::merge(TERM, count(parts.len() as u64), &parts).unwrap()
    }

    async fn get(&self, key: &str) -> String {
        self.redis.clone().get(key).await.unwrap()
    }

    /// Publishes with the script and the arguments of the previous release.
    async fn publish_with_previous_release(&mut self, partition: u32, totals: BudgetTotals) {
        let numbers = totals.categories.iter().flat_map(|category| {
            std::iter::once(&category.basis_points).chain(&*category.people_by_percent)
        });
        let numbers: Vec<String> = numbers.map(u64::to_string).collect();
        let script = Script::new(PREVIOUS_SCRIPT);
        let mut invocation = script.prepare_invoke();
        invocation
            .key(partitions_key(&self.budget))
            .key(aggregate_key(&self.budget))
            .key(people_key(&self.budget))
            .arg("aggregate_updates")
            .arg(self.budget.as_str())
            .arg(TERM.number)
            .arg(TERM.generation.0)
            .arg(TERM.log.0)
            .arg(self.parts.len())
            .arg(partition)
            .arg(totals.position.0)
            .arg(totals.people)
            .arg(totals.updated_at_ms)
            .arg(numbers.join(","));
        let _changed: i64 = invocation.invoke_async(&mut self.redis).await.unwrap();
        self.parts[partition as usize] = totals;
    }

    /// Returns the server's mean time for one call of the script since the last call of this function.
    async fn script_microseconds(&mut self) -> f64 {
        let info: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut self.redis).await.unwrap();
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut self.redis).await.unwrap();
        let stats = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        let mean = stats.split(',').find_map(|stat| stat.strip_prefix("usec_per_call="));
        mean.unwrap().parse().unwrap()
    }
}

/// Nobody is annulled, which the previous release does not know; the contract of caches has annulled people.
fn part((position, people): (u64, u64)) -> BudgetTotals {
    BudgetTotals { annulled: 0, ..totals(position, people, 3) }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_evicted_key_is_restored_when_positions_are_compared() {
    let default = BudgetId::parse(DEFAULT_BUDGET).unwrap();
    let parts = [(5, 10), (6, 20), (7, 30)].map(part).to_vec();
    let mut fixture = Fixture::new(default.clone(), parts).await;
    for key in publish_keys(&default) {
        assert_eq!(fixture.confirm().await, [0; 0], "before {key} was evicted");
        let deleted: u64 = fixture.redis.del(&key).await.unwrap();
        assert_eq!(deleted, 1, "{key}");
        // Readers still have the aggregate, unless it was the evicted key.
        let visible = (key != aggregate_key(&default)).then(|| fixture.sum());
        assert_eq!(fixture.read().await, visible, "{key}");
        let lost = if key == partitions_key(&default) { vec![0, 1, 2] } else { Vec::new() };
        assert_eq!(fixture.confirm().await, lost, "{key}");
        assert_eq!(fixture.read().await, Some(fixture.sum()), "{key}");
        let existing: u64 = fixture.redis.exists(publish_keys(&default)).await.unwrap();
        assert_eq!(existing, 5, "{key}");
        let newer = part((fixture.parts[1].position.0 + 1, 33));
        fixture.advance(1, newer).await;
        assert_eq!(fixture.read().await, Some(fixture.sum()), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_publication_after_an_eviction_does_not_take_readers_back() {
    let mut fixture = Fixture::three_partitions().await;
    let () = fixture.redis.del(partitions_key(&fixture.budget)).await.unwrap();
    fixture.publish(0, part((4, 9))).await;
    for partition in [1, 2] {
        fixture.publish(partition, fixture.parts[partition as usize].clone()).await;
        assert_eq!(fixture.read().await, Some(fixture.sum()));
    }
    assert_eq!(fixture.confirm().await, [0]);
    fixture.advance(0, part((8, 11))).await;
    assert_eq!(fixture.read().await, Some(fixture.sum()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_sum_is_added_up_again() {
    let mut fixture = Fixture::three_partitions().await;
    let key = aggregate_key(&fixture.budget);
    for position in 10..19 {
        let sound = fixture.get(&key).await;
        let damages = [
            sound.replacen(r#""people":"#, r#""people":1"#, 1),
            sound.replacen(r#""basis_points":"#, r#""basis_points":1"#, 1),
            sound.replacen(r#""people_by_percent":["#, r#""people_by_percent":[1"#, 1),
            sound.replacen(r#""people_by_percent":["#, r#""people_by_percent":[1,"#, 1),
            sound.replacen(r#""positions":["#, r#""positions":[1,"#, 1),
            sound.replacen(r#""categories":["#, r#""categories":[7,"#, 1),
            sound[..sound.len() - 9].to_owned(),
            "{}".to_owned(),
            String::new(),
        ];
        let damaged = &damages[position as usize - 10];
        assert_ne!(damaged, &sound);
        let () = fixture.redis.set(&key, damaged).await.unwrap();
        fixture.advance(1, part((position, 100 + position))).await;
        assert_eq!(fixture.read().await, Some(fixture.sum()), "{damaged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_partition_is_outdated_and_heals() {
    let mut fixture = Fixture::three_partitions().await;
    for damage in [&b"\xff\x00"[..], b"", b"\x95\x01", b"\x95\xa1a\xa1b\x01\x01\x90"] {
        let key = partitions_key(&fixture.budget);
        let () = fixture.redis.hset(&key, 1, damage).await.unwrap();
        let () = fixture.redis.del(aggregate_key(&fixture.budget)).await.unwrap();
        assert_eq!(fixture.confirm().await, [1], "{damage:?}");
        assert_eq!(fixture.read().await, Some(fixture.sum()), "{damage:?}");
    }
}

/// A rolling update, and a way back: processes of both releases publish at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn the_sum_is_exact_while_processes_of_the_previous_release_publish_too() {
    let moves = prop::collection::vec((any::<bool>(), 0..3_u32, 1..3_u64, 0..90_000_u64), 200);
    let moves = moves.new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let mut fixture = Fixture::three_partitions().await;
    for (by_previous, partition, records, people) in moves {
        let position = fixture.parts[partition as usize].position.0 + records;
        let newer = part((position, people));
        if by_previous {
            fixture.publish_with_previous_release(partition, newer).await;
        } else {
            fixture.advance(partition, newer).await;
        }
        assert_eq!(fixture.read().await, Some(fixture.sum()));
        assert_eq!(fixture.outdated().await, [0; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_stored_byte_for_byte_as_by_the_previous_release() {
    let mut fixture = Fixture::three_partitions().await;
    let ten_billion = totals(u64::from(u32::MAX) + 1, 9_999_999_999, 64);
    let ten_billion = BudgetTotals { annulled: 0, ..ten_billion };
    for totals in [BudgetTotals::default(), part((3, 200)), part((70_000, 90_000)), ten_billion] {
        let mut stored: Vec<Vec<u8>> = Vec::new();
        for by_previous in [true, false] {
            fixture.budget = new_budget_id();
            if by_previous {
                fixture.publish_with_previous_release(0, totals.clone()).await;
            } else {
                fixture.publish(0, totals.clone()).await;
            }
            stored.push(fixture.redis.hget(partitions_key(&fixture.budget), 0).await.unwrap());
        }
        assert_eq!(stored[0], stored[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_budget_is_copied_to_the_keys_of_the_predecessor() {
    let default = BudgetId::parse(DEFAULT_BUDGET).unwrap();
    let mut fixture = Fixture::new(default.clone(), vec![part((5, 10)), part((6, 20))]).await;
    for people in [40, 50] {
        assert_eq!(
            fixture.get(AGGREGATE_COPY_KEY).await,
            fixture.get(&aggregate_key(&default)).await
        );
        assert_eq!(fixture.get(PEOPLE_COPY_KEY).await, fixture.sum().people.to_string());
        fixture.advance(1, part((people, people))).await;
    }
    // The previous release writes no copies, and the predecessor may have left another type.
    fixture.publish_with_previous_release(0, part((60, 60))).await;
    assert_eq!(fixture.outdated().await, [0; 0]);
    assert_eq!(fixture.get(PEOPLE_COPY_KEY).await, fixture.sum().people.to_string());
    let () = fixture.redis.del(AGGREGATE_COPY_KEY).await.unwrap();
    let () = fixture.redis.hset(AGGREGATE_COPY_KEY, "old", 1).await.unwrap();
    assert_eq!(fixture.outdated().await, [0; 0]);
    assert_eq!(fixture.get(AGGREGATE_COPY_KEY).await, fixture.get(&aggregate_key(&default)).await);
    // Another budget leaves the copies alone.
    let copied = fixture.get(AGGREGATE_COPY_KEY).await;
    fixture.budget = new_budget_id();
    fixture.publish(0, part((5, 10))).await;
    fixture.publish(1, part((5, 10))).await;
    assert_eq!(fixture.get(AGGREGATE_COPY_KEY).await, copied);
    // A switch of generations deletes the copies with the aggregate.
    fixture.budget = default;
    let term = Term { number: 2, ..TERM };
    let next = PartitionTotals { term, partition: PartitionId(0), totals: part((1, 1)) };
    fixture.cache.publish(&fixture.budget, count(2), &[next]).await.unwrap();
    let existing: u64 = fixture.redis.exists(&[AGGREGATE_COPY_KEY, PEOPLE_COPY_KEY]).await.unwrap();
    assert_eq!((fixture.read().await, existing), (None, 0));
}

/// `cargo test -p storage --test redis cost -- --nocapture` prints the figures.
#[tokio::test(flavor = "multi_thread")]
async fn the_cost_of_a_move_does_not_grow_with_the_partitions() {
    const CATEGORIES: usize = 20;
    const MOVES: u64 = 200;
    let mut moves_us = Vec::new();
    for partitions in [4, 256] {
        let parts = vec![totals(1, 1_000_000, CATEGORIES); partitions as usize];
        let mut fixture = Fixture::new(new_budget_id(), parts).await;
        fixture.script_microseconds().await;
        for number in 0..MOVES {
            let newer = totals(2 + number, 1_000_000 + number, CATEGORIES);
            fixture.advance((7 * number % partitions) as u32, newer).await;
        }
        let move_us = fixture.script_microseconds().await;
        for _ in 0..MOVES {
            assert_eq!(fixture.outdated().await, [0; 0]);
        }
        let compare_us = fixture.script_microseconds().await;
        assert_eq!(fixture.read().await, Some(fixture.sum()));
        for number in 0..MOVES / 10 {
            let newer = totals(2 + MOVES + number, 1_000_000 + number, CATEGORIES);
            let partition = (7 * number % partitions) as u32;
            fixture.publish_with_previous_release(partition, newer).await;
        }
        let previous_us = fixture.script_microseconds().await;
        println!(
            "{partitions} partitions, {CATEGORIES} categories: {move_us} µs a move, \
             {compare_us} µs to compare all positions; previous release: {previous_us} µs a move"
        );
        moves_us.push(move_us);
    }
    // Adding up all partitions costs about twenty times as much here.
    assert!(moves_us[1] < 4.0 * moves_us[0], "{moves_us:?}");
}
