//! The HTTP client of a load: submits until the outcome is certain, and reads the aggregate.

use std::time::Duration;

use reqwest::header::{IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};
use schemas::{BudgetId, CategoryId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::LoadError;
use super::measurements::Measurements;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Delay before the first retry; it doubles up to the maximum.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Retries before a submission is given up, some minutes.
const MAX_RETRIES: u32 = 60;

/// Sends the requests of a load to one budget.
#[derive(Clone)]
pub struct LoadClient {
    client: Client,
    base: Url,
    budget: BudgetId,
}

/// The aggregate of a budget.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Aggregate {
    /// Number of people.
    pub people: u64,
    /// The categories in the budget's order.
    pub categories: Vec<CategorySum>,
}

/// One category of an aggregate.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct CategorySum {
    /// The category.
    pub id: CategoryId,
    /// Sum of all shares.
    pub total_basis_points: u64,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, with this receipt.
    Accepted(String),
    /// Rejected for good.
    Rejected(String),
}

impl LoadClient {
    /// Creates a client.
    ///
    /// # Errors
    /// When the address is not an HTTP URL.
    pub fn new(url: &str, budget: BudgetId) -> Result<Self, LoadError> {
        let base = Url::parse(url).map_err(|error| LoadError::Usage(format!("--url: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(LoadError::Usage("--url must be like http://127.0.0.1:8000".to_owned()));
        }
        let client = runtime::http_client::builder()
            .user_agent(concat!("allocator-load/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, base, budget })
    }

    /// The server's address, without a password.
    pub fn address(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // A URL with a host always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "budgets", self.budget.as_str()]).extend(path);
        }
        url
    }

    /// Reads the aggregate.
    ///
    /// # Errors
    /// When there is no answer, or the results are withheld.
    pub async fn aggregate(&self) -> Result<Aggregate, LoadError> {
        let request = self.client.get(self.url(&["aggregate"])).timeout(REQUEST_TIMEOUT);
        let response = request.send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        if body.get("withheld").is_some() {
            return Err(LoadError::Withheld(self.budget.clone()));
        }
        if !status.is_success() {
            return Err(LoadError::Refused(summary(status.as_u16(), &body)));
        }
        Ok(serde_json::from_value(body)?)
    }

    /// Waits until the aggregate contains a submission. Returns whether it does in time.
    pub async fn wait_until_visible(&self, receipt: &str) -> bool {
        let request = self.client.get(self.url(&["aggregate"])).timeout(REQUEST_TIMEOUT);
        let request = request.header("consistency-token", receipt).header("prefer", "wait=10");
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Reads the aggregate as a client with a cache does. Returns the new ETag and whether the read succeeded.
    pub async fn poll(&self, etag: &str) -> (String, bool) {
        let request = self.client.get(self.url(&["aggregate"])).timeout(REQUEST_TIMEOUT);
        let Ok(response) = request.header(IF_NONE_MATCH, etag).send().await else {
            return (String::new(), false);
        };
        let succeeded = response.status().is_success() || response.status().as_u16() == 304;
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        (etag.unwrap_or_default().to_owned(), succeeded)
    }

    /// Opens a stream of the aggregate.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn stream(&self) -> Result<Response, LoadError> {
        let response = self.client.get(self.url(&["aggregate", "stream"])).send().await?;
        Ok(response.error_for_status()?)
    }

    /// Submits an allocation, or withdraws, and retries with the same id until the outcome is certain.
    ///
    /// # Errors
    /// When it is not after many retries.
    pub async fn submit(
        &self,
        person: &str,
        allocation: Option<Map<String, Value>>,
        measurements: &Measurements,
    ) -> Result<Outcome, LoadError> {
        let id = Uuid::new_v4().to_string();
        let mut delay = RETRY_DELAY;
        for _ in 0..MAX_RETRIES {
            let (reason, retry_after) = match self.submit_once(person, &allocation, &id).await {
                Ok((202, body, _)) => {
                    let receipt = body["receipt"].as_str().unwrap_or_default().to_owned();
                    return Ok(Outcome::Accepted(receipt));
                }
                Ok((status @ (408 | 409 | 429 | 500..=599), body, retry_after))
                    if status != 409 || is_in_flight(&body) =>
                {
                    (summary(status, &body), retry_after)
                }
                Ok((status, body, _)) => return Ok(Outcome::Rejected(summary(status, &body))),
                Err(error) => (error.to_string(), None),
            };
            measurements.retried(reason);
            let jittered = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::time::sleep(jittered.max(retry_after.unwrap_or_default())).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
        Err(LoadError::Unsettled)
    }

    async fn submit_once(
        &self,
        person: &str,
        allocation: &Option<Map<String, Value>>,
        id: &str,
    ) -> Result<(u16, Value, Option<Duration>), reqwest::Error> {
        let request = match allocation {
            Some(allocation) => {
                let body = json!({"person": person, "allocation": allocation});
                self.client.post(self.url(&["submissions"])).json(&body)
            }
            None => self.client.request(Method::DELETE, self.url(&["submissions", person])),
        };
        let response =
            request.header("idempotency-key", id).timeout(REQUEST_TIMEOUT).send().await?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?)));
        Ok((status, response.json().await.unwrap_or_default(), retry_after))
    }
}

fn is_in_flight(problem: &Value) -> bool {
    problem["type"] == "/problems/in-flight"
}

fn summary(status: u16, problem: &Value) -> String {
    let detail = problem["detail"].as_str().or_else(|| problem["title"].as_str());
    format!("{status} {}", detail.unwrap_or_default())
}
