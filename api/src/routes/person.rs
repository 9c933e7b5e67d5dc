//! `GET /v1/budgets/{budget}/submissions/{person}` and `…/me`: one person's current allocation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use identity::{Access, PersonScope};
use jiff::Timestamp;
use runtime::client::ClientNetwork;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetPersonHasher, PersonId, ReceiptProof, ResultsVisibility};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::read_request::ReadRequest;
use super::response::note_preference;
use super::{ApiState, no_answer};
use crate::answer::{percent, withheld};
use crate::consistency::AtLeast;
use crate::no_answer::NoAnswer;
use crate::person_reader::{LocatedPersonRow, PersonAnswer, ReceiptCheck, SubmissionStatus};

#[derive(Serialize)]
struct PersonBody<'a> {
    budget: &'a str,
    allocation: Shares<'a>,
    partition: u32,
    offset: u64,
    receipt: String,
    /// What became of the submission that the request's receipt names.
    #[serde(skip_serializing_if = "Option::is_none")]
    submission: Option<SubmissionStatus>,
    /// `true`: the person is annulled, and the allocation does not count. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    annulled: Option<bool>,
}

/// How long a read without `Prefer: wait` waits for its receipt: person rows are written a moment after the commit.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);

/// Percent per category, in the budget's order.
struct Shares<'a> {
    budget: &'a Budget,
    basis_points: &'a [u16],
}

impl Serialize for Shares<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.basis_points.len()))?;
        for (category, share) in self.budget.categories.iter().zip(self.basis_points) {
            map.serialize_entry(category.id.as_str(), &percent(*share))?;
        }
        map.end()
    }
}

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/submissions/{person}",
    tag = "submissions",
    operation_id = "getAllocation",
    summary = "Read a person's allocation as counted now",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("person" = String, Path, description = "The person's id"),
        AtLeast,
    ),
    responses(
        (status = 200, description = "The allocation", body = ref("#/components/schemas/Allocation"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path((budget, person)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    of_person(&api, &budget, &person, request).await
}

/// Reads the allocation of a person whose id is the last segment of the path of batches, where both services are one.
#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/submissions/batch",
    tag = "submissions",
    operation_id = "getAllocationOfPersonNamedBatch",
    summary = "Read the allocation of the person named `batch`",
    description = "As for every other person.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        AtLeast,
    ),
    responses(
        (status = 200, description = "The allocation", body = ref("#/components/schemas/Allocation"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn of_person_named_batch(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    of_person(&api, &budget, "batch", request).await
}

async fn of_person(
    api: &ApiState,
    budget: &str,
    person: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let catalog = api.definitions.catalog();
    let budget = catalog.get(budget).ok_or_else(|| api.no_such_budget(&[budget]))?;
    let persons = persons(api, budget)?;
    let person = named(api, budget, person, &parts)?;
    respond(api, (budget, &persons), &person, &parts).await
}

/// Reads the caller's allocation. Under rules where the client names persons, `me` is an ordinary id.
#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/submissions/me",
    tag = "submissions",
    operation_id = "getOwnAllocation",
    summary = "Read the caller's allocation",
    description = "Under the identity rules `anonymous`, `code`, `email` and `token`; otherwise that of the person named `me`.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        AtLeast,
    ),
    responses(
        (status = 200, description = "The allocation", body = ref("#/components/schemas/Allocation"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn own(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let persons = persons(&api, budget)?;
    let person = match budget.identity.is_named_by_client() {
        true => named(&api, budget, "me", &parts)?,
        false => person_scope(&api, budget, &parts)?.own_person()?,
    };
    respond(&api, (budget, &persons), &person, &parts).await
}

/// Returns what computes the keys of a budget's persons.
///
/// # Errors
/// When they are forgotten.
pub(super) fn persons(api: &ApiState, budget: &Budget) -> Result<BudgetPersonHasher, Problem> {
    api.people
        .persons(budget)
        .map_err(|forgotten| Problem::new(ProblemKind::Forgotten).detail(forgotten.to_string()))
}

/// Returns for whom a request may read.
fn person_scope(api: &ApiState, budget: &Budget, parts: &Parts) -> Result<PersonScope, Problem> {
    api.authorizer.person_scope(budget, &PresentedCredentials::of(parts), Access::Read)
}

/// Returns the person whom the path names, if the request may read it.
fn named(
    api: &ApiState,
    budget: &Budget,
    person: &str,
    parts: &Parts,
) -> Result<PersonId, Problem> {
    let person_scope = person_scope(api, budget, parts)?;
    let person = PersonId::parse(person).map_err(|fault| {
        Problem::new(ProblemKind::Malformed)
            .detail("the last path segment is not a valid person id")
            .fault("person", fault.to_string())
    })?;
    person_scope.person_in_path(person)
}

/// Responds with a person's current allocation.
///
/// # Errors
/// The problem of a read without an answer.
pub(super) async fn respond(
    api: &ApiState,
    (budget, persons): (&Budget, &BudgetPersonHasher),
    person: &PersonId,
    parts: &Parts,
) -> Result<Response, Problem> {
    let read = ReadRequest::parse(&parts.headers, &parts.uri)?;
    let answer = find(api, (budget, persons), person, read.at_least, api.client(parts)).await;
    let answer = answer.map_err(|reason| person_unavailable(reason, read.at_least))?;
    let found = answer.row.as_ref().ok_or_else(|| not_counted(&answer))?;
    // Rows and definitions arrive independently: the matching definition is not loaded yet.
    if found.row.basis_points.len() != budget.categories.len() {
        return Err(person_unavailable(NoAnswer::Unavailable, None));
    }
    let body = body(api, budget, found, answer.submission)
        .map_err(|_| Problem::new(ProblemKind::Internal))?;
    // Personal data: no cache may store it.
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-store")];
    let mut response = (headers, body).into_response();
    note_preference(response.headers_mut(), read.at_least);
    Ok(response)
}

impl ApiState {
    /// Returns how a receipt may be checked: while results are withheld, or may be, and the receipt may be made up, by
    /// the person's row alone.
    pub(super) async fn receipt_check(
        &self,
        budget: &Budget,
        wanted: Option<AtLeast>,
    ) -> ReceiptCheck {
        match wanted.map(|wanted| self.receipt_signer.proof(&budget.id, wanted.receipt)) {
            None => return ReceiptCheck::RowOnly,
            Some(ReceiptProof::Signed) => return ReceiptCheck::RowOrCheckpoint,
            Some(ReceiptProof::Unsigned) => {}
        }
        let always_shown = budget.results == ResultsVisibility::Live && budget.minimum_people <= 1;
        if always_shown || self.shows_results(budget).await {
            ReceiptCheck::RowOrCheckpoint
        } else {
            ReceiptCheck::RowOnly
        }
    }

    /// Returns whether the results are shown now; false if that is unknown.
    async fn shows_results(&self, budget: &Budget) -> bool {
        let Some(entry) = self.aggregates.entry(budget.id.as_str()) else { return false };
        let Ok(reading) = self.aggregates.read(&entry).await else { return false };
        let answer = reading.aged.answer;
        let totals = answer.totals();
        // The answer may be of an earlier definition, which withheld less.
        !answer.is_withheld()
            && withheld(budget, totals.people, totals.is_final(), Timestamp::now()).is_none()
    }
}

/// Finds a person. Without `Prefer: wait`, a receipt is waited for a short time, unless too many readers wait.
async fn find(
    api: &ApiState,
    (budget, persons): (&Budget, &BudgetPersonHasher),
    person: &PersonId,
    at_least: Option<AtLeast>,
    client: ClientNetwork,
) -> Result<PersonAnswer, NoAnswer> {
    let check = api.receipt_check(budget, at_least).await;
    let find = |at_least| api.people.find(persons, person, at_least, check, client);
    match at_least {
        Some(AtLeast { wait: None, .. }) => {
            let waiting = at_least.map(|wanted| AtLeast { wait: Some(DEFAULT_WAIT), ..wanted });
            match find(waiting).await {
                Err(NoAnswer::TooManyWaiters | NoAnswer::TooManyWaitersOfClient) => {
                    find(at_least).await
                }
                found => found,
            }
        }
        _ => find(at_least).await,
    }
}

fn not_counted(answer: &PersonAnswer) -> Problem {
    let detail = "no submission of this person is counted in this budget";
    let reason = match (answer.submission, answer.has_withdrawn) {
        (None, _) => "",
        (Some(SubmissionStatus::Counted), _) => ": the submission of the receipt withdrew it",
        (Some(SubmissionStatus::Superseded), _) => {
            ": the submission of the receipt is superseded by a withdrawal"
        }
        (Some(SubmissionStatus::Duplicate), true) => {
            ": the submission of the receipt is a duplicate, its submission id had been used before"
        }
        (Some(SubmissionStatus::Duplicate), false) => {
            ": the submission of the receipt changed nothing, such as the withdrawal of somebody who has never submitted"
        }
    };
    Problem::new(ProblemKind::NotFound).detail(format!("{detail}{reason}"))
}

fn body(
    api: &ApiState,
    budget: &Budget,
    found: &LocatedPersonRow,
    submission: Option<SubmissionStatus>,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&PersonBody {
        budget: budget.id.as_str(),
        allocation: Shares { budget, basis_points: &found.row.basis_points },
        partition: found.address.partition.0,
        offset: found.address.offset.0,
        receipt: api.receipt_signer.sign(&budget.id, found.address).to_string(),
        submission,
        annulled: found.row.annulled.then_some(true),
    })
}

fn person_unavailable(reason: NoAnswer, at_least: Option<AtLeast>) -> Problem {
    let problem = no_answer(reason, at_least);
    match reason {
        NoAnswer::Unavailable => problem.detail("allocations cannot be read now"),
        _ => problem,
    }
}
