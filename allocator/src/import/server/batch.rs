//! Sends a batch of submissions and retries until each item has a final outcome.

use reqwest::{Method, StatusCode};
use schemas::BudgetId;
use serde::Deserialize;
use tokio::time::Instant;

use super::budget::Budget;
use super::problem::ServerProblem;
use super::{Body, Failure, Server, ServerResponse};
use crate::import::error::ImportError;

/// Maximum number of items in a batch.
pub const BATCH_MAX_ITEMS: usize = 1000;
/// Maximum size of a batch of several items, in bytes. A single item may be larger, up to the maximum length of a line,
/// so that every batch is below the server's limit of 2 MiB.
pub const BATCH_MAX_BYTES: usize = 512 * 1024;

/// The final outcome of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// The submission was appended to the log.
    Accepted,
    /// The submission was already in the log.
    Repeated,
    /// The server rejected the item for this reason.
    Rejected(String),
}

#[derive(Deserialize)]
struct BatchResponse {
    results: Vec<ItemResult>,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    replayed: bool,
    #[serde(default)]
    problem: ServerProblem,
}

impl ItemResult {
    /// Returns the item's final outcome.
    ///
    /// # Errors
    /// The reason of a transient failure, after which the item must be sent again.
    fn outcome(&self) -> Result<ItemOutcome, String> {
        let reason = || self.problem.summary(self.status);
        match self.status {
            202 if self.replayed => Ok(ItemOutcome::Repeated),
            202 => Ok(ItemOutcome::Accepted),
            // An earlier attempt of this import is still in progress: a retry gets its result.
            409 if self.problem.is("in-flight") => Err(reason()),
            429 | 500..=599 => Err(reason()),
            _ => Ok(ItemOutcome::Rejected(reason())),
        }
    }
}

impl Server {
    /// Sends items, one JSON text each, and returns their final outcomes in order.
    ///
    /// Items that fail transiently are sent again with the same submission ids.
    ///
    /// # Errors
    /// When the server rejects the batch as a whole, or the retries time out. Some items may have been accepted.
    pub async fn submit(
        &self,
        id: &BudgetId,
        budget: Budget,
        items: &[String],
    ) -> Result<Vec<ItemOutcome>, ImportError> {
        let started = Instant::now();
        let mut outcomes: Vec<Option<ItemOutcome>> = vec![None; items.len()];
        let mut backoff = self.backoff();
        loop {
            let may_be_missing = started.elapsed() < budget.propagation_time();
            match self.submit_once(id, items, &mut outcomes, may_be_missing).await {
                Ok(()) => return Ok(outcomes.into_iter().flatten().collect()),
                Err(failure) => backoff.wait_after(failure).await?,
            }
        }
    }

    /// Sends the items without an outcome in one request.
    async fn submit_once(
        &self,
        id: &BudgetId,
        items: &[String],
        outcomes: &mut [Option<ItemOutcome>],
        may_be_missing: bool,
    ) -> Result<(), Failure> {
        let unsettled: Vec<(&String, &mut Option<ItemOutcome>)> =
            items.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()).collect();
        let body = ndjson(unsettled.iter().map(|(item, _)| *item));
        let response = self
            .send_once(&Method::POST, &[id.as_str(), "submissions", "batch"], Some(&body))
            .await?;
        let mut transient = None;
        let results = parse_results(&response, unsettled.len(), may_be_missing)?;
        for ((_, slot), result) in unsettled.into_iter().zip(results) {
            match result.outcome() {
                Ok(outcome) => *slot = Some(outcome),
                Err(reason) => {
                    transient =
                        Some(Failure::Transient { reason, retry_after: response.retry_after });
                }
            }
        }
        transient.map_or(Ok(()), Err)
    }
}

/// Parses the results of a response, one for each item sent.
fn parse_results(
    response: &ServerResponse,
    items: usize,
    may_be_missing: bool,
) -> Result<Vec<ItemResult>, Failure> {
    let rejected = |detail: String| Failure::Permanent(ImportError::Rejected(detail));
    match response.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if may_be_missing => {
            return Err(Failure::Transient { reason: response.summary(), retry_after: None });
        }
        _ => return Err(rejected(format!("batch: {}", response.summary()))),
    }
    let BatchResponse { results } = serde_json::from_slice(&response.body)
        .map_err(|error| rejected(format!("invalid response to a batch: {error}")))?;
    if results.len() != items {
        let found = results.len();
        return Err(rejected(format!(
            "the response has {found} results for a batch of {items} items"
        )));
    }
    Ok(results)
}

fn ndjson<'i>(items: impl Iterator<Item = &'i String>) -> Body {
    let mut bytes = Vec::new();
    for item in items {
        bytes.extend_from_slice(item.as_bytes());
        bytes.push(b'\n');
    }
    Body { media_type: "application/x-ndjson", bytes: bytes.into() }
}
