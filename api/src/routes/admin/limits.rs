//! `GET /v1/admin/limits`: how often administrators may ask this process, how often strangers may try, and how
//! administrators stand with that now.

use axum::Json;
use axum::extract::State;
use runtime::admin::{AdminGuard, Role};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Limits {
    /// Of each administrator.
    requests: Requests,
    /// Of each client address without a valid token.
    failures: Failures,
}

#[derive(Debug, Serialize)]
struct Requests {
    per_minute: u32,
    administrators: Vec<Administrator>,
}

#[derive(Debug, Serialize)]
struct Administrator {
    name: String,
    role: Role,
    remaining: u32,
}

#[derive(Debug, Serialize)]
struct Failures {
    per_minute: u32,
}

pub(super) async fn limits(State(guard): State<AdminGuard>) -> Json<Limits> {
    let administrators = guard.standings().into_iter().map(|(principal, remaining)| {
        Administrator { name: principal.name().to_owned(), role: principal.role(), remaining }
    });
    Json(Limits {
        requests: Requests {
            per_minute: guard.requests_per_minute().get(),
            administrators: administrators.collect(),
        },
        failures: Failures { per_minute: guard.failures_per_minute().get() },
    })
}
