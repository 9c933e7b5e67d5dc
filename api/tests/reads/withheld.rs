//! While results are withheld, no public answer depends on what was submitted.
//!
//! Every public route is requested in several worlds that differ in submissions alone. Status, headers, body and the
//! time that each answer took must be the same in all of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use jiff::Timestamp;
use schemas::*;
use tokio::time::Instant;

use crate::fakes::id;
use crate::test_server::*;
use crate::updates::changed;

/// The budget whose results are withheld: the default one, which has two more routes.
const WITHHELD: &str = "taxes";
const PERSON: &str = "a-AAAAAAAAAAAAAAAAAAAAAA";
const COOKIE: &str = "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA";
/// The offset of the person's own submission, which is in every world.
const OWN_OFFSET: u64 = 5;
/// Made-up receipts ask for positions around those of all worlds, and far beyond.
const OFFSETS: [u64; 4] = [0, 4, 40, 99_999_999];

type Shares = (u32, [u16; 2]);

/// What differs between worlds.
struct World {
    people: &'static [Shares],
    rows_position: usize,
}

const WORLDS: [World; 4] = [
    World { people: &[(0, [10_000, 0])], rows_position: 0 },
    World { people: &[(0, [2_517, 7_483]), (1, [3_019, 6_981])], rows_position: 3 },
    World { people: &[(2, [10_000, 0]); 7], rows_position: 20 },
    World { people: &[(1, [0, 10_000]); 9], rows_position: 5_000 },
];

#[derive(Debug, Clone, Copy)]
enum Rule {
    AfterClose,
    MinimumPeople,
    Unrecognized,
}

fn define(server: &TestServer, rule: Rule) {
    let mut budget = Budget { revision: 2, ..budget(WITHHELD) };
    match rule {
        Rule::AfterClose => {
            budget.results = ResultsVisibility::AfterClose;
            budget.closes_at = Some("2099-01-01T00:00:00Z".parse().unwrap());
        }
        Rule::MinimumPeople => budget.minimum_people = 10,
        Rule::Unrecognized => budget.results = ResultsVisibility::Unrecognized,
    }
    server.definitions.put(budget);
}

/// Builds a server that has served the budget once, while nobody had submitted.
async fn server(rule: Rule, world: &World) -> TestServer {
    let server = TestServer::with_settings(&[("page.public_url", "https://a.example")]);
    define(&server, rule);
    let server = server.until_ready().await;
    server.aggregate(WITHHELD).await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    let key = server.key(WITHHELD, &PersonId::parse(PERSON).unwrap());
    server.store.put_row(
        partition_for(&key, partitions()),
        row(key, WITHHELD, OWN_OFFSET, &[5_000, 5_000]),
    );
    submit(&server, world);
    // Until memory has the totals of this world.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server
}

fn submit(server: &TestServer, world: &World) {
    server.commit(WITHHELD, world.people);
    server.store.rows_position.store(world.rows_position, Ordering::SeqCst);
    server.cache.send_update(changed(WITHHELD));
}

fn partitions() -> PartitionCount {
    PartitionCount::new(3).unwrap()
}

/// The addresses to request for a route; routes of administrators have none.
fn addresses(route: &str) -> Vec<String> {
    if route.starts_with("/v1/admin") || route.contains("axum_fallback") {
        return Vec::new();
    }
    let one = |address: &str| vec![address.replace("{budget}", WITHHELD)];
    match route {
        "/v1/aggregates" => vec![
            format!("/v1/aggregates?budget={WITHHELD}"),
            format!("/v1/aggregates?budget=town&budget={WITHHELD}"),
        ],
        "/v1/budgets/{budget}/aggregate" => {
            [&one(route)[..], &[format!("{}?include=distribution", one(route)[0])]].concat()
        }
        "/v1/budgets/{budget}/submissions/{person}" => {
            let path = one(route)[0].replace("{person}", "");
            vec![format!("{path}{PERSON}"), format!("{path}nobody"), format!("{path}p-2")]
        }
        "/v1/budgets/{budget}/history" => ["", "?step=minute", "?step=day&format=csv"]
            .map(|query| format!("{}{query}", one(route)[0]))
            .to_vec(),
        "/v1/budgets/{budget}/export" => vec![format!("{}?format=csv", one(route)[0])],
        "/budgets/{budget}" => [
            one(route),
            one("/budgets/{budget}?c.health=40&do=check"),
            one("/budgets/{budget}?c.health=40&do=share"),
        ]
        .concat(),
        "/budgets/{budget}/confirm" => one("/budgets/{budget}/confirm?c.health=40&c.education=60"),
        "/budgets/{budget}/mine" => {
            let mut addresses = one(route);
            for (partition, offset) in receipts() {
                addresses.extend(one(&format!("{route}?receipt={partition}.{offset}")));
                addresses.extend(one(&format!("{route}?withdrawn={partition}.{offset}")));
            }
            addresses
        }
        "/embed/budgets/{budget}/results" => {
            [one(route), one("/embed/budgets/{budget}/results?theme=dark")].concat()
        }
        "/oembed" => one("/oembed?url=https%3A%2F%2Fa.example%2Fbudgets%2F{budget}%2Fresults"),
        "/assets/{digest}/{file}" => vec!["/assets/0/page.css".to_owned()],
        "/"
        | "/admin"
        | "/docs"
        | "/embed.js"
        | "/openapi.json"
        | "/budgets"
        | "/aggregate"
        | "/aggregate/"
        | "/v1/budgets"
        | "/v1/budgets/{budget}"
        | "/v1/budgets/{budget}/aggregate/stream"
        | "/v1/budgets/{budget}/aggregate/ws"
        | "/v1/budgets/{budget}/submissions/me"
        | "/v1/budgets/{budget}/submissions/batch"
        | "/budgets/{budget}/results" => one(route),
        other => panic!("a new route: say here how it is requested: {other}"),
    }
}

fn receipts() -> impl Iterator<Item = (u32, u64)> {
    (0..3).flat_map(|partition| OFFSETS.map(|offset| (partition, offset)))
}

/// The headers with which an address is requested. Tokens are in the address, or in headers of answers to scripts.
fn requests(address: &str) -> Vec<Vec<(&'static str, String)>> {
    let cookie = || ("cookie", COOKIE.to_owned());
    if address.contains("?receipt=") || address.contains("?withdrawn=") {
        return vec![vec![cookie()]];
    }
    let mut requests = vec![
        vec![cookie()],
        vec![cookie(), ("accept-language", "ar".to_owned())],
        vec![cookie(), ("accept", "application/json".to_owned())],
        vec![cookie(), ("accept-encoding", "gzip".to_owned())],
        vec![cookie(), ("if-none-match", "*".to_owned())],
    ];
    for version in versions() {
        let etag = format!("\"{version}.r2\"");
        requests.push(vec![cookie(), ("last-event-id", version), ("if-none-match", etag)]);
    }
    let is_html = address == "/" || address.starts_with("/budgets") && !address.ends_with("/mine");
    for (partition, offset) in receipts().filter(|_| !is_html) {
        let token = ("consistency-token", format!("{partition}.{offset}"));
        let json = ("accept", "application/json".to_owned());
        requests.push(vec![cookie(), token.clone(), json.clone()]);
        requests.push(vec![cookie(), token, json, ("prefer", "wait=1".to_owned())]);
    }
    requests
}

/// The versions of all worlds, and one that is higher than all of them.
fn versions() -> Vec<String> {
    let version = |world: &World| AggregateVersion::of(&combined(&partition_totals(world.people)));
    let worlds = WORLDS.iter().map(|world| version(world).to_string());
    worlds.chain(["00000001-00000000ffffffff-0000000000000000".to_owned()]).collect()
}

/// Everything that a client sees of an answer, without what is random.
async fn observe(server: &TestServer, address: &str, headers: &[(&str, String)]) -> String {
    let mut headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Problems repeat it.
    headers.push(("x-request-id", "one"));
    let began = Instant::now();
    let (parts, mut body) = server.open_with(address, &headers).await.into_parts();
    let is_stream = parts.headers.get("content-type").is_some_and(|of| of == "text/event-stream");
    let bytes = match is_stream {
        true => body.frame().await.unwrap().unwrap().into_data().unwrap(),
        false => body.collect().await.unwrap().to_bytes(),
    };
    let mut seen = format!("{} after {} s\n", parts.status, began.elapsed().as_secs());
    let mut lines: Vec<String> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id")
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort_unstable();
    seen.extend(lines);
    seen + &without_random(&String::from_utf8_lossy(&bytes))
}

/// Digits and hyphens of the version of an aggregate. A UUID has 36.
const VERSION_LENGTH: usize = 42;

/// Replaces request and submission ids, and the delay before a stream's reader reconnects.
fn without_random(text: &str) -> String {
    let is_id = |part: &str| {
        part.len() >= 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let parts = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let parts = parts.map(|part| {
        let end = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-').len();
        // A version looks like an id, and must be the same everywhere.
        match is_id(&part[..end]) && end != VERSION_LENGTH {
            true => format!("ID{}", &part[end..]),
            false => part.to_owned(),
        }
    });
    let text: String = parts.collect();
    match text.strip_prefix("retry: ") {
        Some(rest) => format!("retry: N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text,
    }
}

/// Requests everything in one world.
async fn observe_all(rule: Rule, world: &World) -> Vec<(String, String)> {
    let server = server(rule, world).await;
    let mut observed = Vec::new();
    for route in server.paths.clone() {
        for address in addresses(&route) {
            for headers in requests(&address) {
                let seen = observe(&server, &address, &headers).await;
                observed.push((format!("{address} {headers:?}"), seen));
            }
        }
    }
    observed
}

async fn assert_the_same_in_all_worlds(rule: Rule) {
    let first = observe_all(rule, &WORLDS[0]).await;
    assert!(first.len() > 300, "{} requests", first.len());
    let withheld = first.iter().filter(|(_, seen)| seen.contains("\"withheld\":{")).count();
    assert!(withheld > 100, "{withheld} answers withhold results");
    for world in &WORLDS[1..] {
        for ((request, before), (_, now)) in first.iter().zip(observe_all(rule, world).await) {
            assert_eq!(*before, now, "{rule:?}: {request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_public_answer_depends_on_submissions_before_a_budget_closes() {
    assert_the_same_in_all_worlds(Rule::AfterClose).await;
}

#[tokio::test(start_paused = true)]
async fn no_public_answer_depends_on_submissions_below_the_minimum_of_people() {
    assert_the_same_in_all_worlds(Rule::MinimumPeople).await;
}

#[tokio::test(start_paused = true)]
async fn no_public_answer_depends_on_submissions_under_an_unknown_rule() {
    assert_the_same_in_all_worlds(Rule::Unrecognized).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_withheld_results_does_not_tell_when_somebody_submits() {
    let server = server(Rule::MinimumPeople, &WORLDS[0]).await;
    let stream = server.open("/v1/budgets/taxes/aggregate/stream").await;
    let mut body = stream.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.contains("event: aggregate\ndata: {\"budget\":\"taxes\""), "{first}");
    for people in 2..10 {
        let began = Instant::now();
        server.commit(WITHHELD, &vec![(0, [10_000, 0]); people]);
        server.cache.send_update(changed(WITHHELD));
        let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&next[..], b"event: beat\ndata: {}\n\n");
        assert_eq!(began.elapsed().as_secs(), 15);
    }
    // The tenth person.
    server.commit(WITHHELD, &[(0, [10_000, 0]); 10]);
    server.cache.send_update(changed(WITHHELD));
    let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8(next.to_vec()).unwrap().contains("\"people\":10"));
}

#[tokio::test(start_paused = true)]
async fn the_own_submission_is_found_by_its_receipt_while_results_are_withheld() {
    let server = server(Rule::AfterClose, &WORLDS[2]).await;
    let key = server.key(WITHHELD, &PersonId::parse(PERSON).unwrap());
    let partition = partition_for(&key, partitions());
    let path = format!("/v1/budgets/{WITHHELD}/submissions/{PERSON}");
    for (offset, status) in [(OWN_OFFSET, "counted"), (2, "superseded")] {
        let got = server.get(&format!("{path}?at_least={partition}.{offset}")).await;
        assert_eq!(got.json()["submission"], status);
    }
    // A later record of the partition is folded, but an unsigned receipt does not show that it is the reader's.
    let began = Instant::now();
    let got = server.get(&format!("{path}?at_least={partition}.9")).await;
    assert_eq!((got.status.as_u16(), began.elapsed().as_secs()), (412, 2));
}

#[tokio::test(start_paused = true)]
async fn a_signed_receipt_is_answered_once_its_submission_counts_while_results_are_withheld() {
    let server = server(Rule::AfterClose, &WORLDS[2]).await;
    let route = format!("/v1/budgets/{WITHHELD}/aggregate");
    let signer = server.person_secret.receipt_signer();
    let read = async |budget, offset| {
        let receipt: RecordAddress = format!("2.{offset}").parse().unwrap();
        let token = signer.sign(&id(budget), receipt).to_string();
        let headers = [("consistency-token", &*token), ("prefer", "wait=3")];
        let began = Instant::now();
        let got = server.get_with(&route, &headers).await;
        (got.status.as_u16(), began.elapsed().as_secs())
    };
    assert_eq!(read(WITHHELD, 6).await, (200, 0));
    assert_eq!(read(WITHHELD, 7).await, (412, 3));
    // The receipt of another budget tells nothing of this one.
    for offset in [6, 7] {
        assert_eq!(read("town", offset).await, (200, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_of_withheld_results_is_lower_than_any_of_shown_ones() {
    let server = server(Rule::AfterClose, &WORLDS[1]).await;
    let withheld = server.aggregate(WITHHELD).await.json()["version"].clone();
    server.definitions.put(Budget {
        results: ResultsVisibility::Live,
        closes_at: Some(Timestamp::UNIX_EPOCH),
        revision: 3,
        ..budget(WITHHELD)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let shown = server.aggregate(WITHHELD).await.json()["version"].clone();
    assert!(shown.as_str() > withheld.as_str(), "{shown} after {withheld}");
}
