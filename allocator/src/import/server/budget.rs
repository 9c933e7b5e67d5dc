//! Finds or creates the budget of an import.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use schemas::{BudgetId, Category, CategoryId, NAME_MAX_CHARS};
use serde::{Deserialize, Serialize};

use super::{Body, Server};
use crate::import::error::ImportError;

/// The definition of a budget that an import creates.
#[derive(Debug, Clone, Serialize)]
pub struct Definition {
    /// Display name.
    pub name: String,
    /// The categories of the budget.
    pub categories: Vec<Category>,
}

impl Definition {
    /// Creates a definition. Truncates names to the maximum length, and replaces their control characters.
    pub fn new(name: &str, categories: Vec<Category>) -> Self {
        let named = |category: Category| Category { name: printable(&category.name), ..category };
        Self { name: printable(name), categories: categories.into_iter().map(named).collect() }
    }
}

fn printable(name: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    name.chars().take(NAME_MAX_CHARS).map(printable).collect()
}

/// The members of a budget that an import reads.
#[derive(Deserialize)]
struct BudgetResponse {
    categories: Vec<CategoryResponse>,
}

#[derive(Deserialize)]
struct CategoryResponse {
    id: CategoryId,
}

/// Whether the budget existed before the import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// The budget existed before.
    Existing,
    /// The import created the budget, so some processes may not have loaded it yet.
    Created,
}

impl Budget {
    /// How long a 404 of this budget counts as transient.
    pub(super) fn propagation_time(self) -> Duration {
        match self {
            Self::Existing => Duration::ZERO,
            Self::Created => Duration::from_secs(10),
        }
    }
}

impl Server {
    /// Checks that the budget has exactly these categories, in any order. Creates the budget if it is absent.
    ///
    /// An existing budget is not changed.
    ///
    /// # Errors
    /// When the budget has other categories, cannot be created, or the server is unavailable.
    pub async fn ensure_budget(
        &self,
        id: &BudgetId,
        definition: &Definition,
    ) -> Result<Budget, ImportError> {
        if let Some(found) = self.budget_categories(id).await? {
            let in_file: BTreeSet<_> = definition.categories.iter().map(|c| c.id.clone()).collect();
            if in_file == found {
                return Ok(Budget::Existing);
            }
            let only_in_file = join_ids(in_file.difference(&found));
            let only_in_budget = join_ids(found.difference(&in_file));
            return Err(ImportError::Usage(format!(
                "the budget `{id}` has other categories than the file; choose another budget with --budget \
                 (only in the file: {only_in_file}; only in the budget: {only_in_budget})"
            )));
        }
        let body = serde_json::to_vec(definition)
            .map_err(|error| ImportError::Internal(error.to_string()))?;
        let body = Body { media_type: "application/json", bytes: body.into() };
        let response = self.send(Method::PUT, &[id.as_str()], Some(body)).await?;
        match response.status {
            status if status.is_success() => Ok(Budget::Created),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(ImportError::Rejected(format!(
                    "not allowed to create the budget `{id}`: {}; pass a file with a token of the role `admin` as \
                 --token-file",
                    response.summary()
                )))
            }
            _ => Err(ImportError::Rejected(format!(
                "could not create the budget `{id}`: {}",
                response.summary()
            ))),
        }
    }

    /// Checks that the budget exists and has all of these categories.
    ///
    /// # Errors
    /// When the budget does not exist, lacks a category, or the server is unavailable.
    pub async fn expect_budget(
        &self,
        id: &BudgetId,
        categories: &[Category],
    ) -> Result<Budget, ImportError> {
        let Some(found) = self.budget_categories(id).await? else {
            return Err(ImportError::Usage(format!("there is no budget `{id}`; create it first")));
        };
        let in_file: BTreeSet<_> = categories.iter().map(|c| c.id.clone()).collect();
        if in_file.is_subset(&found) {
            return Ok(Budget::Existing);
        }
        let unknown = join_ids(in_file.difference(&found));
        Err(ImportError::Usage(format!("the budget `{id}` has no category {unknown}")))
    }

    async fn budget_categories(
        &self,
        id: &BudgetId,
    ) -> Result<Option<BTreeSet<CategoryId>>, ImportError> {
        let response = self.send(Method::GET, &[id.as_str()], None).await?;
        match response.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND if response.problem().is("not-found") => return Ok(None),
            _ => {
                return Err(ImportError::Rejected(format!(
                    "the budget `{id}`: {}",
                    response.summary()
                )));
            }
        }
        let found: BudgetResponse = serde_json::from_slice(&response.body).map_err(|error| {
            ImportError::Rejected(format!("invalid response for the budget `{id}`: {error}"))
        })?;
        Ok(Some(found.categories.into_iter().map(|category| category.id).collect()))
    }
}

fn join_ids<'c>(ids: impl Iterator<Item = &'c CategoryId>) -> String {
    let ids: Vec<String> = ids.map(|id| format!("`{id}`")).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}
