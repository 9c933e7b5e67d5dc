//! HTTP: what is sent to the system under test, wherever its parts are, and what its answers say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::oracle::Totals;
use crate::wait::eventually;

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
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
    /// Its opaque form.
    pub token: String,
}

/// A system under test: where it takes writes and where it answers reads.
#[derive(Debug, Clone)]
pub struct System {
    /// Addresses of each ingest, `http://host:port`.
    pub writes: Vec<String>,
    /// Addresses of each API.
    pub reads: Vec<String>,
    client: Client,
}

impl System {
    /// A client of these addresses.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn new(writes: Vec<String>, reads: Vec<String>) -> Result<Self> {
        let client = Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { writes, reads, client })
    }

    /// One of the ingests.
    pub fn write_to(&self, which: usize) -> &str {
        pick(&self.writes, which)
    }

    /// One of the APIs.
    pub fn read_from(&self, which: usize) -> &str {
        pick(&self.reads, which)
    }

    /// A request to any address.
    pub fn request(&self, method: Method, url: String) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// A read from the first API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        send(self.request(Method::GET, format!("{}{path}", self.read_from(0)))).await
    }

    /// A read from the first API with one more header.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.request(Method::GET, format!("{}{path}", self.read_from(0)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// A JSON body to the first ingest.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.request(Method::POST, format!("{}{path}", self.write_to(0))).json(body)).await
    }

    /// A body of any kind to the first ingest.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_text(
        &self,
        path: &str,
        media_type: &str,
        body: impl Into<String>,
    ) -> Result<Answer> {
        let request = self.request(Method::POST, format!("{}{path}", self.write_to(0)));
        send(request.header("content-type", media_type).body(body.into())).await
    }

    /// Creates a budget of so many categories, `c0` and on, and waits until every part of the system knows it.
    ///
    /// # Errors
    /// When it is not created, or not known within five seconds.
    pub async fn define(&self, budget: &str, categories: usize) -> Result<()> {
        self.define_as(budget, &definition(categories)).await
    }

    /// Creates a budget and waits until every part of the system knows it.
    ///
    /// # Errors
    /// When it is not created, or not known within five seconds.
    pub async fn define_as(&self, budget: &str, definition: &Value) -> Result<()> {
        let url = format!("{}/v1/budgets/{budget}", self.write_to(0));
        eventually("the definition is written", Duration::from_secs(10), async || {
            let answer = send(self.request(Method::PUT, url.clone()).json(definition)).await?;
            ensure!(
                matches!(answer.status, 200 | 201),
                "PUT answers {}: {}",
                answer.status,
                answer.text()
            );
            Ok(())
        })
        .await?;
        self.known(budget, Duration::from_secs(5)).await
    }

    /// Waits until every part of the system knows a budget.
    ///
    /// # Errors
    /// When it is not known within the bound.
    pub async fn known(&self, budget: &str, bound: Duration) -> Result<()> {
        eventually("every part knows the budget", bound, async || {
            for read in &self.reads {
                send(self.request(Method::GET, format!("{read}/v1/budgets/{budget}")))
                    .await?
                    .expect(200)?;
            }
            for write in &self.writes {
                let url = format!("{write}/v1/budgets/{budget}/submissions");
                let nonsense = json!({"person": "p", "allocation": {"no-such-category": 1}});
                let answer = send(self.request(Method::POST, url).json(&nonsense)).await?;
                // It is refused either way; one that does not know the budget says so.
                ensure!(answer.status != 404, "{write} does not know {budget} yet");
            }
            Ok(())
        })
        .await
    }

    /// Submits an allocation and expects it to be accepted.
    ///
    /// # Errors
    /// When it is not.
    pub async fn submit(&self, budget: &str, person: &str, shares: &[u32]) -> Result<Receipt> {
        let body = json!({"person": person, "allocation": allocation(shares)});
        receipt(&self.post(&format!("/v1/budgets/{budget}/submissions"), &body).await?)
    }

    /// The totals that one API shows for a budget.
    ///
    /// # Errors
    /// When it shows none.
    pub async fn totals(&self, api: usize, budget: &str) -> Result<Totals> {
        let url =
            format!("{}/v1/budgets/{budget}/aggregate?include=distribution", self.read_from(api));
        Totals::parse(&send(self.request(Method::GET, url)).await?.expect(200)?.json()?)
    }

    /// Waits until every API shows exactly these totals.
    ///
    /// # Errors
    /// When one does not within the bound.
    pub async fn shows(&self, budget: &str, expected: &Totals, bound: Duration) -> Result<()> {
        for api in 0..self.reads.len() {
            eventually(&format!("API {api} shows the totals of {budget}"), bound, async || {
                let shown = self.totals(api, budget).await?;
                ensure!(
                    shown == *expected,
                    "shown are {} people and {:?}, expected {} and {:?}{}",
                    shown.people,
                    shown.basis_points,
                    expected.people,
                    expected.basis_points,
                    if shown.basis_points == expected.basis_points {
                        "; distributions differ"
                    } else {
                        ""
                    }
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn pick(addresses: &[String], which: usize) -> &str {
    addresses.get(which % addresses.len().max(1)).map_or("", String::as_str)
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

/// A definition with categories `c0` and on.
pub fn definition(categories: usize) -> Value {
    let categories: Vec<Value> = (0..categories)
        .map(|place| json!({"id": format!("c{place}"), "name": format!("Category {place}")}))
        .collect();
    json!({"name": "A budget of the tests", "categories": categories})
}

/// Shares of the categories `c0` and on, as percentages; a category without a share is left out.
pub fn allocation(shares: &[u32]) -> Value {
    let named = shares.iter().enumerate().filter(|(_, share)| **share > 0);
    Value::Object(named.map(|(place, share)| (format!("c{place}"), percent(*share))).collect())
}

/// Basis points as a percentage with at most two decimals.
fn percent(basis_points: u32) -> Value {
    match basis_points % 100 {
        0 => json!(basis_points / 100),
        _ => json!(f64::from(basis_points) / 100.0),
    }
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
    Ok(Receipt {
        partition: number("partition")? as u32,
        offset: number("offset")?,
        token: body["receipt"]
            .as_str()
            .with_context(|| format!("no receipt in {body}"))?
            .to_owned(),
    })
}
