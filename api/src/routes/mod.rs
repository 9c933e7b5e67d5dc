//! The routes: what a client asks for is read here, and its answer written. How answers come about is not known here.

pub mod admin;
mod aggregate;
mod aggregates;
mod budgets;
mod conditional;
mod export;
mod person;
mod request;
mod respond;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use runtime::problem::{Problem, ProblemKind};
use storage::definitions::Definitions;

pub use export::Downloads;

use crate::people::People;
use crate::reader::{NoAnswer, Reader};

/// What the routes need.
pub struct Api {
    /// Definitions.
    pub definitions: Arc<dyn Definitions>,
    /// Answers.
    pub reader: Reader,
    /// People's rows.
    pub people: People,
    /// Published exports.
    pub downloads: Downloads,
}

/// The routes over these parts.
pub fn router(api: Arc<Api>) -> Router {
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

/// When it makes sense to try again what is not possible now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// At most this much of a client's own text is repeated to it.
const ECHO_MAX_CHARS: usize = 64;

impl Api {
    /// Why these budgets have no answer: they do not exist, or it is not known yet whether they do.
    fn no_such_budget(&self, ids: &[&str]) -> Problem {
        if !self.definitions.is_loaded() {
            return definitions_unknown();
        }
        let named =
            |id: &&str| format!("`{}`", id.chars().take(ECHO_MAX_CHARS).collect::<String>());
        let ids: Vec<String> = ids.iter().map(named).collect();
        Problem::new(ProblemKind::NotFound).detail(format!("there is no budget {}", ids.join(", ")))
    }
}

fn definitions_unknown() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail("the budgets' definitions are not known here yet")
        .retry_after(RETRY_AFTER)
}

fn no_answer(reason: NoAnswer) -> Problem {
    let kind = match reason {
        NoAnswer::NotYetVisible => ProblemKind::NotYetVisible,
        NoAnswer::Unknown | NoAnswer::TooManyWaiters => ProblemKind::Unavailable,
    };
    let problem = Problem::new(kind).detail(reason.to_string());
    match kind {
        ProblemKind::Unavailable => problem.retry_after(RETRY_AFTER),
        _ => problem,
    }
}
