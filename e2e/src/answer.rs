//! What the answers of the system under test say.

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!("{} with a body that is not JSON: {}", self.status, self.text())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        HeaderName::try_from(name)
            .ok()
            .and_then(|name| self.headers.get(name))
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The answer, if it has this status.
    ///
    /// # Errors
    /// When it has another.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.text());
        Ok(self)
    }

    /// The problem that it is, checked for the form that all problems have.
    ///
    /// # Errors
    /// When it is none, or another than this.
    pub fn problem(&self, status: u16, slug: &str) -> Result<Value> {
        ensure!(
            self.status == status,
            "expected {status} {slug}, got {}: {}",
            self.status,
            self.text()
        );
        let media_type = self.header("content-type");
        ensure!(media_type == "application/problem+json", "a problem of media type {media_type:?}");
        let problem = self.json()?;
        check_problem(&problem, status, slug)?;
        Ok(problem)
    }
}

/// Checks the form that all problems have.
///
/// # Errors
/// When it has another.
pub fn check_problem(problem: &Value, status: u16, slug: &str) -> Result<()> {
    ensure!(problem["status"] == status, "status {status} is not repeated in {problem}");
    ensure!(problem["type"] == format!("/problems/{slug}"), "not of type {slug}: {problem}");
    for member in ["title", "detail", "instance"] {
        ensure!(
            problem[member].as_str().is_some_and(|text| !text.is_empty()),
            "no {member} in {problem}"
        );
    }
    Ok(())
}

/// Where a submission stands in the log, as its answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which of the deployment's logs: 0 before it was ever given another partition count.
    pub log: u32,
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
    /// Its opaque form.
    pub token: String,
}

/// Sends a request and reads the answer to its end.
///
/// # Errors
/// When there is no whole answer.
pub async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// The receipt of an accepted submission.
///
/// # Errors
/// When it was not accepted.
pub fn receipt(answer: &Answer) -> Result<Receipt> {
    ensure!(answer.status == 202, "expected 202, got {}: {}", answer.status, answer.text());
    receipt_in(&answer.json()?)
}

/// The receipt in the body of an accepted submission.
///
/// # Errors
/// When there is none.
pub fn receipt_in(body: &Value) -> Result<Receipt> {
    let number =
        |member: &str| body[member].as_u64().with_context(|| format!("no {member} in {body}"));
    let token = body["receipt"].as_str().with_context(|| format!("no receipt in {body}"))?;
    let log = match token.split('.').collect::<Vec<_>>()[..] {
        [log, _, _] => log.parse()?,
        _ => 0,
    };
    Ok(Receipt {
        log,
        partition: number("partition")? as u32,
        offset: number("offset")?,
        token: token.to_owned(),
    })
}
