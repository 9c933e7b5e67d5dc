//! `GET /v1/budgets/{budget}/aggregate` and `GET /aggregate/`: one budget's answer.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderMap;
use runtime::problem::Problem;

use super::request::ReadRequest;
use super::respond::{cacheable, note_preference, note_source, problem_with_preference};
use super::{Api, no_answer};
use crate::DEFAULT_BUDGET;
use crate::reader::{NoAnswer, Reading};

pub(super) async fn of_budget(
    State(api): State<Arc<Api>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    match from_memory(&api, &budget, &request)? {
        Some(answer) => Ok(answer),
        // Boxed, so that the many reads that do not get here have less to carry.
        None => Box::pin(from_the_chain(&api, &budget, request)).await,
    }
}

pub(super) async fn of_default_budget(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    match from_memory(&api, DEFAULT_BUDGET, &request)? {
        Some(answer) => Ok(answer),
        None => Box::pin(from_the_chain(&api, DEFAULT_BUDGET, request)).await,
    }
}

/// The answer to nearly every read: nothing is waited for.
fn from_memory(api: &Api, budget: &str, request: &Request) -> Result<Option<Response>, Problem> {
    let slot = api.reader.slot(budget).ok_or_else(|| api.no_such_budget(&[budget]))?;
    let wanted = ReadRequest::of(request.headers(), request.uri())?;
    if wanted.at_least.is_some() {
        return Ok(None);
    }
    let reading = api.reader.read_memory(&slot);
    Ok(reading.map(|reading| answer(request.headers(), &wanted, &reading)))
}

async fn from_the_chain(api: &Api, budget: &str, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let slot = api.reader.slot(budget).ok_or_else(|| api.no_such_budget(&[budget]))?;
    let wanted = ReadRequest::of(&parts.headers, &parts.uri)?;
    let reading = match wanted.at_least {
        None => api.reader.read(&slot).await,
        Some(at_least) => {
            let readings = api.reader.read_at_least(&[slot], at_least).await;
            readings.and_then(|mut readings| readings.pop().ok_or(NoAnswer::Unknown))
        }
    };
    match reading {
        Ok(reading) => Ok(answer(&parts.headers, &wanted, &reading)),
        Err(reason) => Err(problem_with_preference(no_answer(reason), wanted.at_least)),
    }
}

fn answer(headers: &HeaderMap, wanted: &ReadRequest, reading: &Reading) -> Response {
    let Reading { shown, served } = reading;
    let rendered = match wanted.distribution {
        true => shown.answer.with_distribution(),
        false => shown.answer.plain(),
    };
    let mut response = cacheable(headers, rendered);
    note_source(response.headers_mut(), shown.age, *served);
    note_preference(response.headers_mut(), wanted.at_least);
    response
}
