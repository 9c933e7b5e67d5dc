//! `GET /v1/aggregates?budget=a&budget=b`: several budgets' aggregates in one response, in the requested order.
//!
//! The body is `{"aggregates": [...]}`; each element equals the body of the budget's own route.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use runtime::http::{ChargedBody, etag_of};
use runtime::problem::{Problem, ProblemKind};

use super::read_request::ReadRequest;
use super::response::{
    cacheable_once, keep_from_caches, note_preference, note_source, note_surrogate_key,
};
use super::{ApiState, no_answer};
use crate::answer::Rendered;

#[utoipa::path(
    get,
    path = "/v1/aggregates",
    tag = "results",
    operation_id = "getAggregates",
    summary = "Read the averages of several budgets",
    params(
        ("budget" = Vec<String>, Query, description = "The budgets' ids, at most 50",
            max_items = 50, min_items = 1, example = json!(["taxes"])),
        ReadRequest,
    ),
    responses(
        (status = 200, description = "The averages in the requested order",
            body = ref("#/components/schemas/Aggregates"), content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn of_budgets(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let read = ReadRequest::parse(&parts.headers, &parts.uri)?;
    if read.budgets.is_empty() {
        return Err(Problem::new(ProblemKind::Malformed)
            .detail("name the budgets as `?budget=a&budget=b`")
            .fault("budget", "is missing"));
    }
    let mut entries = Vec::with_capacity(read.budgets.len());
    let mut unknown = Vec::new();
    for id in &read.budgets {
        match api.aggregates.entry(id) {
            Some(entry) => entries.push(entry),
            None => unknown.push(id.as_str()),
        }
    }
    if !unknown.is_empty() {
        return Err(api.no_such_budget(&unknown));
    }
    let readings = match read.at_least {
        None => api.aggregates.read_all(&entries).await,
        Some(at_least) => {
            api.aggregates.read_at_least(&entries, at_least, api.client(&parts)).await
        }
    };
    let readings = readings.map_err(|reason| no_answer(reason, read.at_least))?;

    let rendered: Vec<&Rendered> = readings
        .iter()
        .map(|reading| match read.distribution {
            true => reading.aged.answer.with_distribution(),
            false => reading.aged.answer.plain(),
        })
        .collect();
    let mut response = cacheable_once(&parts.headers, &combine(&rendered)).await;
    // The combined answer has the age of the oldest part and the source that is farthest down the tier chain. Those of
    // withheld parts depend on when submissions were published.
    let shown = || readings.iter().filter(|reading| !reading.aged.answer.is_withheld());
    let age = shown().map(|reading| reading.aged.age).max().unwrap_or_default();
    if let Some(source) = shown().map(|reading| reading.source).max() {
        note_source(response.headers_mut(), age, source);
    }
    let keys: Vec<&[u8]> =
        readings.iter().map(|reading| reading.aged.answer.surrogate_key().as_bytes()).collect();
    if let Ok(keys) = HeaderValue::from_bytes(&keys.join(&b' ')) {
        note_surrogate_key(response.headers_mut(), keys);
    }
    note_preference(response.headers_mut(), read.at_least);
    keep_from_caches(response.headers_mut(), read.at_least);
    response.extensions_mut().insert(ChargedBody);
    Ok(response)
}

fn combine(rendered: &[&Rendered]) -> Rendered {
    let tags: Vec<&[u8]> = rendered.iter().map(|one| one.etag.as_bytes()).collect();
    let bodies: Vec<&[u8]> = rendered.iter().map(|one| &one.body[..]).collect();
    let body = [&b"{\"aggregates\":["[..], &bodies.join(&b','), b"]}"].concat();
    Rendered::new(body, etag_of(&tags.concat()))
}
