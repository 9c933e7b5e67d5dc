//! Runs the chaos test of each seed: `chaos [FIRST_SEED] [SEEDS]`, default seed 1 only. Then the embedded default on a
//! full disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use e2e::chaos::plan::Extent;
use e2e::chaos::{self, disk};
use e2e::scenario::scenario_within;

const DISK_TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> Result<ExitCode> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let first = numbers.next().unwrap_or(Ok(1))?;
    let seeds = numbers.next().unwrap_or(Ok(1))?;
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
    let full_disk = || {
        scenario_within(DISK_TIMEOUT, async || {
            println!("{}", disk::run_full_disk().await?);
            Ok(())
        })
    };
    if catch_unwind(full_disk).is_err() {
        println!("CHAOS-DISK failed; to repeat: make chaos SEEDS=0");
        failed.push("disk".to_owned());
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
