//! `POST /v1/admin/jobs`, and the short forms `POST /v1/admin/rebuilds` and `POST /v1/admin/audits`.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use runtime::admin::Principal;
use runtime::clock::now_ms;
use runtime::problem::Problem;
use schemas::job::{JobId, NewJob};
use storage::jobs::submit;
use uuid::Uuid;

use super::body::{self, Asked, Form};
use super::shown::located;
use super::{JobDesk, in_time, not_changed};

pub(crate) async fn ask(
    State(desk): State<JobDesk>,
    principal: Principal,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    desk.ask(body::read(Form::Any, &headers, &body)?, &principal).await
}

pub(crate) async fn ask_for_rebuild(
    State(desk): State<JobDesk>,
    principal: Principal,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    desk.ask(body::read(Form::Rebuild, &headers, &body)?, &principal).await
}

pub(crate) async fn ask_for_audit(
    State(desk): State<JobDesk>,
    principal: Principal,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    desk.ask(body::read(Form::Audit, &headers, &body)?, &principal).await
}

impl JobDesk {
    async fn ask(&self, asked: Asked, principal: &Principal) -> Result<Response, Problem> {
        let now_ms = now_ms();
        let new = NewJob {
            id: JobId::new(now_ms, Uuid::new_v4()),
            kind: asked.kind,
            priority: asked.priority,
            asked_by: principal.name().into(),
        };
        let job = in_time(submit(&*self.jobs, new, now_ms)).await?.map_err(not_changed)?;
        // What the log says of the request names the route; which job came of it, this does.
        tracing::info!(job = %job.id, kind = %job.kind, by = principal.name(), "asked for a job");
        Ok(located(StatusCode::ACCEPTED, &job))
    }
}
