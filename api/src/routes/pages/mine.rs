//! `GET /budgets/{budget}/mine`: the allocation of the person whose cookie the browser has.
//!
//! A page for people, or the JSON of `GET /v1/budgets/{budget}/submissions/{person}` for the page's script.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use page::form;
use page::html::{MinePage, MineState, OwnAllocation, mine_page};
use page::view::BudgetView;
use runtime::http::prefers_json;
use runtime::problem::Problem;
use schemas::{Budget, IdentityRule, PartitionCount, PersonId, Receipt, SubmissionId};
use uuid::Uuid;

use super::html_response::private_page;
use super::lookup;
use super::page_request::PageRequest;
use super::page_results::PageResults;
use crate::consistency::AtLeast;
use crate::no_answer::NoAnswer;
use crate::person_reader::LocatedPersonRow;
use crate::routes::{ApiState, person};

/// How long the page waits until a submission is counted, before it says that it will be.
const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn page(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let request = PageRequest::of(&parts);
    if prefers_json(&parts.headers) {
        let catalog = api.definitions.catalog();
        let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
        let persons = person::persons(&api, budget)?;
        let Some(person) = request.person(&api.authorizer, budget) else {
            return Ok(
                (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "private, no-store")]).into_response()
            );
        };
        return person::respond(&api, (budget, &persons), &person, &parts).await;
    }
    Ok(match lookup::budget(&api, &budget, &request) {
        Ok(budget) => html(&api, &budget, &request, &parts).await,
        Err(response) => *response,
    })
}

async fn html(api: &ApiState, budget: &Budget, request: &PageRequest, parts: &Parts) -> Response {
    let state = match request.person(&api.authorizer, budget) {
        _ if budget.person_salt.forgotten_at().is_some() => Some(MineState::Forgotten),
        Some(person) => state(api, budget, &person, request, parts).await,
        None if budget.identity == IdentityRule::Code => Some(MineState::AsksCode),
        None if budget.identity == IdentityRule::Email => Some(MineState::AsksEmail {
            address: request.email().map(|address| address.reveal().to_owned()),
        }),
        None => Some(MineState::Nobody),
    };
    let Some(state) = state else { return lookup::not_now(request) };
    let results = PageResults::read(api, budget, request.now).await.view();
    let query = query(request);
    let html = mine_page(&MinePage {
        texts: request.texts,
        budget: &BudgetView::new(budget, request.language(), request.now),
        results: &results,
        state,
        has_session: request.has_session(&api.authorizer, budget),
        submission_id: request.form.submission_id().unwrap_or(SubmissionId(Uuid::new_v4())),
        fault: request.form.fault.as_deref(),
        query: &query,
    });
    private_page(StatusCode::OK, html)
}

/// Builds the query for checking again: the receipts of the request, in their own form.
fn query(request: &PageRequest) -> String {
    let member = |name, text: &Option<String>| Some((name, receipt(text)?.to_string()));
    let form = &request.form;
    let members: Vec<(&str, String)> =
        [member("receipt", &form.receipt), member("withdrawn", &form.withdrawn)]
            .into_iter()
            .flatten()
            .collect();
    let members: Vec<(&str, &str)> =
        members.iter().map(|(name, text)| (*name, text.as_str())).collect();
    form::query(&[], &members)
}

/// Reads what is known of the person; `None` if it cannot be read.
async fn state(
    api: &ApiState,
    budget: &Budget,
    person: &PersonId,
    request: &PageRequest,
    parts: &Parts,
) -> Option<MineState> {
    let Ok(persons) = api.people.persons(budget) else { return Some(MineState::Forgotten) };
    let withdrawn = receipt(&request.form.withdrawn);
    let wanted = withdrawn.or_else(|| receipt(&request.form.receipt));
    let at_least = wanted.map(|receipt| AtLeast { receipt, wait: Some(WAIT), pointer: "receipt" });
    let check = api.receipt_check(budget, at_least).await;
    let find = |at_least| api.people.find(&persons, person, at_least, check, api.client(parts));
    let found = match find(at_least).await {
        // Not a receipt of this service: the page is shown as without it.
        Err(NoAnswer::NoSuchPartition) => find(None).await,
        found => found,
    };
    match (found.map(|answer| answer.row), wanted) {
        (Ok(Some(found)), _) => counted(api, budget, &found),
        (Ok(None), _) => Some(match withdrawn {
            Some(receipt) => MineState::Withdrawn { receipt: receipt.to_string() },
            None => MineState::NotCounted,
        }),
        (Err(NoAnswer::NotYetVisible | NoAnswer::BeyondLog), Some(receipt)) => {
            Some(MineState::Stored { receipt: receipt.to_string() })
        }
        (Err(_), _) => None,
    }
}

/// Parses a receipt of a query. Other texts are ignored, as in a link that was cut off.
fn receipt(text: &Option<String>) -> Option<Receipt> {
    let receipt: Receipt = text.as_deref()?.parse().ok()?;
    (receipt.address.partition.0 < PartitionCount::MAX).then_some(receipt)
}

/// Returns the counted allocation; `None` if the definition that matches it is not loaded yet.
fn counted(api: &ApiState, budget: &Budget, found: &LocatedPersonRow) -> Option<MineState> {
    (found.row.basis_points.len() == budget.categories.len()).then(|| {
        MineState::Counted(OwnAllocation {
            shares: found.row.basis_points.clone(),
            receipt: api.receipt_signer.sign(&budget.id, found.address).to_string(),
        })
    })
}
