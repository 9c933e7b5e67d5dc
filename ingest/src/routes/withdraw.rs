//! `DELETE /v1/budgets/{budget}/submissions/{person}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use runtime::clock::now_ms;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Action, PersonName};

use super::submit::append;
use crate::acceptance::Candidate;
use crate::idempotency_key::IdempotencyKey;
use crate::service::{Ingest, new_id};

pub(super) async fn withdraw(
    State(ingest): State<Arc<Ingest>>,
    Path((budget, person)): Path<(String, String)>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    withdraw_from(&ingest, &budget, &person, &key).await
}

/// A person may be called as the route of batches is.
pub(super) async fn withdraw_person_named_batch(
    State(ingest): State<Arc<Ingest>>,
    Path(budget): Path<String>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    withdraw_from(&ingest, &budget, "batch", &key).await
}

async fn withdraw_from(
    ingest: &Arc<Ingest>,
    budget: &str,
    person: &str,
    key: &IdempotencyKey,
) -> Result<Response, Problem> {
    let read = read(ingest, budget, person, key).await;
    let (candidate, person) =
        read.inspect_err(|problem| ingest.metrics.refused(problem.kind(), 1))?;
    append(ingest, candidate, &person).await
}

async fn read(
    ingest: &Ingest,
    budget: &str,
    person: &str,
    key: &IdempotencyKey,
) -> Result<(Candidate, PersonName), Problem> {
    let budget = ingest.open_budget(budget)?;
    let person = PersonName::parse(person).map_err(|fault| {
        Problem::new(ProblemKind::Malformed).detail(format!("the person in the path {fault}"))
    })?;
    let given = key.submission_id(None, &budget.id, &ingest.hasher)?;
    // A withdrawal is a record like any other: there is none in the log of a budget that is not frozen.
    let (budget, ()) = ingest.read_against_frozen(budget, |_| Ok(()), |()| true).await?;
    let id = given.unwrap_or_else(new_id);
    let named = given.is_some();
    let candidate = ingest.candidate_of(&budget, &person, id, named, Action::Withdraw, now_ms());
    Ok((candidate, person))
}
