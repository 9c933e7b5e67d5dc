//! Limits on what readers can make the store do, and on what one client can take from others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{Budget, PartitionId, PersonId, PersonKey, partition_for};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::problem_slug;
use crate::fakes::{Mode, id, partitions};
use crate::test_server::*;

const TOWN: &str = "/v1/budgets/town/aggregate";
const PERSON: &str = "/v1/budgets/town/submissions/p-1";
const WAITING: &str = "allocator_api_waiting_reads";

/// Reads with headers, in a task of its own; returns the response and how long it took.
fn read(
    server: &TestServer,
    path: &str,
    headers: &[(&'static str, &str)],
) -> JoinHandle<(TestResponse, Duration)> {
    let (server, path) = (server.clone(), path.to_owned());
    let headers: Vec<_> = headers.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    tokio::spawn(async move {
        let headers: Vec<_> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let started = Instant::now();
        let got = server.get_with(&path, &headers).await;
        (got, started.elapsed())
    })
}

/// Puts rows of made-up people into a partition, one for each budget.
fn put_rows(server: &TestServer, budgets: &[&str]) {
    for (number, budget) in (1..).zip(budgets) {
        let person = PersonKey::from_bytes([number; 16]);
        server.store.put_row(PartitionId(1), row(person, budget, 0, &[2_500, 7_500]));
    }
}

fn fail_all_but_people(server: &TestServer) {
    server.cache.switch.set(Mode::Fails);
    server.store.totals_switch.set(Mode::Fails);
}

fn whole_scan() -> usize {
    partitions().get() as usize * schemas::buckets().count()
}

fn scans(server: &TestServer) -> usize {
    server.store.scans.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn waiting_reads_of_one_client_are_limited_and_others_still_wait() {
    let server = TestServer::with_settings(&[("api.max_waiters_per_client", "2")]);
    server.commit("town", &[(1, [5_000, 5_000])]);
    let token =
        server.person_secret.receipt_signer().sign(&id("town"), "1.1".parse().unwrap()).to_string();
    let wait = |client| {
        let headers =
            [("consistency-token", &*token), ("prefer", "wait=2"), ("x-forwarded-for", client)];
        read(&server, TOWN, &headers)
    };
    // Addresses of one IPv6 network are one client.
    let waiting = [wait("2001:db8::1"), wait("2001:db8::2")];
    wait_until("both reads wait", || server.metric(WAITING) == 2.0).await;
    let (refused, took) = wait("2001:db8::3").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    assert_eq!(problem_slug(&refused), "rate-limited");
    assert!(refused.text.contains("from this address"), "{}", refused.text);
    assert!(took < Duration::from_secs(1));
    let (other, took) = wait("192.0.2.1").await.unwrap();
    assert_eq!((other.status.as_u16(), took.as_secs()), (412, 2));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0.status, 412);
    }
    assert_eq!(server.metric(WAITING), 0.0);
    assert_eq!(wait("2001:db8::3").await.unwrap().0.status, 412);
}

#[tokio::test(start_paused = true)]
async fn waits_for_unsigned_receipts_are_limited_apart_from_other_waits() {
    const PARK: &str = "/v1/budgets/park/aggregate";
    const BOTH: &str = "/v1/aggregates?budget=town&budget=park";
    let server = TestServer::with_settings(&[("api.max_waiters", "1")]);
    server.definitions.put(Budget { minimum_people: 10, revision: 2, ..budget("park") });
    server.commit("town", &[(1, [5_000, 5_000])]);
    server.commit("park", &[(1, [5_000, 5_000])]);
    let signed =
        server.person_secret.receipt_signer().sign(&id("town"), "1.1".parse().unwrap()).to_string();
    let wait = |path, token: &str| {
        read(&server, path, &[("consistency-token", token), ("prefer", "wait=2")])
    };
    let waiting = wait(PARK, "1.1");
    wait_until("one read waits", || server.metric(WAITING) == 1.0).await;
    for path in [TOWN, PARK, BOTH] {
        assert_eq!(wait(path, "1.1").await.unwrap().0.status, 503, "{path}");
    }
    let (shown, took) = wait(TOWN, &signed).await.unwrap();
    assert_eq!((shown.status.as_u16(), took.as_secs()), (412, 2));
    assert_eq!(waiting.await.unwrap().0.status, 200);

    // The unsigned receipt is not counted in the results that are shown.
    let (both, took) = wait(BOTH, "1.1").await.unwrap();
    assert_eq!((both.status.as_u16(), took.as_secs()), (412, 2));
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_trusted_proxy_that_does_not_name_them_are_not_limited_as_one() {
    let server = TestServer::with_settings(&[("api.max_waiters_per_client", "1")]);
    server.commit("town", &[(1, [5_000, 5_000])]);
    // From the loopback, which is trusted by default.
    let wait = || read(&server, TOWN, &[("consistency-token", "1.1"), ("prefer", "wait=2")]);
    let waiting = [wait(), wait()];
    wait_until("both reads wait", || server.metric(WAITING) == 2.0).await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0.status, 412);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_of_a_partition_that_the_log_lacks_is_malformed() {
    let server = TestServer::new();
    server.commit("town", &[(1, [5_000, 5_000])]);
    for path in [TOWN, "/v1/aggregates?budget=town&budget=park", PERSON] {
        // The log has three partitions.
        let headers = [("consistency-token", "999.0"), ("prefer", "wait=10")];
        let (got, took) = read(&server, path, &headers).await.unwrap();
        assert_eq!(
            (got.status.as_u16(), problem_slug(&got).as_str()),
            (400, "malformed"),
            "{path}"
        );
        assert_eq!(got.json()["errors"][0]["pointer"], "Consistency-Token");
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
    let got = server.get(&format!("{TOWN}?at_least=3.0")).await;
    assert_eq!(
        (got.status.as_u16(), &got.json()["errors"][0]["pointer"]),
        (400, &"at_least".into())
    );
    assert_eq!(server.get(&format!("{TOWN}?at_least=2.0")).await.status, 412);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_far_beyond_the_log_waits_only_once_the_log_gets_near() {
    let server = TestServer::new();
    server.commit("town", &[(1, [5_000, 5_000])]);
    let key = server.key("town", &PersonId::parse("p-1").unwrap());
    let partition = partition_for(&key, partitions());
    let far = format!("{partition}.99999999");
    let no_log = format!("7.{partition}.0");
    let wait = |path: &str, token: &str| {
        read(&server, path, &[("consistency-token", token), ("prefer", "wait=4")])
    };
    for path in [TOWN, PERSON] {
        for token in [&far, &no_log] {
            let (got, took) = wait(path, token).await.unwrap();
            assert_eq!(problem_slug(&got), "not-yet-visible", "{path} {token}");
            assert_eq!(got.header("preference-applied"), "", "{path} {token}");
            assert!(took < Duration::from_millis(100), "{path} {token}: {took:?}");
        }
        let (got, took) = wait(path, &format!("{partition}.1000000")).await.unwrap();
        assert_eq!((got.header("preference-applied"), took.as_secs()), ("wait=4", 4), "{path}");
    }
    // A budget without submissions may be the last one to hear of a long log.
    server.store.rows_position.store(90_000_000, Ordering::SeqCst);
    for path in [TOWN, PERSON] {
        let (got, took) = wait(path, &far).await.unwrap();
        assert_eq!((got.status.as_u16(), took.as_secs()), (412, 4), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_end_of_the_log_is_unknown_every_receipt_may_wait() {
    let server = TestServer::new();
    server.commit("town", &[(1, [5_000, 5_000])]);
    server.store.people_switch.set(Mode::Fails);
    let headers = [("consistency-token", "1.99999999"), ("prefer", "wait=4")];
    let (got, took) = read(&server, TOWN, &headers).await.unwrap();
    assert_eq!((got.status.as_u16(), took.as_secs()), (412, 4));
}

#[tokio::test(start_paused = true)]
async fn reads_of_the_same_budgets_in_any_order_share_one_read_of_the_committed_totals() {
    let budgets = ["park", "school", "town"];
    let server = TestServer::new().until_ready().await;
    for budget in budgets {
        server.commit(budget, &[(1, [5_000, 5_000])]);
    }
    server.get("/v1/aggregates?budget=park&budget=school&budget=town").await;
    // The second record is published for one budget only, so readers of it need the committed totals of the others.
    let two = [(1, [5_000, 5_000]), (1, [0, 10_000])];
    server.commit("park", &two);
    for budget in ["school", "town"] {
        server.store.put(budget, partition_totals(&two));
    }
    server.store.totals_switch.set(Mode::Hangs);
    let before = server.store.reads.load(Ordering::SeqCst);
    let orders = ["park,school,town", "school,park,town", "town,school,park", "park,town,school"];
    let readers: Vec<_> = orders
        .into_iter()
        .map(|order| {
            let query = order.replace(',', "&budget=");
            let path = format!("/v1/aggregates?budget={query}&at_least=1.1");
            read(&server, &path, &[("prefer", "wait=5")])
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.store.totals_switch.set(Mode::Works);
    for reader in readers {
        let (got, _) = reader.await.unwrap();
        assert_eq!(got.status, 200, "{}", got.text);
        for aggregate in got.json()["aggregates"].as_array().unwrap() {
            assert_eq!(aggregate["people"], 2, "{}", got.text);
        }
    }
    // One for the first reader, and one for those who must not join a read that began before theirs.
    let reads = server.store.reads.load(Ordering::SeqCst) - before;
    assert!(reads <= 2, "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn all_budgets_share_one_recount() {
    let server = TestServer::new().until_ready().await;
    put_rows(&server, &["town", "park", "school"]);
    fail_all_but_people(&server);
    server.store.people_switch.set(Mode::Hangs);
    let path = |budget: &str| format!("/v1/budgets/{budget}/aggregate");
    let readers = ["town", "park"].map(|budget| read(&server, &path(budget), &[]));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let third = read(&server, &path("school"), &[]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.store.people_switch.set(Mode::Works);
    for reader in readers.into_iter().chain([third]) {
        let (got, _) = reader.await.unwrap();
        assert_eq!((got.people(), got.tier()), (1, "recount"));
        assert_eq!(got.json().get("annulled"), None);
    }
    assert_eq!(scans(&server), whole_scan());
    // A budget that nobody asked for until now.
    server.definitions.put(budget("zoo"));
    let got = server.aggregate("zoo").await;
    assert_eq!((got.people(), got.tier()), (0, "recount"));
    assert_eq!(scans(&server), whole_scan());
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.aggregate("town").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scans(&server), 2 * whole_scan());
}

#[tokio::test(start_paused = true)]
async fn with_too_many_people_the_recount_is_off_and_the_problem_says_so() {
    let settings = [("api.recount_max_people", "2")];
    let server = TestServer::with_settings(&settings);
    put_rows(&server, &["town", "park"]);
    fail_all_but_people(&server);
    assert_eq!(server.aggregate("town").await.tier(), "recount");

    let server = TestServer::with_settings(&settings);
    put_rows(&server, &["town", "park", "park"]);
    fail_all_but_people(&server);
    for _ in 0..3 {
        let got = server.aggregate("town").await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (503, "unavailable"));
        assert_eq!(got.header("retry-after"), "1");
        assert!(got.text.contains("more than 2 people"), "{}", got.text);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert!(scans(&server) <= whole_scan(), "{} scans", scans(&server));
    assert!(!server.health.is_ready());
    // The other tiers are not affected.
    server.commit("town", &[(1, [5_000, 5_000])]);
    server.cache.switch.set(Mode::Works);
    server.store.totals_switch.set(Mode::Works);
    assert_eq!(server.aggregate("town").await.people(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_committed_totals_that_waits_too_long_for_its_turn_is_503_and_no_recount() {
    let server = TestServer::with_settings(&[("api.max_summary_reads", "1")]).until_ready().await;
    put_rows(&server, &["town", "park", "school"]);
    server.cache.switch.set(Mode::Fails);
    server.store.totals_switch.set(Mode::Hangs);
    // The first and the second take the only place for half a second each. The third waits half a second.
    let mut readers = Vec::new();
    for budget in ["town", "park", "school"] {
        readers.push(read(&server, &format!("/v1/budgets/{budget}/aggregate"), &[]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (third, took) = readers.pop().unwrap().await.unwrap();
    assert_eq!((third.status.as_u16(), problem_slug(&third).as_str()), (503, "unavailable"));
    assert!(third.text.contains("too many reads of the store are queued"), "{}", third.text);
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(took.as_millis(), 500);
    for reader in readers {
        assert_eq!(reader.await.unwrap().0.tier(), "recount");
    }
    let overloaded = "allocator_api_reads_total{outcome=\"overloaded\",tier=\"summary\"}";
    assert!(server.metric(overloaded) >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_person_that_waits_too_long_for_its_turn_is_503() {
    let server = TestServer::with_settings(&[("api.max_person_reads", "1")]);
    let key = server.key("town", &PersonId::parse("p-1").unwrap());
    server.store.put_row(partition_for(&key, partitions()), row(key, "town", 3, &[0, 10_000]));
    server.store.people_switch.set(Mode::Hangs);
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(read(&server, PERSON, &[]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (third, took) = readers.pop().unwrap().await.unwrap();
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (503, "1"));
    assert!(third.text.contains("too many reads of the store are queued"), "{}", third.text);
    assert_eq!(took.as_millis(), 500);
    // Waiting for a turn says nothing about the store: its circuit breaker is still closed.
    server.store.people_switch.set(Mode::Works);
    assert_eq!(server.get(PERSON).await.status, 200);
    let readers = (0..50).map(|_| read(&server, PERSON, &[]));
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.unwrap().0.status, 200);
    }
}
