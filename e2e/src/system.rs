//! HTTP: what is sent to the system under test, wherever its parts are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::answer::{Answer, Receipt, receipt, receipt_in, send};
use crate::oracle::Totals;
use crate::wait::eventually;

/// So many that they leave out one of twelve partitions in less than one run of ten million.
const WITNESSES: usize = 200;

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

    /// Expects that nothing else of a budget is counted than `people`, and nothing else is on its way: everything that
    /// was in the log before is counted by now, since two hundred more people, who leave out no partition, are. They
    /// give all to the first category.
    ///
    /// # Errors
    /// When anything else is counted.
    pub async fn counts_only(
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
        let answer = self.post(&path, &json!(witnesses)).await?.expect(200)?.json()?;
        let mut last: BTreeMap<u32, Receipt> = BTreeMap::new();
        for result in answer["results"].as_array().into_iter().flatten() {
            let receipt = receipt_in(result)?;
            last.insert(receipt.partition, receipt);
        }
        for Receipt { token, .. } in last.values() {
            let path = format!("/v1/budgets/{budget}/aggregate");
            let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
            self.get_with(&path, &headers).await?.expect(200)?;
        }
        let witnesses = std::iter::repeat_n(&all, WITNESSES);
        let expected = Totals::of(categories, people.iter().chain(witnesses));
        let shown = self.totals(0, budget).await?;
        ensure!(shown == expected, "shown is {shown:?}, expected {expected:?}");
        Ok(())
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
