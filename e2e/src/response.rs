//! HTTP responses of the system under test.

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;

/// A response with its complete body.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Parses the body as JSON.
    ///
    /// # Errors
    /// When the body is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!("{} with a body that is not JSON: {}", self.status, self.text())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        HeaderName::try_from(name)
            .ok()
            .and_then(|name| self.headers.get(name))
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Returns the response if it has this status.
    ///
    /// # Errors
    /// When the status is another.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.text());
        Ok(self)
    }

    /// Parses the body as a problem and checks its members.
    ///
    /// # Errors
    /// When the body is not a problem of this status and slug.
    pub fn problem(&self, status: u16, slug: &str) -> Result<Value> {
        ensure!(
            self.status == status,
            "expected {status} {slug}, got {}: {}",
            self.status,
            self.text()
        );
        let media_type = self.header("content-type");
        ensure!(
            media_type == "application/problem+json",
            "the problem has the media type {media_type:?}"
        );
        let problem = self.json()?;
        check_problem(&problem, status, slug)?;
        Ok(problem)
    }
}

/// Checks the members that every problem has.
///
/// # Errors
/// When a member is missing or wrong.
pub fn check_problem(problem: &Value, status: u16, slug: &str) -> Result<()> {
    ensure!(
        problem["status"] == status,
        "the problem does not repeat the status {status}: {problem}"
    );
    ensure!(
        problem["type"] == format!("/problems/{slug}"),
        "the problem is not of type {slug}: {problem}"
    );
    for member in ["title", "detail", "instance"] {
        ensure!(
            problem[member].as_str().is_some_and(|text| !text.is_empty()),
            "no {member} in {problem}"
        );
    }
    Ok(())
}

/// The record address in the response to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAddress {
    /// Number of the log, 0 before the first repartition.
    pub log: u32,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The consistency token.
    pub token: String,
}

/// Sends a request and reads the complete response.
///
/// # Errors
/// When there is no complete response.
pub async fn send(request: RequestBuilder) -> Result<HttpResponse> {
    let response = request.send().await?;
    Ok(HttpResponse {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// Returns the receipt of an accepted submission.
///
/// # Errors
/// When the submission was not accepted.
pub fn receipt(response: &HttpResponse) -> Result<RecordAddress> {
    ensure!(response.status == 202, "expected 202, got {}: {}", response.status, response.text());
    receipt_from_body(&response.json()?)
}

/// Parses the receipt from the body of an accepted submission.
///
/// # Errors
/// When the body has no receipt.
pub fn receipt_from_body(body: &Value) -> Result<RecordAddress> {
    let number =
        |member: &str| body[member].as_u64().with_context(|| format!("no {member} in {body}"));
    let token = body["receipt"].as_str().with_context(|| format!("no receipt in {body}"))?;
    let address = token.split_once('-').map_or(token, |(address, _signature)| address);
    let log = match address.split('.').collect::<Vec<_>>()[..] {
        [log, _, _] => log.parse()?,
        _ => 0,
    };
    Ok(RecordAddress {
        log,
        partition: number("partition")? as u32,
        offset: number("offset")?,
        token: token.to_owned(),
    })
}
