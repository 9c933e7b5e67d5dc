//! `PUT /v1/budgets/{budget}`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use runtime::admin::Principal;
use runtime::http::RequestId;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId};
use storage::definitions::{ChangeRefused, DefinitionError, define as define_change};

use crate::answer;
use crate::media_type::IsJson;
use crate::parse;
use crate::service::{Ingest, RETRY_AFTER};
use crate::to_the_end::to_the_end;

pub(super) async fn define(
    State(ingest): State<Arc<Ingest>>,
    principal: Principal,
    Path(id): Path<String>,
    _: IsJson,
    request: Option<Extension<RequestId>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&id).map_err(|fault| {
        Problem::new(ProblemKind::Malformed).detail(format!("the budget's id in the path {fault}"))
    })?;
    let wanted = parse::definition(id, &body)?;
    // Whoever asked may go away: what is changed is logged all the same.
    let changed = to_the_end(async move {
        let (budget, is_new) = change(&ingest, &wanted).await?;
        tracing::info!(
            budget = %budget.id,
            revision = budget.revision,
            by = principal.name(),
            request = request.as_ref().map(|id| id.as_str()),
            "defined"
        );
        Ok::<_, Problem>((budget, is_new))
    });
    let (budget, is_new) = changed.await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    // Texts and numbers under text keys: there is nothing in it that JSON cannot hold.
    Ok(answer::json(status, serde_json::to_vec(&*budget).unwrap_or_default()))
}

async fn change(ingest: &Ingest, wanted: &Budget) -> Result<(Arc<Budget>, bool), Problem> {
    let is_new = AtomicBool::new(false);
    let decide = |current: Option<&Budget>| {
        is_new.store(current.is_none(), Ordering::Relaxed);
        define_change(current, wanted)
    };
    let changed = ingest.definitions.change(&wanted.id, &decide).await;
    let budget = changed.map_err(|error| match error {
        DefinitionError::Refused(ChangeRefused::Frozen) => Problem::new(ProblemKind::BudgetFrozen)
            .detail(
                "the budget has submissions: its categories, their order and its identity rule stay as they are",
            ),
        DefinitionError::Refused(ChangeRefused::Unknown) => {
            Problem::new(ProblemKind::NotFound).detail("there is no such budget")
        }
        DefinitionError::Unavailable(_) => Problem::new(ProblemKind::Unavailable)
            .detail("definitions cannot be written now, or do not say that they were: send it again")
            .retry_after(RETRY_AFTER),
    })?;
    Ok((budget, is_new.load(Ordering::Relaxed)))
}
