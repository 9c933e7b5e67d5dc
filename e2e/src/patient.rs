//! A client and a reader that send each failed request once more, as `docs/http.md` asks of clients.
//!
//! No second request may fail: what they see is what a deployment promises to its users while it is restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::load::{uuid, uuid_bits};
use crate::record::mix_128;
use crate::response::{HttpResponse, send};
use crate::system::System;

/// Interval between the requests of one client.
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);

/// What was requested.
#[derive(Debug, Default)]
pub struct Requested {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that were sent a second time.
    pub retried: u64,
}

/// A client that sends requests in a loop until it is stopped.
pub struct PatientClient {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Requested>>,
}

impl PatientClient {
    /// Starts submitting to a budget, once for each new person.
    pub fn start(system: &System, budget: &'static str) -> Self {
        let system = system.clone();
        Self::spawn(202, move |number, attempt| {
            let system = system.clone();
            async move { submit(&system, budget, number as usize + attempt, number).await }
        })
    }

    /// Starts reading a budget's aggregate.
    pub fn start_reading(system: &System, budget: &'static str) -> Self {
        let system = system.clone();
        Self::spawn(200, move |number, attempt| {
            let api = system.read_from(number as usize + attempt);
            let url = format!("{api}/v1/budgets/{budget}/aggregate");
            send(system.request(Method::GET, url))
        })
    }

    /// Sends the requests with numbers from 1, each until it has this status, but at most twice.
    fn spawn<F, R>(expected: u16, request: F) -> Self
    where
        F: Fn(u64, usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HttpResponse>> + Send,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut requested = Requested::default();
            for number in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let first = request(number, 0).await?;
                let response = if first.status < 500 {
                    first
                } else {
                    requested.retried += 1;
                    let retry_after =
                        first.header("retry-after").parse().context("no Retry-After")?;
                    sleep(Duration::from_secs(retry_after)).await;
                    request(number, 1).await?
                };
                response.expect(expected).with_context(|| format!("request {number}"))?;
                requested.succeeded += 1;
                sleep(REQUEST_INTERVAL).await;
            }
            Ok(requested)
        });
        Self { stop, task }
    }

    /// Stops after the request in flight.
    ///
    /// # Errors
    /// When a request failed twice.
    pub async fn stop(self) -> Result<Requested> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Submits for a new person to an ingest. The number decides the person and the submission id.
///
/// # Errors
/// When there is no response.
pub async fn submit(
    system: &System,
    budget: &str,
    ingest: usize,
    number: u64,
) -> Result<HttpResponse> {
    let url = format!("{}/v1/budgets/{budget}/submissions", system.write_to(ingest));
    let id = uuid(uuid_bits(mix_128(number)));
    let person = format!("patient-{number}");
    let body = json!({"person": person, "submission_id": id, "allocation": {"c0": 100}});
    send(system.request(Method::POST, url).json(&body)).await
}
