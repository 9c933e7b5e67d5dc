//! `GET /v1/aggregates?budget=a&budget=b`: several budgets' answers in one, in the order asked, fetched together:
//! `{"aggregates": [...]}` with each as its own route gives it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use runtime::problem::{Problem, ProblemKind};

use super::request::ReadRequest;
use super::respond::{cacheable, note_preference, note_source, problem_with_preference, quoted};
use super::{Api, no_answer};
use crate::answer::{Rendered, digest};

pub(super) async fn of_budgets(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let wanted = ReadRequest::of(&parts.headers, &parts.uri)?;
    if wanted.budgets.is_empty() {
        return Err(Problem::new(ProblemKind::Malformed)
            .detail("name the budgets as `?budget=a&budget=b`")
            .fault("budget", "is missing"));
    }
    let mut slots = Vec::with_capacity(wanted.budgets.len());
    let mut unknown = Vec::new();
    for id in &wanted.budgets {
        match api.reader.slot(id) {
            Some(slot) => slots.push(slot),
            None => unknown.push(id.as_str()),
        }
    }
    if !unknown.is_empty() {
        return Err(api.no_such_budget(&unknown));
    }
    let readings = match wanted.at_least {
        None => api.reader.read_all(&slots).await,
        Some(at_least) => api.reader.read_at_least(&slots, at_least).await,
    };
    let readings =
        readings.map_err(|reason| problem_with_preference(no_answer(reason), wanted.at_least))?;

    let rendered: Vec<&Rendered> = readings
        .iter()
        .map(|reading| match wanted.distribution {
            true => reading.shown.answer.with_distribution(),
            false => reading.shown.answer.plain(),
        })
        .collect();
    let mut response = cacheable(&parts.headers, &together(&rendered));
    // As old as the oldest, from as far as the farthest.
    let age = readings.iter().map(|reading| reading.shown.age).max().unwrap_or_default();
    if let Some(served) = readings.iter().map(|reading| reading.served).max() {
        note_source(response.headers_mut(), age, served);
    }
    note_preference(response.headers_mut(), wanted.at_least);
    Ok(response)
}

fn together(rendered: &[&Rendered]) -> Rendered {
    let tags: Vec<&[u8]> = rendered.iter().map(|one| one.etag.as_bytes()).collect();
    let bodies: Vec<&[u8]> = rendered.iter().map(|one| &one.body[..]).collect();
    let body = [&b"{\"aggregates\":["[..], &bodies.join(&b','), b"]}"].concat();
    Rendered { body: body.into(), etag: quoted(&digest(&tags.concat())) }
}
