//! Continuous readers that check three properties of the aggregate.
//!
//! Every response must satisfy the invariant, no reader may see an older version after a newer one, and responses with
//! the same ETag must have the same totals at every API.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use reqwest::Method;
use tokio::task::JoinSet;

use crate::oracle::{Totals, check_invariant};
use crate::response::{HttpResponse, send};
use crate::system::System;

/// Pause between two reads.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Timeout of a read that may fail.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Which failures readers tolerate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Every read must succeed.
    None,
    /// A read may fail, because the API may be down.
    Unavailable,
}

/// What one reader, or all of them, observed.
#[derive(Debug, Default)]
pub struct Observations {
    /// Number of successful reads.
    pub reads: u64,
    /// Versions that were lower than an earlier one, and such totals of a budget that only grows.
    pub regressions: Vec<String>,
    /// Other violations.
    pub wrong: Vec<String>,
}

impl Observations {
    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.regressions.extend(other.regressions);
        self.wrong.extend(other.wrong);
    }
}

/// Running readers, one for each API.
pub struct Watch {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Observations>,
}

impl Watch {
    /// Starts reading a budget's aggregate at every API.
    pub fn start(system: &System, budget: &str, tolerance: Tolerance) -> Self {
        Self::spawn(system, budget, tolerance, false)
    }

    /// Starts reading a budget whose people submit only once, so that no total may decrease.
    ///
    /// This check does not depend on the versions that the service reports.
    pub fn start_growing(system: &System, budget: &str, tolerance: Tolerance) -> Self {
        Self::spawn(system, budget, tolerance, true)
    }

    fn spawn(system: &System, budget: &str, tolerance: Tolerance, grows: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let totals_by_etag = Arc::new(Mutex::default());
        let mut readers = JoinSet::new();
        for url in &system.reads {
            let url = format!("{url}/v1/budgets/{budget}/aggregate");
            let reader =
                Reader { url, grows, totals_by_etag: Arc::clone(&totals_by_etag), newest: None };
            readers.spawn(read(system.clone(), reader, tolerance, Arc::clone(&stop)));
        }
        Self { stop, readers }
    }

    /// Stops reading.
    ///
    /// # Errors
    /// When a reader observed a violation.
    pub async fn stop(self) -> Result<()> {
        let seen = self.finish().await?;
        let first = seen.regressions.iter().chain(&seen.wrong).next();
        first.map_or(Ok(()), |first| bail!("{first}"))
    }

    /// Stops reading and returns the observations.
    ///
    /// # Errors
    /// When a reader had no successful read.
    pub async fn finish(mut self) -> Result<Observations> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Observations::default();
        while let Some(seen) = self.readers.join_next().await {
            let seen = seen?;
            ensure!(seen.reads > 0 || !seen.wrong.is_empty(), "a reader had no successful read");
            all.add(seen);
        }
        Ok(all)
    }
}

async fn read(
    system: System,
    mut reader: Reader,
    tolerance: Tolerance,
    stop: Arc<AtomicBool>,
) -> Observations {
    let mut seen = Observations::default();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(POLL_INTERVAL).await;
        let request = system.request(Method::GET, reader.url.clone());
        let response = match tolerance {
            Tolerance::None => send(request).await.context("a read failed"),
            Tolerance::Unavailable => match send(request.timeout(READ_TIMEOUT)).await {
                Err(_) => continue,
                Ok(response) if response.status == 503 => continue,
                Ok(response) => Ok(response),
            },
        };
        match response.and_then(Aggregate::parse) {
            Ok(aggregate) => seen.add(reader.observe(aggregate)),
            Err(error) => seen.wrong.push(format!("{}: {error:#}", reader.url)),
        }
    }
    seen
}

/// An aggregate that satisfies the invariant.
#[derive(Debug)]
struct Aggregate {
    version: String,
    etag: String,
    totals: Totals,
}

impl Aggregate {
    fn parse(response: HttpResponse) -> Result<Self> {
        let response = response.expect(200)?;
        let aggregate = response.json()?;
        check_invariant(&aggregate)?;
        let version = aggregate["version"].as_str().context("no version")?.to_owned();
        let etag = response.header("etag").to_owned();
        ensure!(!etag.is_empty(), "no ETag");
        Ok(Self { version, etag, totals: Totals::parse(&aggregate)? })
    }
}

/// One reader, which remembers the newest aggregate of its API over restarts.
struct Reader {
    url: String,
    grows: bool,
    /// The totals of each ETag, shared by all readers.
    totals_by_etag: Arc<Mutex<HashMap<String, Totals>>>,
    newest: Option<Aggregate>,
}

impl Reader {
    fn observe(&mut self, aggregate: Aggregate) -> Observations {
        let mut seen = Observations { reads: 1, ..Observations::default() };
        let (url, version, totals) = (&self.url, &aggregate.version, &aggregate.totals);
        if let Some(newest) = &self.newest {
            if *version < newest.version {
                seen.regressions.push(format!("{url}: {version} after {}", newest.version));
            }
            if self.grows && has_decreased(&newest.totals, totals) {
                let (now, before) = (describe(totals), describe(&newest.totals));
                seen.regressions.push(format!("{url}: {now} after {before}"));
            }
        }
        let mut totals_by_etag = self.totals_by_etag.lock();
        let first = totals_by_etag.entry(aggregate.etag.clone()).or_insert_with(|| totals.clone());
        if first != totals {
            let (now, before) = (describe(totals), describe(first));
            seen.wrong.push(format!("{url}: {} is {now} and {before}", aggregate.etag));
        }
        drop(totals_by_etag);
        self.newest = Some(aggregate);
        seen
    }
}

fn has_decreased(before: &Totals, now: &Totals) -> bool {
    let mut categories = before.basis_points.iter().zip(&now.basis_points);
    now.people < before.people || categories.any(|(before, now)| now < before)
}

fn describe(totals: &Totals) -> String {
    format!("{} people with {:?}", totals.people, totals.basis_points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(grows: bool) -> [Reader; 2] {
        let totals_by_etag = Arc::new(Mutex::default());
        [(); 2].map(|()| Reader {
            url: String::new(),
            grows,
            totals_by_etag: Arc::clone(&totals_by_etag),
            newest: None,
        })
    }

    fn aggregate(version: &str, people: u64, basis_points: [u64; 2]) -> Aggregate {
        let totals = Totals { people, basis_points: basis_points.to_vec(), distribution: vec![] };
        Aggregate { version: version.to_owned(), etag: format!("\"{version}\""), totals }
    }

    fn violations(seen: Observations) -> (usize, usize) {
        (seen.regressions.len(), seen.wrong.len())
    }

    #[test]
    fn an_older_version_is_a_regression_and_the_same_version_is_not() {
        let [mut reader, _] = readers(false);
        assert_eq!(violations(reader.observe(aggregate("2", 1, [10_000, 0]))), (0, 0));
        assert_eq!(violations(reader.observe(aggregate("2", 1, [10_000, 0]))), (0, 0));
        assert_eq!(violations(reader.observe(aggregate("1", 1, [0, 10_000]))), (1, 0));
    }

    #[test]
    fn readers_must_see_the_same_totals_for_the_same_etag() {
        let [mut one, mut other] = readers(false);
        one.observe(aggregate("1", 1, [10_000, 0]));
        assert_eq!(violations(other.observe(aggregate("1", 1, [10_000, 0]))), (0, 0));
        assert_eq!(violations(other.observe(aggregate("1", 1, [0, 10_000]))), (0, 1));
    }

    #[test]
    fn totals_of_a_growing_budget_must_not_decrease_even_if_the_version_rises() {
        let [mut reader, _] = readers(true);
        reader.observe(aggregate("1", 2, [10_000, 10_000]));
        assert_eq!(violations(reader.observe(aggregate("2", 3, [20_000, 10_000]))), (0, 0));
        assert_eq!(violations(reader.observe(aggregate("3", 2, [20_000, 10_000]))), (1, 0));
        assert_eq!(violations(reader.observe(aggregate("4", 4, [15_000, 25_000]))), (1, 0));
        let [mut reader, _] = readers(false);
        reader.observe(aggregate("1", 2, [10_000, 10_000]));
        assert_eq!(violations(reader.observe(aggregate("2", 1, [10_000, 0]))), (0, 0));
    }
}
