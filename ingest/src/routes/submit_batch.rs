//! `POST /v1/budgets/{budget}/submissions/batch`

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use runtime::clock::now_ms;
use runtime::http::RequestId;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId, SubmissionId};

use crate::acceptance::{Candidate, Outcome};
use crate::answer;
use crate::idempotency_key::IdempotencyKey;
use crate::media_type::MediaType;
use crate::parse::{self, Drafts};
use crate::service::Ingest;

pub(super) async fn submit_batch(
    State(ingest): State<Arc<Ingest>>,
    Path(budget): Path<String>,
    media_type: MediaType,
    key: IdempotencyKey,
    request: Option<Extension<RequestId>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let answered = append(&ingest, &budget, media_type, &key, &body).await;
    let (budget, items) = answered.map_err(|Refusal { problem, submissions }| {
        ingest.metrics.refused(problem.kind(), submissions);
        problem
    })?;
    ingest.metrics.batch(items.len());
    for item in &items {
        if let Item::Refused(problem) = item {
            ingest.metrics.refused(problem.kind(), 1);
        }
    }
    let request = request.as_ref().map_or("", |id| id.as_str());
    Ok(answer::json(StatusCode::OK, write(&budget.id, items, request)))
}

/// What became of one item.
enum Item {
    Refused(Problem),
    Appended(SubmissionId, Outcome),
}

/// Why nothing of a batch was taken.
struct Refusal {
    problem: Problem,
    /// How many it was about; one, as long as they are not counted.
    submissions: u64,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, submissions: 1 }
    }
}

async fn append(
    ingest: &Arc<Ingest>,
    budget: &str,
    media_type: MediaType,
    key: &IdempotencyKey,
    body: &[u8],
) -> Result<(Arc<Budget>, Vec<Item>), Refusal> {
    let budget = ingest.open_budget(budget)?;
    // A key that was passed over would promise what does not hold.
    if *key != IdempotencyKey::Absent {
        let problem = Problem::new(ProblemKind::Malformed).detail(
            "`Idempotency-Key` names one submission; in a batch, give each item a `submission_id`",
        );
        return Err(problem.into());
    }
    let read = |budget: &Budget| match media_type {
        MediaType::Json => parse::json_array(body, budget),
        MediaType::Ndjson => parse::lines(body, budget),
    };
    let any_good = |drafts: &Drafts| drafts.iter().any(Result::is_ok);
    let (budget, drafts) = ingest.read_against_frozen(budget, read, any_good).await?;

    let now_ms = now_ms();
    let mut candidates: Vec<Candidate> = Vec::with_capacity(drafts.len());
    let mut items = Vec::with_capacity(drafts.len());
    for draft in drafts {
        items.push(match draft {
            Ok(draft) => {
                let (candidate, _) = ingest.candidate(&budget, draft, now_ms);
                let id = candidate.submission.id;
                candidates.push(candidate);
                // Until the log has answered.
                Item::Appended(id, Outcome::Unknown)
            }
            Err(problem) => Item::Refused(problem),
        });
    }
    if !candidates.is_empty() {
        let submissions = items.len() as u64;
        let refusal = |problem| Refusal { problem, submissions };
        let outcomes = ingest.accept(candidates).await.map_err(refusal)?;
        let appended = items.iter_mut().filter_map(|item| match item {
            Item::Appended(_, outcome) => Some(outcome),
            Item::Refused(_) => None,
        });
        for (item, outcome) in appended.zip(outcomes) {
            *item = outcome;
        }
    }
    Ok((budget, items))
}

fn write(budget: &BudgetId, items: Vec<Item>, request: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + items.len() * answer::ACCEPTED_ITEM_BYTES);
    body.extend_from_slice(br#"{"results":["#);
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        let (problem, id) = match item {
            Item::Appended(id, Outcome::Accepted { receipt, repeated }) => {
                answer::write_accepted_item(&mut body, budget, id, receipt, repeated);
                continue;
            }
            Item::Appended(id, Outcome::InFlight) => (answer::in_flight(), Some(id)),
            Item::Appended(id, Outcome::Reused) => (answer::reused(), Some(id)),
            Item::Appended(id, Outcome::Unavailable) => {
                (answer::unavailable("the log does not take submissions now"), Some(id))
            }
            Item::Appended(id, Outcome::Unknown) => (answer::unknown(id), Some(id)),
            Item::Refused(problem) => (problem, None),
        };
        answer::write_problem_item(&mut body, &problem.instance(request), id);
    }
    body.extend_from_slice(b"]}");
    body
}
