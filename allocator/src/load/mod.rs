//! A load generator: realistic submissions at a fixed rate, and the verdict that the aggregate is exactly what was
//! sent.
//!
//! | module | owns |
//! |---|---|
//! | `ballots` | drawing a ballot from a seed |
//! | `people` | who submits next, and what counts of each person |
//! | `client` | requests, retries, and the meaning of responses |
//! | `measurements` | latencies and outcomes |
//! | `verdict` | the comparison at the end |

mod args;
mod ballots;
mod client;
mod measurements;
mod people;
mod verdict;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use runtime::console;
use schemas::{BudgetId, CategoryId};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

pub use args::LoadArgs;
use client::{Aggregate, LoadClient, Outcome};
use measurements::Measurements;
use people::{Habits, NextRequest, People};
pub use verdict::Verdict;

/// Submissions in flight, of all people together.
const MAX_IN_FLIGHT: usize = 5_000;
const LINE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
const READ_INTERVAL: Duration = Duration::from_millis(100);
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// Why a load ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no answer.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The server refused.
    #[error("{0}")]
    Refused(String),
    /// An answer has another form than expected.
    #[error("unexpected answer: {0}")]
    Json(#[from] serde_json::Error),
    /// The results cannot be compared.
    #[error("the results of the budget `{0}` are withheld, so they cannot be compared")]
    Withheld(BudgetId),
    /// The outcome of a submission is unknown.
    #[error("a submission has no certain outcome after many retries")]
    Unsettled,
}

/// Runs a load until its duration is over or `stop` is cancelled, and compares the aggregate with what was sent.
///
/// # Errors
/// When the server cannot be reached, or the outcome of a submission stays unknown.
pub async fn load(args: &LoadArgs, stop: CancellationToken) -> Result<Verdict, LoadError> {
    let client = LoadClient::new(&args.url, args.budget.clone())?;
    let address = client.address();
    let before = client.aggregate().await?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let run = Run::new(args, client, &before, seed);
    console::err(&format!(
        "submitting to the budget `{}` at {}: {} per second, seed {seed}\n",
        args.budget, address, args.rate
    ));
    let stop = stop.child_token();
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(&run).print_lines(stop.clone()));
    background.spawn(Arc::clone(&run).probe_visibility());
    for _ in 0..args.readers {
        background.spawn(Arc::clone(&run).read());
    }
    for _ in 0..args.watchers {
        background.spawn(Arc::clone(&run).watch());
    }
    let submitted = Arc::clone(&run).submit_on_schedule(args, &stop).await;
    stop.cancel();
    background.shutdown().await;
    let line = run.measurements.line(run.started.elapsed());
    console::out(&format!("{line}\n"));
    if let Some(error) = run.measurements.last_error() {
        console::err(&format!("the last failure: {error}\n"));
    }
    submitted?;
    let expected = verdict::expected(&before, run.people().expected());
    verdict::compare(&run.client, &expected, run.measurements.rejections()).await
}

/// A running load.
struct Run {
    client: LoadClient,
    categories: Vec<CategoryId>,
    /// Prefix of the people's ids, unique to this run.
    prefix: String,
    people: Mutex<People>,
    measurements: Measurements,
    /// The receipt of the last accepted submission and when it was begun.
    last_receipt: Mutex<Option<(String, Instant)>>,
    started: Instant,
}

impl Run {
    fn new(args: &LoadArgs, client: LoadClient, before: &Aggregate, seed: u64) -> Arc<Self> {
        let habits = Habits { resubmit_percent: args.resubmit, withdraw_percent: args.withdraw };
        let categories: Vec<_> = before.categories.iter().map(|sum| sum.id.clone()).collect();
        let people = People::new(seed, args.people.get(), categories.len(), habits);
        Arc::new(Self {
            client,
            categories,
            prefix: format!("load-{:016x}", fastrand::u64(..)),
            people: Mutex::new(people),
            measurements: Measurements::default(),
            last_receipt: Mutex::default(),
            started: Instant::now(),
        })
    }

    fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock()
    }

    /// Begins a submission whenever one is due, and waits for all of them at the end.
    async fn submit_on_schedule(
        self: Arc<Self>,
        args: &LoadArgs,
        stop: &CancellationToken,
    ) -> Result<(), LoadError> {
        let end = args.duration.map(|seconds| Duration::from_secs(seconds.get().into()));
        let mut ticks = interval(Duration::from_secs(1) / args.rate.get());
        // A delayed schedule catches up: the rate is what was asked for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut in_flight = JoinSet::new();
        let mut settled = Ok(());
        while settled.is_ok() && end.is_none_or(|end| self.started.elapsed() < end) {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                break;
            }
            while let Some(ended) = in_flight.try_join_next() {
                settled = settled.and(ended.unwrap_or(Err(LoadError::Unsettled)));
            }
            let next = (in_flight.len() < MAX_IN_FLIGHT).then(|| self.people().next_request());
            match next.flatten() {
                Some(request) => drop(in_flight.spawn(Arc::clone(&self).submit(request))),
                None => self.measurements.skipped(),
            }
        }
        while let Some(ended) = in_flight.join_next().await {
            settled = settled.and(ended.unwrap_or(Err(LoadError::Unsettled)));
        }
        settled
    }

    async fn submit(self: Arc<Self>, request: NextRequest) -> Result<(), LoadError> {
        let began = Instant::now();
        self.measurements.sent();
        let person = format!("{}-{}", self.prefix, request.person);
        let allocation = request.shares.as_deref().map(|shares| self.allocation(shares));
        match self.client.submit(&person, allocation, &self.measurements).await? {
            Outcome::Accepted(receipt) => {
                self.measurements.accepted(began.elapsed());
                self.people().accepted(request);
                let mut last = self.last_receipt.lock();
                *last = Some((receipt, began));
            }
            Outcome::Rejected(reason) => {
                self.measurements.rejected(reason);
                self.people().rejected(request.person);
            }
        }
        Ok(())
    }

    fn allocation(&self, shares: &[u32]) -> Map<String, Value> {
        let given = self.categories.iter().zip(shares).filter(|(_, share)| **share > 0);
        // The shortest text of a hundredth is the hundredth: no digit is added or lost.
        given.map(|(id, share)| (id.to_string(), (f64::from(*share) / 100.0).into())).collect()
    }

    /// Measures how long the last accepted submission takes to be in the aggregate.
    async fn probe_visibility(self: Arc<Self>) {
        loop {
            let last = self.last_receipt.lock().take();
            if let Some((receipt, began)) = last
                && self.client.wait_until_visible(&receipt).await
            {
                self.measurements.visible(began.elapsed());
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Reads the aggregate at a fixed interval.
    async fn read(self: Arc<Self>) {
        sleep(READ_INTERVAL.mul_f64(fastrand::f64())).await;
        let mut ticks = interval(READ_INTERVAL);
        let mut etag = String::new();
        loop {
            ticks.tick().await;
            let succeeded;
            (etag, succeeded) = self.client.poll(&etag).await;
            self.measurements.read(succeeded);
        }
    }

    /// Keeps a stream open and counts its answers.
    async fn watch(self: Arc<Self>) {
        loop {
            if let Ok(response) = self.client.stream().await {
                let mut chunks = response.bytes_stream();
                while let Some(Ok(chunk)) = chunks.next().await {
                    if chunk.starts_with(b"event: aggregate") {
                        self.measurements.event();
                    }
                }
            }
            sleep(REOPEN_DELAY.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Prints a line each second, over the previous one on a terminal.
    async fn print_lines(self: Arc<Self>, stop: CancellationToken) {
        let terminal = std::io::stderr().is_terminal();
        let mut ticks = interval(LINE_INTERVAL);
        ticks.tick().await;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let line = self.measurements.line(self.started.elapsed());
            let text = if terminal { format!("\r\x1b[2K{line}") } else { format!("{line}\n") };
            console::err(&text);
        }
        if terminal {
            console::err("\n");
        }
    }
}
