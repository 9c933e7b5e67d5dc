//! `/v1/admin/...`: what administrators read and ask for. Each route says here which role it needs; who has it, how often
//! they may ask and the record of it are `runtime::admin`'s.

mod dead_letters;
mod generations;
mod jobs;
mod limits;
mod whoami;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use jiff::Timestamp;
use runtime::admin::{AdminGuard, AdminRoutes, Role};
use storage::jobs::JobStore;
use storage::log::letters::LetterPlaces;

use crate::roster::RosterReader;
use dead_letters::LetterDesk;
use jobs::JobDesk;

/// What the routes need.
#[derive(Clone)]
struct Parts {
    roster: RosterReader,
    jobs: JobDesk,
    letters: LetterDesk,
    guard: AdminGuard,
}

impl FromRef<Parts> for RosterReader {
    fn from_ref(parts: &Parts) -> Self {
        parts.roster.clone()
    }
}

impl FromRef<Parts> for JobDesk {
    fn from_ref(parts: &Parts) -> Self {
        parts.jobs.clone()
    }
}

impl FromRef<Parts> for LetterDesk {
    fn from_ref(parts: &Parts) -> Self {
        parts.letters.clone()
    }
}

impl FromRef<Parts> for AdminGuard {
    fn from_ref(parts: &Parts) -> Self {
        parts.guard.clone()
    }
}

/// The routes over these parts.
pub fn router(
    guard: &AdminGuard,
    roster: RosterReader,
    jobs: Arc<dyn JobStore>,
    letters: Arc<dyn LetterPlaces>,
) -> Router {
    let parts = Parts {
        jobs: JobDesk::new(jobs),
        letters: LetterDesk::new(letters, roster.clone()),
        roster,
        guard: guard.clone(),
    };
    AdminRoutes::new(guard)
        .route(Role::Viewer, "/v1/admin/whoami", get(whoami::whoami))
        .route(Role::Viewer, "/v1/admin/limits", get(limits::limits))
        .route(Role::Viewer, "/v1/admin/generations", get(generations::list))
        .route(Role::Viewer, "/v1/admin/jobs", get(jobs::list))
        .route(Role::Operator, "/v1/admin/jobs", post(jobs::ask))
        .route(Role::Viewer, "/v1/admin/jobs/{id}", get(jobs::one))
        .route(Role::Operator, "/v1/admin/jobs/{id}/cancel", post(jobs::cancel))
        .route(Role::Operator, "/v1/admin/jobs/{id}/retry", post(jobs::retry))
        .route(Role::Operator, "/v1/admin/rebuilds", post(jobs::ask_for_rebuild))
        .route(Role::Operator, "/v1/admin/audits", post(jobs::ask_for_audit))
        .route(Role::Operator, "/v1/admin/caches/warm", post(jobs::ask_to_warm_caches))
        .route(Role::Viewer, "/v1/admin/dead-letters", get(dead_letters::list))
        .route(Role::Viewer, "/v1/admin/dead-letters/{id}", get(dead_letters::one))
        .route(Role::Operator, "/v1/admin/dead-letters/{id}/replay", post(dead_letters::replay))
        .route(Role::Operator, "/v1/admin/dead-letters/{id}/drop", post(dead_letters::discard))
        .into_router()
        .with_state(parts)
}

/// RFC 3339 with milliseconds in UTC.
fn rfc3339(ms: u64) -> Option<String> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(|at| format!("{at:.3}"))
}
