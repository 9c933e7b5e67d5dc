//! The routes of ingest, one file each; `form` has those of the pages.

mod define;
mod delete;
mod form;
mod session;
mod submit;
mod submit_batch;
mod withdraw;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, post, put};
use runtime::admin::{AdminRoutes, Role};
use runtime::limits::{ChargeTiming, EndpointClass, WriteLimit, limit_write};
use runtime::metrics::{Metrics, MetricsError};
use utoipa::OpenApi;

use crate::config::IngestConfig;
use crate::deps::IngestDeps;
use crate::service::IngestService;
use crate::signals::PendingSignals;

/// The routes of ingest, forms excepted.
#[derive(OpenApi)]
#[openapi(paths(
    submit::submit,
    submit::submit_own,
    submit_batch::submit_batch,
    withdraw::withdraw,
    withdraw::withdraw_own,
    withdraw::withdraw_person_named_batch,
    session::open,
    session::end,
    define::define,
    delete::delete,
))]
struct WriteRoutes;

/// Describes the routes, forms excepted.
pub fn openapi() -> utoipa::openapi::OpenApi {
    WriteRoutes::openapi()
}

/// Builds the routes. `runtime::http::router` wraps them with limits, logging and health.
///
/// Also returns the queue of signals, to be flushed once the routes are served no more.
///
/// # Errors
/// When a metric name is already registered.
pub fn routes(
    config: &IngestConfig,
    deps: IngestDeps,
    metrics: &Metrics,
) -> Result<(Router, PendingSignals), MetricsError> {
    let admin_routes = AdminRoutes::new(&deps.admin)
        .route(Role::Admin, "/v1/budgets/{budget}", put(define::define).delete(delete::delete))
        .into_router();
    let limits = deps.limits.clone();
    let limited = |class, charging| {
        from_fn_with_state(WriteLimit { limits: limits.clone(), class, charging }, limit_write)
    };
    let (service, signals) = IngestService::new(config, deps, metrics)?;
    let service = Arc::new(service);
    let batches = Router::new()
        .route("/v1/budgets/{budget}/submissions/batch", post(submit_batch::submit_batch))
        .route_layer(limited(EndpointClass::Batch, ChargeTiming::ByHandler));
    let sessions = Router::new()
        .route("/v1/budgets/{budget}/session", post(session::open))
        .route_layer(limited(EndpointClass::SignIn, ChargeTiming::BeforeHandler));
    // No attempt to sign in.
    let ended_sessions = Router::new()
        .route("/v1/budgets/{budget}/session", delete(session::end))
        .route_layer(limited(EndpointClass::Submission, ChargeTiming::BeforeHandler));
    let router = Router::new()
        .route("/v1/budgets/{budget}/submissions", post(submit::submit))
        .route(
            "/v1/budgets/{budget}/submissions/batch",
            delete(withdraw::withdraw_person_named_batch),
        )
        .route(
            "/v1/budgets/{budget}/submissions/me",
            put(submit::submit_own).delete(withdraw::withdraw_own),
        )
        .route("/v1/budgets/{budget}/submissions/{person}", delete(withdraw::withdraw))
        .route_layer(limited(EndpointClass::Submission, ChargeTiming::ByHandler))
        .merge(batches)
        .merge(sessions)
        .merge(ended_sessions)
        .merge(form::routes(&limits))
        .merge(admin_routes)
        .with_state(service);
    Ok((router, signals))
}
