//! The routes of ingest, one file each; `form` has those of the pages.

mod define;
mod delete;
mod form;
mod submit;
mod submit_batch;
mod withdraw;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, post, put};
use runtime::admin::{AdminRoutes, Role};
use runtime::metrics::{Metrics, MetricsError};
use utoipa::OpenApi;

use crate::config::IngestConfig;
use crate::deps::IngestDeps;
use crate::service::IngestService;

/// The routes of ingest, forms excepted.
#[derive(OpenApi)]
#[openapi(paths(
    submit::submit,
    submit_batch::submit_batch,
    withdraw::withdraw,
    withdraw::withdraw_person_named_batch,
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
/// # Errors
/// When a metric name is already registered.
pub fn routes(
    config: &IngestConfig,
    deps: IngestDeps,
    metrics: &Metrics,
) -> Result<Router, MetricsError> {
    let admin_routes = AdminRoutes::new(&deps.admin)
        .route(Role::Admin, "/v1/budgets/{budget}", put(define::define).delete(delete::delete))
        .into_router();
    let service = Arc::new(IngestService::new(config, deps, metrics)?);
    Ok(Router::new()
        .route("/v1/budgets/{budget}/submissions", post(submit::submit))
        .route(
            "/v1/budgets/{budget}/submissions/batch",
            post(submit_batch::submit_batch).delete(withdraw::withdraw_person_named_batch),
        )
        .route("/v1/budgets/{budget}/submissions/{person}", delete(withdraw::withdraw))
        .merge(form::routes())
        .merge(admin_routes)
        .with_state(service))
}
