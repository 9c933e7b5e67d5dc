//! Deterministic simulation: the engine's own code (coordinator, owner, fold, commit, person rows, publishing) on one
//! thread with virtual time, under faults that are drawn from a seed.
//!
//! | file | owns |
//! |---|---|
//! | `run` | one seed's run from start to end |
//! | `world`, `counts` | state shared by a run: random numbers, trace, the first failure; how often each event happened |
//! | `log`, `oracle` | the records, and a naive fold of them as the expected result |
//! | `log_reader` | the log as read without the group |
//! | `network` | lost and late calls, broken connections, unresponsive partitions |
//! | `store`, `cache`, `dead_letters` | the servers, which check every call, and their clients |
//! | `store_client` | each process's store client |
//! | `control`, `process`, `cluster` | processes that crash and stall anywhere, and their consumer group |
//! | `nemesis` | fault injection |
//! | `flip` | a generation that is built and becomes the active one |
//!
//! `SIM_SEEDS` and `SIM_FIRST_SEED` select the seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cache;
mod cluster;
mod control;
mod counts;
mod dead_letters;
mod flip;
mod log;
mod log_reader;
mod nemesis;
mod network;
mod oracle;
mod process;
mod run;
mod store;
mod store_client;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use counts::Counts;
use parking_lot::Mutex;
use run::{RunResult, run};
use world::InjectedBug;

const DEFAULT_SEEDS: u64 = 500;
/// With at least this many seeds, every kind of fault must have happened.
const SEEDS_FOR_ALL_FAULTS: u64 = 200;
/// Number of failing seeds whose trace is printed.
const MAX_PRINTED_FAILURES: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().expect(name),
        _ => default,
    }
}

/// Runs the seeds on all cores.
fn run_all(first: u64, seeds: u64) -> (Counts, BTreeMap<u64, RunResult>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcome = Mutex::new((Counts::default(), BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds || outcome.lock().1.len() >= MAX_PRINTED_FAILURES {
                        return;
                    }
                    let ran = run(first + index, None);
                    let mut outcome = outcome.lock();
                    outcome.0 += ran.counts;
                    if ran.failure.is_some() {
                        outcome.1.insert(first + index, ran);
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of((seeds / 20).max(50)) {
                        eprintln!("simulation: {done} of {seeds} seeds");
                    }
                }
            });
        }
    });
    outcome.into_inner()
}

fn print_failure(seed: u64, ran: &RunResult) {
    for line in &ran.trace {
        eprintln!("{line}");
    }
    eprintln!("seed {seed}: {}", ran.failure.as_deref().unwrap_or("no failure"));
    eprintln!("reproduce: make sim SEEDS=1 FIRST_SEED={seed}\n");
}

#[test]
fn totals_equal_naive_fold_under_any_fault_schedule() {
    let (first, seeds) = (setting("SIM_FIRST_SEED", 1), setting("SIM_SEEDS", DEFAULT_SEEDS));
    let started = Instant::now();
    let (counts, failed) = run_all(first, seeds);
    failed.iter().for_each(|(seed, ran)| print_failure(*seed, ran));
    let figures: Vec<_> =
        counts.named().iter().map(|(name, count)| format!("{name}={count}")).collect();
    eprintln!(
        "SIM seeds={seeds} first={first} {} failed={} seconds={:.1}",
        figures.join(" "),
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "seeds {:?} failed; see above", failed.keys());
    if seeds >= SEEDS_FOR_ALL_FAULTS {
        for (name, count) in counts.named() {
            assert!(count > 0, "no {name} in {seeds} seeds: the simulation does not cover it");
        }
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 1..=16 {
        let (one, two) = (run(seed, None), run(seed, None));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.counts, two.counts, "seed {seed}");
    }
}

/// Returns the failure of the first seed that detects the bug.
fn detected(bug: InjectedBug) -> Option<String> {
    (1..=100).find_map(|seed| run(seed, Some(bug)).failure)
}

#[test]
fn a_store_that_ignores_commit_conditions_is_detected() {
    assert!(detected(InjectedBug::UnconditionalCommits).is_some());
}

#[test]
fn a_store_that_loses_person_rows_is_detected() {
    let failure = detected(InjectedBug::LostRows).unwrap();
    assert!(failure.contains("rows are stated to be stored"), "{failure}");
}
