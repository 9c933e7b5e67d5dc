//! `GET /v1/admin/budgets/{budget}/signals`: what the signals of a budget's submissions show.
//!
//! Reads the log of signals: one read at a time in this process, bounded in time and memory, and its result is used for
//! ten seconds.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use fraud::summary::{DEFAULT_HOURS, MAX_HOURS, SummaryWindow, summarize};
use fraud::view::SignalsView;
use parking_lot::Mutex;
use runtime::clock::now_ms;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::BudgetId;
use storage::control::BudgetDefinitions;
use storage::signals::SignalReader;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::routes::{RETRY_AFTER, no_such_budget};
use crate::single_flight::SingleFlight;

/// How long a request waits for a read that runs before its own, and for its own: less than a gateway's timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a result is used.
const CACHE_DURATION: Duration = Duration::from_secs(10);
/// Results that are kept.
const MAX_CACHED: usize = 32;

/// A budget and a number of hours.
type Key = (BudgetId, u32);

/// Reads summaries of signals.
#[derive(Clone)]
pub struct SignalService(Arc<Inner>);

struct Inner {
    signals: Arc<dyn SignalReader>,
    definitions: Arc<dyn BudgetDefinitions>,
    flights: SingleFlight<Key, Option<Arc<SignalsView>>>,
    cached: Mutex<Vec<(Key, Instant, Arc<SignalsView>)>>,
    /// One read at a time: each may need 150 MB.
    read_permit: Semaphore,
}

impl SignalService {
    /// Creates the service.
    pub fn new(signals: Arc<dyn SignalReader>, definitions: Arc<dyn BudgetDefinitions>) -> Self {
        Self(Arc::new(Inner {
            signals,
            definitions,
            flights: SingleFlight::new(),
            cached: Mutex::default(),
            read_permit: Semaphore::new(1),
        }))
    }

    /// Returns the summary of the last hours, of a read that has just ended, that runs, or that starts.
    async fn summary(&self, key: &Key) -> Result<Arc<SignalsView>, Problem> {
        if let Some(cached) = self.0.find_cached(key) {
            return Ok(cached);
        }
        let (mut leader, flights) = self.0.flights.join(std::slice::from_ref(key), None);
        if leader.leads(key) {
            let (inner, key) = (Arc::clone(&self.0), key.clone());
            // In a task of its own, so that the read outlives the reader that started it.
            tokio::spawn(async move {
                let view = inner.read(&key).await;
                leader.complete(&key, view);
            });
        }
        let Some(flight) = flights.into_iter().next() else { return Err(unavailable()) };
        flight.result().await.flatten().ok_or_else(unavailable)
    }
}

impl Inner {
    async fn read(&self, key: &Key) -> Option<Arc<SignalsView>> {
        let (budget, hours) = key;
        let read = async {
            let _permit = self.read_permit.acquire().await.ok()?;
            let window = SummaryWindow::new(now_ms(), *hours)?;
            match summarize(self.signals.as_ref(), budget, window, |_, _| {}).await {
                Ok(summary) => Some(Arc::new(SignalsView::of(budget, &summary))),
                Err(error) => {
                    tracing::warn!(%budget, %error, "failed to read signals");
                    None
                }
            }
        };
        let view = timeout(READ_TIMEOUT, read).await.unwrap_or_else(|_| {
            tracing::warn!(%budget, hours, "signals could not be read in time");
            None
        })?;
        self.cache(key.clone(), &view);
        Some(view)
    }

    fn find_cached(&self, key: &Key) -> Option<Arc<SignalsView>> {
        let cached = self.cached.lock();
        let (.., view) = cached
            .iter()
            .find(|(other, read_at, _)| other == key && read_at.elapsed() < CACHE_DURATION)?;
        Some(Arc::clone(view))
    }

    fn cache(&self, key: Key, view: &Arc<SignalsView>) {
        let mut cached = self.cached.lock();
        cached.retain(|(other, read_at, _)| *other != key && read_at.elapsed() < CACHE_DURATION);
        if cached.len() < MAX_CACHED {
            cached.push((key, Instant::now(), Arc::clone(view)));
        }
    }
}

#[utoipa::path(
    get,
    path = "/v1/admin/budgets/{budget}/signals",
    tag = "administration",
    operation_id = "getSignals",
    summary = "New people, largest networks and identical ballots of recent submissions",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("hours" = Option<u32>, Query, minimum = 1, maximum = 120, description = "Hours before now; default 24"),
    ),
    responses(
        (status = 200, description = "The signals", body = SignalsView, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn signals(
    State(service): State<SignalService>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let catalog = service.0.definitions.catalog();
    let budget = catalog.get(&id);
    let budget = budget.ok_or_else(|| no_such_budget(service.0.definitions.as_ref(), &[&id]))?;
    let key = (budget.id.clone(), hours(&query)?);
    Ok(Json(service.summary(&key).await?.as_ref()).into_response())
}

fn hours(query: &[(String, String)]) -> Result<u32, Problem> {
    let (mut hours, mut faults) = (DEFAULT_HOURS, Faults::default());
    for (_, value) in query.iter().filter(|(name, _)| name == "hours") {
        match value.parse() {
            Ok(wanted @ 1..=MAX_HOURS) => hours = wanted,
            _ => faults.malformed("hours", format!("must be from 1 to {MAX_HOURS}")),
        }
    }
    if faults.is_empty() { Ok(hours) } else { Err(faults.into_problem(ProblemKind::Malformed)) }
}

fn unavailable() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail("the log with the signals is unavailable, or has too many to be read in time")
        .retry_after(RETRY_AFTER)
}
