//! A load of people who submit, resubmit and withdraw.
//!
//! Every submission is retried with the same id, at any ingest, until it is acknowledged. So the expected totals are
//! known exactly at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::audit;
use crate::kafka::LogRecord;
use crate::oracle::Totals;
use crate::record::{SubmissionRecord, mix, mix_128, shares};
use crate::response::{receipt, send};
use crate::stack::Stack;
use crate::system::{System, allocation};

/// Default of [`Crowd::acknowledge_timeout`].
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The people of a load and their budget.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The budget.
    pub budget: String,
    /// Number of categories, `c0`, `c1`, ….
    pub categories: usize,
    /// Number of people.
    pub people: u64,
    /// Number of concurrent workers.
    pub workers: u64,
    /// Whether some people withdraw.
    pub withdrawals: bool,
    /// Timeout for acknowledging one submission, retries included: longer than submissions may be refused.
    pub acknowledge_timeout: Duration,
}

impl Crowd {
    /// Three hundred people with six workers.
    pub fn new(budget: &str, categories: usize) -> Self {
        Self {
            budget: budget.to_owned(),
            categories,
            people: 300,
            workers: 6,
            withdrawals: true,
            acknowledge_timeout: ACKNOWLEDGE_TIMEOUT,
        }
    }

    /// Starts the load. It runs until [`Load::stop`].
    pub fn start(self, system: &System) -> Load {
        let shared = Arc::new(Shared {
            crowd: self,
            system: system.clone(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut workers = JoinSet::new();
        for worker in 0..shared.crowd.workers {
            workers.spawn(run_worker(Arc::clone(&shared), worker));
        }
        Load { shared, workers }
    }
}

struct Shared {
    crowd: Crowd,
    system: System,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<Result<Ledger>>,
}

impl Load {
    /// Number of acknowledged submissions so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` submissions are acknowledged.
    ///
    /// # Errors
    /// When they are not within the timeout.
    pub async fn wait_for_acknowledgements(&self, more: u64) -> Result<()> {
        let target = self.acknowledged() + more;
        let deadline = Instant::now() + self.shared.crowd.acknowledge_timeout;
        while self.acknowledged() < target {
            ensure!(Instant::now() < deadline, "{} of {target} acknowledged", self.acknowledged());
            ensure!(!self.workers.is_empty(), "all workers have exited");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops the load after the submissions in flight are acknowledged.
    ///
    /// # Errors
    /// When a submission was rejected, or not acknowledged in time.
    pub async fn stop(mut self) -> Result<Ledger> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut whole = Ledger::default();
        while let Some(ledger) = self.workers.join_next().await {
            let ledger = ledger??;
            whole.last.extend(ledger.last);
            whole.acknowledged.extend(ledger.acknowledged);
            whole.retries += ledger.retries;
        }
        Ok(whole)
    }
}

/// One acknowledged submission.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    submission: u128,
    log: u32,
    partition: u32,
    offset: u64,
}

/// All acknowledged submissions.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The last allocation of each person, `None` once withdrawn.
    last: HashMap<u64, Option<Vec<u32>>>,
    acknowledged: Vec<Acknowledged>,
    /// Number of retries.
    pub retries: u64,
}

impl Ledger {
    /// Number of acknowledged submissions.
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Whether nothing was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.acknowledged.is_empty()
    }

    /// The expected totals.
    pub fn totals(&self, categories: usize) -> Totals {
        Totals::from_allocations(categories, self.last.values().flatten())
    }

    /// Checks that a stack counts exactly the acknowledged submissions, and that its log holds all of them.
    ///
    /// # Errors
    /// When anything differs.
    pub async fn verify_counted(
        &self,
        stack: &Stack,
        budget: &str,
        categories: usize,
    ) -> Result<()> {
        let totals = audit::exact(stack, budget, categories).await?;
        ensure!(
            totals == self.totals(categories),
            "the totals differ from the acknowledged submissions"
        );
        self.check_log(&stack.kafka.read(&stack.topic).await?)
    }

    /// Checks that every acknowledged submission is at its receipt's address.
    ///
    /// # Errors
    /// When one is not.
    pub fn check_log(&self, log: &[LogRecord]) -> Result<()> {
        self.check_logs(&[(0, log)])
    }

    /// Does the same as [`Self::check_log`] for all logs of a deployment, by number.
    ///
    /// # Errors
    /// When a submission is not at its receipt's address.
    pub fn check_logs(&self, logs: &[(u32, &[LogRecord])]) -> Result<()> {
        let mut by_address: HashMap<(u32, u32, u64), &LogRecord> = HashMap::new();
        for (log, records) in logs {
            let address = |record: &LogRecord| (*log, record.partition, record.offset);
            by_address.extend(records.iter().map(|record| (address(record), record)));
        }
        for Acknowledged { submission, log, partition, offset } in &self.acknowledged {
            let record = by_address.get(&(*log, *partition, *offset)).with_context(|| {
                format!("no record at the acknowledged address {log}.{partition}.{offset}")
            })?;
            let stored = SubmissionRecord::decode(&record.value[..])?;
            ensure!(
                stored.submission_id == submission.to_be_bytes(),
                "another submission is at {log}.{partition}.{offset}"
            );
        }
        Ok(())
    }
}

/// Formats a UUID.
pub fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Sets the version and variant bits of a version 4 UUID.
pub fn uuid_bits(bits: u128) -> u128 {
    bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62
}

/// Submits for every person of one worker in a loop.
async fn run_worker(shared: Arc<Shared>, worker: u64) -> Result<Ledger> {
    let crowd = &shared.crowd;
    let mut ledger = Ledger::default();
    let people: Vec<u64> = (worker..crowd.people).step_by(crowd.workers as usize).collect();
    // Different loads of one budget have different submission ids and shares.
    let salt = mix(u64::from(crate::scenario::serial()));
    for (number, person) in (0_u64..).zip(people.iter().cycle()) {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let number = salt ^ (number * crowd.workers + worker);
        let withdraws =
            crowd.withdrawals && ledger.last.contains_key(person) && mix(number).is_multiple_of(7);
        let allocation = (!withdraws).then(|| shares(number, crowd.categories));
        let submission = uuid_bits(mix_128(number));
        let acknowledged = submit_until_acknowledged(
            &shared,
            *person,
            submission,
            allocation.as_deref(),
            &mut ledger.retries,
        )
        .await?;
        ledger.acknowledged.push(acknowledged);
        ledger.last.insert(*person, allocation);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(ledger)
}

/// Submits shares, or a withdrawal if there are none.
async fn submit_until_acknowledged(
    shared: &Shared,
    person: u64,
    submission: u128,
    submitted: Option<&[u32]>,
    retries: &mut u64,
) -> Result<Acknowledged> {
    let deadline = Instant::now() + shared.crowd.acknowledge_timeout;
    let id = uuid(submission);
    let path = format!("/v1/budgets/{}/submissions", shared.crowd.budget);
    for attempt in person as usize.. {
        let ingest = shared.system.write_to(attempt);
        let request = match submitted {
            Some(shares) => {
                let body = json!({"person": format!("p-{person}"), "submission_id": id, "allocation": allocation(shares)});
                shared.system.request(Method::POST, format!("{ingest}{path}")).json(&body)
            }
            None => shared
                .system
                .request(Method::DELETE, format!("{ingest}{path}/p-{person}"))
                .header("idempotency-key", &id),
        };
        let failure = match send(request.timeout(Duration::from_secs(5))).await {
            Ok(response) if response.status == 202 => {
                let receipt = receipt(&response)?;
                return Ok(Acknowledged {
                    submission,
                    log: receipt.log,
                    partition: receipt.partition,
                    offset: receipt.offset,
                });
            }
            // The log is unavailable, or an earlier attempt is still in flight.
            Ok(response) if matches!(response.status, 503 | 409) => response.text(),
            Ok(response) => bail!("{id} was rejected: {} {}", response.status, response.text()),
            Err(error) => format!("{error:#}"),
        };
        *retries += 1;
        ensure!(Instant::now() < deadline, "{id} was not acknowledged: {failure}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{id} was not acknowledged")
}
