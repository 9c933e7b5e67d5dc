//! Rate limits of submissions: what they count, what a refused client learns, and that no spelling gets around them.
#![allow(clippy::unwrap_used)]

mod support;

use http::Method;
use runtime::admin::{Role, TokensFile};
use serde_json::{Value, json};
use support::{Harness, TestResponse};

const SUBMITTERS: [(&str, &str, &str); 3] = [
    ("first", "ssssssssssssssssssssssssssssssss", ""),
    ("second", "tttttttttttttttttttttttttttttttt", " organisation=town"),
    ("third", "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu", " organisation=town"),
];
const SUBMISSIONS: &str = "/v1/budgets/taxes/submissions";
const BATCH: &str = "/v1/budgets/taxes/submissions/batch";
/// Only the limit of a test applies.
const OFF: [(&str, &str); 3] =
    [("limits.person", "off"), ("limits.submissions", "off"), ("limits.uploads", "off")];

fn harness(limit: (&str, &str)) -> Harness {
    let others = OFF.into_iter().filter(|(key, _)| *key != limit.0);
    Harness::with(10_000, &others.chain([limit]).collect::<Vec<_>>())
}

fn submission(person: &str) -> String {
    json!({"person": person, "allocation": {"health": 40, "education": 60}}).to_string()
}

/// Posts as the gateway does for a client.
async fn post_from(
    harness: &Harness,
    client: &str,
    path: &str,
    body: impl Into<String>,
) -> TestResponse {
    harness.post_with(path, &[("x-forwarded-for", client)], body.into()).await
}

/// An ingest whose tokens file has the `SUBMITTERS`.
fn harness_of_services(limit: (&str, &str)) -> (Harness, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |(name, token, attributes): (&str, &str, &str)| {
        TokensFile::line(name, Role::Submitter, token) + attributes + "\n"
    };
    std::fs::write(file.path(), SUBMITTERS.map(line).concat()).unwrap();
    let others = OFF.into_iter().filter(|(key, _)| *key != limit.0);
    let file_setting = ("admin.tokens_file", file.path().to_str().unwrap());
    let settings: Vec<_> = others.chain([limit, file_setting]).collect();
    (Harness::with(10_000, &settings), file)
}

/// Posts as the gateway does for a service.
async fn post_as(
    harness: &Harness,
    service: usize,
    client: &str,
    path: &str,
    body: impl Into<String>,
) -> TestResponse {
    let authorization = format!("Bearer {}", SUBMITTERS[service].1);
    let headers = [("x-forwarded-for", client), ("authorization", authorization.as_str())];
    harness.post_with(path, &headers, body.into()).await
}

#[track_caller]
fn assert_limited(response: &TestResponse, limit: &str) {
    assert_eq!(response.status, 429, "{}", String::from_utf8_lossy(&response.body));
    let problem: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem["type"], "/problems/rate-limited");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(limit) && detail.contains("nothing was accepted"), "{detail}");
    let retry_after_s: u64 = response.header("retry-after").unwrap().parse().unwrap();
    // A unit of a sliding window comes back up to a tenth of the window late.
    assert!((1..=66).contains(&retry_after_s), "{retry_after_s}");
}

#[tokio::test]
async fn a_person_has_a_limit_wherever_it_submits_from_and_each_answer_shows_it() {
    let harness = harness(("limits.person", "person sliding-window 2/60s on=submission"));
    for (client, remaining) in [("192.0.2.1", "1"), ("192.0.2.2", "0")] {
        let response = post_from(&harness, client, SUBMISSIONS, submission("p-1")).await;
        assert_eq!(response.status, 202);
        assert_eq!(response.header("ratelimit-policy"), Some("\"person\";q=2;w=60"));
        let limit = response.header("ratelimit").unwrap();
        assert!(limit.starts_with(&format!("\"person\";r={remaining};t=")), "{limit}");
        assert_eq!(response.header("x-ratelimit-limit"), Some("2"));
        assert_eq!(response.header("x-ratelimit-remaining"), Some(remaining));
    }
    let refused = post_from(&harness, "192.0.2.3", SUBMISSIONS, submission("p-1")).await;
    assert_limited(&refused, "`person`");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(harness.logged().len(), 2);
    let other = post_from(&harness, "192.0.2.3", SUBMISSIONS, submission("p-2")).await;
    assert_eq!(other.status, 202);
}

#[tokio::test]
async fn a_batch_costs_one_for_each_item_and_is_accepted_whole_or_not_at_all() {
    let limit = "address token-bucket 1/1h burst=10 by=items for=trusted on=submission+batch";
    let (harness, _file) = harness_of_services(("limits.submissions", limit));
    let batch = |first: u32, items: u32| {
        let items = (first..first + items).map(|number| submission(&format!("p-{number}")));
        format!("[{}]", items.collect::<Vec<_>>().join(","))
    };
    let response = post_as(&harness, 0, "192.0.2.1", BATCH, batch(0, 8)).await;
    assert_eq!(
        (response.status.as_u16(), response.header("x-ratelimit-remaining")),
        (200, Some("2"))
    );
    let refused = post_as(&harness, 0, "192.0.2.1", BATCH, batch(8, 3)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("x-ratelimit-remaining")),
        (429, Some("2"))
    );
    assert_eq!(harness.logged().len(), 8);
    assert_eq!(post_as(&harness, 0, "192.0.2.1", BATCH, batch(8, 2)).await.status, 200);
    // More than ever comes at once: no time helps.
    let never = post_as(&harness, 0, "192.0.2.9", BATCH, batch(0, 11)).await;
    assert_eq!((never.status.as_u16(), never.header("retry-after")), (429, None));
    let detail = String::from_utf8_lossy(&never.body).into_owned();
    assert!(detail.contains("at most 10 at once"), "{detail}");
}

#[tokio::test]
async fn people_of_a_batch_are_counted_each() {
    let limit = "person fixed-window 2/1h by=items for=trusted on=submission+batch";
    let (harness, _file) = harness_of_services(("limits.person", limit));
    let batch = |people: &[&str]| {
        let items: Vec<String> = people.iter().map(|person| submission(person)).collect();
        format!("[{}]", items.join(","))
    };
    let refused = post_as(&harness, 0, "192.0.2.1", BATCH, batch(&["a", "a", "a"])).await;
    assert_eq!(refused.status, 429);
    let accepted = post_as(&harness, 0, "192.0.2.1", BATCH, batch(&["a", "a", "b"])).await;
    assert_eq!(accepted.status, 200);
    assert_eq!(post_as(&harness, 0, "192.0.2.1", SUBMISSIONS, submission("a")).await.status, 429);
    assert_eq!(post_as(&harness, 0, "192.0.2.1", SUBMISSIONS, submission("b")).await.status, 202);
}

#[tokio::test]
async fn services_of_one_organisation_share_its_limit() {
    let limit = "organisation fixed-window 3/1d by=items for=trusted on=batch";
    let (harness, _file) = harness_of_services(("limits.uploads", limit));
    let batch = format!("[{},{}]", submission("p-1"), submission("p-2"));
    let status = async |service, client| {
        post_as(&harness, service, client, BATCH, batch.clone()).await.status.as_u16()
    };
    assert_eq!(status(1, "192.0.2.1").await, 200);
    assert_eq!(status(2, "192.0.2.2").await, 429);
    // The limit counts no service without an organisation.
    assert_eq!((status(0, "192.0.2.1").await, status(0, "192.0.2.1").await), (200, 200));
}

#[tokio::test]
async fn no_spelling_of_an_address_gets_around_its_limit() {
    let limit = "address fixed-window 2/1d on=submission";
    for same_client in [
        // A client may forge what precedes the address that its proxy adds.
        &["192.0.2.1", "198.51.100.1, 192.0.2.1", "127.0.0.1, 192.0.2.1", "::ffff:192.0.2.1"][..],
        // Whoever owns a /64 network has all of its addresses.
        &["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::9", "2001:DB8:1:2::1"],
    ] {
        let harness = harness(("limits.submissions", limit));
        let mut accepted = 0;
        for (number, client) in same_client.iter().enumerate() {
            let forged = [
                ("x-forwarded-for", *client),
                ("forwarded", "for=203.0.113.9"),
                ("x-real-ip", "203.0.113.9"),
            ];
            let body = submission(&format!("p-{number}"));
            let response = harness.post_with(SUBMISSIONS, &forged, body).await;
            accepted += u32::from(response.status == 202);
        }
        assert_eq!(accepted, 2, "{same_client:?}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_person_or_path_gets_around_a_limit() {
    let harness = harness(("limits.person", "person fixed-window 2/1d on=submission+batch"));
    let withdraw = async |path: &str| {
        let client = [("x-forwarded-for", "192.0.2.1")];
        harness.send(Method::DELETE, path, &client, "").await.status.as_u16()
    };
    let escaped = submission("p-1").replace("p-1", "\\u0070-1");
    let first = post_from(&harness, "192.0.2.1", SUBMISSIONS, submission("p-1")).await;
    let second = post_from(&harness, "192.0.2.1", SUBMISSIONS, escaped.clone()).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (202, 202));
    assert_eq!(post_from(&harness, "192.0.2.1", SUBMISSIONS, escaped).await.status, 429);
    for path in ["p-1", "%70-1", "p%2D1", "p%2d1"] {
        assert_eq!(withdraw(&format!("{SUBMISSIONS}/{path}")).await, 429, "{path}");
    }
    // Another spelling of a route is no route.
    for path in [
        "//v1/budgets/taxes/submissions/p-1",
        "/V1/budgets/taxes/submissions/p-1",
        "/v1/budgets/taxes%2fsubmissions/p-1",
        "/v1/budgets/taxes/submissions/p-1/",
    ] {
        assert_eq!(withdraw(path).await, 404, "{path}");
    }
    // Neither another idempotency key.
    let key = [("x-forwarded-for", "192.0.2.1"), ("idempotency-key", "another")];
    assert_eq!(harness.post_with(SUBMISSIONS, &key, submission("p-1")).await.status, 429);
    assert_eq!(harness.logged().len(), 2);
}

#[tokio::test]
async fn malformed_requests_are_counted_too() {
    let harness = harness(("limits.submissions", "address fixed-window 2/1d on=submission"));
    for _ in 0..2 {
        let response = post_from(&harness, "192.0.2.1", SUBMISSIONS, "{").await;
        assert_eq!(response.status, 400);
        assert!(response.header("ratelimit").is_some());
    }
    assert_eq!(post_from(&harness, "192.0.2.1", SUBMISSIONS, submission("p-1")).await.status, 429);
    assert_eq!(harness.logged().len(), 0);
}

#[tokio::test]
async fn a_first_submission_beyond_a_limit_freezes_nothing() {
    let limit = "address fixed-window 1/1d on=submission+batch";
    let harness = harness(("limits.submissions", limit));
    assert_eq!(post_from(&harness, "192.0.2.1", SUBMISSIONS, "{").await.status, 400);
    let single = post_from(&harness, "192.0.2.1", SUBMISSIONS, submission("p-1")).await;
    let batch = format!("[{}]", submission("p-1"));
    let batch = post_from(&harness, "192.0.2.1", BATCH, batch).await;
    assert_eq!((single.status.as_u16(), batch.status.as_u16()), (429, 429));
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
        ("cookie", "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let form = "c.health=40&c.education=60";
    let form = harness.send(Method::POST, "/budgets/taxes/submit", &headers, form).await;
    assert!(form.header("location").unwrap().contains("fault=rate-limited"));
    let is_frozen = || harness.definitions.get("taxes").unwrap().frozen;
    assert!(!is_frozen());
    let accepted = post_from(&harness, "192.0.2.2", SUBMISSIONS, submission("p-1")).await;
    assert_eq!((accepted.status.as_u16(), is_frozen()), (202, true));
}

#[tokio::test]
async fn a_submission_that_is_checked_again_is_charged_once() {
    let harness = harness(("limits.person", "person fixed-window 2/1d on=submission"));
    let mut changed = schemas::Budget::clone(&harness.definitions.get("taxes").unwrap());
    changed.revision += 1;
    changed.categories.reverse();
    *harness.definitions.concurrent_change.lock() = Some(changed);
    let response = post_from(&harness, "192.0.2.1", SUBMISSIONS, submission("p-1")).await;
    assert_eq!(response.status, 202);
    assert_eq!(response.header("x-ratelimit-remaining"), Some("1"));
}

#[tokio::test]
async fn the_same_machine_is_not_limited_as_the_public_is() {
    let harness = harness(("limits.person", "person fixed-window 1/1d on=submission"));
    for _ in 0..5 {
        let response = harness.post(SUBMISSIONS, submission("p-1")).await;
        assert_eq!((response.status.as_u16(), response.header("ratelimit")), (202, None));
    }
    let trusted = "person fixed-window 2/1d on=submission for=trusted";
    let harness = self::harness(("limits.person", trusted));
    for status in [202, 202, 429] {
        assert_eq!(harness.post(SUBMISSIONS, submission("p-1")).await.status, status);
    }
    assert_eq!(post_from(&harness, "192.0.2.1", SUBMISSIONS, submission("p-1")).await.status, 202);
}

#[tokio::test]
async fn a_limited_form_keeps_what_was_typed() {
    let harness = harness(("limits.person", "person fixed-window 1/1d on=submission"));
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
        ("cookie", "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let post =
        |form: &'static str| harness.send(Method::POST, "/budgets/taxes/submit", &headers, form);
    let form = "c.health=40&c.education=60&submission_id=0198c0de-0000-7000-8000-000000000001";
    assert_eq!(post(form).await.status, 303);
    let limited = post(form).await;
    let location = limited.header("location").unwrap();
    assert_eq!(limited.status, 303);
    assert!(location.starts_with("/budgets/taxes/confirm?"), "{location}");
    for kept in ["c.health=40", "c.education=60", "fault=rate-limited", "submission_id=0198c0de"] {
        assert!(location.contains(kept), "{location}");
    }
    assert_eq!(limited.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(harness.logged().len(), 1);
}
