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
use storage::jobs;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use uuid::Uuid;

use super::request_body::{self, JobRoute, RequestedJob};
use super::view::located;
use super::{JobService, in_time, not_changed};
use crate::parameters::optional_text;

/// The parts of a request that submits a job.
pub(crate) struct JobRequest {
    service: JobService,
    principal: Principal,
    headers: HeaderMap,
    body: Bytes,
}

impl IntoParams for JobRequest {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![optional_text(
            "Idempotency-Key",
            ParameterIn::Header,
            "A repeated request with the same key is one job",
            |text| text.min_length(Some(1)).max_length(Some(255)).pattern(Some("^[!-~]+$")),
        )]
    }
}

impl<S> FromRequest<S> for JobRequest
where
    JobService: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (State(service), principal, headers, body) =
            <(State<JobService>, Principal, HeaderMap, Bytes)>::from_request(request, state)
                .await?;
        Ok(Self { service, principal, headers, body })
    }
}

#[utoipa::path(
    post,
    path = "/v1/admin/jobs",
    tag = "jobs",
    operation_id = "submitJob",
    summary = "Submit a job",
    params(JobRequest),
    request_body(content = ref("#/components/schemas/JobRequest"), content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(crate) async fn submit(request: JobRequest) -> Result<Response, Problem> {
    request.submit(JobRoute::Any).await
}

#[utoipa::path(
    post,
    path = "/v1/admin/rebuilds",
    tag = "jobs",
    operation_id = "submitRebuild",
    summary = "Rebuild all totals from the log",
    params(JobRequest),
    request_body(content = ref("#/components/schemas/ComparingJobOptions"), description = "Of the job",
        content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(crate) async fn submit_rebuild(request: JobRequest) -> Result<Response, Problem> {
    request.submit(JobRoute::Rebuild).await
}

#[utoipa::path(
    post,
    path = "/v1/admin/audits",
    tag = "jobs",
    operation_id = "submitAudit",
    summary = "Compare totals, people and the log",
    params(JobRequest),
    request_body(content = ref("#/components/schemas/JobOptions"), description = "Of the job",
        content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(crate) async fn submit_audit(request: JobRequest) -> Result<Response, Problem> {
    request.submit(JobRoute::Audit).await
}

#[utoipa::path(
    post,
    path = "/v1/admin/caches/warm",
    tag = "jobs",
    operation_id = "warmCaches",
    summary = "Warm the caches",
    params(JobRequest),
    request_body(content = ref("#/components/schemas/JobOptions"), description = "Of the job",
        content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(crate) async fn submit_cache_warming(request: JobRequest) -> Result<Response, Problem> {
    request.submit(JobRoute::WarmCaches).await
}

impl JobRequest {
    /// Submits the requested job.
    pub(crate) async fn submit(self, route: JobRoute) -> Result<Response, Problem> {
        self.submit_parsed(|headers, body, _| request_body::parse(route, headers, body)).await
    }

    /// Submits the job that `parse` makes of headers, body and the job's id. Repeated requests with one
    /// `Idempotency-Key` yield one job, as long as it is kept.
    pub(in crate::routes::admin) async fn submit_parsed(
        self,
        parse: impl FnOnce(&HeaderMap, &[u8], JobId) -> Result<RequestedJob, Problem>,
    ) -> Result<Response, Problem> {
        let Self { service, principal, headers, body } = self;
        let now_ms = now_ms();
        let id = match idempotency_key(&headers)? {
            Some(key) => JobId::from_name(principal.name(), key),
            None => JobId::new(now_ms, Uuid::new_v4()),
        };
        let RequestedJob { kind, priority } = parse(&headers, &body, id)?;
        let requested_by = principal.name().into();
        let new = NewJob { id, kind: kind.clone(), priority, requested_by };
        let job = in_time(jobs::submit(&*service.jobs, new, now_ms)).await?.map_err(not_changed)?;
        if !job.is_of_kind(&kind) || job.priority != priority {
            return Err(Problem::new(ProblemKind::KeyReused).detail(format!(
                "the same `Idempotency-Key` was used to submit a different job: {}",
                job.id
            )));
        }
        // The request log names only the route, not the job.
        tracing::info!(job = %job.id, kind = %job.kind, by = principal.name(), "job submitted");
        Ok(located(StatusCode::ACCEPTED, &job))
    }
}
