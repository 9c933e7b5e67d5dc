//! `/v1/budgets/{budget}/session`: `POST` opens a session for the holder of a personal code, for whoever has got a
//! one-time code by e-mail, or for an anonymous person; `DELETE` ends that of a browser.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use identity::OpenedSession;
use identity::email::{EmailAddress, OneTimeCode};
use jiff::Timestamp;
use page::language::Language;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, CODE_LIFETIME, IdentityRule};
use serde::Serialize;

use crate::media_type::RequireJson;
use crate::parse::EmailSessionRequest;
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
    summary = "Open a session with a personal code, with a one-time code by e-mail, or as an anonymous person",
    description = "Under the identity rule `email` the address alone asks for a one-time code: the answer is 202, the \
        same for every address, whether a mail is sent or not. The address with `otp` opens the session.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    request_body(content = ref("#/components/schemas/SessionRequest"), content_type = "application/json"),
    responses(
        (status = 200, description = "The session", body = ref("#/components/schemas/Session"),
            content_type = "application/json"),
        (status = 202, description = "A one-time code is sent, if the address may take part",
            body = ref("#/components/schemas/CodeRequested"), content_type = "application/json"),
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
    let opened = if budget.identity == IdentityRule::Email {
        let EmailSessionRequest { address, otp } = parse::email_session(&body)?;
        let Some(otp) = otp else {
            service.require_email()?.send_code(&budget, address, language(None, &headers)).await?;
            return Ok(code_requested());
        };
        redeem(&service, &budget, (&address, &otp), &presented, &headers).await?
    } else {
        let code = parse::session_code(&body)?;
        service.authorizer.open_session(&budget, code.as_deref(), &presented, &headers)?
    };
    let body = SessionBody { token: &opened.token, expires_at: opened.expires_at };
    let body = serde_json::to_vec(&body).map_err(|_| Problem::new(ProblemKind::Internal))?;
    let mut response = response::json(StatusCode::OK, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set_cookies(&mut response, &opened.cookies)?;
    Ok(response)
}

/// Opens the session of an address whose one-time code is right.
///
/// # Errors
/// When the code is not right, for whatever reason, it cannot be told, or the client has failed too often.
pub(super) async fn redeem(
    service: &IngestService,
    budget: &Budget,
    (address, otp): (&EmailAddress, &OneTimeCode),
    presented: &PresentedCredentials,
    headers: &HeaderMap,
) -> Result<OpenedSession, Problem> {
    let email = service.require_email()?;
    if !email.redeem(budget, address, otp, presented.network()).await? {
        return Err(service.authorizer.refuse_one_time_code(presented));
    }
    service.authorizer.open_email_session(budget, address, presented, headers)
}

/// Returns the language of a mail: that of a form's page, or the client's.
pub(super) fn language(form: Option<&str>, headers: &HeaderMap) -> Language {
    let accepted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    Language::choose(form, accepted)
}

/// Builds the response to whoever asked for a one-time code: the same for every address.
pub(super) fn code_requested() -> Response {
    let body = format!(
        r#"{{"status":"code_requested","code_lifetime_seconds":{}}}"#,
        CODE_LIFETIME.as_secs()
    );
    let mut response = response::json(StatusCode::ACCEPTED, body.into_bytes());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/session",
    tag = "submissions",
    operation_id = "endSession",
    summary = "Clear the session of a browser",
    description = "A token stays valid until it expires or its code is revoked.",
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
