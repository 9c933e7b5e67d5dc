//! HTTP routes: parse requests and write responses. Reading answers is the readers' job.

pub mod admin;
mod aggregate;
mod aggregates;
mod budgets;
mod export;
mod person;
mod read_request;
mod response;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use runtime::problem::{Problem, ProblemKind};
use storage::control::BudgetDefinitions;

pub use export::Downloads;

use crate::aggregate_reader::{AggregateReader, NoAnswer};
use crate::person_reader::PersonReader;

/// Shared state of the public routes.
pub struct ApiState {
    /// Budget definitions.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// Reads aggregates.
    pub aggregates: AggregateReader,
    /// Reads person rows.
    pub people: PersonReader,
    /// Published exports.
    pub downloads: Downloads,
}

/// Builds the public routes.
pub fn router(api: Arc<ApiState>) -> Router {
    Router::new()
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/{budget}", get(budgets::one))
        .route("/v1/budgets/{budget}/aggregate", get(aggregate::of_budget))
        .route("/v1/budgets/{budget}/export", get(export::of_budget))
        .route("/v1/budgets/{budget}/submissions/{person}", get(person::of_budget))
        .route("/v1/aggregates", get(aggregates::of_budgets))
        .route("/aggregate", get(aggregate::of_default_budget))
        .route("/aggregate/", get(aggregate::of_default_budget))
        .with_state(api)
}

/// `Retry-After` of a transient failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Maximum length of client text that is repeated in a problem.
const ECHO_MAX_CHARS: usize = 64;

impl ApiState {
    /// Returns the problem of unknown budgets: they do not exist, the definitions are not loaded yet, or only a newer release
    /// can read them.
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

fn no_answer(reason: NoAnswer) -> Problem {
    let kind = match reason {
        NoAnswer::NotYetVisible => ProblemKind::NotYetVisible,
        NoAnswer::Unavailable | NoAnswer::TooManyWaiters => ProblemKind::Unavailable,
    };
    let problem = Problem::new(kind).detail(reason.to_string());
    match kind {
        ProblemKind::Unavailable => problem.retry_after(RETRY_AFTER),
        _ => problem,
    }
}
