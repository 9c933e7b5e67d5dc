//! What every part of one simulated run shares: the seed's dice, the log and its oracle, the weather, the trace, and the
//! first thing that went wrong.

use std::fmt;
use std::ops::{AddAssign, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use processor::partition::{Limits, StormLimits};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::log::Log;
use crate::network::Weather;
use crate::oracle::{Checked, Oracle};

/// What a run meets with on purpose, to show that the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store commits whatever its condition says.
    UnconditionalCommits,
    /// The store acknowledges people's rows and forgets them.
    ForgottenRows,
}

/// What the seed decides once, for the whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub limits: Limits,
    pub republish_interval: Duration,
    pub processes: usize,
    pub faults: usize,
    /// Whether rows go bucket by bucket, each with a fate of its own.
    pub splits_rows: bool,
    /// Whether the store may forget a commit that it has acknowledged.
    pub forgets: bool,
    pub sabotage: Option<Sabotage>,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub commits: u64,
    pub takeovers: u64,
    pub crashes: u64,
    pub stalls: u64,
    pub rebalances: u64,
    pub fenced: u64,
    pub lost_requests: u64,
    pub lost_replies: u64,
    pub late_effects: u64,
    pub flushes: u64,
    pub dead_letters: u64,
    pub forgotten_commits: u64,
    pub went_back: u64,
}

impl Counts {
    /// Every count and its name.
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("records", self.records),
            ("commits", self.commits),
            ("takeovers", self.takeovers),
            ("crashes", self.crashes),
            ("stalls", self.stalls),
            ("rebalances", self.rebalances),
            ("fenced", self.fenced),
            ("lost_requests", self.lost_requests),
            ("lost_replies", self.lost_replies),
            ("late_effects", self.late_effects),
            ("flushes", self.flushes),
            ("dead_letters", self.dead_letters),
            ("forgotten_commits", self.forgotten_commits),
            ("went_back", self.went_back),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.commits += other.commits;
        self.takeovers += other.takeovers;
        self.crashes += other.crashes;
        self.stalls += other.stalls;
        self.rebalances += other.rebalances;
        self.fenced += other.fenced;
        self.lost_requests += other.lost_requests;
        self.lost_replies += other.lost_replies;
        self.late_effects += other.late_effects;
        self.flushes += other.flushes;
        self.dead_letters += other.dead_letters;
        self.forgotten_commits += other.forgotten_commits;
        self.went_back += other.went_back;
    }
}

pub struct World {
    pub plan: Plan,
    pub log: Log,
    pub oracle: Oracle,
    pub weather: Mutex<Weather>,
    healed: AtomicBool,
    rng: Mutex<Rng>,
    counts: Mutex<Counts>,
    trace: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    pub failed: Notify,
    started: Instant,
}

impl Plan {
    fn draw(seed: u64, sabotage: Option<Sabotage>, rng: &mut Rng) -> Self {
        let mut ms = |range: RangeInclusive<u64>| Duration::from_millis(rng.u64(range));
        let limits = Limits {
            commit_interval: ms(1..=20),
            catch_up_commit_interval: ms(20..=100),
            rows_interval: ms(1..=100),
            catch_up_lag: rng.u64(1..=60),
            max_uncommitted: rng.u64(1..=60),
            max_replay: rng.u64(1..=100),
            // What a simulated log has of bad records is no storm.
            storm: StormLimits { run: 1_000, percent: 100 },
        };
        Self {
            limits,
            republish_interval: Duration::from_millis(rng.u64(50..=500)),
            processes: rng.usize(1..=3),
            faults: rng.usize(3..=10),
            splits_rows: rng.bool(),
            forgets: seed.is_multiple_of(8),
            sabotage,
        }
    }
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(seed, sabotage, &mut rng);
        let log = Log::draw(&mut rng);
        Self {
            plan,
            oracle: Oracle::of(&log),
            log,
            weather: Mutex::default(),
            healed: AtomicBool::new(false),
            rng: Mutex::new(rng),
            counts: Mutex::default(),
            trace: Mutex::default(),
            failure: Mutex::default(),
            failed: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Throws the seed's dice.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    pub fn draw_ms(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.draw(|rng| rng.u64(range)))
    }

    pub fn chance(&self, percent: u32) -> bool {
        self.draw(|rng| rng.u32(0..100) < percent)
    }

    /// From here on nothing new goes wrong.
    pub fn heal(&self) {
        self.note(format_args!("healed"));
        self.healed.store(true, Ordering::Relaxed);
        *lock(&self.weather) = Weather::default();
    }

    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let at_ms = self.started.elapsed().as_millis();
        lock(&self.trace).push(format!("{at_ms:>6} {line}"));
    }

    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut lock(&self.counts));
    }

    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Notes what is wrong; the first wrong thing ends the run.
    pub fn check(&self, checked: Checked) {
        if let Err(wrong) = checked {
            self.fail(wrong);
        }
    }

    pub fn fail(&self, wrong: String) {
        self.note(format_args!("WRONG {wrong}"));
        lock(&self.failure).get_or_insert(wrong);
        self.failed.notify_one();
    }

    /// What went wrong, and the trace.
    pub fn end(&self) -> (Option<String>, Vec<String>) {
        (lock(&self.failure).clone(), lock(&self.trace).clone())
    }
}

/// Nothing here panics under a lock but a failing run.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
