//! `GET /v1/budgets/{budget}/aggregate` and `GET /aggregate/`: one budget's answer.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderMap;
use runtime::problem::Problem;

use super::read_request::ReadRequest;
use super::response::{
    cacheable, keep_from_caches, note_preference, note_source, note_surrogate_key,
};
use super::{ApiState, no_answer};
use crate::DEFAULT_BUDGET;
use crate::aggregate_reader::Reading;
use crate::no_answer::NoAnswer;

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/aggregate",
    tag = "results",
    operation_id = "getAggregate",
    summary = "Read everyone's average",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ReadRequest,
    ),
    responses(
        (status = 200, description = "The average, or why it is withheld",
            body = ref("#/components/schemas/Aggregate"), content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    match from_memory(&api, &budget, &request)? {
        Some(answer) => Ok(answer),
        // Boxed to keep the future of the common case (an answer from memory) small.
        None => Box::pin(from_tiers(&api, &budget, request)).await,
    }
}

#[utoipa::path(
    get,
    path = "/aggregate/",
    tag = "results",
    operation_id = "getDefaultAggregate",
    summary = "Read everyone's average of the default budget",
    params(
        ReadRequest,
    ),
    responses(
        (status = 200, description = "The average, or why it is withheld",
            body = ref("#/components/schemas/Aggregate"), content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn of_default_budget(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    match from_memory(&api, DEFAULT_BUDGET, &request)? {
        Some(answer) => Ok(answer),
        None => Box::pin(from_tiers(&api, DEFAULT_BUDGET, request)).await,
    }
}

/// Answers from memory without waiting, which serves almost every read.
fn from_memory(
    api: &ApiState,
    budget: &str,
    request: &Request,
) -> Result<Option<Response>, Problem> {
    let entry = api.aggregates.entry(budget).ok_or_else(|| api.no_such_budget(&[budget]))?;
    let read = ReadRequest::parse(request.headers(), request.uri())?;
    if read.at_least.is_some() {
        return Ok(None);
    }
    let reading = api.aggregates.read_memory(&entry);
    Ok(reading.map(|reading| to_response(request.headers(), &read, &reading)))
}

async fn from_tiers(api: &ApiState, budget: &str, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let entry = api.aggregates.entry(budget).ok_or_else(|| api.no_such_budget(&[budget]))?;
    let read = ReadRequest::parse(&parts.headers, &parts.uri)?;
    let reading = match read.at_least {
        None => api.aggregates.read(&entry).await,
        Some(at_least) => {
            let readings =
                api.aggregates.read_at_least(&[entry], at_least, api.client(&parts)).await;
            readings.and_then(|mut readings| readings.pop().ok_or(NoAnswer::Unavailable))
        }
    };
    match reading {
        Ok(reading) => Ok(to_response(&parts.headers, &read, &reading)),
        Err(reason) => Err(no_answer(reason, read.at_least)),
    }
}

fn to_response(headers: &HeaderMap, read: &ReadRequest, reading: &Reading) -> Response {
    let Reading { aged, source } = reading;
    let rendered = match read.distribution {
        true => aged.answer.with_distribution(),
        false => aged.answer.plain(),
    };
    let mut response = cacheable(headers, rendered);
    // Age and tier depend on when submissions were published.
    if !aged.answer.is_withheld() {
        note_source(response.headers_mut(), aged.age, *source);
    }
    note_surrogate_key(response.headers_mut(), aged.answer.surrogate_key().clone());
    note_preference(response.headers_mut(), read.at_least);
    keep_from_caches(response.headers_mut(), read.at_least);
    response
}
