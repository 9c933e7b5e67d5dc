//! `GET /v1/admin/limits`: this process's rate limits and the remaining requests of each administrator.

use axum::Json;
use axum::extract::State;
use runtime::admin::{AdminGuard, Role};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LimitsResponse {
    /// Limit per administrator.
    requests: RequestLimit,
    /// Limit per client address for requests without a valid token.
    failures: FailureLimit,
}

#[derive(Debug, Serialize, ToSchema)]
struct RequestLimit {
    per_minute: u32,
    administrators: Vec<AdministratorQuota>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AdministratorQuota {
    name: String,
    #[schema(value_type = String)]
    role: Role,
    remaining: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct FailureLimit {
    per_minute: u32,
}

#[utoipa::path(
    get,
    path = "/v1/admin/limits",
    tag = "administration",
    operation_id = "getLimits",
    summary = "Rate limits of administrators, and what is left of them",
    responses(
        (status = 200, description = "The limits", body = LimitsResponse, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn limits(State(guard): State<AdminGuard>) -> Json<LimitsResponse> {
    let administrators = guard.remaining_requests().into_iter().map(|(principal, remaining)| {
        AdministratorQuota { name: principal.name().to_owned(), role: principal.role(), remaining }
    });
    Json(LimitsResponse {
        requests: RequestLimit {
            per_minute: guard.requests_per_minute().get(),
            administrators: administrators.collect(),
        },
        failures: FailureLimit { per_minute: guard.failures_per_minute().get() },
    })
}
