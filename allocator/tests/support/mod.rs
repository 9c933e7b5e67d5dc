//! A fake server that keeps submissions in memory and fails on demand.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How one batch request fails.
#[derive(Debug, Clone, Copy)]
pub enum InjectedFailure {
    /// The batch is rejected with this status.
    Status(u16),
    /// The batch is accepted and then the connection breaks.
    DisconnectAfterAccepting,
    /// Every second item fails transiently.
    EverySecondItem,
    /// The batch is never answered.
    Hang,
}

#[derive(Default)]
pub struct ServerState {
    /// Definitions by budget id.
    pub budgets: HashMap<String, Value>,
    /// Accepted submissions in order, each submission id once.
    pub accepted: Vec<Value>,
    pub ids: HashSet<String>,
    /// The failures of the next batches.
    pub next_failures: VecDeque<InjectedFailure>,
    /// The failure of all batches after those.
    pub permanent_failure: Option<InjectedFailure>,
    pub batches: usize,
    /// The token required to create a budget.
    pub token: Option<String>,
    /// Cancels the token after this many batches.
    pub stop_after: Option<(usize, CancellationToken)>,
    /// Never answers a read of a budget, and cancels the token.
    pub hang_and_stop: Option<CancellationToken>,
}

impl ServerState {
    /// Each person's newest allocation.
    pub fn people(&self) -> HashMap<String, Value> {
        let newest = self.accepted.iter();
        newest.map(|item| (text(item, "person"), item["allocation"].clone())).collect()
    }
}

#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<ServerState>>);

impl FakeServer {
    /// Starts the server and returns it with its URL.
    pub async fn start() -> (Self, String) {
        let fake = Self::default();
        let router = Router::new()
            .route("/v1/budgets/{budget}", get(read_budget).put(define))
            .route("/v1/budgets/{budget}/submissions/batch", post(submit))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    /// The state, which a panic of a handler (an injected disconnect) leaves valid.
    pub fn state(&self) -> MutexGuard<'_, ServerState> {
        self.0.lock()
    }
}

async fn read_budget(State(fake): State<FakeServer>, Path(id): Path<String>) -> Response {
    let hang_and_stop = fake.state().hang_and_stop.clone();
    if let Some(stop) = hang_and_stop {
        stop.cancel();
        return std::future::pending().await;
    }
    match fake.state().budgets.get(&id) {
        Some(budget) => axum::Json(budget.clone()).into_response(),
        None => problem(404, "not-found"),
    }
}

async fn define(
    State(fake): State<FakeServer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut state = fake.state();
    let authorization =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if state.token.as_ref().is_some_and(|token| authorization != Some(format!("Bearer {token}"))) {
        return problem(401, "unauthorized");
    }
    state.budgets.insert(id, serde_json::from_str(&body).unwrap());
    StatusCode::CREATED.into_response()
}

async fn submit(State(fake): State<FakeServer>, Path(id): Path<String>, body: String) -> Response {
    match answer_batch(&fake, &id, &body) {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

/// Answers a batch. `None` for [`InjectedFailure::Hang`].
fn answer_batch(fake: &FakeServer, id: &str, body: &str) -> Option<Response> {
    assert!(body.len() < 2 * 1024 * 1024, "a batch is smaller than 2 MiB");
    let items: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!((1..=1000).contains(&items.len()), "a batch has 1 to 1,000 items");
    let mut state = fake.state();
    state.batches += 1;
    if let Some((batches, stop)) = &state.stop_after
        && state.batches >= *batches
    {
        stop.cancel();
    }
    if !state.budgets.contains_key(id) {
        return Some(problem(404, "not-found"));
    }
    let failure = state.next_failures.pop_front().or(state.permanent_failure);
    if let Some(InjectedFailure::Status(status)) = failure {
        return Some(problem(status, "unavailable"));
    }
    if let Some(InjectedFailure::Hang) = failure {
        return None;
    }
    let mut results = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        results.push(if matches!(failure, Some(InjectedFailure::EverySecondItem)) && index % 2 == 1 {
            json!({"status": 503, "problem": {"type": "/problems/unavailable", "detail": "retry later"}})
        } else if text(&item, "person").ends_with("unwanted") {
            json!({"status": 422, "problem": {"type": "/problems/invalid-allocation", "detail": "not accepted"}})
        } else {
            accept(&mut state, item)
        });
    }
    assert!(
        !matches!(failure, Some(InjectedFailure::DisconnectAfterAccepting)),
        "injected disconnect"
    );
    Some(axum::Json(json!({ "results": results })).into_response())
}

fn accept(state: &mut ServerState, item: Value) -> Value {
    if !state.ids.insert(text(&item, "submission_id")) {
        return json!({"status": 202, "replayed": true});
    }
    state.accepted.push(item);
    json!({"status": 202})
}

fn problem(status: u16, slug: &str) -> Response {
    let body = json!({"type": format!("/problems/{slug}"), "status": status, "title": slug});
    let retry_after = [("retry-after", "0"), ("content-type", "application/problem+json")];
    (StatusCode::from_u16(status).unwrap(), retry_after, body.to_string()).into_response()
}

fn text(item: &Value, member: &str) -> String {
    item[member].as_str().unwrap_or_default().to_owned()
}
