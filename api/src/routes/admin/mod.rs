//! `/v1/admin/...`: the administrators' routes, each with the role that it requires.
//!
//! Authentication, rate limits and the audit log are in `runtime::admin`.

mod annulments;
mod dead_letters;
mod forget;
mod generations;
mod jobs;
mod limits;
mod signals;
mod whoami;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use runtime::admin::{AdminGuard, AdminRoutes, Role};
use storage::jobs::JobStore;
use storage::log::dead_letters::DeadLetterJournalOpener;
use utoipa::OpenApi;

use crate::registry::RegistryReader;
use dead_letters::DeadLetterService;
use jobs::JobService;

pub use annulments::AnnulmentService;
pub use forget::ForgetService;
pub use signals::SignalService;

/// Shared state of the administrators' routes.
#[derive(Clone)]
struct AdminState {
    registry: RegistryReader,
    jobs: JobService,
    dead_letters: DeadLetterService,
    signals: SignalService,
    forget: ForgetService,
    annulments: AnnulmentService,
    guard: AdminGuard,
}

impl FromRef<AdminState> for RegistryReader {
    fn from_ref(state: &AdminState) -> Self {
        state.registry.clone()
    }
}

impl FromRef<AdminState> for JobService {
    fn from_ref(state: &AdminState) -> Self {
        state.jobs.clone()
    }
}

impl FromRef<AdminState> for DeadLetterService {
    fn from_ref(state: &AdminState) -> Self {
        state.dead_letters.clone()
    }
}

impl FromRef<AdminState> for SignalService {
    fn from_ref(state: &AdminState) -> Self {
        state.signals.clone()
    }
}

impl FromRef<AdminState> for ForgetService {
    fn from_ref(state: &AdminState) -> Self {
        state.forget.clone()
    }
}

impl FromRef<AdminState> for AnnulmentService {
    fn from_ref(state: &AdminState) -> Self {
        state.annulments.clone()
    }
}

impl FromRef<AdminState> for AdminGuard {
    fn from_ref(state: &AdminState) -> Self {
        state.guard.clone()
    }
}

/// The routes except those of jobs.
#[derive(OpenApi)]
#[openapi(paths(
    whoami::whoami,
    limits::limits,
    generations::list,
    dead_letters::list,
    dead_letters::one,
    dead_letters::replay,
    dead_letters::discard,
    signals::signals,
    forget::forget,
    annulments::list,
    annulments::annul,
    annulments::restore,
))]
struct AdministrationRoutes;

/// Describes the routes.
pub(super) fn openapi() -> [utoipa::openapi::OpenApi; 2] {
    [AdministrationRoutes::openapi(), jobs::JobRoutes::openapi()]
}

/// Builds the administrators' routes.
pub fn router(
    guard: &AdminGuard,
    registry: RegistryReader,
    jobs: Arc<dyn JobStore>,
    dead_letters: Arc<dyn DeadLetterJournalOpener>,
    signals: SignalService,
    annulments: AnnulmentService,
    forget: ForgetService,
) -> Router {
    let state = AdminState {
        jobs: JobService::new(jobs),
        dead_letters: DeadLetterService::new(dead_letters, registry.clone()),
        signals,
        annulments,
        registry,
        forget,
        guard: guard.clone(),
    };
    AdminRoutes::new(guard)
        .route(Role::Viewer, "/v1/admin/whoami", get(whoami::whoami))
        .route(Role::Viewer, "/v1/admin/limits", get(limits::limits))
        .route(Role::Viewer, "/v1/admin/generations", get(generations::list))
        .route(Role::Admin, "/v1/admin/budgets/{budget}/forget", post(forget::forget))
        .route(Role::Viewer, "/v1/admin/jobs", get(jobs::list))
        .route(Role::Operator, "/v1/admin/jobs", post(jobs::submit))
        .route(Role::Viewer, "/v1/admin/jobs/{id}", get(jobs::one))
        .route(Role::Operator, "/v1/admin/jobs/{id}/cancel", post(jobs::cancel))
        .route(Role::Operator, "/v1/admin/jobs/{id}/retry", post(jobs::retry))
        .route(Role::Operator, "/v1/admin/rebuilds", post(jobs::submit_rebuild))
        .route(Role::Operator, "/v1/admin/audits", post(jobs::submit_audit))
        .route(Role::Operator, "/v1/admin/caches/warm", post(jobs::submit_cache_warming))
        .route(Role::Viewer, "/v1/admin/dead-letters", get(dead_letters::list))
        .route(Role::Viewer, "/v1/admin/dead-letters/{id}", get(dead_letters::one))
        .route(Role::Operator, "/v1/admin/dead-letters/{id}/replay", post(dead_letters::replay))
        .route(Role::Operator, "/v1/admin/dead-letters/{id}/drop", post(dead_letters::discard))
        .route(Role::Viewer, "/v1/admin/budgets/{budget}/signals", get(signals::signals))
        .route(Role::Viewer, "/v1/admin/budgets/{budget}/annulments", get(annulments::list))
        .route(Role::Admin, "/v1/admin/budgets/{budget}/annulments", post(annulments::annul))
        .route(
            Role::Admin,
            "/v1/admin/budgets/{budget}/annulments/{id}/restore",
            post(annulments::restore),
        )
        .into_router()
        .with_state(state)
}
