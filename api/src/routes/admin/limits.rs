//! `GET /v1/admin/limits`: this process's rate limits and the remaining requests of each administrator.

use axum::Json;
use axum::extract::State;
use runtime::admin::{AdminGuard, Role};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct LimitsResponse {
    /// Limit per administrator.
    requests: RequestLimit,
    /// Limit per client address for requests without a valid token.
    failures: FailureLimit,
}

#[derive(Debug, Serialize)]
struct RequestLimit {
    per_minute: u32,
    administrators: Vec<AdministratorQuota>,
}

#[derive(Debug, Serialize)]
struct AdministratorQuota {
    name: String,
    role: Role,
    remaining: u32,
}

#[derive(Debug, Serialize)]
struct FailureLimit {
    per_minute: u32,
}

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
