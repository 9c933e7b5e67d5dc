//! The baseline of the benchmark: a plain axum server that parses the same JSON, and that returns a file's bytes from
//! memory. `bare PORT FILE`

use std::collections::HashMap;

use anyhow::Context;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Submission {
    person: String,
    allocation: HashMap<String, f64>,
}

#[derive(Serialize)]
struct Accepted {
    status: &'static str,
    people: usize,
    categories: usize,
}

async fn submit(Json(submission): Json<Submission>) -> (StatusCode, Json<Accepted>) {
    let (people, categories) = (submission.person.len(), submission.allocation.len());
    (StatusCode::ACCEPTED, Json(Accepted { status: "accepted", people, categories }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().context("bare PORT FILE")?.parse()?;
    let body = Bytes::from(std::fs::read(arguments.next().context("bare PORT FILE")?)?);
    let read = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
    let routes = Router::new().route("/submissions", post(submit)).route("/answer", get(read));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}
