//! HTTP routes: parse requests and write responses. Reading answers is the readers' job.

pub mod admin;
mod aggregate;
mod aggregates;
mod budgets;
mod contract;
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
use identity::Authorizer;
use runtime::client::{ClientNetwork, TrustedProxies};
use runtime::limits::{EndpointClass, ReadLimitLayer, RequestLimits};
use runtime::problem::{Problem, ProblemKind};
use schemas::ReceiptSigner;
use storage::control::BudgetDefinitions;
use utoipa::OpenApi;

use crate::aggregate_reader::AggregateReader;
use crate::answer_streams::AnswerStreams;
use crate::consistency::{AtLeast, NO_SUCH_PARTITION};
use crate::downloads::Downloads;
use crate::history::HistoryReader;
use crate::no_answer::NoAnswer;
use crate::person_reader::PersonReader;
use crate::site::Site;
use pages::RenderedPages;
use rendered_catalog::RenderedDefinitions;
use response::note_preference_in;

/// Shared state of the public routes.
pub struct ApiState {
    pub(crate) definitions: Arc<dyn BudgetDefinitions>,
    pub(crate) rendered: RenderedDefinitions,
    pub(crate) pages: RenderedPages,
    pub(crate) aggregates: AggregateReader,
    pub(crate) streams: AnswerStreams,
    pub(crate) people: PersonReader,
    pub(crate) histories: HistoryReader,
    pub(crate) receipt_signer: ReceiptSigner,
    pub(crate) downloads: Downloads,
    pub(crate) authorizer: Authorizer,
    pub(crate) site: Site,
    /// Proxies whose `X-Forwarded-For` names the client.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// Builds the public routes, with their limits.
pub fn router(api: Arc<ApiState>, limits: &RequestLimits) -> Router {
    let reads = Router::new()
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/{budget}", get(budgets::one))
        .route("/v1/budgets/{budget}/aggregate", get(aggregate::of_budget))
        .route("/v1/budgets/{budget}/export", get(export::of_budget))
        .route("/v1/budgets/{budget}/submissions/me", get(person::own))
        .route("/v1/budgets/{budget}/submissions/batch", get(person::of_person_named_batch))
        .route("/v1/budgets/{budget}/history", get(history::of_budget))
        .route("/v1/budgets/{budget}/submissions/{person}", get(person::of_budget))
        .route("/v1/aggregates", get(aggregates::of_budgets))
        .route("/aggregate", get(aggregate::of_default_budget))
        .route("/aggregate/", get(aggregate::of_default_budget))
        .route_layer(ReadLimitLayer::new(limits, EndpointClass::Read));
    // A page opens a stream, and opens it again after each interruption. Open streams have a limit of their own.
    let pages = pages::routes()
        .merge(contract::routes())
        .route("/v1/budgets/{budget}/aggregate/stream", get(stream::of_budget))
        .route("/v1/budgets/{budget}/aggregate/ws", get(websocket::of_budget))
        .route_layer(ReadLimitLayer::new(limits, EndpointClass::Page));
    reads.merge(pages).with_state(api)
}

/// Describes the routes of administrators and of everyone else.
pub fn openapi() -> Vec<utoipa::openapi::OpenApi> {
    let [administration, jobs] = admin::openapi();
    vec![PublicRoutes::openapi(), pages::openapi(), administration, jobs]
}

/// The routes for everyone, pages excepted.
#[derive(OpenApi)]
#[openapi(paths(
    budgets::list,
    budgets::one,
    aggregate::of_budget,
    aggregate::of_default_budget,
    aggregates::of_budgets,
    stream::of_budget,
    websocket::of_budget,
    history::of_budget,
    export::of_budget,
    person::own,
    person::of_budget,
    person::of_person_named_batch,
))]
struct PublicRoutes;

/// `Retry-After` of a transient failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Maximum length of client text that is repeated in a problem.
const ECHO_MAX_CHARS: usize = 64;

impl ApiState {
    /// Returns the client of a request, for limits per client.
    fn client(&self, request: &Parts) -> ClientNetwork {
        self.trusted_proxies.client(request).network()
    }

    /// Returns the problem of unknown budgets.
    fn no_such_budget(&self, ids: &[&str]) -> Problem {
        no_such_budget(self.definitions.as_ref(), ids)
    }
}

/// Returns the problem of unknown budgets: they do not exist, the definitions are not loaded yet, or only a newer
/// release can read them.
fn no_such_budget(definitions: &dyn BudgetDefinitions, ids: &[&str]) -> Problem {
    let catalog = definitions.catalog();
    if let Some(id) = ids.iter().find(|id| catalog.is_unreadable(id)) {
        return Problem::new(ProblemKind::Unavailable)
            .detail(format!(
                "a newer release wrote the definition of `{id}`, and this process cannot read it"
            ))
            .retry_after(RETRY_AFTER);
    }
    if !definitions.is_loaded() {
        return definitions_not_loaded();
    }
    let named = |id: &&str| format!("`{}`", id.chars().take(ECHO_MAX_CHARS).collect::<String>());
    let ids: Vec<String> = ids.iter().map(named).collect();
    Problem::new(ProblemKind::NotFound).detail(format!("there is no budget {}", ids.join(", ")))
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
        | NoAnswer::MovesInSteps
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
