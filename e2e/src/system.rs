//! The system under test as its HTTP clients see it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::oracle::Totals;
use crate::response::{HttpResponse, RecordAddress, receipt, receipt_from_body, send};
use crate::wait::eventually;

/// Number of people who cover every partition: they miss one of twelve in less than one run of ten million.
const WITNESSES: usize = 200;

fn client_builder() -> ClientBuilder {
    crate::http_client::builder().timeout(Duration::from_secs(20))
}

/// The addresses of a system under test, with an HTTP client.
#[derive(Debug, Clone)]
pub struct System {
    /// Base URLs of the ingests.
    pub writes: Vec<String>,
    /// Base URLs of the APIs.
    pub reads: Vec<String>,
    client: Client,
}

impl System {
    /// Creates a client of these addresses.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(writes: Vec<String>, reads: Vec<String>) -> Result<Self> {
        Ok(Self { writes, reads, client: client_builder().build()? })
    }

    /// Sends an administrator's token with every request.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn with_token(mut self, token: &str) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
        self.client = client_builder().default_headers(headers).build()?;
        Ok(self)
    }

    /// The same system without a token.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn without_token(&self) -> Result<Self> {
        Self::new(self.writes.clone(), self.reads.clone())
    }

    /// The base URL of one ingest.
    pub fn write_to(&self, which: usize) -> &str {
        pick(&self.writes, which)
    }

    /// The base URL of one API.
    pub fn read_from(&self, which: usize) -> &str {
        pick(&self.reads, which)
    }

    /// Creates a request to any URL.
    pub fn request(&self, method: Method, url: String) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Reads a path from the first API.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn get(&self, path: &str) -> Result<HttpResponse> {
        send(self.request(Method::GET, format!("{}{path}", self.read_from(0)))).await
    }

    /// Reads a path from the first API with additional headers.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<HttpResponse> {
        let mut request = self.request(Method::GET, format!("{}{path}", self.read_from(0)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// Posts a JSON body to the first ingest.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn post(&self, path: &str, body: &Value) -> Result<HttpResponse> {
        send(self.request(Method::POST, format!("{}{path}", self.write_to(0))).json(body)).await
    }

    /// Posts a body of any media type to the first ingest.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn post_text(
        &self,
        path: &str,
        media_type: &str,
        body: impl Into<String>,
    ) -> Result<HttpResponse> {
        let request = self.request(Method::POST, format!("{}{path}", self.write_to(0)));
        send(request.header("content-type", media_type).body(body.into())).await
    }

    /// Creates a budget with the categories `c0`, `c1`, …. Waits until every service has loaded it.
    ///
    /// # Errors
    /// When the budget is not created, or not loaded within thirty seconds.
    pub async fn define(&self, budget: &str, categories: usize) -> Result<()> {
        self.define_with(budget, &definition(categories)).await
    }

    /// Creates a budget and waits until every service has loaded it.
    ///
    /// # Errors
    /// When the budget is not created, or not loaded within thirty seconds.
    pub async fn define_with(&self, budget: &str, definition: &Value) -> Result<()> {
        let url = format!("{}/v1/budgets/{budget}", self.write_to(0));
        eventually("the definition is stored", Duration::from_secs(30), async || {
            let response = send(self.request(Method::PUT, url.clone()).json(definition)).await?;
            ensure!(
                matches!(response.status, 200 | 201),
                "PUT returned {}: {}",
                response.status,
                response.text()
            );
            Ok(())
        })
        .await?;
        self.wait_until_known(budget, Duration::from_secs(30)).await
    }

    /// Waits until every service has loaded a budget.
    ///
    /// # Errors
    /// When it is not loaded within `timeout`.
    pub async fn wait_until_known(&self, budget: &str, timeout: Duration) -> Result<()> {
        eventually("every service has loaded the budget", timeout, async || {
            for read in &self.reads {
                send(self.request(Method::GET, format!("{read}/v1/budgets/{budget}")))
                    .await?
                    .expect(200)?;
            }
            for write in &self.writes {
                let url = format!("{write}/v1/budgets/{budget}/submissions");
                let invalid = json!({"person": "p", "allocation": {"no-such-category": 1}});
                let response = send(self.request(Method::POST, url).json(&invalid)).await?;
                // The submission is invalid: only an ingest without the budget returns 404.
                ensure!(response.status != 404, "{write} has not loaded {budget} yet");
            }
            Ok(())
        })
        .await
    }

    /// Submits an allocation and returns its receipt.
    ///
    /// # Errors
    /// When the submission is not accepted.
    pub async fn submit(
        &self,
        budget: &str,
        person: &str,
        shares: &[u32],
    ) -> Result<RecordAddress> {
        let body = json!({"person": person, "allocation": allocation(shares)});
        receipt(&self.post(&format!("/v1/budgets/{budget}/submissions"), &body).await?)
    }

    /// Reads a budget's totals from one API.
    ///
    /// # Errors
    /// When the API returns none.
    pub async fn totals(&self, api: usize, budget: &str) -> Result<Totals> {
        let url =
            format!("{}/v1/budgets/{budget}/aggregate?include=distribution", self.read_from(api));
        Totals::parse(&send(self.request(Method::GET, url)).await?.expect(200)?.json()?)
    }

    /// Checks that a budget counts exactly `people`, and that nothing else is in the log.
    ///
    /// Two hundred witnesses, who cover every partition, submit first: once they are counted, everything before them in
    /// the log is counted too. They give everything to the first category.
    ///
    /// # Errors
    /// When anything else is counted.
    pub async fn verify_counts_only(
        &self,
        budget: &str,
        categories: usize,
        people: &[Vec<u32>],
    ) -> Result<()> {
        let mut all = vec![0; categories];
        all[0] = 10_000;
        let witnesses: Vec<Value> = (0..WITNESSES)
            .map(|number| json!({"person": format!("witness-{number}"), "allocation": allocation(&all)}))
            .collect();
        let path = format!("/v1/budgets/{budget}/submissions/batch");
        let response = self.post(&path, &json!(witnesses)).await?.expect(200)?.json()?;
        let mut last: BTreeMap<u32, RecordAddress> = BTreeMap::new();
        for result in response["results"].as_array().into_iter().flatten() {
            let receipt = receipt_from_body(result)?;
            last.insert(receipt.partition, receipt);
        }
        for RecordAddress { token, .. } in last.values() {
            let path = format!("/v1/budgets/{budget}/aggregate");
            let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
            self.get_with(&path, &headers).await?.expect(200)?;
        }
        let witnesses = std::iter::repeat_n(&all, WITNESSES);
        let expected = Totals::from_allocations(categories, people.iter().chain(witnesses));
        let shown = self.totals(0, budget).await?;
        ensure!(shown == expected, "totals: {shown:?}, expected: {expected:?}");
        Ok(())
    }

    /// Waits until every API returns exactly these totals.
    ///
    /// # Errors
    /// When one API does not within `timeout`.
    pub async fn wait_until_shown(
        &self,
        budget: &str,
        expected: &Totals,
        timeout: Duration,
    ) -> Result<()> {
        for api in 0..self.reads.len() {
            eventually(&format!("API {api} shows the totals of {budget}"), timeout, async || {
                let shown = self.totals(api, budget).await?;
                ensure!(
                    shown == *expected,
                    "totals: {} people and {:?}, expected: {} and {:?}{}",
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

/// Builds a definition with the categories `c0`, `c1`, ….
pub fn definition(categories: usize) -> Value {
    let categories: Vec<Value> = (0..categories)
        .map(|index| json!({"id": format!("c{index}"), "name": format!("Category {index}")}))
        .collect();
    json!({"name": "A budget of the tests", "categories": categories})
}

/// Builds an allocation to the categories `c0`, `c1`, … in percent. Shares of 0 are omitted.
pub fn allocation(shares: &[u32]) -> Value {
    let given = shares.iter().enumerate().filter(|(_, share)| **share > 0);
    Value::Object(given.map(|(index, share)| (format!("c{index}"), percent(*share))).collect())
}

/// Converts basis points to a percentage with at most two decimals.
fn percent(basis_points: u32) -> Value {
    match basis_points % 100 {
        0 => json!(basis_points / 100),
        _ => json!(f64::from(basis_points) / 100.0),
    }
}
