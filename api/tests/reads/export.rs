//! Published exports, handed out to everybody.

use std::fs;

use http::StatusCode;
use schemas::export::{CategoryFacts, Facts, Manifest};
use schemas::job::{ExportFormat, JobId};
use schemas::{Generation, Position, Results};
use sha2::{Digest, Sha256};
use storage::exports::{Audience, Exports, beside};

use crate::admin::slug;
use crate::fakes::id;
use crate::world::{World, budget};

const CSV: &str = "/v1/budgets/town/export?format=csv";

/// Puts an export of the town's budget where a job would.
fn put(world: &World, audience: Audience, job: u128, people: u64, rows: &[u8]) -> String {
    let exports = Exports::new(world.exports.path());
    fs::create_dir_all(exports.dir(audience)).unwrap();
    let job = JobId(uuid::Uuid::from_u128(job));
    let path = exports.path(&id("town"), job, ExportFormat::Csv, audience);
    let sha256: String = Sha256::digest(rows).iter().map(|byte| format!("{byte:02x}")).collect();
    let category = |id: &str| CategoryFacts { id: id.into(), name: id.into(), basis_points: 1 };
    let facts = Facts {
        budget: "town".into(),
        name: "The town budget".into(),
        positions: vec![Position(7), Position(0), Position(12)],
        people,
        categories: vec![category("health"), category("education")],
    };
    let manifest = Manifest {
        facts,
        format: ExportFormat::Csv,
        sha256: sha256.clone(),
        bytes: rows.len() as u64,
        generation: Generation(3),
        version: "1.2.3".into(),
        exported_at: jiff::Timestamp::from_millisecond(1_795_212_000_123).unwrap(),
    };
    fs::write(&path, rows).unwrap();
    fs::write(beside(&path), serde_json::to_vec(&manifest).unwrap()).unwrap();
    sha256
}

#[tokio::test(start_paused = true)]
async fn what_was_published_last_is_handed_out_with_what_it_reflects() {
    let world = World::new();
    let rows = "health,education\n40.00,60.00\n".repeat(10_000);
    let sha256 = put(&world, Audience::Everybody, 1, 2, rows.as_bytes());
    let got = world.get(CSV).await;
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
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let again = world.get_with(CSV, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    let head = world.send("HEAD", CSV, &[]).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), "290000");
    assert_eq!(world.metric("allocator_api_downloads"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_published_is_not_there_and_the_problem_says_what_to_do() {
    let world = World::new();
    put(&world, Audience::Operators, 1, 2, b"rows");
    for path in [CSV, "/v1/budgets/town/export?format=pb"] {
        let got = world.get(path).await;
        assert_eq!((got.status.as_u16(), slug(&got).as_str()), (404, "not-found"));
        assert!(got.text.contains("an operator publishes one"), "{}", got.text);
    }
    let got = world.get("/v1/budgets/nowhere/export?format=csv").await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (404, "not-found"));
    for (query, said) in [("", "is required, and must be csv"), ("?format=xls", "must be csv")] {
        let got = world.get(&format!("/v1/budgets/town/export{query}")).await;
        assert_eq!((got.status.as_u16(), slug(&got).as_str()), (400, "malformed"));
        let error = got.json()["errors"][0].clone();
        assert_eq!(error["pointer"], "format");
        assert!(error["detail"].as_str().unwrap().starts_with(said), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_withheld_of_the_results_is_not_handed_out() {
    let world = World::new();
    put(&world, Audience::Everybody, 1, 9, b"rows");
    let mut town = budget("town");
    town.minimum_people = 10;
    world.definitions.put(town.clone());
    let got = world.get(CSV).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("too few people"), "{}", got.text);
    town.minimum_people = 9;
    town.results = Results::AfterClose;
    let now = jiff::Timestamp::now();
    town.closes_at = Some(now + jiff::Span::new().hours(1));
    world.definitions.put(town.clone());
    let got = world.get(CSV).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (404, "not-found"));
    assert!(got.text.contains("once it has closed"), "{}", got.text);
    town.closes_at = Some(now - jiff::Span::new().hours(1));
    world.definitions.put(town);
    assert_eq!(world.get(CSV).await.text, "rows");
}

#[tokio::test]
async fn so_many_are_read_at_once_and_a_reader_who_goes_away_makes_room() {
    let world = World::with(&[("api.max_downloads", "1")]);
    put(&world, Audience::Everybody, 1, 2, &[b'x'; 1_000_000]);
    let reading = world.open(CSV).await;
    assert_eq!(reading.status(), StatusCode::OK);
    assert_eq!(world.metric("allocator_api_downloads"), 1.0);
    let got = world.get(CSV).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (503, "unavailable"));
    assert_eq!(got.header("retry-after"), "1");
    drop(reading);
    assert_eq!(world.metric("allocator_api_downloads"), 0.0);
    assert_eq!(world.get(CSV).await.text.len(), 1_000_000);
}
