//! The load of a chaos run.
//!
//! People submit, resubmit, withdraw, repeat requests, reuse ids with different content, and send invalid allocations.
//! They give up after some retries, so the outcome of a request may stay unknown.
//!
//! Other people submit once to a second budget, at a fixed rate: no total of that budget may ever decrease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::history::{History, Outcome};
use super::request::{ClientRequest, Content, send_once};
use super::{BUDGET, CATEGORIES, GROWING_BUDGET};
use crate::load::uuid_bits;
use crate::record::{mix, mix_128, shares};
use crate::system::System;

/// Enough people that a person submits at most three times between a request and its repetition, the number of ids that
/// the fold remembers.
const PEOPLE: u64 = 3_000;
const WORKERS: u64 = 8;
/// Interval between new people in the growing budget.
const JOIN_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum attempts for a request.
const MAX_ATTEMPTS: u64 = 6;
/// Timeout for new acknowledgements.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(60);

struct Shared {
    system: System,
    seed: u64,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

impl Shared {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// A running load.
pub struct Workload {
    shared: Arc<Shared>,
    workers: JoinSet<History>,
}

impl Workload {
    /// Starts the load. It runs until [`Workload::stop`].
    pub fn start(system: &System, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            system: system.clone(),
            seed: mix(seed),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            workers.spawn(run_worker(Arc::clone(&shared), worker));
        }
        workers.spawn(grow(Arc::clone(&shared)));
        Self { shared, workers }
    }

    /// Waits until `more` requests are acknowledged.
    ///
    /// # Errors
    /// When they are not within the timeout.
    pub async fn wait_for_acknowledgements(&self, more: u64) -> Result<()> {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let (target, deadline) = (acknowledged() + more, Instant::now() + ACKNOWLEDGE_TIMEOUT);
        while acknowledged() < target {
            ensure!(Instant::now() < deadline, "{} of {target} acknowledged", acknowledged());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops the load after the requests in flight.
    ///
    /// # Errors
    /// When a worker panicked.
    pub async fn stop(mut self) -> Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut whole = History::default();
        while let Some(history) = self.workers.join_next().await {
            whole.merge(history?);
        }
        Ok(whole)
    }
}

/// Sends requests for every person of one worker in a loop.
async fn run_worker(shared: Arc<Shared>, worker: u64) -> History {
    let mut history = History::default();
    let people = PEOPLE / WORKERS;
    for number in 0.. {
        if !shared.is_running() {
            break;
        }
        let global_number = number * WORKERS + worker;
        let person = number % people * WORKERS + worker;
        let random = mix(shared.seed ^ global_number);
        let request = request(person, random);
        let accepted = send_with_retries(&shared, &request, random, &mut history).await;
        record_last(&mut history, &request, accepted);
        // Some accepted requests are repeated, unchanged or with different content under the same id.
        if accepted == Some(true) {
            match random >> 32 & 15 {
                0 => drop(send_with_retries(&shared, &request, random >> 1, &mut history).await),
                1 => reuse_id(&shared, &request, random, &mut history).await,
                _ => {}
            }
        }
    }
    history
}

/// Submits once for each new person. Their allocations are not read back, so they are not recorded.
async fn grow(shared: Arc<Shared>) -> History {
    let mut history = History::default();
    let mut ticks = interval(JOIN_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for person in 0.. {
        if !shared.is_running() {
            break;
        }
        ticks.tick().await;
        // The complement keeps these numbers apart from those of the other workers.
        let random = mix(shared.seed ^ !person);
        let request = ClientRequest {
            budget: GROWING_BUDGET,
            person,
            submission: uuid_bits(mix_128(random)),
            content: Content::Allocate(shares(random, CATEGORIES)),
        };
        send_with_retries(&shared, &request, random, &mut history).await;
    }
    history
}

fn request(person: u64, random: u64) -> ClientRequest {
    let content = match random % 100 {
        0..8 => Content::Invalid(invalid_allocation(random >> 8)),
        8..20 => Content::Withdraw,
        _ => Content::Allocate(shares(random, CATEGORIES)),
    };
    ClientRequest { budget: BUDGET, person, submission: uuid_bits(mix_128(random)), content }
}

fn invalid_allocation(random: u64) -> Value {
    match random % 6 {
        0 => json!({"c0": 99.99}),
        1 => json!({"c0": 60, "c1": 60, "c2": -20}),
        2 => json!({"c0": 50, "no-such-category": 50}),
        3 => json!({"c0": 33.333, "c1": 66.667}),
        4 => json!({"c0": "100"}),
        _ => json!([]),
    }
}

/// Records a person's last accepted allocation, or that it is uncertain.
fn record_last(history: &mut History, request: &ClientRequest, accepted: Option<bool>) {
    let allocation = match &request.content {
        Content::Allocate(shares) => Some(shares.clone()),
        Content::Withdraw => None,
        Content::Invalid(_) => return,
    };
    match accepted {
        Some(true) => drop(history.last.insert(request.person, allocation)),
        Some(false) => {}
        None => drop(history.uncertain.insert(request.person)),
    }
}

/// Sends a request until it is accepted, finally rejected, or given up.
///
/// Returns whether it was accepted, or `None` if any attempt has an unknown outcome.
async fn send_with_retries(
    shared: &Shared,
    request: &ClientRequest,
    random: u64,
    history: &mut History,
) -> Option<bool> {
    let mut uncertain = false;
    // A quarter of the requests are not retried.
    let attempts = if random >> 40 & 7 < 2 { 1 } else { MAX_ATTEMPTS };
    for attempt in 0..attempts {
        let ingest = shared.system.write_to((random.wrapping_add(attempt) % 16) as usize);
        match send_once(&shared.system, request, ingest, history).await {
            Outcome::Acknowledged { .. } => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                return (!uncertain).then_some(true);
            }
            Outcome::Rejected if matches!(request.content, Content::Invalid(_)) => {
                return Some(false);
            }
            Outcome::Rejected => {}
            Outcome::Unknown => uncertain = true,
        }
        sleep(Duration::from_millis(50 << attempt)).await;
    }
    (!uncertain).then_some(false)
}

/// Sends different content under an accepted id. It is rejected, or appended without effect if the id is forgotten.
async fn reuse_id(shared: &Shared, request: &ClientRequest, random: u64, history: &mut History) {
    let content = Content::Allocate(shares(!random, CATEGORIES));
    let other = ClientRequest { content, ..request.clone() };
    let ingest = shared.system.write_to(random as usize);
    send_once(&shared.system, &other, ingest, history).await;
}
