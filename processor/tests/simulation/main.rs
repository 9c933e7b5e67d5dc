//! Deterministic simulation: the processor's own code (fold, owner, commit, take-over, people's rows, publishing) in a
//! world of one thread and virtual time, where everything that can go wrong does, as a seed has it.
//!
//! | file | what it is |
//! |---|---|
//! | `run` | one seed from beginning to end |
//! | `world` | what a run's parts share: dice, trace, counts, the first failure |
//! | `log`, `oracle` | the records, and a naive fold of them: what must be true |
//! | `network` | lost, late and broken calls |
//! | `store`, `cache`, `letters` | the servers, which check whatever reaches them, and their clients |
//! | `control`, `process`, `cluster` | processes that crash and stall anywhere, and the group that they form |
//! | `nemesis` | what goes wrong |
//!
//! `SIM_SEEDS` and `SIM_FIRST_SEED` choose the seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cache;
mod cluster;
mod control;
mod letters;
mod log;
mod nemesis;
mod network;
mod oracle;
mod process;
mod run;
mod store;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Ran, run};
use world::{Counts, Sabotage, lock};

const DEFAULT_SEEDS: u64 = 500;
/// From so many seeds on each kind of fault must have happened.
const ENOUGH_SEEDS: u64 = 200;
/// Failing seeds that are shown in full.
const SHOWN_FAILURES: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().expect(name),
        _ => default,
    }
}

/// Runs the seeds on all cores.
fn run_all(first: u64, seeds: u64) -> (Counts, BTreeMap<u64, Ran>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcome = Mutex::new((Counts::default(), BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds || lock(&outcome).1.len() >= SHOWN_FAILURES {
                        return;
                    }
                    let ran = run(first + index, None);
                    let mut outcome = lock(&outcome);
                    outcome.0 += ran.counts;
                    if ran.wrong.is_some() {
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
    outcome.into_inner().unwrap()
}

fn show(seed: u64, ran: &Ran) {
    for line in &ran.trace {
        eprintln!("{line}");
    }
    eprintln!("seed {seed}: {}", ran.wrong.as_deref().unwrap_or("nothing wrong"));
    eprintln!("again: make sim SEEDS=1 FIRST_SEED={seed}\n");
}

#[test]
fn totals_rows_and_answers_are_the_naive_fold_of_the_log_whatever_happens() {
    let (first, seeds) = (setting("SIM_FIRST_SEED", 1), setting("SIM_SEEDS", DEFAULT_SEEDS));
    let started = Instant::now();
    let (counts, failed) = run_all(first, seeds);
    failed.iter().for_each(|(seed, ran)| show(*seed, ran));
    let figures: Vec<_> =
        counts.named().iter().map(|(name, count)| format!("{name}={count}")).collect();
    eprintln!(
        "SIM seeds={seeds} first={first} {} failed={} seconds={:.1}",
        figures.join(" "),
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "seeds {:?} failed; see above", failed.keys());
    if seeds >= ENOUGH_SEEDS {
        for (name, count) in counts.named() {
            assert!(count > 0, "no {name} in {seeds} seeds: the simulation does not try it");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 1..=16 {
        let (one, two) = (run(seed, None), run(seed, None));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.counts, two.counts, "seed {seed}");
    }
}

/// The first of many seeds in which the sabotage shows.
fn found(sabotage: Sabotage) -> Option<String> {
    (1..=100).find_map(|seed| run(seed, Some(sabotage)).wrong)
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    assert!(found(Sabotage::UnconditionalCommits).is_some());
}

#[test]
fn a_store_that_forgets_rows_is_found_out() {
    let wrong = found(Sabotage::ForgottenRows).unwrap();
    assert!(wrong.contains("rows are said to be there"), "{wrong}");
}
