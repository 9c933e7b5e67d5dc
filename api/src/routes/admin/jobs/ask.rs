//! `POST /v1/admin/jobs`, and its short forms: `POST /v1/admin/rebuilds`, `/v1/admin/audits`, `/v1/admin/caches/warm`.

use axum::extract::{FromRef, FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use runtime::admin::Principal;
use runtime::clock::now_ms;
use runtime::http::idempotency_key;
use runtime::problem::{Problem, ProblemKind};
use schemas::job::{JobId, NewJob};
use storage::jobs::submit;
use uuid::Uuid;

use super::body::{self, Asked, Form};
use super::shown::located;
use super::{JobDesk, in_time, not_changed};

/// What every request for a job brings along.
pub(crate) struct JobRequest {
    desk: JobDesk,
    principal: Principal,
    headers: HeaderMap,
    body: Bytes,
}

impl<S> FromRequest<S> for JobRequest
where
    JobDesk: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (State(desk), principal, headers, body) =
            <(State<JobDesk>, Principal, HeaderMap, Bytes)>::from_request(request, state).await?;
        Ok(Self { desk, principal, headers, body })
    }
}

pub(crate) async fn ask(request: JobRequest) -> Result<Response, Problem> {
    request.ask(Form::Any).await
}

pub(crate) async fn ask_for_rebuild(request: JobRequest) -> Result<Response, Problem> {
    request.ask(Form::Rebuild).await
}

pub(crate) async fn ask_for_audit(request: JobRequest) -> Result<Response, Problem> {
    request.ask(Form::Audit).await
}

pub(crate) async fn ask_to_warm_caches(request: JobRequest) -> Result<Response, Problem> {
    request.ask(Form::WarmCaches).await
}

impl JobRequest {
    /// Asks for what it says. With an `Idempotency-Key` it is one job however often it is asked for, as long as
    /// that is kept.
    pub(crate) async fn ask(self, form: Form) -> Result<Response, Problem> {
        let Self { desk, principal, headers, body } = self;
        let Asked { kind, priority } = body::read(form, &headers, &body)?;
        let now_ms = now_ms();
        let id = match idempotency_key(&headers)? {
            Some(key) => JobId::named(principal.name(), key),
            None => JobId::new(now_ms, Uuid::new_v4()),
        };
        let asked_by = principal.name().into();
        let new = NewJob { id, kind: kind.clone(), priority, asked_by };
        let job = in_time(submit(&*desk.jobs, new, now_ms)).await?.map_err(not_changed)?;
        if (&job.kind, job.priority) != (&kind, priority) {
            return Err(Problem::new(ProblemKind::KeyReused).detail(format!(
                "the same `Idempotency-Key` asked for something else: job {}",
                job.id
            )));
        }
        // What the log says of the request names the route; which job came of it, this does.
        tracing::info!(job = %job.id, kind = %job.kind, by = principal.name(), "asked for a job");
        Ok(located(StatusCode::ACCEPTED, &job))
    }
}
