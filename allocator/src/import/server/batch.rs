//! One batch of submissions, sent until each of its items has a final answer.

use reqwest::{Method, StatusCode};
use schemas::BudgetId;
use serde::Deserialize;
use tokio::time::Instant;

use super::budget::Budget;
use super::problem::Problem;
use super::{Answer, Body, Failure, Server};
use crate::import::error::ImportError;

/// The most items that a batch may have.
pub const BATCH_MAX_ITEMS: usize = 1000;
/// The most bytes of a batch of several items. One item alone may have more, but never more than a line, so that
/// every batch is below the 2 MiB that a server takes.
pub const BATCH_MAX_BYTES: usize = 512 * 1024;

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It is in the log now.
    Accepted,
    /// It was there before.
    Repeated,
    /// The server does not take it, for this reason.
    Refused(String),
}

#[derive(Deserialize)]
struct Results {
    results: Vec<ItemResult>,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    replayed: bool,
    #[serde(default)]
    problem: Problem,
}

impl ItemResult {
    /// The item's final answer.
    ///
    /// # Errors
    /// The reason of "not now".
    fn outcome(&self) -> Result<ItemOutcome, String> {
        let reason = || self.problem.line(self.status);
        match self.status {
            202 if self.replayed => Ok(ItemOutcome::Repeated),
            202 => Ok(ItemOutcome::Accepted),
            // Another request with the same submission, of ours, is not finished: its answer comes soon.
            409 if self.problem.is("in-flight") => Err(reason()),
            429 | 500..=599 => Err(reason()),
            _ => Ok(ItemOutcome::Refused(reason())),
        }
    }
}

impl Server {
    /// Sends items, one JSON text each, and says what became of each. Items that the server cannot take now are sent
    /// again, with the same submission ids.
    ///
    /// # Errors
    /// When the server refuses the batch as a whole, or patience ends. Some items may have been accepted.
    pub async fn submit(
        &self,
        id: &BudgetId,
        budget: Budget,
        items: &[String],
    ) -> Result<Vec<ItemOutcome>, ImportError> {
        let began = Instant::now();
        let mut outcomes: Vec<Option<ItemOutcome>> = vec![None; items.len()];
        let mut attempts = self.attempts();
        loop {
            let may_be_unknown = began.elapsed() < budget.unknown_for();
            match self.submit_once(id, items, &mut outcomes, may_be_unknown).await {
                Ok(()) => return Ok(outcomes.into_iter().flatten().collect()),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    /// Sends the items that have no outcome yet, once.
    async fn submit_once(
        &self,
        id: &BudgetId,
        items: &[String],
        outcomes: &mut [Option<ItemOutcome>],
        may_be_unknown: bool,
    ) -> Result<(), Failure> {
        let open: Vec<(&String, &mut Option<ItemOutcome>)> =
            items.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()).collect();
        let body = ndjson(open.iter().map(|(item, _)| *item));
        let answer =
            self.once(&Method::POST, &[id.as_str(), "submissions", "batch"], Some(&body)).await?;
        let mut not_now = None;
        let results = results(&answer, open.len(), may_be_unknown)?;
        for ((_, place), result) in open.into_iter().zip(results) {
            match result.outcome() {
                Ok(outcome) => *place = Some(outcome),
                Err(reason) => {
                    not_now = Some(Failure::Passing { reason, retry_after: answer.retry_after });
                }
            }
        }
        not_now.map_or(Ok(()), Err)
    }
}

/// The results in an answer, one for each item sent.
fn results(
    answer: &Answer,
    items: usize,
    may_be_unknown: bool,
) -> Result<Vec<ItemResult>, Failure> {
    let refused = |detail: String| Failure::Final(ImportError::Refused(detail));
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if may_be_unknown => {
            return Err(Failure::Passing { reason: answer.line(), retry_after: None });
        }
        _ => return Err(refused(format!("a batch: {}", answer.line()))),
    }
    let Results { results } = serde_json::from_slice(&answer.body)
        .map_err(|error| refused(format!("its answer to a batch is none: {error}")))?;
    if results.len() != items {
        let found = results.len();
        return Err(refused(format!("it answered {found} results to a batch of {items}")));
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
