//! The forms of the pages: the same submissions and withdrawals as under `/v1`, urlencoded, by the person of a cookie
//! or of a personal code.
//!
//! A browser without a script gets `303` to a page, which `api` renders; a script, which accepts JSON, gets the answers
//! and problems of `/v1`. Posts from pages of other sites are refused.

mod form_post;
mod form_response;
mod person;
mod redirect;
mod session;
mod submit;
mod withdraw;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::service::IngestService;

/// Builds the routes of the forms.
pub(super) fn routes() -> Router<Arc<IngestService>> {
    Router::new()
        .route("/budgets/{budget}/person", post(person::make_person))
        .route("/budgets/{budget}/session", post(session::open))
        .route("/budgets/{budget}/submit", post(submit::submit))
        .route("/budgets/{budget}/withdraw", post(withdraw::withdraw))
}
