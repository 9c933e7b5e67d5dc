//! Freezes a budget's rules before its first submission: one change, even for many concurrent first submissions.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use schemas::{Budget, BudgetId};
use storage::control::{BudgetDefinitions, ControlTopicError, freeze_checked};

type FreezeTask = Shared<BoxFuture<'static, Result<Arc<Budget>, ControlTopicError>>>;

/// Freezes budgets and shares each running change among its callers.
#[derive(Clone)]
pub(crate) struct BudgetFreezer {
    definitions: Arc<dyn BudgetDefinitions>,
    running: Arc<Mutex<HashMap<BudgetId, FreezeTask>>>,
}

impl BudgetFreezer {
    pub fn new(definitions: Arc<dyn BudgetDefinitions>) -> Self {
        Self { definitions, running: Arc::default() }
    }

    /// Freezes the budget and returns its definition. It is not frozen if it no longer is the one that the caller has
    /// `checked` its submission against: the caller checks again.
    ///
    /// # Errors
    /// When the budget cannot be frozen.
    pub async fn freeze(&self, checked: &Arc<Budget>) -> Result<Arc<Budget>, ControlTopicError> {
        let task = {
            let mut running = self.running.lock();
            let id = &checked.id;
            if let Some(budget) = self.definitions.catalog().get(id.as_str())
                && budget.frozen
            {
                return Ok(Arc::clone(budget));
            }
            running
                .entry(id.clone())
                .or_insert_with(|| self.spawn_change(Arc::clone(checked)))
                .clone()
        };
        task.await
    }

    /// Starts the change as a task, which outlives the caller that asked for it first.
    fn spawn_change(&self, checked: Arc<Budget>) -> FreezeTask {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let id = &checked.id;
            let decide = |current: Option<&Budget>| freeze_checked(current, &checked);
            let change = AssertUnwindSafe(this.definitions.change(id, &decide)).catch_unwind();
            let result = change.await;
            this.running.lock().remove(id);
            if let Ok(Ok(budget)) = &result
                && budget.frozen
            {
                tracing::info!(
                    budget = %id,
                    revision = budget.revision,
                    "budget frozen by its first submission"
                );
            }
            result
        });
        task.map(|joined| match joined {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => {
                Err(ControlTopicError::Unavailable("freezing the budget panicked".to_owned()))
            }
        })
        .boxed()
        .shared()
    }
}
