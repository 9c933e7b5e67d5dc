//! Runs the chaos test of each seed, then drills: `chaos [FIRST_SEED] [SEEDS] [DRILL...]`, default seed 1 and all
//! drills.
//!
//! `FAULT_SECONDS` is how long one partition, or one range of the store, is sick in the drills of that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::chaos::drill::{Drill, DrillOptions, run_all};
use e2e::chaos::plan::Extent;
use e2e::chaos::{self};
use e2e::scenario::scenario_within;

const DEFAULT_FAULT_SECONDS: u64 = 120;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().map_or(Ok(1), |number| number.parse::<u64>());
    let (first, seeds) = (number()?, number()?);
    let mut drills = arguments.map(|name| name.parse()).collect::<Result<Vec<Drill>>>()?;
    if drills.is_empty() {
        drills = Drill::all();
    }
    let fault_duration = Duration::from_secs(match std::env::var("FAULT_SECONDS") {
        Ok(seconds) => seconds.parse().context("FAULT_SECONDS")?,
        Err(_) => DEFAULT_FAULT_SECONDS,
    });
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let run = || {
            scenario_within(chaos::run_timeout(Extent::Full), async || {
                println!("{}", chaos::run(seed, Extent::Full).await?);
                Ok(())
            })
        };
        // A failing seed has printed its reason. The other seeds still run.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            println!("CHAOS seed={seed} failed; to repeat: make chaos FIRST_SEED={seed} SEEDS=1");
            failed.push(seed.to_string());
        }
    }
    for drill in run_all(&drills, DrillOptions { seed: first, fault_duration }) {
        failed.push(drill.to_owned());
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
