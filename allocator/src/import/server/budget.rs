//! The budget that a file is imported into: found as it is, or created.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use schemas::{BudgetId, Category, CategoryId, NAME_MAX_CHARS};
use serde::{Deserialize, Serialize};

use super::{Body, Server};
use crate::import::error::ImportError;

/// A budget's definition as far as an import makes one.
#[derive(Debug, Clone, Serialize)]
pub struct Definition {
    /// What it is called.
    pub name: String,
    /// What its money can go to.
    pub categories: Vec<Category>,
}

impl Definition {
    /// A definition with a name that is not too long.
    pub fn new(name: &str, categories: Vec<Category>) -> Self {
        Self { name: name.chars().take(NAME_MAX_CHARS).collect(), categories }
    }
}

/// A budget as far as an import looks at it.
#[derive(Deserialize)]
struct Found {
    categories: Vec<FoundCategory>,
}

#[derive(Deserialize)]
struct FoundCategory {
    id: CategoryId,
}

/// Whether the budget was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// It was.
    Existing,
    /// It has just been created, so not every process may know it yet.
    Created,
}

impl Budget {
    /// For how long a server may say that there is no such budget before it is believed.
    pub(super) fn unknown_for(self) -> Duration {
        match self {
            Self::Existing => Duration::ZERO,
            Self::Created => Duration::from_secs(10),
        }
    }
}

impl Server {
    /// Makes sure that the budget is there with exactly these categories, in whatever order; creates it if it is not
    /// there. What else an existing one has is left as it is.
    ///
    /// # Errors
    /// When it has other categories, may not be created, or the server does not answer.
    pub async fn ensure_budget(
        &self,
        id: &BudgetId,
        definition: &Definition,
    ) -> Result<Budget, ImportError> {
        if let Some(found) = self.budget_categories(id).await? {
            let ours: BTreeSet<_> = definition.categories.iter().map(|c| c.id.clone()).collect();
            if ours == found {
                return Ok(Budget::Existing);
            }
            let missing = listed(ours.difference(&found));
            let more = listed(found.difference(&ours));
            return Err(ImportError::Asked(format!(
                "the budget `{id}` has other categories than the file; choose another with --budget \
                 (only in the file: {missing}; only in the budget: {more})"
            )));
        }
        let body = serde_json::to_vec(definition)
            .map_err(|error| ImportError::Internal(error.to_string()))?;
        let body = Body { media_type: "application/json", bytes: body.into() };
        let answer = self.send(Method::PUT, &[id.as_str()], Some(body)).await?;
        match answer.status {
            status if status.is_success() => Ok(Budget::Created),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ImportError::Refused(format!(
                "the budget `{id}` may not be created: {}; name a file with the token of an administrator of the role \
                 `admin` by --token-file",
                answer.line()
            ))),
            _ => Err(ImportError::Refused(format!(
                "the budget `{id}` cannot be created: {}",
                answer.line()
            ))),
        }
    }

    /// Makes sure that the budget is there and has all of these categories.
    ///
    /// # Errors
    /// When it is not there or lacks one, or the server does not answer.
    pub async fn expect_budget(
        &self,
        id: &BudgetId,
        categories: &[Category],
    ) -> Result<Budget, ImportError> {
        let Some(found) = self.budget_categories(id).await? else {
            return Err(ImportError::Asked(format!("there is no budget `{id}`; create it first")));
        };
        let ours: BTreeSet<_> = categories.iter().map(|c| c.id.clone()).collect();
        if ours.is_subset(&found) {
            return Ok(Budget::Existing);
        }
        let unknown = listed(ours.difference(&found));
        Err(ImportError::Asked(format!("the budget `{id}` has no category {unknown}")))
    }

    async fn budget_categories(
        &self,
        id: &BudgetId,
    ) -> Result<Option<BTreeSet<CategoryId>>, ImportError> {
        let answer = self.send(Method::GET, &[id.as_str()], None).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND if answer.problem().is("not-found") => return Ok(None),
            _ => return Err(ImportError::Refused(format!("the budget `{id}`: {}", answer.line()))),
        }
        let found: Found = serde_json::from_slice(&answer.body).map_err(|error| {
            ImportError::Refused(format!(
                "its answer about the budget `{id}` is no budget: {error}"
            ))
        })?;
        Ok(Some(found.categories.into_iter().map(|category| category.id).collect()))
    }
}

fn listed<'c>(ids: impl Iterator<Item = &'c CategoryId>) -> String {
    let ids: Vec<String> = ids.map(|id| format!("`{id}`")).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}
