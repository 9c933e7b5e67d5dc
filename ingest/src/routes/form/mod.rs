//! The forms of the pages: the same submissions and withdrawals as under `/v1`, urlencoded, by the person of a cookie
//! or of a code.
//!
//! A browser without a script gets `303` to a page, which `api` renders; a script, which accepts JSON, gets the answers
//! and problems of `/v1`. Posts from pages of other sites are refused.

mod email_session;
mod form_post;
mod form_response;
mod person;
mod redirect;
mod session;
mod submit;
mod withdraw;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use runtime::limits::{ChargeTiming, EndpointClass, RequestLimits, WriteLimit, limit_write};

use crate::service::IngestService;

/// Builds the routes of the forms, with their limits.
pub(super) fn routes(limits: &RequestLimits) -> Router<Arc<IngestService>> {
    let limited = |class, charging| {
        let limit = WriteLimit { limits: limits.clone(), class, charging };
        from_fn_with_state(limit, limit_write)
    };
    let person = Router::new()
        .route("/budgets/{budget}/person", post(person::make_person))
        .route("/budgets/{budget}/session/end", post(session::end))
        .route_layer(limited(EndpointClass::Submission, ChargeTiming::BeforeHandler));
    let session = Router::new()
        .route("/budgets/{budget}/session", post(session::open))
        .route_layer(limited(EndpointClass::SignIn, ChargeTiming::BeforeHandler));
    Router::new()
        .route("/budgets/{budget}/submit", post(submit::submit))
        .route("/budgets/{budget}/withdraw", post(withdraw::withdraw))
        .route_layer(limited(EndpointClass::Submission, ChargeTiming::ByHandlerAlone))
        .merge(person)
        .merge(session)
}
