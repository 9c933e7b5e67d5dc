//! `/v1/admin/jobs` and its short forms: submits, lists, cancels and retries background jobs.
//!
//! The state machine is in `schemas::job`; processors execute the jobs.
//!
//! | file | contents |
//! |---|---|
//! | `submit` | submission of a new job |
//! | `request_body` | parsing of a new job's body, with every fault at once |
//! | `body_members` | the members of a body, and its faults |
//! | `view` | JSON view of a job |

mod body_members;
mod request_body;
mod submit;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use runtime::clock::now_ms;
use runtime::problem::{Problem, ProblemKind};
use schemas::job::{
    Job, JobId, JobState, JobTransitionError, cancel as cancel_step, retry as retry_step,
};
use serde::Serialize;
use storage::jobs::{JobStore, JobUpdateError, update_job};
use storage::store::StoreError;
use tokio::time::timeout;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::routes::RETRY_AFTER;
use view::JobView;

pub(super) use body_members::{BodyMembers, EmptyBody};
pub(super) use request_body::{JobRoute, RequestedJob};
pub(super) use submit::{JobRequest, submit, submit_audit, submit_cache_warming, submit_rebuild};

/// The routes of jobs.
#[derive(OpenApi)]
#[openapi(paths(
    list,
    one,
    cancel,
    retry,
    submit::submit,
    submit::submit_rebuild,
    submit::submit_audit,
    submit::submit_cache_warming,
))]
pub(super) struct JobRoutes;

/// How long the store may take for one request. The store's own retries may take longer; a client must not wait.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads and changes jobs, each within a timeout.
#[derive(Clone)]
pub struct JobService {
    jobs: Arc<dyn JobStore>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// Oldest first.
    jobs: Vec<JobView>,
    /// Ids of jobs that cannot be decoded (damaged, or written by a newer release); their state is unknown.
    unreadable: Vec<String>,
}

/// The query of a list of jobs, as the OpenAPI document describes it.
struct JobStates;

impl IntoParams for JobStates {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let state =
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(JobState::NAMES));
        let states = ArrayBuilder::new().items(state).min_items(Some(1));
        let parameter = ParameterBuilder::new()
            .name("state")
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some("Only jobs in these states"))
            .schema(Some(states));
        vec![parameter.build()]
    }
}

impl JobService {
    /// Creates the service over `jobs`.
    pub fn new(jobs: Arc<dyn JobStore>) -> Self {
        Self { jobs }
    }

    async fn one(&self, id: JobId) -> Result<Job, Problem> {
        let job = in_time(self.jobs.job(id)).await?.map_err(|error| unavailable(&error))?;
        job.ok_or_else(|| refused(&JobTransitionError::Missing(id)))
    }

    async fn change(
        &self,
        id: JobId,
        step: impl Fn(&Job) -> Result<Job, JobTransitionError>,
    ) -> Result<Job, Problem> {
        in_time(update_job(&*self.jobs, id, step)).await?.map_err(not_changed)
    }
}

#[utoipa::path(
    get,
    path = "/v1/admin/jobs",
    tag = "jobs",
    operation_id = "listJobs",
    summary = "Background jobs, oldest first",
    params(
        JobStates,
    ),
    responses(
        (status = 200, description = "The jobs", body = JobList, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn list(
    State(service): State<JobService>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<JobList>, Problem> {
    let states = states(&query)?;
    let rows = in_time(service.jobs.job_rows()).await?.map_err(|error| unavailable(&error))?;
    let wanted = |job: &&Job| states.is_empty() || states.contains(&job.state.name());
    Ok(Json(JobList {
        jobs: rows.jobs.iter().filter(wanted).map(JobView::of).collect(),
        unreadable: rows.unreadable.iter().map(|row| row.id.to_string()).collect(),
    }))
}

#[utoipa::path(
    get,
    path = "/v1/admin/jobs/{id}",
    tag = "jobs",
    operation_id = "getJob",
    summary = "One job",
    params(
        ("id" = String, Path, description = "The job's id"),
    ),
    responses(
        (status = 200, description = "The job", body = JobView, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn one(
    State(service): State<JobService>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(JobView::of(&service.one(parse_id(&id)?).await?)))
}

#[utoipa::path(
    post,
    path = "/v1/admin/jobs/{id}/cancel",
    tag = "jobs",
    operation_id = "cancelJob",
    summary = "Cancel a job",
    params(
        ("id" = String, Path, description = "The job's id"),
    ),
    responses(
        (status = 202, description = "The job", body = JobView, content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(super) async fn cancel(
    State(service): State<JobService>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = service.change(parse_id(&id)?, |job| cancel_step(job, now_ms())).await?;
    Ok(view::located(StatusCode::ACCEPTED, &job))
}

#[utoipa::path(
    post,
    path = "/v1/admin/jobs/{id}/retry",
    tag = "jobs",
    operation_id = "retryJob",
    summary = "Retry a dead job",
    params(
        ("id" = String, Path, description = "The job's id"),
    ),
    responses(
        (status = 202, description = "The job", body = JobView, content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["operator"])),
)]
pub(super) async fn retry(
    State(service): State<JobService>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = service.change(parse_id(&id)?, |job| retry_step(job, now_ms())).await?;
    Ok(view::located(StatusCode::ACCEPTED, &job))
}

/// Parses the states of a query; empty means all states.
fn states(query: &[(String, String)]) -> Result<Vec<&'static str>, Problem> {
    let given = query.iter().filter(|(name, _)| name == "state").map(|(_, value)| value);
    let known = |value: &String| JobState::NAMES.into_iter().find(|name| name == value);
    given.map(known).collect::<Option<_>>().ok_or_else(|| {
        Problem::new(ProblemKind::Malformed)
            .detail("the query names an unknown job state")
            .fault("state", format!("must be one of {}", JobState::NAMES.join(", ")))
    })
}

/// Parses a job id. A malformed id belongs to no job.
fn parse_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::new(ProblemKind::NotFound).detail("there is no such job"))
}

async fn in_time<T>(operation: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(STORE_TIMEOUT, operation).await.map_err(|_| {
        Problem::new(ProblemKind::Unavailable)
            .detail(
                "the store did not answer in time; the job may have been changed: check its state",
            )
            .retry_after(RETRY_AFTER)
    })
}

fn not_changed(error: JobUpdateError) -> Problem {
    match error {
        JobUpdateError::Refused(refusal) => refused(&refusal),
        JobUpdateError::Store(error) => unavailable(&error),
        JobUpdateError::Unknown => Problem::new(ProblemKind::Unavailable)
            .detail(
                "another request changed the job at the same time, so the outcome is unknown: check its state",
            )
            .retry_after(RETRY_AFTER),
    }
}

fn refused(refusal: &JobTransitionError) -> Problem {
    let kind = match refusal {
        JobTransitionError::Missing(_) => ProblemKind::NotFound,
        JobTransitionError::Full(_) => ProblemKind::Unavailable,
        JobTransitionError::Ended(_)
        | JobTransitionError::NotDue
        | JobTransitionError::LeaseLost
        | JobTransitionError::Cancelling
        | JobTransitionError::NotUnderstood
        | JobTransitionError::NotDead(_) => ProblemKind::WrongState,
    };
    let problem = Problem::new(kind).detail(refusal.to_string());
    match kind {
        ProblemKind::Unavailable => problem.retry_after(QUEUE_RETRY_AFTER),
        _ => problem,
    }
}

/// `Retry-After` of a full queue.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(30);

fn unavailable(error: &StoreError) -> Problem {
    tracing::warn!(%error, "failed to read or change jobs");
    Problem::new(ProblemKind::Unavailable)
        .detail("the store is unavailable; the job may have been changed anyway: check its state")
        .retry_after(RETRY_AFTER)
}
