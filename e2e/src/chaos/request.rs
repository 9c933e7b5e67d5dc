//! One request of the load, and the outcome of its response.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::history::{Attempt, History, Outcome};
use crate::load::uuid;
use crate::response::{HttpResponse, RecordAddress, receipt, send};
use crate::system::{System, allocation};

/// Request timeout of the clients.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// The content of a request.
#[derive(Debug, Clone)]
pub enum Content {
    /// A valid allocation.
    Allocate(Vec<u32>),
    /// A withdrawal.
    Withdraw,
    /// An invalid allocation, which must be rejected.
    Invalid(Value),
}

/// One request.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The budget.
    pub budget: &'static str,
    /// Number of the person.
    pub person: u64,
    /// The submission id.
    pub submission: u128,
    /// The content.
    pub content: Content,
}

/// Sends a request once to the ingest at `ingest` and records its outcome.
pub async fn send_once(
    system: &System,
    request: &ClientRequest,
    ingest: &str,
    history: &mut History,
) -> Outcome {
    exchange(system, request, ingest, history).await.outcome
}

/// An outcome, and the response that reported it.
#[derive(Debug)]
pub struct Exchange {
    /// The outcome.
    pub outcome: Outcome,
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// The receipt, if the submission was accepted.
    pub receipt: Option<RecordAddress>,
}

/// Does the same as [`send_once`], and returns what the response says.
pub async fn exchange(
    system: &System,
    request: &ClientRequest,
    ingest: &str,
    history: &mut History,
) -> Exchange {
    let exchange = match send(build(system, request, ingest).timeout(CLIENT_TIMEOUT)).await {
        Ok(response) => {
            let outcome = outcome_of(request, &response).unwrap_or_else(|| {
                let (status, text) = (response.status, response.text());
                history.wrong.push(format!("{request:?} got {status}: {text}"));
                Outcome::Unknown
            });
            Exchange { outcome, status: Some(response.status), receipt: receipt(&response).ok() }
        }
        // The connection failed, so nothing was sent.
        Err(error)
            if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) =>
        {
            Exchange { outcome: Outcome::Rejected, status: None, receipt: None }
        }
        Err(_) => Exchange { outcome: Outcome::Unknown, status: None, receipt: None },
    };
    let outcome = exchange.outcome;
    history.attempts.push(Attempt { submission: request.submission, outcome });
    exchange
}

fn build(system: &System, request: &ClientRequest, ingest: &str) -> RequestBuilder {
    let path = format!("{ingest}/v1/budgets/{}/submissions", request.budget);
    let (person, id) = (format!("p-{}", request.person), uuid(request.submission));
    let submit = |allocation: Value| {
        let body = json!({"person": person, "submission_id": id, "allocation": allocation});
        system.request(Method::POST, path.clone()).json(&body)
    };
    match &request.content {
        Content::Allocate(shares) => submit(allocation(shares)),
        Content::Invalid(invalid) => submit(invalid.clone()),
        Content::Withdraw => system
            .request(Method::DELETE, format!("{path}/{person}"))
            .header("idempotency-key", &id),
    }
}

/// The outcome that a response reports. `None` if the response violates the contract.
fn outcome_of(request: &ClientRequest, response: &HttpResponse) -> Option<Outcome> {
    let invalid = matches!(request.content, Content::Invalid(_));
    match response.status {
        202 if !invalid => {
            let receipt = receipt(response).ok()?;
            Some(Outcome::Acknowledged { partition: receipt.partition, offset: receipt.offset })
        }
        400 | 422 if invalid => Some(Outcome::Rejected),
        // Another request with the same id is in flight, or was accepted with different content.
        409 => response.problem(409, "in-flight").ok().map(|_| Outcome::Rejected),
        422 => response.problem(422, "key-reused").ok().map(|_| Outcome::Rejected),
        503 => {
            let problem = response.problem(503, "unavailable").ok()?;
            let unknown = problem["detail"].as_str()?.contains("unknown");
            Some(if unknown { Outcome::Unknown } else { Outcome::Rejected })
        }
        _ => None,
    }
}
