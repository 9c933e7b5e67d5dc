//! `/v1/budgets/{budget}/session`: `POST` opens a session for the holder of a personal code, or for an anonymous
//! person; `DELETE` ends that of a browser.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use serde::Serialize;

use crate::media_type::RequireJson;
use crate::service::IngestService;
use crate::{parse, response};

#[derive(Serialize)]
struct SessionBody<'a> {
    token: &'a str,
    expires_at: Timestamp,
}

#[utoipa::path(
    post,
    path = "/v1/budgets/{budget}/session",
    tag = "submissions",
    operation_id = "openSession",
    summary = "Open a session with a personal code, or as an anonymous person",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    request_body(content = ref("#/components/schemas/SessionRequest"), content_type = "application/json"),
    responses(
        (status = 200, description = "The session", body = ref("#/components/schemas/Session"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn open(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    _: RequireJson,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let budget = service.budget(&budget)?;
    // A session of a forgotten budget would be worth nothing.
    service.persons(&budget)?;
    let code = parse::session_code(&body)?;
    let opened = service.authorizer.open_session(&budget, code.as_deref(), &presented, &headers)?;
    let body = SessionBody { token: &opened.token, expires_at: opened.expires_at };
    let body = serde_json::to_vec(&body).map_err(|_| Problem::new(ProblemKind::Internal))?;
    let mut response = response::json(StatusCode::OK, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set_cookies(&mut response, &opened.cookies)?;
    Ok(response)
}

#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/session",
    tag = "submissions",
    operation_id = "endSession",
    summary = "Clear the session of a browser",
    description = "A token that is sent as `Authorization: Bearer` stays valid until it expires.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    responses(
        (status = 204, description = "The browser has no session any more"),
    ),
)]
pub(super) async fn end(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let budget = service.budget(&budget)?;
    let cookies = service.authorizer.end_session(&budget, &presented, &headers)?;
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    set_cookies(&mut response, &cookies)?;
    Ok(response)
}

/// Adds the cookies of a session to a response.
///
/// # Errors
/// When a cookie is not a valid header, which a budget's id and a token rule out.
pub(super) fn set_cookies(response: &mut Response, cookies: &[String]) -> Result<(), Problem> {
    for cookie in cookies {
        let cookie =
            HeaderValue::from_str(cookie).map_err(|_| Problem::new(ProblemKind::Internal))?;
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(())
}
