//! Downloads of published exports.

use std::fs;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use schemas::export::{CategorySummary, ExportSummary, Manifest};
use schemas::job::{ExportFormat, JobId};
use schemas::{Budget, Generation, Position, ResultsVisibility};
use sha2::{Digest, Sha256};
use storage::exports::{Audience, Exports, manifest_path};

use crate::admin::problem_slug;
use crate::fakes::id;
use crate::test_server::{TestServer, budget};

/// The size of the pieces in which files are sent.
const CHUNK_BYTES: usize = 64 * 1024;
const CSV: &str = "/v1/budgets/town/export?format=csv";

/// Writes an export of `town` where an export job would.
fn put(server: &TestServer, audience: Audience, job: u128, people: u64, rows: &[u8]) -> String {
    let exports = Exports::new(server.exports.path());
    fs::create_dir_all(exports.dir(audience)).unwrap();
    let job = JobId(uuid::Uuid::from_u128(job));
    let path = exports.path(&id("town"), job, ExportFormat::Csv, audience);
    let sha256 = hex::encode(Sha256::digest(rows));
    let category = |id: &str| CategorySummary { id: id.into(), name: id.into(), basis_points: 1 };
    let facts = ExportSummary {
        budget: "town".into(),
        name: "The town budget".into(),
        positions: vec![Position(7), Position(0), Position(12)],
        people,
        annulled: 1,
        categories: vec![category("health"), category("education")],
    };
    let manifest = Manifest {
        summary: facts,
        format: ExportFormat::Csv,
        sha256: sha256.clone(),
        bytes: rows.len() as u64,
        generation: Generation(3),
        version: "1.2.3".into(),
        exported_at: jiff::Timestamp::from_millisecond(1_795_212_000_123).unwrap(),
    };
    fs::write(&path, rows).unwrap();
    fs::write(manifest_path(&path), serde_json::to_vec(&manifest).unwrap()).unwrap();
    sha256
}

#[tokio::test(start_paused = true)]
async fn the_newest_published_export_is_served_with_headers_that_describe_it() {
    let server = TestServer::new();
    let rows = "health,education\n40.00,60.00\n".repeat(10_000);
    let sha256 = put(&server, Audience::Everybody, 1, 2, rows.as_bytes());
    let got = server.get(CSV).await;
    assert_eq!((got.status, &got.text), (StatusCode::OK, &rows));
    let etag = format!("\"{sha256}\"");
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-type", "text/csv; charset=utf-8; header=present"),
        ("content-length", "290000"),
        ("content-disposition", "attachment; filename=\"town.csv\""),
        ("last-modified", "Fri, 20 Nov 2026 22:00:00 GMT"),
        ("cache-control", "public, max-age=0, must-revalidate"),
        ("allocator-positions", "7, 0, 12"),
        ("allocator-version", "1.2.3"),
        ("allocator-generation", "3"),
        ("allocator-people", "2"),
        ("allocator-annulled", "1"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let again = server.get_with(CSV, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    let head = server.send("HEAD", CSV, &[]).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), "290000");
    assert_eq!(server.metric("allocator_api_downloads"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_unpublished_export_is_404_and_the_problem_says_how_to_publish_it() {
    let server = TestServer::new();
    put(&server, Audience::Operators, 1, 2, b"rows");
    for path in [CSV, "/v1/budgets/town/export?format=pb"] {
        let got = server.get(path).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
        assert!(got.text.contains("an operator publishes one"), "{}", got.text);
    }
    let got = server.get("/v1/budgets/nowhere/export?format=csv").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    for (query, expected) in [("", "is required, and must be csv"), ("?format=xls", "must be csv")]
    {
        let got = server.get(&format!("/v1/budgets/town/export{query}")).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
        let error = got.json()["errors"][0].clone();
        assert_eq!(error["pointer"], "format");
        assert!(error["detail"].as_str().unwrap().starts_with(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn exports_of_withheld_results_are_withheld() {
    let server = TestServer::new();
    put(&server, Audience::Everybody, 1, 9, b"rows");
    server.commit("town", &[(0, [4_000, 6_000]); 9]);
    let mut town = budget("town");
    town.minimum_people = 10;
    server.definitions.put(town.clone());
    let got = server.get(CSV).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("too few people"), "{}", got.text);
    town.minimum_people = 9;
    town.results = ResultsVisibility::AfterClose;
    let now = jiff::Timestamp::now();
    town.closes_at = Some(now + jiff::Span::new().hours(1));
    server.definitions.put(town.clone());
    let got = server.get(CSV).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("once it has closed"), "{}", got.text);
    town.closes_at = Some(now - jiff::Span::new().hours(1));
    town.revision += 1;
    server.definitions.put(town);
    let got = server.get(CSV).await;
    assert!(got.text.contains("withheld now"), "not before the results are final: {}", got.text);
    server.commit_closed("town", &[(0, [4_000, 6_000]); 9], &[0, 1, 2]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.get(CSV).await.text, "rows");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_after_the_export_can_withhold_the_export() {
    let server = TestServer::new();
    put(&server, Audience::Everybody, 1, 2, b"rows");
    server.definitions.put(Budget { minimum_people: 2, ..budget("town") });
    server.commit("town", &[(1, [4_000, 6_000])]);
    let got = server.get(CSV).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("withheld now"), "{}", got.text);
}

#[tokio::test]
async fn downloads_are_limited_and_a_disconnected_reader_releases_its_permit() {
    let server = TestServer::with_settings(&[("api.max_downloads", "1")]);
    put(&server, Audience::Everybody, 1, 2, &[b'x'; 1_000_000]);
    let reading = server.open(CSV).await;
    assert_eq!(reading.status(), StatusCode::OK);
    assert_eq!(server.metric("allocator_api_downloads"), 1.0);
    let got = server.get(CSV).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (503, "unavailable"));
    assert_eq!(got.header("retry-after"), "1");
    drop(reading);
    assert_eq!(server.metric("allocator_api_downloads"), 0.0);
    assert_eq!(server.get(CSV).await.text.len(), 1_000_000);
}

#[tokio::test]
async fn downloads_of_one_client_are_limited_and_others_still_download() {
    let server = TestServer::with_settings(&[("api.max_downloads_per_client", "1")]);
    put(&server, Audience::Everybody, 1, 2, &[b'x'; 1_000_000]);
    let client = |address| [("x-forwarded-for", address)];
    let reading = server.open_with(CSV, &client("192.0.2.1")).await;
    let got = server.get_with(CSV, &client("192.0.2.1")).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (429, "rate-limited"));
    assert_eq!(got.header("retry-after"), "1");
    assert!(got.text.contains("from this address"), "{}", got.text);
    assert_eq!(server.get_with(CSV, &client("192.0.2.2")).await.status, 200);
    drop(reading);
    assert_eq!(server.get_with(CSV, &client("192.0.2.1")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_drips_cannot_keep_its_place_from_others() {
    let server = TestServer::with_settings(&[("api.max_downloads", "1")]);
    put(&server, Audience::Everybody, 1, 2, &[b'x'; 3_000_000]);
    let client = |address| [("x-forwarded-for", address)];
    let mut dripping = server.open_with(CSV, &client("192.0.2.1")).await.into_body();
    // A chunk every second is fast enough, one every two seconds is not.
    for (pause, status) in [(1, 503), (2, 200)] {
        for _ in 0..8 {
            dripping.frame().await.unwrap().unwrap();
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
        assert_eq!(server.get_with(CSV, &client("192.0.2.2")).await.status, status, "{pause}");
    }
    assert!(dripping.frame().await.unwrap().is_err(), "the dripping download is cut");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_keeps_its_place_until_another_needs_it() {
    let server = TestServer::with_settings(&[("api.max_downloads", "2")]);
    put(&server, Audience::Everybody, 1, 2, &[b'x'; 1_000_000]);
    let client = |address| [("x-forwarded-for", address)];
    let mut stalled = server.open_with(CSV, &client("192.0.2.1")).await.into_body();
    let mut slow = server.open_with(CSV, &client("192.0.2.2")).await.into_body();
    stalled.frame().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(4)).await;
    slow.frame().await.unwrap().unwrap();
    assert_eq!(server.get_with(CSV, &client("192.0.2.3")).await.status, 503);
    tokio::time::advance(Duration::from_secs(2)).await;
    // It could go on if nobody came.
    let mut third = server.open_with(CSV, &client("192.0.2.3")).await;
    assert_eq!(third.status(), StatusCode::OK);
    assert!(stalled.frame().await.unwrap().is_err(), "the stalled download is cut");
    assert!(third.body_mut().collect().await.is_ok());
    drop(third);
    assert_eq!(slow.collect().await.unwrap().to_bytes().len(), 1_000_000 - CHUNK_BYTES);
    assert_eq!(server.metric("allocator_api_downloads"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn exports_of_results_that_move_in_steps_are_withheld_until_these_are_final() {
    let server = TestServer::new();
    put(&server, Audience::Everybody, 1, 9, b"rows");
    server.commit("town", &[(0, [4_000, 6_000]); 9]);
    server.definitions.put(Budget { publish_step: 10, revision: 2, ..budget("town") });
    let got = server.get(CSV).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("move in steps"), "{}", got.text);
    server.commit_closed("town", &[(0, [4_000, 6_000]); 9], &[0, 1, 2]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.get(CSV).await.text, "rows");
}
