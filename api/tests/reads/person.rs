//! Reads of one person's allocation.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{PartitionId, PersonId, PersonKey, RecordAddress, partition_for};
use tokio::time::Instant;

use crate::fakes::{Mode, id, partitions};
use crate::test_server::*;

const PATH: &str = "/v1/budgets/town/submissions/p%2F1";

/// Returns the partition and key of the person of `PATH`.
fn person(server: &TestServer) -> (PartitionId, PersonKey) {
    let key = server.key("town", &PersonId::parse("p/1").unwrap());
    (partition_for(&key, partitions()), key)
}

fn put(server: &TestServer, offset: u64, shares: &[u16]) -> PartitionId {
    let (partition, key) = person(server);
    server.store.put_row(partition, row(key, "town", offset, shares));
    partition
}

#[tokio::test(start_paused = true)]
async fn a_persons_shares_are_returned_exactly_as_submitted() {
    let server = TestServer::new();
    let partition = put(&server, 1_042, &[3_305, 6_695]);
    let got = server.get(PATH).await;
    let receipt: RecordAddress = format!("{partition}.1042").parse().unwrap();
    let token = server.person_secret.receipt_signer().sign(&id("town"), receipt);
    assert_eq!(
        got.text,
        format!(
            "{{\"budget\":\"town\",\"allocation\":{{\"health\":33.05,\"education\":66.95}},\
             \"partition\":{partition},\"offset\":1042,\"receipt\":\"{token}\"}}"
        )
    );
    assert_eq!(got.header("cache-control"), "private, no-store");
    put(&server, 1_043, &[4_000, 6_000]);
    assert!(server.get(PATH).await.text.contains("{\"health\":40,\"education\":60}"));
}

#[tokio::test(start_paused = true)]
async fn unknown_and_withdrawn_people_are_404_and_an_invalid_id_is_400() {
    let server = TestServer::new();
    assert_eq!(server.get(PATH).await.status, 404);
    put(&server, 3, &[]);
    assert_eq!(server.get(PATH).await.status, 404);
    put(&server, 4, &[0, 10_000]);
    assert_eq!(server.get(PATH).await.status, 200);
    assert_eq!(server.get("/v1/budgets/park/submissions/p%2F1").await.status, 404);
    let got = server.get("/v1/budgets/town/submissions/a%00b").await;
    assert_eq!((got.status.as_u16(), &got.json()["errors"][0]["pointer"]), (400, &"person".into()));
    assert_eq!(server.get("/v1/budgets/town/submissions/%FF").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_until_the_row_includes_the_receipt() {
    let server = TestServer::new();
    let partition = put(&server, 3, &[0, 10_000]);
    let token = format!("{partition}.9");
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=4")];
    let started = Instant::now();
    let (got, ()) = tokio::join!(server.get_with(PATH, &headers), async {
        tokio::time::sleep(Duration::from_millis(320)).await;
        put(&server, 9, &[5_000, 5_000]);
    });
    assert_eq!((got.status.as_u16(), got.header("preference-applied")), (200, "wait=4"));
    assert_eq!(got.json()["offset"], 9);
    // The pause between two reads is at most a quarter of the time waited so far.
    assert!(started.elapsed() < Duration::from_millis(420));

    let token = format!("{partition}.10");
    let started = Instant::now();
    let late = server.get_with(PATH, &[("consistency-token", &token)]).await;
    assert_eq!(
        (late.status.as_u16(), &late.json()["type"]),
        (412, &"/problems/not-yet-visible".into())
    );
    // Without a preference the wait is short.
    assert_eq!(
        (started.elapsed(), late.header("preference-applied")),
        (Duration::from_secs(2), "")
    );
}

#[tokio::test(start_paused = true)]
async fn a_location_with_its_receipt_shows_the_new_row_and_says_what_became_of_the_submission() {
    let server = TestServer::new();
    let partition = put(&server, 3, &[0, 10_000]);
    let location = format!("{PATH}?at_least={partition}.9");
    let (got, ()) = tokio::join!(server.get(&location), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        put(&server, 9, &[5_000, 5_000]);
    });
    let status = |got: &TestResponse| got.json()["submission"].as_str().map(str::to_owned);
    assert_eq!((got.json()["offset"].clone(), status(&got)), (9.into(), Some("counted".into())));
    assert_eq!(status(&server.get(PATH).await), None);
    put(&server, 12, &[5_000, 5_000]);
    assert_eq!(status(&server.get(&location).await).as_deref(), Some("superseded"));

    // A submission whose id had been used before moves no row.
    server.store.rows_position.store(20, Ordering::SeqCst);
    let repeated = format!("{PATH}?at_least={partition}.15");
    let started = Instant::now();
    let wait = [("prefer", "wait=10")];
    let got = server.get_with(&repeated, &wait).await;
    assert_eq!(
        (got.json()["offset"].clone(), status(&got).as_deref()),
        (12.into(), Some("duplicate"))
    );
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let elsewhere = format!("{PATH}?at_least={}.99", (partition.0 + 1) % 3);
    assert_eq!(status(&server.get(&elsewhere).await), None);
}

#[tokio::test(start_paused = true)]
async fn a_404_says_what_became_of_the_submission() {
    let server = TestServer::new();
    let (partition, _) = person(&server);
    server.store.rows_position.store(20, Ordering::SeqCst);
    let detail = async |offset: u64| {
        let got = server.get(&format!("{PATH}?at_least={partition}.{offset}")).await;
        assert_eq!(got.status, 404);
        got.json()["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail(5).await.contains("changed nothing"));
    put(&server, 9, &[]);
    for (offset, reason) in [(9, "withdrew"), (8, "superseded"), (10, "duplicate")] {
        let detail = detail(offset).await;
        assert!(detail.contains(reason), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_with_a_receipt_does_not_wait_if_too_many_readers_wait() {
    let server = TestServer::with_settings(&[("api.max_waiters", "1")]);
    let partition = put(&server, 3, &[0, 10_000]);
    let path = format!("{PATH}?at_least={partition}.9");
    let waiting = tokio::spawn({
        let (server, path) = (server.clone(), path.clone());
        async move { server.get_with(&path, &[("prefer", "wait=5")]).await }
    });
    wait_until("a read waits", || server.metric("allocator_api_waiting_reads") == 1.0).await;
    let started = Instant::now();
    let got = server.get(&path).await;
    assert_eq!(got.json()["type"], "/problems/not-yet-visible");
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    let refused = server.get_with(&path, &[("prefer", "wait=1")]).await;
    assert_eq!(refused.status, 503);
    assert_eq!(waiting.await.unwrap().status, 412);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_moved_no_row_is_known_by_the_checkpoint_and_others_partitions_ask_nothing()
{
    let server = TestServer::new();
    let partition = put(&server, 3, &[0, 10_000]);
    let repeated = format!("{PATH}?at_least={partition}.9");
    assert_eq!(server.get(&repeated).await.status, 412);
    server.store.rows_position.store(10, Ordering::SeqCst);
    assert_eq!(server.get(&repeated).await.status, 200);
    let elsewhere = format!("{PATH}?at_least={}.99", (partition.0 + 1) % 3);
    assert_eq!(server.get(&elsewhere).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_store_is_503_and_soon_without_delay() {
    let server = TestServer::new();
    put(&server, 3, &[0, 10_000]);
    server.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        let got = server.get(PATH).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "1"));
    }
    let started = Instant::now();
    assert_eq!(server.get(PATH).await.status, 503);
    assert!(started.elapsed() < Duration::from_millis(5));
    server.store.people_switch.set(Mode::Works);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.get(PATH).await.status, 200);
}

/// Sends a read and disconnects before the response.
async fn disconnect_during_read(server: &TestServer) {
    let reads_before = server.store.row_reads.load(Ordering::SeqCst);
    let client = tokio::spawn({
        let server = server.clone();
        async move { server.get(PATH).await }
    });
    wait_until("the store is read", || {
        server.store.row_reads.load(Ordering::SeqCst) > reads_before
    })
    .await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
}

const BREAKER: &str = "allocator_api_breaker_state{tier=\"people\"}";

#[tokio::test(start_paused = true)]
async fn disconnected_clients_do_not_count_as_failures_of_the_store() {
    let server = TestServer::new();
    put(&server, 3, &[0, 10_000]);
    server.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        disconnect_during_read(&server).await;
    }
    assert_eq!(server.metric(BREAKER), 0.0);
    let abandoned = "allocator_api_reads_total{outcome=\"abandoned\",tier=\"people\"}";
    assert_eq!(server.metric(abandoned), 3.0);
    server.store.people_switch.set(Mode::Works);
    assert_eq!(server.get(PATH).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_probe_abandoned_by_its_client_is_repeated_by_the_next_read() {
    let server = TestServer::new();
    put(&server, 3, &[0, 10_000]);
    server.store.people_switch.set(Mode::Fails);
    for _ in 0..3 {
        assert_eq!(server.get(PATH).await.status, 503);
    }
    assert_eq!(server.metric(BREAKER), 2.0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.store.people_switch.set(Mode::Hangs);
    for _ in 0..3 {
        disconnect_during_read(&server).await;
    }
    server.store.people_switch.set(Mode::Works);
    assert_eq!(server.get(PATH).await.status, 200);
    assert_eq!(server.metric(BREAKER), 0.0);
}
