//! The administrators' routes: roles, rate limits, and the list of generations.

use std::io::Write;

use schemas::*;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::fakes::{Mode, partitions};
use crate::test_server::{TestResponse, TestServer};

pub const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
pub const OPERATOR: &str = "oooooooooooooooooooooooooooooooo";
pub const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Hashes made with `printf %s TOKEN | sha256sum`.
const TOKENS_FILE: &str = "\
vera viewer sha256:d71af2bc53398568e2aff5639f499ff0add6177253dbabccfe931459470856a7
otto operator sha256:b7bca7371b7976816f05ee141993a3170f9fa4faf73c4637a6729be9ac06db97
anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547
";

const GENERATIONS: &str = "/v1/admin/generations";
const LIMITS: &str = "/v1/admin/limits";
const WHOAMI: &str = "/v1/admin/whoami";

/// The role that each route requires, by path. No other route may start with `/v1/admin`.
const ROUTES: [(&str, &str, &str); 20] = [
    ("POST", "/v1/admin/audits", "operator"),
    ("GET", "/v1/admin/budgets/{budget}/annulments", "viewer"),
    ("POST", "/v1/admin/budgets/{budget}/annulments", "admin"),
    ("POST", "/v1/admin/budgets/{budget}/annulments/{id}/restore", "admin"),
    ("POST", "/v1/admin/budgets/{budget}/forget", "admin"),
    ("GET", "/v1/admin/budgets/{budget}/signals", "viewer"),
    ("POST", "/v1/admin/caches/warm", "operator"),
    ("GET", "/v1/admin/dead-letters", "viewer"),
    ("GET", "/v1/admin/dead-letters/{id}", "viewer"),
    ("POST", "/v1/admin/dead-letters/{id}/drop", "operator"),
    ("POST", "/v1/admin/dead-letters/{id}/replay", "operator"),
    ("GET", GENERATIONS, "viewer"),
    ("GET", "/v1/admin/jobs", "viewer"),
    ("POST", "/v1/admin/jobs", "operator"),
    ("GET", "/v1/admin/jobs/{id}", "viewer"),
    ("POST", "/v1/admin/jobs/{id}/cancel", "operator"),
    ("POST", "/v1/admin/jobs/{id}/retry", "operator"),
    ("GET", LIMITS, "viewer"),
    ("POST", "/v1/admin/rebuilds", "operator"),
    ("GET", WHOAMI, "viewer"),
];

/// Fills in a path template.
fn fill_template(template: &str) -> String {
    template.replace("{id}", "019347f0-0000-7000-8000-000000000000").replace("{budget}", "taxes")
}

/// Creates a server with three administrators and some settings.
pub fn server_with_administrators(settings: &[(&str, &str)]) -> TestServer {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(TOKENS_FILE.as_bytes()).unwrap();
    let path = [("admin.tokens_file", file.path().to_str().unwrap())];
    TestServer::with_settings(&[&path, settings].concat())
}

pub async fn send_as(server: &TestServer, method: &str, path: &str, token: &str) -> TestResponse {
    server.send(method, path, &[("authorization", &format!("Bearer {token}"))]).await
}

pub fn problem_slug(got: &TestResponse) -> String {
    assert_eq!(got.header("content-type"), "application/problem+json", "{}", got.text);
    let kind = got.json()["type"].as_str().unwrap().to_owned();
    kind.strip_prefix("/problems/").unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn every_administrator_route_requires_its_role() {
    let server = server_with_administrators(&[("admin.failures_per_minute", "1000")]);
    let paths: Vec<&String> =
        server.paths.iter().filter(|path| path.starts_with("/v1/admin")).collect();
    let mut stated: Vec<&str> = ROUTES.iter().map(|(_, path, _)| *path).collect();
    stated.dedup();
    assert_eq!(paths, stated, "each route is stated above with the role that it needs");
    for path in paths {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            // A GET route also serves HEAD.
            let stated_as = if method == "HEAD" { "GET" } else { method };
            let is_route = ROUTES.iter().any(|(stated, at, _)| *stated == stated_as && at == path);
            let got = server.send(method, &fill_template(path), &[]).await;
            assert_eq!(got.status, if is_route { 401 } else { 405 }, "{method} {path}");
        }
    }
    for (method, path, required) in ROUTES {
        let roles = ["viewer", "operator", "admin"];
        let rank = |role: &str| roles.iter().position(|other| *other == role).unwrap();
        for (token, role) in [(VIEWER, "viewer"), (OPERATOR, "operator"), (ADMIN, "admin")] {
            let got = send_as(&server, method, &fill_template(path), token).await;
            let allowed = rank(role) >= rank(required);
            assert_eq!(got.status != 403, allowed, "{role}: {method} {path}: {}", got.text);
            assert_ne!(got.status, 401);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoami_returns_the_name_and_role_of_a_token() {
    let server = server_with_administrators(&[]);
    for (token, name, role) in
        [(VIEWER, "vera", "viewer"), (OPERATOR, "otto", "operator"), (ADMIN, "anna", "admin")]
    {
        let got = send_as(&server, "GET", WHOAMI, token).await;
        assert_eq!((got.status.as_u16(), got.json()), (200, json!({"name": name, "role": role})));
        assert_eq!(got.header("cache-control"), "no-store");
    }
    let none = server.get(WHOAMI).await;
    assert_eq!((none.status.as_u16(), problem_slug(&none).as_str()), (401, "unauthorized"));
    assert_eq!(none.header("www-authenticate"), "Bearer");
    let wrong = send_as(&server, "GET", WHOAMI, &"x".repeat(32)).await;
    assert_eq!((wrong.status.as_u16(), problem_slug(&wrong).as_str()), (401, "unauthorized"));
    assert_eq!(wrong.header("www-authenticate"), "Bearer error=\"invalid_token\"");
}

#[tokio::test(start_paused = true)]
async fn without_configured_tokens_only_local_clients_are_administrators() {
    let server = TestServer::new();
    let here = server.get(WHOAMI).await;
    assert_eq!(here.json(), json!({"name": "local", "role": "admin"}));
    let elsewhere = [("x-forwarded-for", "192.0.2.7")];
    for _ in 0..10 {
        let got = server.get_with(WHOAMI, &elsewhere).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (403, "forbidden"));
    }
    // Regardless of failures of other clients, such as a foreign site's page in a local browser.
    for _ in 0..20 {
        let got = server.get_with(WHOAMI, &[("origin", "https://evil.example")]).await;
        assert_eq!(got.status, 403);
    }
    assert_eq!(server.get(WHOAMI).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_administrator_gets_retry_after_and_others_are_unaffected() {
    let server = server_with_administrators(&[("admin.requests_per_minute", "3")]);
    for remaining in ["2", "1", "0"] {
        let got = send_as(&server, "GET", WHOAMI, VIEWER).await;
        assert_eq!((got.status.as_u16(), got.header("x-ratelimit-remaining")), (200, remaining));
        assert_eq!(got.header("x-ratelimit-limit"), "3");
    }
    let got = send_as(&server, "GET", WHOAMI, VIEWER).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (429, "rate-limited"));
    for (name, value) in [
        ("retry-after", "20"),
        ("ratelimit-policy", "\"admin\";q=3;w=60"),
        ("ratelimit", "\"admin\";r=0;t=60"),
        ("x-ratelimit-limit", "3"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "60"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert_eq!(send_as(&server, "GET", WHOAMI, OPERATOR).await.status, 200);
    tokio::time::advance(std::time::Duration::from_secs(20)).await;
    assert_eq!(send_as(&server, "GET", WHOAMI, VIEWER).await.status, 200);
    assert_eq!(send_as(&server, "GET", WHOAMI, VIEWER).await.status, 429);
    let counted = |role: &str, outcome: &str| {
        let labels = format!("{{outcome=\"{outcome}\",role=\"{role}\"}}");
        server.metric(&format!("allocator_admin_requests_total{labels}"))
    };
    assert_eq!((counted("viewer", "done"), counted("viewer", "rate_limited")), (4.0, 2.0));
    assert_eq!(counted("operator", "done"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn limits_are_listed_with_the_remaining_requests_of_each_administrator() {
    let settings = [("admin.requests_per_minute", "60"), ("admin.failures_per_minute", "7")];
    let server = server_with_administrators(&settings);
    send_as(&server, "GET", WHOAMI, OPERATOR).await;
    let limits = send_as(&server, "GET", LIMITS, VIEWER).await.json();
    let of = |name: &str, role: &str, remaining: u32| json!({"name": name, "role": role, "remaining": remaining});
    let administrators =
        [of("vera", "viewer", 59), of("otto", "operator", 59), of("anna", "admin", 60)];
    assert_eq!(
        limits,
        json!({"requests": {"per_minute": 60, "administrators": administrators},
               "failures": {"per_minute": 7}})
    );
    let alone = TestServer::with_settings(&settings).get(LIMITS).await.json();
    assert_eq!(alone["requests"]["administrators"], json!([of("local", "admin", 59)]));
}

#[tokio::test(start_paused = true)]
async fn guessing_tokens_is_limited_by_address_and_locks_no_valid_token_out() {
    let server = server_with_administrators(&[("admin.failures_per_minute", "2")]);
    let shown = |token: &str, client: &'static str| {
        let headers =
            [("authorization", format!("Bearer {token}")), ("x-forwarded-for", client.to_owned())];
        let server = server.clone();
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            server.get_with(WHOAMI, &headers).await
        }
    };
    let wrong = "w".repeat(32);
    assert_eq!(shown(&wrong, "192.0.2.7").await.status, 401);
    assert_eq!(shown(&wrong, "192.0.2.7").await.status, 401);
    let got = shown(&wrong, "192.0.2.7").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (429, "rate-limited"));
    assert_eq!((got.header("retry-after"), got.header("x-ratelimit-limit")), ("30", "2"));
    assert_eq!(shown(ADMIN, "192.0.2.7").await.status, 200);
    assert_eq!(shown(&wrong, "198.51.100.9").await.status, 401);
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    assert_eq!(shown(&wrong, "192.0.2.7").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn generations_are_listed_with_the_reports_of_shadow_generations() {
    let server = TestServer::new();
    let first =
        json!({"generation": 1, "state": "current", "topic": "submissions", "partition_count": 3});
    let alone = json!({"revision": 1, "term": 1, "generations": [first]});
    assert_eq!(server.get(GENERATIONS).await.json(), alone);

    let record = |generation| {
        GenerationRecord::new(Generation(generation), LogRef::first("submissions", partitions()))
    };
    let job: job::JobId = "019347f0-0000-7000-8000-000000000000".parse().unwrap();
    let registry = GenerationRegistry {
        revision: 9,
        term: 3,
        active: record(3),
        building: Some(Building {
            record: record(4),
            dry_run: true,
            begun_at_ms: 1_795_212_000_123,
            job: Some(job),
            seal: Seal::Open,
        }),
        previous: Some(record(2)),
        retired: vec![record(1)],
        next: Generation(5),
        not_understood: Vec::new(),
    };
    let report = PartitionReport {
        position: Position(70),
        rows_position: Position(60),
        log_end: Position(80),
        comparison: Some(TotalsComparison {
            with: Generation(3),
            position: Position(50),
            differences: vec!["partition 1: people".into()],
        }),
        stall_reason: Some("the log has a gap".into()),
        reported_at_ms: 1_795_212_000_456,
    };
    let reports = [(Generation(4), vec![None, Some(report), None])];
    server.store.reports.lock().extend(reports);
    *server.store.registry.lock() = Some(registry);

    let list = server.get(GENERATIONS).await.json();
    assert_eq!((&list["revision"], &list["term"]), (&json!(9), &json!(3)));
    let of = |index: usize| list["generations"][index].clone();
    let states: Vec<Value> = (0..4).map(|index| of(index)["state"].clone()).collect();
    assert_eq!(states, ["retired", "previous", "current", "building"]);
    let unknown = |partition: u32| json!({"partition": partition, "report": null});
    assert_eq!(of(1)["partitions"], json!([unknown(0), unknown(1), unknown(2)]));
    assert_eq!(of(2).get("partitions"), None);
    assert_eq!(
        of(3),
        json!({
            "generation": 4, "state": "building", "topic": "submissions", "partition_count": 3,
            "dry_run": true, "begun_at": "2026-11-20T22:00:00.123Z",
            "job": "019347f0-0000-7000-8000-000000000000",
            "partitions": [unknown(0), {"partition": 1, "report": {
                "position": 70, "rows_position": 60, "log_end": 80,
                "reported_at": "2026-11-20T22:00:00.456Z", "trouble": "the log has a gap",
                "compared": {"with": 3, "position": 50, "differences": ["partition 1: people"]},
            }}, unknown(2)],
        })
    );
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_or_slow_store_is_503_with_retry_after() {
    let server = TestServer::new();
    for mode in [Mode::Fails, Mode::Hangs] {
        server.store.registry_switch.set(mode);
        let got = server.get(GENERATIONS).await;
        assert_eq!(
            (got.status.as_u16(), problem_slug(&got).as_str()),
            (503, "unavailable"),
            "{mode:?}"
        );
        assert_eq!(got.header("retry-after"), "1");
        assert_eq!(server.get(WHOAMI).await.status, 200);
    }
}
