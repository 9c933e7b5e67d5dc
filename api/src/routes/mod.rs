//! HTTP routes: parse requests and write responses. Reading answers is the readers' job.

pub mod admin;
mod aggregate;
mod aggregates;
mod budgets;
mod export;
mod history;
mod pages;
mod person;
mod read_request;
mod rendered_catalog;
mod response;
mod stream;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::request::Parts;
use runtime::admin::TrustedProxies;
use runtime::problem::{Problem, ProblemKind};
use storage::control::BudgetDefinitions;

use crate::aggregate_reader::AggregateReader;
use crate::answer_streams::AnswerStreams;
use crate::client_network::ClientNetwork;
use crate::consistency::{AtLeast, NO_SUCH_PARTITION};
use crate::downloads::Downloads;
use crate::history::HistoryReader;
use crate::no_answer::NoAnswer;
use crate::person_reader::PersonReader;
use pages::RenderedPages;
use rendered_catalog::RenderedDefinitions;
use response::note_preference_in;

/// Shared state of the public routes.
pub struct ApiState {
    definitions: Arc<dyn BudgetDefinitions>,
    rendered: RenderedDefinitions,
    pages: RenderedPages,
    aggregates: AggregateReader,
    streams: AnswerStreams,
    people: PersonReader,
    histories: HistoryReader,
    downloads: Downloads,
    /// Proxies whose `X-Forwarded-For` names the client.
    trusted_proxies: TrustedProxies,
}

/// Builds the public routes.
pub fn router(api: Arc<ApiState>) -> Router {
    Router::new()
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/{budget}", get(budgets::one))
        .route("/v1/budgets/{budget}/aggregate", get(aggregate::of_budget))
        .route("/v1/budgets/{budget}/aggregate/stream", get(stream::of_budget))
        .route("/v1/budgets/{budget}/aggregate/ws", get(websocket::of_budget))
        .route("/v1/budgets/{budget}/export", get(export::of_budget))
        .route("/v1/budgets/{budget}/history", get(history::of_budget))
        .route("/v1/budgets/{budget}/submissions/{person}", get(person::of_budget))
        .route("/v1/aggregates", get(aggregates::of_budgets))
        .route("/aggregate", get(aggregate::of_default_budget))
        .route("/aggregate/", get(aggregate::of_default_budget))
        .merge(pages::routes())
        .with_state(api)
}

/// `Retry-After` of a transient failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Maximum length of client text that is repeated in a problem.
const ECHO_MAX_CHARS: usize = 64;

impl ApiState {
    /// Creates the state.
    pub fn new(
        definitions: Arc<dyn BudgetDefinitions>,
        aggregates: AggregateReader,
        streams: AnswerStreams,
        people: PersonReader,
        histories: HistoryReader,
        downloads: Downloads,
        trusted_proxies: TrustedProxies,
    ) -> Self {
        let (rendered, pages) = (RenderedDefinitions::default(), RenderedPages::default());
        Self {
            definitions,
            rendered,
            pages,
            aggregates,
            streams,
            people,
            histories,
            downloads,
            trusted_proxies,
        }
    }

    /// Returns the client of a request, for limits per client.
    fn client(&self, request: &Parts) -> ClientNetwork {
        let address = self.trusted_proxies.client_address(request);
        if self.trusted_proxies.trusts(address) { ClientNetwork::UNKNOWN } else { address.into() }
    }

    /// Returns the problem of unknown budgets: they do not exist, the definitions are not loaded yet, or only a newer
    /// release can read them.
    fn no_such_budget(&self, ids: &[&str]) -> Problem {
        let catalog = self.definitions.catalog();
        if let Some(id) = ids.iter().find(|id| catalog.is_unreadable(id)) {
            return Problem::new(ProblemKind::Unavailable)
                .detail(format!(
                    "a newer release wrote the definition of `{id}`, and this process cannot read it"
                ))
                .retry_after(RETRY_AFTER);
        }
        if !self.definitions.is_loaded() {
            return definitions_not_loaded();
        }
        let named =
            |id: &&str| format!("`{}`", id.chars().take(ECHO_MAX_CHARS).collect::<String>());
        let ids: Vec<String> = ids.iter().map(named).collect();
        Problem::new(ProblemKind::NotFound).detail(format!("there is no budget {}", ids.join(", ")))
    }
}

fn definitions_not_loaded() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail("the budget definitions are not loaded yet")
        .retry_after(RETRY_AFTER)
}

/// Returns the problem of a read without an answer.
fn no_answer(reason: NoAnswer, at_least: Option<AtLeast>) -> Problem {
    let kind = match reason {
        NoAnswer::NotYetVisible | NoAnswer::BeyondLog => ProblemKind::NotYetVisible,
        NoAnswer::NoSuchPartition => ProblemKind::Malformed,
        NoAnswer::Unavailable
        | NoAnswer::Overloaded
        | NoAnswer::TooManyPeople { .. }
        | NoAnswer::TooManyWaiters => ProblemKind::Unavailable,
        // Not 503, which a gateway tries again at another api.
        NoAnswer::TooManyWaitersOfClient => ProblemKind::RateLimited,
    };
    let problem = Problem::new(kind).detail(reason.to_string());
    let problem = match (reason, at_least) {
        (NoAnswer::NoSuchPartition, Some(AtLeast { pointer, .. })) => {
            return problem.fault(pointer, NO_SUCH_PARTITION);
        }
        // The wait was not applied.
        (NoAnswer::BeyondLog, _) => return problem,
        _ => note_preference_in(problem, at_least),
    };
    match kind {
        ProblemKind::Unavailable | ProblemKind::RateLimited => problem.retry_after(RETRY_AFTER),
        _ => problem,
    }
}
