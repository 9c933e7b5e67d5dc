//! Readers who never stop looking: each number they see must be possible, and none may be older than the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tokio::task::JoinSet;

use crate::oracle::check_invariant;
use crate::system::{System, send};

/// What readers put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Every read must be answered.
    None,
    /// A read may find nobody, as when the API itself is killed.
    NoAnswer,
}

/// Readers at work, one at each API.
pub struct Watch {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Result<u64>>,
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
    pub async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(reads) = self.readers.join_next().await {
            ensure!(reads?? > 0, "a reader saw nothing at all");
        }
        Ok(())
    }
}

async fn read(
    system: System,
    url: String,
    tolerance: Tolerance,
    stop: Arc<AtomicBool>,
) -> Result<u64> {
    let mut reads = 0;
    let mut newest = String::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let answer = match send(system.request(Method::GET, url.clone())).await {
            Ok(answer) => answer,
            Err(_) if tolerance == Tolerance::NoAnswer => continue,
            Err(error) => return Err(error.context("a read without an answer")),
        };
        if answer.status == 503 && tolerance == Tolerance::NoAnswer {
            continue;
        }
        let aggregate = answer.expect(200)?.json()?;
        check_invariant(&aggregate)?;
        let version = aggregate["version"].as_str().context("no version")?;
        ensure!(*version >= *newest, "version {version} was shown after {newest}");
        newest = version.to_owned();
        reads += 1;
    }
    Ok(reads)
}
