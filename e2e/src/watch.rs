//! Readers who never stop looking: each number they see must be possible, none may be older than the one before, and
//! what has the same ETag must be the same, whoever sees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use tokio::task::JoinSet;

use crate::answer::{Answer, send};
use crate::oracle::{Totals, check_invariant};
use crate::system::System;

/// A reader looks again after as long.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a reader waits who puts up with no answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What readers put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Every read must be answered.
    None,
    /// A read may find nobody, as when the API itself is killed.
    NoAnswer,
}

/// What a reader, or all of them together, saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers with a number.
    pub reads: u64,
    /// Each version, or number of a budget that only grows, that was older than one before it.
    pub went_back: Vec<String>,
    /// What else must not be seen.
    pub wrong: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.went_back.extend(other.went_back);
        self.wrong.extend(other.wrong);
    }
}

/// Readers at work, one at each API.
pub struct Watch {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Seen>,
}

impl Watch {
    /// Begins to read a budget's aggregate everywhere.
    pub fn start(system: &System, budget: &str, tolerance: Tolerance) -> Self {
        Self::of(system, budget, tolerance, false)
    }

    /// As [`Self::start`], for a budget that people join once and then leave as it is: nothing in it may fall. A version
    /// is the service's own word; this holds whatever it says.
    pub fn start_growing(system: &System, budget: &str, tolerance: Tolerance) -> Self {
        Self::of(system, budget, tolerance, true)
    }

    fn of(system: &System, budget: &str, tolerance: Tolerance, grows: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shown = Arc::new(Mutex::default());
        let mut readers = JoinSet::new();
        for url in &system.reads {
            let url = format!("{url}/v1/budgets/{budget}/aggregate");
            let reader = Reader { url, grows, shown: Arc::clone(&shown), newest: None };
            readers.spawn(read(system.clone(), reader, tolerance, Arc::clone(&stop)));
        }
        Self { stop, readers }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When a reader saw what must not be.
    pub async fn stop(self) -> Result<()> {
        let seen = self.seen().await?;
        let first = seen.went_back.iter().chain(&seen.wrong).next();
        first.map_or(Ok(()), |first| bail!("{first}"))
    }

    /// Ends reading and says what was seen.
    ///
    /// # Errors
    /// When a reader saw nothing at all.
    pub async fn seen(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = self.readers.join_next().await {
            let seen = seen?;
            ensure!(seen.reads > 0 || !seen.wrong.is_empty(), "a reader saw nothing at all");
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
) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let request = system.request(Method::GET, reader.url.clone());
        let answer = match tolerance {
            Tolerance::None => send(request).await.context("a read without an answer"),
            Tolerance::NoAnswer => match send(request.timeout(PATIENCE)).await {
                Err(_) => continue,
                Ok(answer) if answer.status == 503 => continue,
                Ok(answer) => Ok(answer),
            },
        };
        match answer.and_then(Aggregate::of) {
            Ok(aggregate) => seen.add(reader.look(aggregate)),
            Err(error) => seen.wrong.push(format!("{}: {error:#}", reader.url)),
        }
    }
    seen
}

/// An aggregate that is possible.
#[derive(Debug)]
struct Aggregate {
    version: String,
    etag: String,
    totals: Totals,
}

impl Aggregate {
    fn of(answer: Answer) -> Result<Self> {
        let answer = answer.expect(200)?;
        let aggregate = answer.json()?;
        check_invariant(&aggregate)?;
        let version = aggregate["version"].as_str().context("no version")?.to_owned();
        let etag = answer.header("etag").to_owned();
        ensure!(!etag.is_empty(), "no ETag");
        Ok(Self { version, etag, totals: Totals::parse(&aggregate)? })
    }
}

/// One reader, who keeps in mind what one API has shown, over its restarts.
struct Reader {
    url: String,
    grows: bool,
    /// What was shown under each ETag to any of the readers.
    shown: Arc<Mutex<HashMap<String, Totals>>>,
    newest: Option<Aggregate>,
}

impl Reader {
    fn look(&mut self, aggregate: Aggregate) -> Seen {
        let mut seen = Seen { reads: 1, ..Seen::default() };
        let (url, version, totals) = (&self.url, &aggregate.version, &aggregate.totals);
        if let Some(newest) = &self.newest {
            if *version < newest.version {
                seen.went_back.push(format!("{url}: {version} was shown after {}", newest.version));
            }
            if self.grows && has_fallen(&newest.totals, totals) {
                let (now, before) = (numbers(totals), numbers(&newest.totals));
                seen.went_back.push(format!("{url}: {now} were shown after {before}"));
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let first = shown.entry(aggregate.etag.clone()).or_insert_with(|| totals.clone());
        if first != totals {
            let (here, elsewhere) = (numbers(totals), numbers(first));
            seen.wrong.push(format!("{url}: {} is {here} and {elsewhere}", aggregate.etag));
        }
        drop(shown);
        self.newest = Some(aggregate);
        seen
    }
}

fn has_fallen(before: &Totals, now: &Totals) -> bool {
    let mut categories = before.basis_points.iter().zip(&now.basis_points);
    now.people < before.people || categories.any(|(before, now)| now < before)
}

fn numbers(totals: &Totals) -> String {
    format!("{} people with {:?}", totals.people, totals.basis_points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(grows: bool) -> [Reader; 2] {
        let shown = Arc::new(Mutex::default());
        [(); 2].map(|()| Reader {
            url: String::new(),
            grows,
            shown: Arc::clone(&shown),
            newest: None,
        })
    }

    fn aggregate(version: &str, people: u64, basis_points: [u64; 2]) -> Aggregate {
        let totals = Totals { people, basis_points: basis_points.to_vec(), distribution: vec![] };
        Aggregate { version: version.to_owned(), etag: format!("\"{version}\""), totals }
    }

    fn found(seen: Seen) -> (usize, usize) {
        (seen.went_back.len(), seen.wrong.len())
    }

    #[test]
    fn an_older_version_went_back_and_the_same_one_did_not() {
        let [mut reader, _] = readers(false);
        assert_eq!(found(reader.look(aggregate("2", 1, [10_000, 0]))), (0, 0));
        assert_eq!(found(reader.look(aggregate("2", 1, [10_000, 0]))), (0, 0));
        assert_eq!(found(reader.look(aggregate("1", 1, [0, 10_000]))), (1, 0));
    }

    #[test]
    fn one_etag_is_the_same_numbers_for_every_reader() {
        let [mut one, mut other] = readers(false);
        one.look(aggregate("1", 1, [10_000, 0]));
        assert_eq!(found(other.look(aggregate("1", 1, [10_000, 0]))), (0, 0));
        assert_eq!(found(other.look(aggregate("1", 1, [0, 10_000]))), (0, 1));
    }

    #[test]
    fn what_only_grows_may_not_fall_though_its_version_rises() {
        let [mut reader, _] = readers(true);
        reader.look(aggregate("1", 2, [10_000, 10_000]));
        assert_eq!(found(reader.look(aggregate("2", 3, [20_000, 10_000]))), (0, 0));
        assert_eq!(found(reader.look(aggregate("3", 2, [20_000, 10_000]))), (1, 0));
        assert_eq!(found(reader.look(aggregate("4", 4, [15_000, 25_000]))), (1, 0));
        let [mut reader, _] = readers(false);
        reader.look(aggregate("1", 2, [10_000, 10_000]));
        assert_eq!(found(reader.look(aggregate("2", 1, [10_000, 0]))), (0, 0));
    }
}
