//! Requests, errors and limits of the server, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod support;

use std::time::Duration;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use runtime::http::{ChargedBody, HttpConfig, RequestId};
use runtime::problem::{Problem, ProblemKind};
use serde::Deserialize;
use support::{Server, eventually};

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<u32>,
}

fn routes() -> Router {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/people/{person}", get(async |Path(person): Path<String>| person))
        .route(
            "/sum",
            post(async |Json(body): Json<Numbers>| body.numbers.iter().sum::<u32>().to_string()),
        )
        .route("/id", get(async |Extension(id): Extension<RequestId>| id.to_string()))
        .route("/panic", get(async || -> &'static str { panic!("on purpose") }))
        .route("/never", get(std::future::pending::<&'static str>))
        .route(
            "/swallow",
            post(async |body: axum::body::Body| {
                // A handler that ignores errors of the body.
                body.collect().await.map_or(0, |body| body.to_bytes().len()).to_string()
            }),
        )
        .route("/refuse", post(async || Problem::new(ProblemKind::Unauthorized).detail("no token")))
        .route(
            "/teapot",
            get(async || {
                Problem::new(ProblemKind::InvalidAllocation)
                    .detail("two faults")
                    .fault("/allocation/health", "is negative")
                    .fault("/allocation/x", "is no category")
                    .retry_after(Duration::from_millis(1_001))
            }),
        )
}

fn server() -> Server {
    Server::start(routes(), HttpConfig::default())
}

fn server_with(change: impl FnOnce(&mut HttpConfig)) -> Server {
    let mut config = HttpConfig::default();
    change(&mut config);
    Server::start(routes(), config)
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

fn post_json(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn every_request_of_a_connection_has_its_own_id() {
    let server = server();
    let mut client = server.connect().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        client.send(&get_request("/hello")).await;
        let response = client.response().await.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"hello".as_slice()));
        ids.push(response.header("x-request-id").unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_replaced() {
    let server = server();
    let long = "a".repeat(65);
    for (sent, kept) in [
        ("abc.DEF_12-3", true),
        (&long[..64], true),
        (&long[..], false),
        ("with space", false),
        ("", false),
        ("caf\u{e9}", false),
    ] {
        let request = format!("GET /id HTTP/1.1\r\nhost: test\r\nx-request-id: {sent}\r\n\r\n");
        let response = server.send(&request).await;
        let id = response.header("x-request-id").unwrap();
        assert_eq!(id == sent, kept, "{sent:?} became {id:?}");
        assert!(!id.is_empty());
        assert_eq!(response.body, id.as_bytes(), "the handler sees the same id");
    }
}

#[tokio::test]
async fn rejections_of_the_framework_are_problems_with_the_requests_id() {
    let server = server();
    server.send(&get_request("/nowhere")).await.problem(404, "not-found");
    server.send(&get_request("/problems/nothing")).await.problem(404, "not-found");

    let wrong_method = server.send(&post_json("/hello", "{}")).await;
    wrong_method.problem(405, "method-not-allowed");
    assert_eq!(wrong_method.header("allow"), Some("GET,HEAD"));

    let not_json =
        server.send("POST /sum HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{}").await;
    not_json.problem(415, "unsupported-media-type");
    let broken = server.send(&post_json("/sum", "{\"numbers\": [1")).await;
    assert!(broken.problem(400, "malformed")["detail"].is_string());
    // The framework answers 422 here, which this service reserves for invalid allocations.
    server.send(&post_json("/sum", "{\"numbers\": \"x\"}")).await.problem(400, "malformed");
    server.send(&get_request("/people/%FF")).await.problem(400, "malformed");
}

#[tokio::test]
async fn a_malformed_or_oversized_head_is_rejected_and_the_connection_closed() {
    let server = server();
    let large = |size| format!("cookie: {}", "x".repeat(size));
    for (head, status) in [
        ("GET /hello HTTP/1.1\r\nno colon".to_owned(), 400),
        ("complete nonsense".to_owned(), 400),
        (format!("GET /hello HTTP/1.1\r\nhost: test\r\n{}", large(33_000)), 431),
        (format!("GET /hello HTTP/1.1\r\nhost: test\r\n{}", large(200_000)), 431),
        (format!("GET /hello HTTP/1.1\r\nhost: test\r\n{}", ["a: b"; 200].join("\r\n")), 431),
    ] {
        let mut client = server.connect().await;
        client.send(&format!("{head}\r\n\r\n")).await;
        assert_eq!(client.response().await.unwrap().status, status);
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_request_without_one_valid_host_is_refused_and_its_connection_closed() {
    let server = server();
    let refused =
        ["", "host: a\r\nhost: b\r\n", "host: a\r\nHost: a\r\n", "host: a/b\r\n", "host: a b\r\n"];
    for (method, path) in [("GET", "/hello"), ("GET", "/metrics"), ("POST", "/nowhere")] {
        for hosts in refused {
            let mut client = server.connect().await;
            client.send(&format!("{method} {path} HTTP/1.1\r\n{hosts}\r\n")).await;
            client.response().await.unwrap().problem(400, "malformed");
            assert!(client.is_closed().await);
        }
    }
    for request in [
        "GET /hello HTTP/1.0\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhost:\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "GET http://test/hello HTTP/1.1\r\nhost: test\r\n\r\n",
    ] {
        assert_eq!(server.send(request).await.status, 200, "{request:?}");
    }
}

#[tokio::test]
async fn a_handlers_problem_keeps_its_faults_and_gets_an_instance() {
    let response = server().send(&get_request("/teapot")).await;
    let problem = response.problem(422, "invalid-allocation");
    assert_eq!(problem["errors"][0]["pointer"], "/allocation/health");
    assert_eq!(problem["errors"][1]["detail"], "is no category");
    assert_eq!(response.header("retry-after"), Some("2"), "whole seconds, rounded up");
}

#[tokio::test]
async fn every_kind_of_problem_has_a_page() {
    let server = server();
    let index = server.send(&get_request("/problems")).await;
    for kind in ProblemKind::ALL {
        let path = format!("/problems/{}", kind.slug());
        let page = server.send(&get_request(&path)).await;
        assert_eq!(page.status, 200);
        assert!(String::from_utf8_lossy(&page.body).contains(kind.title()));
        assert!(String::from_utf8_lossy(&index.body).contains(&path));
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_connection_stays_open() {
    let server = server();
    let mut client = server.connect().await;
    client.send(&get_request("/panic")).await;
    let problem = client.response().await.unwrap().problem(500, "internal");
    assert!(!problem.to_string().contains("on purpose"));
    client.send(&get_request("/hello")).await;
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(server.sample("allocator_http_panics_total{service=\"test\"}"), 1.0);
}

#[tokio::test]
async fn a_body_at_the_limit_is_accepted_and_one_byte_more_is_not() {
    let server = server_with(|config| config.max_body_bytes = 100);
    for path in ["/sum", "/swallow"] {
        let fits = format!("{{\"numbers\":[1,2]}}{}", " ".repeat(83));
        assert_eq!(fits.len(), 100);
        assert_eq!(server.send(&post_json(path, &fits)).await.status, 200);
        server.send(&post_json(path, &format!("{fits} "))).await.problem(413, "content-too-large");
        // Without a length the limit is found while reading, even if the handler ignores errors.
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n65\r\n{fits} \r\n0\r\n\r\n"
        );
        server.send(&chunked).await.problem(413, "content-too-large");
    }
}

#[tokio::test]
async fn a_limit_above_the_frameworks_default_applies() {
    let server = server_with(|config| config.max_body_bytes = 4 * 1024 * 1024);
    let large = format!("{{\"numbers\":[1,2]}}{}", " ".repeat(3 * 1024 * 1024));
    assert_eq!(server.send(&post_json("/sum", &large)).await.body, b"3");
}

#[tokio::test]
async fn the_total_size_of_bodies_is_limited_and_released_afterwards() {
    let server = server_with(|config| config.max_buffered_bytes = 1_200);
    let head = "POST /swallow HTTP/1.1\r\nhost: test\r\ncontent-length: 900\r\n\r\n";
    let mut holder = server.connect().await;
    holder.send(&format!("{head}{}", "x".repeat(899))).await;
    eventually("the first body is read", || {
        server.sample("allocator_http_requests_in_flight{service=\"test\"}") == 1.0
    })
    .await;
    // The handler may read the first bytes a moment after the request starts.
    let refused = loop {
        let response = server.send(&post_json("/swallow", &"y".repeat(500))).await;
        if response.status != 200 {
            break response;
        }
    };
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    holder.send("x").await;
    assert_eq!(holder.response().await.unwrap().body, b"900");
    assert_eq!(server.send(&post_json("/swallow", &"y".repeat(900))).await.body, b"900");
}

#[tokio::test]
async fn large_bodies_leave_a_fourth_of_the_memory_to_small_ones() {
    let server = server_with(|config| {
        config.max_buffered_bytes = 400_000;
        config.max_body_bytes = 4 * 1024 * 1024;
    });
    let mut holder = server.connect().await;
    let head = "POST /swallow HTTP/1.1\r\nhost: test\r\ncontent-length: 250001\r\n\r\n";
    holder.send(&format!("{head}{}", "x".repeat(250_000))).await;
    // The handler may read the body a moment after the request starts.
    let large = post_json("/swallow", &"y".repeat(100_000));
    let mut responses = Vec::new();
    while responses.last() != Some(&503) && responses.len() < 10_000 {
        responses.push(server.send(&large).await.status);
    }
    assert_eq!(responses.last(), Some(&503), "50,000 bytes would be left");
    assert_eq!(server.send(&post_json("/swallow", &"z".repeat(40_000))).await.body, b"40000");
    holder.send("x").await;
    assert_eq!(holder.response().await.unwrap().body, b"250001");
    assert_eq!(server.send(&large).await.body, b"100000");
}

#[tokio::test]
async fn responses_that_are_charged_share_the_memory_of_bodies_until_they_are_read() {
    // More than the sockets of one connection buffer.
    const LARGE: usize = 32 * 1024 * 1024;
    let large = get(async || (Extension(ChargedBody), vec![b'x'; LARGE]).into_response());
    let routes = Router::new().route("/large", large);
    let config = HttpConfig { max_buffered_bytes: LARGE + LARGE / 2, ..HttpConfig::default() };
    let server = Server::start(routes, config);
    let mut slow = server.connect().await;
    slow.send(&get_request("/large")).await;
    let mut responses = Vec::new();
    while responses.last() != Some(&503) && responses.len() < 100 {
        responses.push(server.send(&get_request("/large")).await.status);
    }
    assert_eq!(responses.last(), Some(&503), "the slow reader's response is charged");
    assert_eq!(slow.response().await.unwrap().body.len(), LARGE);
    // The memory is released a moment after the last byte is written.
    responses.clear();
    while responses.last() != Some(&200) && responses.len() < 1_000 {
        responses.push(server.send(&get_request("/large")).await.status);
    }
    assert_eq!(responses.last(), Some(&200), "it is released once it is read");
}

#[tokio::test]
async fn many_small_bodies_of_one_client_take_no_memory_of_another() {
    // Each client may hold 80,000 bytes.
    let server = server_with(|config| {
        config.max_buffered_bytes = 640_000;
        config.max_body_bytes = 4_000;
    });
    let post = |client: &str, length: usize| {
        format!(
            "POST /swallow HTTP/1.1\r\nhost: test\r\nx-forwarded-for: {client}\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let whole = |client: &str| post(client, 4_000) + &"y".repeat(4_000);
    let mut holders = Vec::new();
    for number in 0..20 {
        // One /64 network is one client.
        let mut holder = server.connect().await;
        let head = post(&format!("2001:db8:1:2::{number:x}"), 4_000);
        holder.send(&format!("{head}{}", "x".repeat(3_999))).await;
        holders.push(holder);
    }
    // The handlers may read the bodies a moment after the requests start.
    let refused = loop {
        let response = server.send(&whole("2001:db8:1:2::ffff")).await;
        if response.status != 200 {
            break response;
        }
    };
    refused.problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for other in ["2001:db8:1:3::1", "192.0.2.1"] {
        assert_eq!(server.send(&whole(other)).await.body, b"4000", "{other}");
    }
    drop(holders);
    let mut statuses = Vec::new();
    while statuses.last() != Some(&200) && statuses.len() < 10_000 {
        statuses.push(server.send(&whole("2001:db8:1:2::ffff")).await.status);
    }
    assert_eq!(statuses.last(), Some(&200), "what it held is released");
}

#[tokio::test]
async fn a_client_may_send_one_body_of_the_maximum_size_however_small_its_part_of_the_memory() {
    let server = server_with(|config| {
        config.max_buffered_bytes = 4 * 1024 * 1024;
        config.max_body_bytes = 1024 * 1024;
    });
    let length = 1024 * 1024;
    let body = "y".repeat(length);
    let request = format!(
        "POST /swallow HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 192.0.2.1\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    assert_eq!(server.send(&request).await.body, length.to_string().as_bytes());
}

#[tokio::test]
async fn a_client_whose_body_is_refused_unread_can_send_all_of_it_and_reads_the_answer() {
    let server = server();
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(&post_json("/refuse", &"y".repeat(400 * 1024))).await;
        client.response().await.unwrap().problem(401, "unauthorized");
    }
    // The connection goes on.
    client.send(&get_request("/hello")).await;
    assert_eq!(client.response().await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_client_that_does_not_send_a_refused_body_is_disconnected_at_the_deadline() {
    let server = server_with(|config| config.request_timeout = Duration::from_millis(200));
    let mut client = server.connect().await;
    client.send("POST /refuse HTTP/1.1\r\nhost: test\r\ncontent-length: 400000\r\n\r\n").await;
    client.response().await.unwrap().problem(401, "unauthorized");
    assert!(client.response().await.is_none(), "the server closes");
}

#[tokio::test]
async fn a_body_in_many_small_frames_is_charged_their_overhead() {
    let server = server_with(|config| config.max_buffered_bytes = 10_000);
    let head = "POST /swallow HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let pieces = |count: usize| format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(count));
    assert_eq!(server.send(&pieces(20)).await.body, b"20");
    server.send(&pieces(200)).await.problem(503, "unavailable");
    // The overhead is bounded for each request as well, so that one alone cannot use up what all share.
    let server = server_with(|config| config.max_body_bytes = 1_000);
    assert_eq!(server.send(&pieces(600)).await.body, b"600");
    server.send(&pieces(700)).await.problem(413, "content-too-large");
}

#[tokio::test]
async fn a_late_body_is_408_and_a_late_response_is_503() {
    let server = server_with(|config| config.request_timeout = Duration::from_millis(50));
    let mut slow = server.connect().await;
    slow.send("POST /sum HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        .await;
    slow.response().await.unwrap().problem(408, "request-timeout");
    assert!(slow.is_closed().await);
    server.send(&get_request("/never")).await.problem(503, "unavailable");
}

#[tokio::test]
async fn every_server_has_health_and_metrics() {
    let server = server();
    assert_eq!(server.send(&get_request("/livez")).await.status, 200);
    let starting = server.send(&get_request("/readyz")).await;
    assert_eq!(starting.status, 503, "no check is registered yet");
    let check = server.health.check("log");
    check.set_unready("no broker");
    let unready = server.send(&get_request("/readyz")).await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.header("content-type"), Some("application/json"));
    assert_eq!(unready.json()["checks"][0]["name"], "log");
    assert_eq!(unready.json()["checks"][0]["reason"], "no broker");
    assert_eq!(
        server.send(&get_request("/livez")).await.status,
        200,
        "liveness depends on no check"
    );
    check.set_ready();
    assert_eq!(server.send(&get_request("/readyz")).await.status, 200);
    server.health.drain();
    assert_eq!(server.send(&get_request("/readyz")).await.json()["draining"], true);

    server.send(&get_request("/people/p-1")).await;
    server.send(&get_request("/people/p-2")).await;
    server.send("BREW /hello HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let metrics = server.send(&get_request("/metrics")).await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "allocator_build_info{service=\"test\",version=\"0.1.0\"} 1",
        "allocator_http_requests_total{method=\"GET\",route=\"/people/{person}\",service=\"test\",status=\"200\"} 2",
        "allocator_http_requests_total{method=\"OTHER\",route=\"/hello\",service=\"test\",status=\"405\"} 1",
        "allocator_http_request_duration_seconds_count{route=\"/people/{person}\",service=\"test\"} 2",
        "allocator_http_requests_in_flight{service=\"test\"} 1",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("p-1"), "a person in a label");
}
