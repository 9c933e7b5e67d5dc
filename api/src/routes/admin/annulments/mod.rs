//! `/v1/admin/budgets/{budget}/annulments`: lists annulments, annuls people of a budget, and restores them.
//!
//! Annulling and restoring are jobs, which a processor executes. The list is the operators' list in the control topic;
//! it names no person.
//!
//! | file | contents |
//! |---|---|
//! | `request_body` | parsing of a new annulment's body, with every fault at once |
//! | `view` | JSON view of the list |

mod request_body;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use runtime::problem::{Problem, ProblemKind};
use schemas::job::{Job, JobKind};
use schemas::{AnnulmentId, AnnulmentRegister, BudgetId};
use storage::control::{AnnulmentRegisters, BudgetDefinitions};
use storage::jobs::JobStore;
use tokio::time::timeout;

use super::jobs::{BodyMembers, EmptyBody, JobRequest, RequestedJob};
use crate::routes::{RETRY_AFTER, no_such_budget};
use view::AnnulmentList;

/// How long one read of the list, or of the jobs, may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the annulments of budgets.
#[derive(Clone)]
pub struct AnnulmentService {
    definitions: Arc<dyn BudgetDefinitions>,
    annulments: Arc<dyn AnnulmentRegisters>,
    jobs: Arc<dyn JobStore>,
}

impl AnnulmentService {
    /// Creates the service.
    pub fn new(
        definitions: Arc<dyn BudgetDefinitions>,
        annulments: Arc<dyn AnnulmentRegisters>,
        jobs: Arc<dyn JobStore>,
    ) -> Self {
        Self { definitions, annulments, jobs }
    }

    /// Returns the id of a budget that exists.
    fn budget(&self, id: &str) -> Result<BudgetId, Problem> {
        let catalog = self.definitions.catalog();
        let known = catalog.get(id).map(|budget| budget.id.clone());
        known.ok_or_else(|| no_such_budget(self.definitions.as_ref(), &[id]))
    }

    /// Returns the jobs; `None` while they cannot be read.
    async fn jobs(&self) -> Option<Vec<Job>> {
        match timeout(READ_TIMEOUT, self.jobs.jobs()).await {
            Ok(Ok(jobs)) => Some(jobs),
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to read the jobs of annulments");
                None
            }
            Err(_) => None,
        }
    }

    async fn register(&self, budget: &BudgetId) -> Result<AnnulmentRegister, Problem> {
        let stored = match timeout(READ_TIMEOUT, self.annulments.annulments(budget)).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to read annulments");
                return Err(unavailable("the list of annulments cannot be read now"));
            }
            Err(_) => return Err(unavailable("the list of annulments could not be read in time")),
        };
        let unreadable = "the list of annulments is damaged, or a newer release wrote it";
        stored.register().cloned().ok_or_else(|| unavailable(unreadable))
    }
}

#[utoipa::path(
    get,
    path = "/v1/admin/budgets/{budget}/annulments",
    tag = "annulments",
    operation_id = "listAnnulments",
    summary = "Annulments of a budget, newest first",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    responses(
        (status = 200, description = "The annulments", body = AnnulmentList, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn list(
    State(service): State<AnnulmentService>,
    Path(budget): Path<String>,
) -> Result<Json<AnnulmentList>, Problem> {
    // Before the list: a part that is done meanwhile is not taken for an interrupted one.
    let budget = service.budget(&budget)?;
    let jobs = service.jobs().await;
    let register = service.register(&budget).await?;
    Ok(Json(AnnulmentList::of(&register, jobs.as_deref())))
}

#[utoipa::path(
    post,
    path = "/v1/admin/budgets/{budget}/annulments",
    tag = "annulments",
    operation_id = "annul",
    summary = "Annul people of a budget, or compute what that would change",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        JobRequest,
    ),
    request_body(content = ref("#/components/schemas/AnnulmentRequest"), content_type = "application/json"),
    responses(
        (status = 202, description = "The job; its id is the annulment's", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(
                ("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))),
                ("annulments" = (operation_id = "listAnnulments", parameters(("budget" = "$request.path.budget")))),
                ("restoration" = (operation_id = "restoreAnnulment",
                    parameters(("budget" = "$request.path.budget"), ("id" = "$response.body#/id")))),
            )),
    ),
    security(("administrator" = ["admin"])),
)]
pub(super) async fn annul(
    State(service): State<AnnulmentService>,
    Path(budget): Path<String>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let budget = service.budget(&budget)?;
    let parse = |headers: &_, body: &[u8], job| request_body::parse(&budget, job, headers, body);
    request.submit_parsed(parse).await
}

#[utoipa::path(
    post,
    path = "/v1/admin/budgets/{budget}/annulments/{id}/restore",
    tag = "annulments",
    operation_id = "restoreAnnulment",
    summary = "Restore the people of an annulment, or compute what that would change",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("id" = String, Path, description = "The annulment's id"),
        JobRequest,
    ),
    request_body(content = ref("#/components/schemas/ComparingJobOptions"), description = "Of the job",
        content_type = "application/json"),
    responses(
        (status = 202, description = "The job", body = ref("#/components/schemas/JobView"),
            content_type = "application/json",
            links(("job" = (operation_id = "getJob", parameters(("id" = "$response.body#/id")))))),
    ),
    security(("administrator" = ["admin"])),
)]
pub(super) async fn restore(
    State(service): State<AnnulmentService>,
    Path((budget, id)): Path<(String, String)>,
    request: JobRequest,
) -> Result<Response, Problem> {
    let budget = service.budget(&budget)?;
    let annulment: AnnulmentId = id.parse().map_err(|_| no_such_annulment())?;
    service.register(&budget).await?.get(annulment).ok_or_else(no_such_annulment)?;
    let parse = |headers: &_, body: &[u8], _| {
        let mut body = BodyMembers::parse(headers, body, EmptyBody::Allowed)?;
        body.reject_unknown(|member| matches!(member, "dry_run" | "priority"));
        let (dry_run, priority) = (body.flag("dry_run"), body.priority());
        let kind = JobKind::RestoreAnnulment { budget, annulment, dry_run };
        body.finish(Some(RequestedJob { kind, priority }))
    };
    request.submit_parsed(parse).await
}

fn no_such_annulment() -> Problem {
    Problem::new(ProblemKind::NotFound)
        .detail("there is no such annulment among those listed; one just submitted is listed once its job runs")
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable).detail(detail).retry_after(RETRY_AFTER)
}
