//! One request of somebody, and what its answer says of it.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::history::{Attempt, History, Outcome};
use crate::answer::{Answer, receipt, send};
use crate::load::uuid;
use crate::system::{System, allocation};

/// How long a client waits for an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

/// What is said.
#[derive(Debug, Clone)]
pub enum Saying {
    /// Shares.
    Allocate(Vec<u32>),
    /// That nothing counts any more.
    Withdraw,
    /// Something that no one may accept.
    Nonsense(Value),
}

/// A person's turn.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The budget.
    pub budget: &'static str,
    /// Who.
    pub person: u64,
    /// Under which id.
    pub submission: u128,
    /// What.
    pub says: Saying,
}

/// Asks once, at the ingest at `to`, and notes what came of it.
pub async fn ask(system: &System, turn: &Turn, to: &str, history: &mut History) -> Outcome {
    let outcome = match send(request(system, turn, to).timeout(CLIENT_PATIENCE)).await {
        Ok(answer) => judge(turn, &answer).unwrap_or_else(|| {
            history.wrong.push(format!(
                "{turn:?} was answered {}: {}",
                answer.status,
                answer.text()
            ));
            Outcome::Unknown
        }),
        // Nobody listened: nothing was sent.
        Err(error)
            if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) =>
        {
            Outcome::Refused
        }
        Err(_) => Outcome::Unknown,
    };
    history.attempts.push(Attempt { submission: turn.submission, outcome });
    outcome
}

fn request(system: &System, turn: &Turn, to: &str) -> RequestBuilder {
    let path = format!("{to}/v1/budgets/{}/submissions", turn.budget);
    let (person, id) = (format!("p-{}", turn.person), uuid(turn.submission));
    let submit = |allocation: Value| {
        let body = json!({"person": person, "submission_id": id, "allocation": allocation});
        system.request(Method::POST, path.clone()).json(&body)
    };
    match &turn.says {
        Saying::Allocate(shares) => submit(allocation(shares)),
        Saying::Nonsense(nonsense) => submit(nonsense.clone()),
        Saying::Withdraw => system
            .request(Method::DELETE, format!("{path}/{person}"))
            .header("idempotency-key", &id),
    }
}

/// What an answer says; nothing, if it may not be given.
fn judge(turn: &Turn, answer: &Answer) -> Option<Outcome> {
    let nonsense = matches!(turn.says, Saying::Nonsense(_));
    match answer.status {
        202 if !nonsense => {
            let receipt = receipt(answer).ok()?;
            Some(Outcome::Acknowledged { partition: receipt.partition, offset: receipt.offset })
        }
        400 | 422 if nonsense => Some(Outcome::Refused),
        // The same id is being handled elsewhere, or was accepted with other words.
        409 => answer.problem(409, "in-flight").ok().map(|_| Outcome::Refused),
        422 => answer.problem(422, "key-reused").ok().map(|_| Outcome::Refused),
        503 => {
            let problem = answer.problem(503, "unavailable").ok()?;
            let unknown = problem["detail"].as_str()?.contains("unknown");
            Some(if unknown { Outcome::Unknown } else { Outcome::Refused })
        }
        _ => None,
    }
}
