//! `POST /v1/admin/budgets/{budget}/forget`: forgets the persons of a closed budget.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use runtime::admin::Principal;
use runtime::problem::{Problem, ProblemKind};
use schemas::BudgetId;
use serde::Serialize;
use storage::control::{BudgetDefinitions, ChangeRefused, ControlTopicError, Erasure};
use storage::forget::{ForgetError, forget_persons};
use storage::signals::SignalEraser;
use storage::store::Store;
use utoipa::ToSchema;

use crate::routes::RETRY_AFTER;

/// Forgets the persons of budgets.
#[derive(Clone)]
pub struct ForgetService {
    definitions: Arc<dyn BudgetDefinitions>,
    store: Arc<dyn Store>,
    signals: Arc<dyn SignalEraser>,
}

impl ForgetService {
    /// Creates the service over the definitions that it changes, the totals that it requires, and the signals that it
    /// erases.
    pub fn new(
        definitions: Arc<dyn BudgetDefinitions>,
        store: Arc<dyn Store>,
        signals: Arc<dyn SignalEraser>,
    ) -> Self {
        Self { definitions, store, signals }
    }
}

/// A budget whose persons are forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ForgottenBudget {
    budget: String,
    /// When the persons were forgotten (RFC 3339).
    forgotten_at: String,
    /// Whether no copy of the secret is left. `false`: Kafka keeps former definitions until it compacts them.
    is_erased: bool,
}

#[utoipa::path(
    post,
    path = "/v1/admin/budgets/{budget}/forget",
    tag = "administration",
    operation_id = "forgetPersons",
    summary = "Forget the persons of a closed budget for ever",
    description = "Destroys what persons are found by. Totals and log stay. Repeated, it has no further effect.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    responses(
        (status = 200, description = "The persons are forgotten", body = ForgottenBudget,
            content_type = "application/json"),
    ),
    security(("administrator" = ["admin"])),
)]
pub(super) async fn forget(
    State(service): State<ForgetService>,
    principal: Principal,
    Path(budget): Path<String>,
) -> Result<Json<ForgottenBudget>, Problem> {
    let budget = BudgetId::parse(&budget).map_err(|_| no_such_budget())?;
    // Former definitions are erased even if the client hangs up.
    let forgotten = tokio::spawn(async move {
        let (definitions, store) = (service.definitions.as_ref(), service.store.as_ref());
        let (signals, now) = (service.signals.as_ref(), Timestamp::now());
        let forgotten = forget_persons(definitions, store, signals, &budget, now).await?;
        tracing::info!(%budget, by = principal.name(), "persons of a budget forgotten");
        Ok(ForgottenBudget {
            budget: budget.to_string(),
            forgotten_at: forgotten.at.to_string(),
            is_erased: forgotten.erasure == Erasure::Erased,
        })
    });
    let forgotten = forgotten.await.map_err(|_| Problem::new(ProblemKind::Internal))?;
    forgotten.map(Json).map_err(|error| refused(&error))
}

fn no_such_budget() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("there is no such budget")
}

fn refused(error: &ForgetError) -> Problem {
    let kind = match error {
        ForgetError::Definition(ControlTopicError::Refused(ChangeRefused::Unknown)) => {
            return no_such_budget();
        }
        ForgetError::NotFinal
        | ForgetError::Definition(ControlTopicError::Refused(
            ChangeRefused::NotClosed | ChangeRefused::NoSalt,
        )) => ProblemKind::WrongState,
        ForgetError::Definition(_)
        | ForgetError::NotErased(_)
        | ForgetError::SignalsNotErased(_) => ProblemKind::Unavailable,
        ForgetError::Store(error) => {
            tracing::warn!(%error, "failed to read the totals of a budget to be forgotten");
            return Problem::new(ProblemKind::Unavailable)
                .detail("the totals of the budget cannot be read now; nothing was forgotten")
                .retry_after(RETRY_AFTER);
        }
    };
    let problem = Problem::new(kind).detail(error.to_string());
    match kind {
        ProblemKind::Unavailable => problem.retry_after(RETRY_AFTER),
        _ => problem,
    }
}
