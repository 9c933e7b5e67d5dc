//! One person's allocation.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{PartitionId, PersonKey, PersonName, partition_for};
use tokio::time::Instant;

use crate::fakes::{Mode, id, partitions};
use crate::world::*;

const PATH: &str = "/v1/budgets/town/submissions/p%2F1";

/// Where the person of `PATH` lives, and its key.
fn person(world: &World) -> (PartitionId, PersonKey) {
    let key = world.hasher.key(&id("town"), &PersonName::parse("p/1").unwrap());
    (partition_for(&key, partitions()), key)
}

fn put(world: &World, offset: u64, shares: &[u16]) -> PartitionId {
    let (partition, key) = person(world);
    world.store.put_row(partition, row(key, "town", offset, shares));
    partition
}

#[tokio::test(start_paused = true)]
async fn a_persons_shares_come_back_as_exactly_as_they_were_given() {
    let world = World::new();
    let partition = put(&world, 1_042, &[3_305, 6_695]);
    let got = world.get(PATH).await;
    assert_eq!(
        got.text,
        format!(
            "{{\"budget\":\"town\",\"allocation\":{{\"health\":33.05,\"education\":66.95}},\
             \"partition\":{partition},\"offset\":1042,\"receipt\":\"{partition}.1042\"}}"
        )
    );
    assert_eq!(got.header("cache-control"), "private, no-store");
    put(&world, 1_043, &[4_000, 6_000]);
    assert!(world.get(PATH).await.text.contains("{\"health\":40,\"education\":60}"));
}

#[tokio::test(start_paused = true)]
async fn nobody_and_who_has_withdrawn_are_404_and_no_id_is_400() {
    let world = World::new();
    assert_eq!(world.get(PATH).await.status, 404);
    put(&world, 3, &[]);
    assert_eq!(world.get(PATH).await.status, 404);
    put(&world, 4, &[0, 10_000]);
    assert_eq!(world.get(PATH).await.status, 200);
    assert_eq!(world.get("/v1/budgets/park/submissions/p%2F1").await.status, 404);
    let got = world.get("/v1/budgets/town/submissions/a%00b").await;
    assert_eq!((got.status.as_u16(), &got.json()["errors"][0]["pointer"]), (400, &"person".into()));
    assert_eq!(world.get("/v1/budgets/town/submissions/%FF").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_waited_for_until_the_row_has_it() {
    let world = World::new();
    let partition = put(&world, 3, &[0, 10_000]);
    let token = format!("{partition}.9");
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=4")];
    let started = Instant::now();
    let (got, ()) = tokio::join!(world.get_with(PATH, &headers), async {
        tokio::time::sleep(Duration::from_millis(320)).await;
        put(&world, 9, &[5_000, 5_000]);
    });
    assert_eq!((got.status.as_u16(), got.header("preference-applied")), (200, "wait=4"));
    assert_eq!(got.json()["offset"], 9);
    // The pauses grow with the waiting, to a quarter of it.
    assert!(started.elapsed() < Duration::from_millis(420));

    let token = format!("{partition}.10");
    let late = world.get_with(PATH, &[("consistency-token", &token)]).await;
    assert_eq!(
        (late.status.as_u16(), &late.json()["type"]),
        (412, &"/problems/not-yet-visible".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_moved_no_row_is_known_by_the_checkpoint_and_others_partitions_ask_nothing()
{
    let world = World::new();
    let partition = put(&world, 3, &[0, 10_000]);
    let repeated = format!("{PATH}?at_least={partition}.9");
    assert_eq!(world.get(&repeated).await.status, 412);
    world.store.state_position.store(10, Ordering::SeqCst);
    assert_eq!(world.get(&repeated).await.status, 200);
    let elsewhere = format!("{PATH}?at_least={}.99", (partition.0 + 1) % 3);
    assert_eq!(world.get(&elsewhere).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_503_and_soon_at_no_cost() {
    let world = World::new();
    put(&world, 3, &[0, 10_000]);
    world.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        let got = world.get(PATH).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "1"));
    }
    let started = Instant::now();
    assert_eq!(world.get(PATH).await.status, 503);
    assert!(started.elapsed() < Duration::from_millis(5));
    world.store.people_switch.set(Mode::Works);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.get(PATH).await.status, 200);
}

/// A client that asks and hangs up before it is answered.
async fn hang_up(world: &World) {
    let asked = world.store.rows_asked.load(Ordering::SeqCst);
    let client = tokio::spawn({
        let world = world.clone();
        async move { world.get(PATH).await }
    });
    until("asked", || world.store.rows_asked.load(Ordering::SeqCst) > asked).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
}

const BREAKER: &str = "allocator_api_breaker_state{tier=\"people\"}";

#[tokio::test(start_paused = true)]
async fn clients_that_hang_up_are_no_failures_of_the_store() {
    let world = World::new();
    put(&world, 3, &[0, 10_000]);
    world.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        hang_up(&world).await;
    }
    assert_eq!(world.metric(BREAKER), 0.0);
    let abandoned = "allocator_api_reads_total{outcome=\"abandoned\",tier=\"people\"}";
    assert_eq!(world.metric(abandoned), 3.0);
    world.store.people_switch.set(Mode::Works);
    assert_eq!(world.get(PATH).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_client_hangs_up_is_made_by_the_next() {
    let world = World::new();
    put(&world, 3, &[0, 10_000]);
    world.store.people_switch.set(Mode::Fails);
    for _ in 0..3 {
        assert_eq!(world.get(PATH).await.status, 503);
    }
    assert_eq!(world.metric(BREAKER), 2.0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        hang_up(&world).await;
    }
    world.store.people_switch.set(Mode::Works);
    assert_eq!(world.get(PATH).await.status, 200);
    assert_eq!(world.metric(BREAKER), 0.0);
}
