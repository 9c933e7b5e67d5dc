//! Freezing a budget before its first submission: once, however many first submissions come at the same time.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use schemas::{Budget, BudgetId};
use storage::definitions::{DefinitionError, Definitions, freeze};

type Freezing = Shared<BoxFuture<'static, Result<Arc<Budget>, DefinitionError>>>;

/// The freezings that are going on.
#[derive(Clone)]
pub(crate) struct Freezes {
    definitions: Arc<dyn Definitions>,
    running: Arc<Mutex<HashMap<BudgetId, Freezing>>>,
}

impl Freezes {
    pub fn new(definitions: Arc<dyn Definitions>) -> Self {
        Self { definitions, running: Arc::default() }
    }

    /// The budget's definition once it is frozen. Its categories may have changed since the caller last looked.
    ///
    /// # Errors
    /// When it could not be frozen now.
    pub async fn frozen(&self, id: &BudgetId) -> Result<Arc<Budget>, DefinitionError> {
        let freezing = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(budget) = self.definitions.catalog().get(id.as_str())
                && budget.frozen
            {
                return Ok(Arc::clone(budget));
            }
            running.entry(id.clone()).or_insert_with(|| self.begin(id.clone())).clone()
        };
        freezing.await
    }

    fn begin(&self, id: BudgetId) -> Freezing {
        let this = self.clone();
        // A task of its own: whoever asked first may go away.
        let task = tokio::spawn(async move {
            let change = AssertUnwindSafe(this.definitions.change(&id, &freeze)).catch_unwind();
            let outcome = change.await;
            this.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            if let Ok(Ok(budget)) = &outcome {
                tracing::info!(budget = %id, revision = budget.revision, "frozen by its first submission");
            }
            outcome
        });
        task.map(|ended| match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                Err(DefinitionError::Unavailable("the change ended in a panic".to_owned()))
            }
        })
        .boxed()
        .shared()
    }
}
