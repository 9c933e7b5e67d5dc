//! `/v1/admin/...`: what administrators read and ask for. Each route says here which role it needs; who has it, how often
//! they may ask and the record of it are `runtime::admin`'s.
//!
//! Routes of jobs belong here as well, a file each.

mod generations;
mod whoami;

use axum::Router;
use axum::routing::get;
use runtime::admin::{AdminGuard, AdminRoutes, Role};

use crate::roster::RosterReader;

/// The routes over these parts.
pub fn router(guard: &AdminGuard, roster: RosterReader) -> Router {
    AdminRoutes::new(guard)
        .route(Role::Viewer, "/v1/admin/whoami", get(whoami::whoami))
        .route(Role::Viewer, "/v1/admin/generations", get(generations::list))
        .into_router()
        .with_state(roster)
}
