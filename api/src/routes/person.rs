//! `GET /v1/budgets/{budget}/submissions/{person}`: one person's allocation as counted now.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, PersonName};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::request::ReadRequest;
use super::respond::{note_preference, problem_with_preference};
use super::{Api, no_answer};
use crate::answer::percent;
use crate::people::Found;
use crate::reader::NoAnswer;

#[derive(Serialize)]
struct Person<'a> {
    budget: &'a str,
    allocation: Shares<'a>,
    partition: u32,
    offset: u64,
    receipt: String,
}

/// All categories in the budget's order, each with its percent.
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

pub(super) async fn of_budget(
    State(api): State<Arc<Api>>,
    Path((budget, person)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let catalog = api.definitions.catalog();
    let budget = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let wanted = ReadRequest::of(&parts.headers, &parts.uri)?;
    let person = PersonName::parse(&person).map_err(|fault| {
        Problem::new(ProblemKind::Malformed)
            .detail("the path's last part is no person's id")
            .fault("person", fault.to_string())
    })?;
    let problem = |reason| problem_with_preference(no_person(reason), wanted.at_least);
    let found = api.people.find(&budget.id, &person, wanted.at_least).await.map_err(problem)?;
    let found = found.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound)
            .detail("nothing of this person is counted in this budget")
    })?;
    // Rows and definitions come by different ways; the definition will be here in a moment.
    if found.row.basis_points.len() != budget.categories.len() {
        return Err(no_person(NoAnswer::Unknown));
    }
    let body = body(budget, &found).map_err(|_| Problem::new(ProblemKind::Internal))?;
    // It is the person's own: no cache keeps it.
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-store")];
    let mut response = (headers, body).into_response();
    note_preference(response.headers_mut(), wanted.at_least);
    Ok(response)
}

fn body(budget: &Budget, found: &Found) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Person {
        budget: budget.id.as_str(),
        allocation: Shares { budget, basis_points: &found.row.basis_points },
        partition: found.receipt.partition.0,
        offset: found.receipt.offset.0,
        receipt: found.receipt.to_string(),
    })
}

fn no_person(reason: NoAnswer) -> Problem {
    match reason {
        NoAnswer::Unknown => no_answer(reason).detail("people's allocations cannot be read now"),
        other => no_answer(other),
    }
}
