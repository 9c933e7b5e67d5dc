//! The routes of ingest.

mod define;
mod submit;
mod submit_batch;
mod withdraw;

use std::sync::Arc;

use axum::Router;
use axum::routing::{post, put};
use runtime::admin::{AdminRoutes, Role};
use runtime::metrics::{Metrics, MetricsError};

use crate::service::Ingest;
use crate::{IngestConfig, IngestParts};

/// The routes, for `runtime::http::router` to put the rest around.
///
/// # Errors
/// When the names of the metrics are taken by others.
pub fn routes(
    config: &IngestConfig,
    parts: IngestParts,
    metrics: &Metrics,
) -> Result<Router, MetricsError> {
    let administrators = AdminRoutes::new(&parts.admin)
        .route(Role::Admin, "/v1/budgets/{budget}", put(define::define))
        .into_router();
    let ingest = Arc::new(Ingest::new(config, parts, metrics)?);
    Ok(Router::new()
        .route("/v1/budgets/{budget}/submissions", post(submit::submit))
        .route(
            "/v1/budgets/{budget}/submissions/batch",
            post(submit_batch::submit_batch).delete(withdraw::withdraw_person_named_batch),
        )
        .route(
            "/v1/budgets/{budget}/submissions/{person}",
            axum::routing::delete(withdraw::withdraw),
        )
        .merge(administrators)
        .with_state(ingest))
}
