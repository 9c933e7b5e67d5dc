//! State shared by every part of one run: the seeded random numbers, the log and its oracle, the network conditions,
//! the trace, and the first failure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::partition::{DeadLetterThresholds, PartitionLimits};
use fastrand::Rng;
use parking_lot::Mutex;
use schemas::{GenerationRegistry, LogRef, PartitionId};
use storage::store::PartitionRef;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::counts::Counts;
use crate::log::Log;
use crate::network::{NetworkConditions, PartitionFault};
use crate::oracle::{CheckResult, Oracle};

/// A bug injected on purpose, to show that the checks detect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedBug {
    /// The store ignores the condition of commits.
    UnconditionalCommits,
    /// The store acknowledges person rows and loses them.
    LostRows,
}

/// Parameters of the whole run, drawn from the seed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub limits: PartitionLimits,
    pub republish_interval: Duration,
    pub processes: usize,
    pub faults: usize,
    /// Whether rows are written bucket by bucket, each call with its own outcome.
    pub splits_rows: bool,
    /// Whether the store may lose a commit that it has acknowledged.
    pub loses_commits: bool,
    /// Whether the store loses person rows once the faults have healed.
    pub loses_rows: bool,
    /// Whether the store goes back to earlier moments: also while processes run, and once the faults have healed.
    pub goes_back: bool,
    /// Whether one partition is unresponsive for long once the faults have healed.
    pub sickens_one: bool,
    /// Whether another generation becomes the active one once the faults have healed.
    pub flips: bool,
    pub bug: Option<InjectedBug>,
}

pub struct World {
    pub plan: Plan,
    pub log: Log,
    pub oracle: Oracle,
    pub network: Mutex<NetworkConditions>,
    /// The unresponsive partitions.
    partition_faults: Mutex<BTreeMap<PartitionId, PartitionFault>>,
    /// How often each partition was claimed.
    pub takeovers: Mutex<BTreeMap<PartitionId, u64>>,
    /// The generation registry, which processes get to know later.
    registry: Mutex<GenerationRegistry>,
    healed: AtomicBool,
    rng: Mutex<Rng>,
    counts: Mutex<Counts>,
    trace: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    pub failed: Notify,
    started: Instant,
}

impl Plan {
    fn draw(seed: u64, bug: Option<InjectedBug>, rng: &mut Rng) -> Self {
        let mut ms = |range: RangeInclusive<u64>| Duration::from_millis(rng.u64(range));
        let limits = PartitionLimits {
            commit_interval: ms(1..=20),
            catch_up_commit_interval: ms(20..=100),
            rows_interval: ms(1..=100),
            catch_up_lag: rng.u64(1..=60),
            max_uncommitted: rng.u64(1..=60),
            max_replay: rng.u64(1..=100),
            // Rejected records of a simulated log never exceed the thresholds.
            dead_letters: DeadLetterThresholds { run: 1_000, percent: 100 },
        };
        Self {
            limits,
            republish_interval: Duration::from_millis(rng.u64(50..=500)),
            processes: rng.usize(1..=3),
            faults: rng.usize(3..=10),
            splits_rows: rng.bool(),
            loses_commits: seed.is_multiple_of(8),
            loses_rows: seed % 8 == 4,
            goes_back: seed % 4 == 3,
            sickens_one: seed.is_multiple_of(2),
            flips: seed.is_multiple_of(3),
            bug,
        }
    }
}

impl World {
    pub fn new(seed: u64, bug: Option<InjectedBug>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(seed, bug, &mut rng);
        let log = Log::draw(&mut rng);
        let registry = GenerationRegistry::first(LogRef::first("submissions", log.count));
        Self {
            plan,
            oracle: Oracle::of(&log),
            log,
            network: Mutex::default(),
            partition_faults: Mutex::default(),
            takeovers: Mutex::default(),
            registry: Mutex::new(registry),
            healed: AtomicBool::new(false),
            rng: Mutex::new(rng),
            counts: Mutex::default(),
            trace: Mutex::default(),
            failure: Mutex::default(),
            failed: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Draws from the seeded random numbers.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.lock())
    }

    pub fn draw_ms(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.draw(|rng| rng.u64(range)))
    }

    pub fn chance(&self, percent: u32) -> bool {
        self.draw(|rng| rng.u32(0..100) < percent)
    }

    /// Ends the faults: no new one is injected from now on.
    pub fn heal(&self) {
        self.note(format_args!("healed"));
        self.healed.store(true, Ordering::Relaxed);
        *self.network.lock() = NetworkConditions::default();
        self.partition_faults.lock().clear();
    }

    /// Makes one partition unresponsive, or responsive again.
    pub fn set_fault(&self, partition: PartitionId, fault: Option<PartitionFault>) {
        self.note(format_args!("{partition}: fault {fault:?}"));
        let mut faults = self.partition_faults.lock();
        match fault {
            Some(fault) => {
                faults.insert(partition, fault);
                self.count(|counts| counts.sick_partitions += 1);
            }
            None => {
                faults.remove(&partition);
            }
        }
    }

    /// Draws what is wrong with a partition.
    pub fn draw_fault(&self) -> PartitionFault {
        if self.chance(50) { PartitionFault::NoLeader } else { PartitionFault::NoQuorum }
    }

    pub fn fault_of(&self, partition: PartitionId) -> Option<PartitionFault> {
        self.partition_faults.lock().get(&partition).copied()
    }

    pub fn registry(&self) -> GenerationRegistry {
        self.registry.lock().clone()
    }

    pub fn set_registry(&self, next: GenerationRegistry) {
        *self.registry.lock() = next;
    }

    /// A partition of the active generation.
    pub fn active(&self, partition: PartitionId) -> PartitionRef {
        PartitionRef { generation: self.registry.lock().active.generation, partition }
    }

    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    /// Appends a line to the trace.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let at_ms = self.started.elapsed().as_millis();
        self.trace.lock().push(format!("{at_ms:>6} {line}"));
    }

    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock());
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Records a failed check; the first one ends the run.
    pub fn check(&self, checked: CheckResult) {
        if let Err(failure) = checked {
            self.fail(failure);
        }
    }

    pub fn fail(&self, failure: String) {
        self.note(format_args!("FAILED {failure}"));
        self.failure.lock().get_or_insert(failure);
        self.failed.notify_one();
    }

    /// Returns the first failure and the trace.
    pub fn end(&self) -> (Option<String>, Vec<String>) {
        (self.failure.lock().clone(), self.trace.lock().clone())
    }
}
