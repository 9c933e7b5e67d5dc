//! `/v1/admin/jobs` and its short forms: background jobs. Steps are decided in `schemas::job`, and
//! done by the processors; here they are asked for and looked at.
//!
//! | file | what it has |
//! |---|---|
//! | `ask` | new jobs |
//! | `body` | what a new job's body says, with every fault at once |
//! | `shown` | a job as it is shown |

mod ask;
mod body;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use runtime::clock::now_ms;
use runtime::problem::{Problem, ProblemKind};
use schemas::job::{Job, JobId, JobRefused, JobState, cancel as cancel_step, retry as retry_step};
use serde::Serialize;
use storage::jobs::{ChangeError, JobStore, change};
use storage::store::StoreError;
use tokio::time::timeout;

use crate::routes::RETRY_AFTER;
use shown::ShownJob;

pub(super) use ask::{JobRequest, ask, ask_for_audit, ask_for_rebuild, ask_to_warm_caches};
pub(super) use body::Form;

/// How long the store may take over one request. Its own repetitions go on longer; whoever asks should not.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is asked about jobs, each in its time.
#[derive(Clone)]
pub struct JobDesk {
    jobs: Arc<dyn JobStore>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    /// The oldest first.
    jobs: Vec<ShownJob>,
    /// Ids of those that cannot be read: damaged, or of a newer release. They have no state that is known.
    unreadable: Vec<String>,
}

impl JobDesk {
    /// Of these jobs.
    pub fn new(jobs: Arc<dyn JobStore>) -> Self {
        Self { jobs }
    }

    async fn one(&self, id: JobId) -> Result<Job, Problem> {
        let job = in_time(self.jobs.job(id)).await?.map_err(|error| unavailable(&error))?;
        job.ok_or_else(|| refused(&JobRefused::Missing(id)))
    }

    async fn change(
        &self,
        id: JobId,
        step: impl Fn(&Job) -> Result<Job, JobRefused>,
    ) -> Result<Job, Problem> {
        in_time(change(&*self.jobs, id, step)).await?.map_err(not_changed)
    }
}

pub(super) async fn list(
    State(desk): State<JobDesk>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<List>, Problem> {
    let states = states(&query)?;
    let rows = in_time(desk.jobs.job_rows()).await?.map_err(|error| unavailable(&error))?;
    let wanted = |job: &&Job| states.is_empty() || states.contains(&job.state.name());
    Ok(Json(List {
        jobs: rows.jobs.iter().filter(wanted).map(ShownJob::of).collect(),
        unreadable: rows.unreadable.iter().map(|row| row.id.to_string()).collect(),
    }))
}

pub(super) async fn one(
    State(desk): State<JobDesk>,
    Path(id): Path<String>,
) -> Result<Json<ShownJob>, Problem> {
    Ok(Json(ShownJob::of(&desk.one(parse_id(&id)?).await?)))
}

pub(super) async fn cancel(
    State(desk): State<JobDesk>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = desk.change(parse_id(&id)?, |job| cancel_step(job, now_ms())).await?;
    Ok(shown::located(StatusCode::ACCEPTED, &job))
}

pub(super) async fn retry(
    State(desk): State<JobDesk>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = desk.change(parse_id(&id)?, |job| retry_step(job, now_ms())).await?;
    Ok(shown::located(StatusCode::ACCEPTED, &job))
}

/// The states that a query names; none: all are wanted.
fn states(query: &[(String, String)]) -> Result<Vec<&'static str>, Problem> {
    let given = query.iter().filter(|(name, _)| name == "state").map(|(_, value)| value);
    let known = |value: &String| JobState::NAMES.into_iter().find(|name| name == value);
    given.map(known).collect::<Option<_>>().ok_or_else(|| {
        Problem::new(ProblemKind::Malformed)
            .detail("the query names a state that jobs do not have")
            .fault("state", format!("must be one of {}", JobState::NAMES.join(", ")))
    })
}

/// What is no id is the id of no job.
fn parse_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::new(ProblemKind::NotFound).detail("there is no such job"))
}

async fn in_time<T>(asked: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(DEADLINE, asked).await.map_err(|_| {
        Problem::new(ProblemKind::Unavailable)
            .detail(
                "the store did not answer in time; whether anything was changed is not known: look at the jobs",
            )
            .retry_after(RETRY_AFTER)
    })
}

fn not_changed(error: ChangeError) -> Problem {
    match error {
        ChangeError::Refused(refusal) => refused(&refusal),
        ChangeError::Store(error) => unavailable(&error),
        ChangeError::Unknown => Problem::new(ProblemKind::Unavailable)
            .detail(
                "whether it was done is not known, as somebody else changed the job: look at it",
            )
            .retry_after(RETRY_AFTER),
    }
}

fn refused(refusal: &JobRefused) -> Problem {
    let kind = match refusal {
        JobRefused::Missing(_) => ProblemKind::NotFound,
        JobRefused::Full(_) => ProblemKind::Unavailable,
        JobRefused::Ended(_)
        | JobRefused::NotDue
        | JobRefused::NotHeld
        | JobRefused::Cancelling
        | JobRefused::NotDead(_) => ProblemKind::WrongState,
    };
    let problem = Problem::new(kind).detail(refusal.to_string());
    match kind {
        ProblemKind::Unavailable => problem.retry_after(QUEUE_RETRY_AFTER),
        _ => problem,
    }
}

/// A full queue takes a while.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(30);

fn unavailable(error: &StoreError) -> Problem {
    tracing::warn!(%error, "jobs cannot be read or changed");
    Problem::new(ProblemKind::Unavailable)
        .detail("the store does not answer; what was asked for may have been done all the same: look at the jobs")
        .retry_after(RETRY_AFTER)
}
