//! A load that is measured by partition, while one partition of twelve is sick.
//!
//! Owns the load of [`super::leaderless`] and [`super::store_range`], which own their faults, and the checks that both
//! share: the other partitions stay fresh, are refused nothing and keep their owners, and nothing is lost in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::freshness::{SICK, Sample, Samples};
use super::history::{History, Outcome};
use super::judgement::alarms;
use super::nemesis::unexpected_exits;
use super::request::{ClientRequest, Content, exchange};
use super::verdict::Verdict;
use super::{BUDGET, CATEGORIES};
use crate::audit::Audit;
use crate::load::uuid_bits;
use crate::record::{mix, mix_128, shares};
use crate::response::send;
use crate::stack::Stack;
use crate::system::System;
use crate::wait::eventually;
use crate::watch::{Tolerance, Watch};

/// Number of partitions.
pub const PARTITIONS: u32 = 12;
/// How long a read waits for a submission. The longest wait that the API offers.
pub const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of people. Each partition has about fifty, so a person submits about every ten seconds.
const PEOPLE: u64 = 600;
/// Interval between the submissions to one partition.
const SUBMISSION_INTERVAL: Duration = Duration::from_millis(200);
/// Load before the fault, in which connections are opened and caches filled.
const WARM_UP: Duration = Duration::from_secs(5);
/// Timeout for the sick partition to be as the others again.
const HEAL_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for cache, APIs and person rows to follow the committed totals.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of a drill whose fault lasts for `hold`, including the start of the servers.
pub fn run_timeout(hold: Duration) -> Duration {
    hold + Duration::from_secs(900)
}

struct Shared {
    system: System,
    /// The people of each partition, as their receipts say.
    people: Vec<Vec<u64>>,
    stop: AtomicBool,
}

/// What the load of one partition has seen.
type Seen = (u32, Vec<Sample>, History);

/// A running load on all partitions.
pub struct Isolation {
    shared: Arc<Shared>,
    loads: JoinSet<Seen>,
    watch: Watch,
    /// The history of the first submissions.
    first: History,
    epochs: Vec<u64>,
}

impl Isolation {
    /// Submits once for each person, starts the load, and waits until it is warm.
    ///
    /// # Errors
    /// When the first submissions are not accepted, or leave a partition without a person.
    pub async fn start(stack: &Stack) -> Result<Self> {
        stack.system.define(BUDGET, CATEGORIES).await?;
        let (people, first) = find_people(&stack.system).await?;
        let system = stack.system.clone();
        let shared = Arc::new(Shared { system, people, stop: AtomicBool::new(false) });
        let mut loads = JoinSet::new();
        for partition in 0..PARTITIONS {
            loads.spawn(submit_to(Arc::clone(&shared), partition));
        }
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        tokio::time::sleep(WARM_UP).await;
        let epochs = epochs(stack).await?;
        Ok(Self { shared, loads, watch, first, epochs })
    }

    /// Waits after the fault until the sick partition accepts and shows submissions, stops the load, and judges.
    ///
    /// # Errors
    /// When the partition does not heal, or a backend cannot be read.
    pub async fn finish(
        mut self,
        stack: &mut Stack,
        mut verdict: Verdict,
        fault_ended: Instant,
    ) -> Result<(Verdict, Samples)> {
        for (partition, before) in (0..).zip(&self.epochs) {
            let now = epoch(stack, partition).await?;
            if now != *before && partition != SICK {
                verdict.wrong.push(format!(
                    "partition {partition} changed its owner: epoch {now} after {before}"
                ));
            }
        }
        let mut history = std::mem::take(&mut self.first);
        eventually("the sick partition is well", HEAL_TIMEOUT, async || {
            let probe = sample(&self.shared, SICK, mix(history.attempts.len() as u64));
            let (sample, seen) = probe.await;
            history.merge(seen);
            ensure!(sample.visible_after.is_some(), "the last submission was {sample:?}");
            Ok(())
        })
        .await?;
        verdict.recovered = fault_ended.elapsed();
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut samples = Samples::default();
        while let Some(seen) = self.loads.join_next().await {
            let (partition, of_partition, seen) = seen?;
            samples.add(partition, of_partition);
            history.merge(seen);
        }

        stack.wait_until_caught_up(HEAL_TIMEOUT).await?;
        let mut audit = Audit::new(stack).await?;
        audit.compare(stack, BUDGET, CATEGORIES, PROPAGATION_TIMEOUT).await;
        verdict.applied = audit.tally.applied;
        verdict.duplicates = audit.tally.duplicates;
        verdict.dead_lettered = audit.tally.dead_lettered;
        verdict.oracle_differences = audit.differences.len() as u64;
        verdict.wrong.extend(audit.differences);
        verdict.note_history(&history, &audit.log);
        verdict.note_observations(self.watch.finish().await?);
        verdict.wrong.extend(alarms(stack.dir())?);
        verdict.note_exits(unexpected_exits(stack.services())?);
        Ok((verdict, samples))
    }
}

/// Submits once for each person and sorts the people by the partitions in their receipts.
async fn find_people(system: &System) -> Result<(Vec<Vec<u64>>, History)> {
    let mut people = vec![Vec::new(); PARTITIONS as usize];
    let mut history = History::default();
    for person in 0..PEOPLE {
        let request = request(person, mix(person));
        let ingest = system.write_to(person as usize);
        let outcome = exchange(system, &request, ingest, &mut history).await.outcome;
        let Outcome::Acknowledged { partition, .. } = outcome else {
            anyhow::bail!("the first submission of person {person} was {outcome:?}");
        };
        people.get_mut(partition as usize).context("an unknown partition")?.push(person);
    }
    ensure!(people.iter().all(|people| !people.is_empty()), "a partition has no person");
    Ok((people, history))
}

/// Submits to one partition at a fixed rate, however long the responses take.
async fn submit_to(shared: Arc<Shared>, partition: u32) -> Seen {
    let (mut samples, mut history) = (Vec::new(), History::default());
    let mut running = JoinSet::new();
    let mut ticks = interval(SUBMISSION_INTERVAL);
    let mut add = |done: Result<(Sample, History), _>| {
        if let Ok((sample, seen)) = done {
            samples.push(sample);
            history.merge(seen);
        }
    };
    for number in 0_u64.. {
        ticks.tick().await;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let shared = Arc::clone(&shared);
        // These numbers differ from those of the first submissions, and of other partitions.
        let number = (number + 1) << 32 | u64::from(partition);
        running.spawn(async move { sample(&shared, partition, number).await });
        while let Some(done) = running.try_join_next() {
            add(done);
        }
    }
    while let Some(done) = running.join_next().await {
        add(done);
    }
    (partition, samples, history)
}

/// Submits once to a partition, and reads until the submission is visible.
async fn sample(shared: &Shared, partition: u32, number: u64) -> (Sample, History) {
    let people = shared.people.get(partition as usize).map(Vec::as_slice).unwrap_or_default();
    let random = mix(number);
    // One person after the other, so that nobody has two submissions in flight.
    let which = (number >> 32) as usize % people.len().max(1);
    let request = request(people.get(which).copied().unwrap_or_default(), random);
    let mut history = History::default();
    let (system, sent) = (&shared.system, Instant::now());
    let ingest = system.write_to(random as usize % 2);
    let exchange = exchange(system, &request, ingest, &mut history).await;
    let answered = Instant::now();
    let visible = match &exchange.receipt {
        Some(receipt) => {
            let api = system.read_from((random >> 1) as usize % 2);
            let url = format!("{api}/v1/budgets/{BUDGET}/aggregate");
            let wait = format!("wait={}", VISIBLE_TIMEOUT.as_secs());
            let read = system.request(Method::GET, url);
            let read = read.header("consistency-token", &receipt.token).header("prefer", wait);
            matches!(send(read).await, Ok(response) if response.status == 200)
        }
        None => false,
    };
    let sample = Sample {
        sent,
        answered_after: answered - sent,
        status: exchange.status,
        visible_after: visible.then(|| answered.elapsed()),
    };
    (sample, history)
}

fn request(person: u64, random: u64) -> ClientRequest {
    ClientRequest {
        budget: BUDGET,
        person,
        submission: uuid_bits(mix_128(random)),
        content: Content::Allocate(shares(random, CATEGORIES)),
    }
}

async fn epochs(stack: &Stack) -> Result<Vec<u64>> {
    let mut epochs = Vec::new();
    for partition in 0..PARTITIONS {
        epochs.push(epoch(stack, partition).await?);
    }
    Ok(epochs)
}

/// The number of claims of a partition so far.
async fn epoch(stack: &Stack, partition: u32) -> Result<u64> {
    let stored = stack.tables().await?.partition(partition).await?;
    Ok(stored.context("a partition was never claimed")?.epoch)
}
