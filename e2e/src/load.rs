//! People who submit, change their minds and withdraw, and do not give up: each repeats a submission under the same id
//! until it is acknowledged, wherever somebody answers. So what must be counted in the end is known exactly.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::answer::{receipt, send};
use crate::audit;
use crate::kafka::LogRecord;
use crate::oracle::Totals;
use crate::record::{SubmissionRecord, mix, mix_128, shares};
use crate::stack::Stack;
use crate::system::{System, allocation};

/// How long anybody keeps trying.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who submits to what.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The budget.
    pub budget: String,
    /// Its categories, `c0` and on.
    pub categories: usize,
    /// How many people there are.
    pub people: u64,
    /// How many of them speak at once.
    pub voices: u64,
    /// Whether some withdraw.
    pub withdrawals: bool,
}

impl Crowd {
    /// Six voices of three hundred people.
    pub fn of(budget: &str, categories: usize) -> Self {
        Self { budget: budget.to_owned(), categories, people: 300, voices: 6, withdrawals: true }
    }

    /// Lets them speak until they are told to stop.
    pub fn start(self, system: &System) -> Load {
        let shared = Arc::new(Shared {
            crowd: self,
            system: system.clone(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut voices = JoinSet::new();
        for voice in 0..shared.crowd.voices {
            voices.spawn(speak(Arc::clone(&shared), voice));
        }
        Load { shared, voices }
    }
}

struct Shared {
    crowd: Crowd,
    system: System,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// A crowd that speaks.
pub struct Load {
    shared: Arc<Shared>,
    voices: JoinSet<Result<Ledger>>,
}

impl Load {
    /// How many submissions have been acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` submissions have been acknowledged from now on.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn goes_on_for(&self, more: u64) -> Result<()> {
        let target = self.acknowledged() + more;
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged() < target {
            ensure!(
                Instant::now() < deadline,
                "{} acknowledged, {target} awaited",
                self.acknowledged()
            );
            ensure!(!self.voices.is_empty(), "nobody speaks any more");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Lets everyone finish what they are about to say.
    ///
    /// # Errors
    /// When somebody was refused, or not acknowledged in time.
    pub async fn stop(mut self) -> Result<Ledger> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut whole = Ledger::default();
        while let Some(ledger) = self.voices.join_next().await {
            let ledger = ledger??;
            whole.last.extend(ledger.last);
            whole.acknowledged.extend(ledger.acknowledged);
            whole.repeats += ledger.repeats;
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

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// For each person what they said last: nothing, once withdrawn.
    last: HashMap<u64, Option<Vec<u32>>>,
    acknowledged: Vec<Acknowledged>,
    /// How often somebody had to say something again.
    pub repeats: u64,
}

impl Ledger {
    /// How many submissions were acknowledged.
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Whether nothing was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.acknowledged.is_empty()
    }

    /// The totals that must be shown in the end.
    pub fn totals(&self, categories: usize) -> Totals {
        Totals::of(categories, self.last.values().flatten())
    }

    /// Checks that a stack counts exactly what was acknowledged, everywhere, and that its log has all of it.
    ///
    /// # Errors
    /// When it does not.
    pub async fn is_counted(&self, stack: &Stack, budget: &str, categories: usize) -> Result<()> {
        let totals = audit::exact(stack, budget, categories).await?;
        ensure!(totals == self.totals(categories), "what is counted is not what was acknowledged");
        self.check_log(&stack.kafka.read(&stack.topic).await?)
    }

    /// Checks that every acknowledged submission stands where its receipt says.
    ///
    /// # Errors
    /// When one does not.
    pub fn check_log(&self, log: &[LogRecord]) -> Result<()> {
        self.check_logs(&[(0, log)])
    }

    /// As [`Self::check_log`], of all the logs that a deployment has had, by their numbers.
    ///
    /// # Errors
    /// When a submission does not stand where its receipt says.
    pub fn check_logs(&self, logs: &[(u32, &[LogRecord])]) -> Result<()> {
        let mut by_place: HashMap<(u32, u32, u64), &LogRecord> = HashMap::new();
        for (log, records) in logs {
            let place = |record: &LogRecord| (*log, record.partition, record.offset);
            by_place.extend(records.iter().map(|record| (place(record), record)));
        }
        for Acknowledged { submission, log, partition, offset } in &self.acknowledged {
            let record = by_place.get(&(*log, *partition, *offset)).with_context(|| {
                format!("nothing at {log}.{partition}.{offset}, which was acknowledged")
            })?;
            let there = SubmissionRecord::decode(&record.value[..])?;
            ensure!(
                there.submission_id == submission.to_be_bytes(),
                "another submission stands at {partition}.{offset}"
            );
        }
        Ok(())
    }
}

/// A UUID's text.
pub fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Random version and variant bits of a UUID made regular (version 4).
pub fn uuid_bits(bits: u128) -> u128 {
    bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62
}

/// One voice: its people in turn, again and again.
async fn speak(shared: Arc<Shared>, voice: u64) -> Result<Ledger> {
    let crowd = &shared.crowd;
    let mut ledger = Ledger::default();
    let mine: Vec<u64> = (voice..crowd.people).step_by(crowd.voices as usize).collect();
    // Different crowds of one budget say different things under different ids.
    let salt = mix(u64::from(crate::scenario::serial()));
    for (number, person) in (0_u64..).zip(mine.iter().cycle()) {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let number = salt ^ (number * crowd.voices + voice);
        let withdraws =
            crowd.withdrawals && ledger.last.contains_key(person) && mix(number).is_multiple_of(7);
        let says = (!withdraws).then(|| shares(number, crowd.categories));
        let submission = uuid_bits(mix_128(number));
        let said = say(&shared, *person, submission, says.as_deref(), &mut ledger.repeats).await?;
        ledger.acknowledged.push(said);
        ledger.last.insert(*person, says);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(ledger)
}

async fn say(
    shared: &Shared,
    person: u64,
    submission: u128,
    says: Option<&[u32]>,
    repeats: &mut u64,
) -> Result<Acknowledged> {
    let deadline = Instant::now() + PATIENCE;
    let id = uuid(submission);
    let path = format!("/v1/budgets/{}/submissions", shared.crowd.budget);
    for attempt in person as usize.. {
        let to = shared.system.write_to(attempt);
        let request = match says {
            Some(shares) => {
                let body = json!({"person": format!("p-{person}"), "submission_id": id, "allocation": allocation(shares)});
                shared.system.request(Method::POST, format!("{to}{path}")).json(&body)
            }
            None => shared
                .system
                .request(Method::DELETE, format!("{to}{path}/p-{person}"))
                .header("idempotency-key", &id),
        };
        let failed = match send(request.timeout(Duration::from_secs(5))).await {
            Ok(answer) if answer.status == 202 => {
                let receipt = receipt(&answer)?;
                return Ok(Acknowledged {
                    submission,
                    log: receipt.log,
                    partition: receipt.partition,
                    offset: receipt.offset,
                });
            }
            // Not now, or the attempt before is still under way.
            Ok(answer) if matches!(answer.status, 503 | 409) => answer.text(),
            Ok(answer) => bail!("{id} was refused: {} {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        *repeats += 1;
        ensure!(Instant::now() < deadline, "{id} was not acknowledged: {failed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{id} was not acknowledged")
}
