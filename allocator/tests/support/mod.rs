//! A server that keeps what it is sent in memory, and fails as it is told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

/// How one batch request fails.
#[derive(Debug, Clone, Copy)]
pub enum Failing {
    /// Nothing is taken.
    With(u16),
    /// Everything is taken, and then the connection breaks.
    AfterTaking,
    /// Every second item is not taken for now.
    HalfOfTheItems,
}

#[derive(Default)]
pub struct Served {
    /// Definitions, by budget.
    pub budgets: HashMap<String, Value>,
    /// What was taken, in order; each submission id once.
    pub taken: Vec<Value>,
    pub ids: HashSet<String>,
    /// How the next batches fail.
    pub failing: VecDeque<Failing>,
    /// How all batches fail after those.
    pub always: Option<Failing>,
    pub batches: usize,
    /// Only with this token may a budget be created.
    pub token: Option<String>,
    /// Cancelled once so many batches have come.
    pub stop_after: Option<(usize, tokio_util::sync::CancellationToken)>,
}

impl Served {
    /// Each person's newest allocation.
    pub fn people(&self) -> HashMap<String, Value> {
        let newest = self.taken.iter();
        newest.map(|item| (text(item, "person"), item["allocation"].clone())).collect()
    }
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Served>>);

impl Fake {
    /// Starts to serve, and says where.
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

    pub fn served(&self) -> MutexGuard<'_, Served> {
        // A broken connection is made by a panic, which is not one of the server's state.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn read_budget(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    match fake.served().budgets.get(&id) {
        Some(budget) => axum::Json(budget.clone()).into_response(),
        None => problem(404, "not-found"),
    }
}

async fn define(
    State(fake): State<Fake>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut served = fake.served();
    let shown = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if served.token.as_ref().is_some_and(|token| shown != Some(format!("Bearer {token}"))) {
        return problem(401, "unauthorized");
    }
    served.budgets.insert(id, serde_json::from_str(&body).unwrap());
    StatusCode::CREATED.into_response()
}

async fn submit(State(fake): State<Fake>, Path(id): Path<String>, body: String) -> Response {
    assert!(body.len() < 2 * 1024 * 1024, "a batch is below 2 MiB");
    let items: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!((1..=1000).contains(&items.len()), "a batch has 1 to 1,000 items");
    let mut served = fake.served();
    served.batches += 1;
    if let Some((batches, stop)) = &served.stop_after
        && served.batches >= *batches
    {
        stop.cancel();
    }
    if !served.budgets.contains_key(&id) {
        return problem(404, "not-found");
    }
    let failing = served.failing.pop_front().or(served.always);
    if let Some(Failing::With(status)) = failing {
        return problem(status, "unavailable");
    }
    let mut results = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        results.push(if matches!(failing, Some(Failing::HalfOfTheItems)) && place % 2 == 1 {
            json!({"status": 503, "problem": {"type": "/problems/unavailable", "detail": "not now"}})
        } else if text(&item, "person").ends_with("unwanted") {
            json!({"status": 422, "problem": {"type": "/problems/invalid-allocation", "detail": "not you"}})
        } else {
            take(&mut served, item)
        });
    }
    assert!(!matches!(failing, Some(Failing::AfterTaking)), "breaks the connection");
    axum::Json(json!({ "results": results })).into_response()
}

fn take(served: &mut Served, item: Value) -> Value {
    if !served.ids.insert(text(&item, "submission_id")) {
        return json!({"status": 202, "replayed": true});
    }
    served.taken.push(item);
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
