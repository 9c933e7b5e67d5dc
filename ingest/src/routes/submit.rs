//! `POST /v1/budgets/{budget}/submissions`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use runtime::clock::now_ms;
use runtime::problem::Problem;
use schemas::{BudgetId, PersonName, SubmissionId};

use crate::acceptance::{Candidate, Outcome};
use crate::answer;
use crate::idempotency_key::IdempotencyKey;
use crate::media_type::IsJson;
use crate::parse;
use crate::service::Ingest;

pub(super) async fn submit(
    State(ingest): State<Arc<Ingest>>,
    Path(budget): Path<String>,
    _: IsJson,
    key: IdempotencyKey,
    body: Bytes,
) -> Result<Response, Problem> {
    let (candidate, person) = match read(&ingest, &budget, &key, &body).await {
        Ok(candidate) => candidate,
        Err(problem) => {
            ingest.metrics.refused(problem.kind(), 1);
            return Err(problem);
        }
    };
    append(&ingest, candidate, &person).await
}

async fn read(
    ingest: &Ingest,
    budget: &str,
    key: &IdempotencyKey,
    body: &[u8],
) -> Result<(Candidate, PersonName), Problem> {
    let budget = ingest.open_budget(budget)?;
    let read = |budget: &schemas::Budget| {
        let mut draft = parse::submission(body, budget)?;
        draft.id = key.submission_id(draft.id, &budget.id, &ingest.hasher)?;
        Ok(draft)
    };
    let (budget, draft) = ingest.read_against_frozen(budget, read, |_| true).await?;
    Ok(ingest.candidate(&budget, draft, now_ms()))
}

/// Brings one submission or withdrawal into the log and answers.
pub(super) async fn append(
    ingest: &Arc<Ingest>,
    candidate: Candidate,
    person: &PersonName,
) -> Result<Response, Problem> {
    let budget = candidate.submission.budget.clone();
    let id = candidate.submission.id;
    let outcomes = ingest.accept(vec![candidate]).await.inspect_err(|problem| {
        ingest.metrics.refused(problem.kind(), 1);
    })?;
    answer(outcomes.first().copied(), &budget, person, id)
}

fn answer(
    outcome: Option<Outcome>,
    budget: &BudgetId,
    person: &PersonName,
    id: SubmissionId,
) -> Result<Response, Problem> {
    match outcome {
        Some(Outcome::Accepted { receipt, repeated }) => {
            Ok(answer::accepted(budget, person, id, receipt, repeated))
        }
        Some(Outcome::InFlight) => Err(answer::in_flight()),
        Some(Outcome::Reused) => Err(answer::reused()),
        Some(Outcome::Unavailable) => {
            Err(answer::unavailable("the log does not take submissions now"))
        }
        Some(Outcome::Unknown) | None => Err(answer::unknown(id)),
    }
}
