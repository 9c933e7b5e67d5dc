//! Readers who never stop looking: each number they see must be possible, and none may be older than the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use tokio::task::JoinSet;

use crate::oracle::check_invariant;
use crate::system::{Answer, System, send};

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
    /// Each version that was older than one before it.
    pub went_back: Vec<String>,
    /// What else must not be seen.
    pub wrong: Vec<String>,
}

/// Readers at work, one at each API.
pub struct Watch {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Seen>,
}

impl Watch {
    /// Begins to read a budget's aggregate everywhere.
    pub fn start(system: &System, budget: &str, tolerance: Tolerance) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for url in &system.reads {
            let url = format!("{url}/v1/budgets/{budget}/aggregate");
            readers.spawn(read(system.clone(), url, tolerance, Arc::clone(&stop)));
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
            all.reads += seen.reads;
            all.went_back.extend(seen.went_back);
            all.wrong.extend(seen.wrong);
        }
        Ok(all)
    }
}

async fn read(system: System, url: String, tolerance: Tolerance, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut newest = String::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let answer = match send(system.request(Method::GET, url.clone())).await {
            Err(_) if tolerance == Tolerance::NoAnswer => continue,
            Ok(answer) if answer.status == 503 && tolerance == Tolerance::NoAnswer => continue,
            Err(error) => Err(error.context("a read without an answer")),
            Ok(answer) => Ok(answer),
        };
        match answer.and_then(version) {
            Ok(version) => {
                seen.reads += 1;
                if version < newest {
                    seen.went_back.push(format!("{url}: {version} was shown after {newest}"));
                }
                newest = version;
            }
            Err(error) => seen.wrong.push(format!("{url}: {error:#}")),
        }
    }
    seen
}

/// The version of an aggregate that is possible.
fn version(answer: Answer) -> Result<String> {
    let aggregate = answer.expect(200)?.json()?;
    check_invariant(&aggregate)?;
    Ok(aggregate["version"].as_str().context("no version")?.to_owned())
}
