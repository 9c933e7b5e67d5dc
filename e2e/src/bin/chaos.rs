//! A storm of faults for each seed, with a verdict each: `chaos [FIRST_SEED] [SEEDS]`, one seed from 1 if not given.
//! Then the embedded default on a full disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use e2e::chaos::plan::Extent;
use e2e::chaos::{self, disk};
use e2e::scenario::scenario_within;

const DISK_BOUND: Duration = Duration::from_secs(120);

fn main() -> Result<ExitCode> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let first = numbers.next().unwrap_or(Ok(1))?;
    let seeds = numbers.next().unwrap_or(Ok(1))?;
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let storm = || {
            scenario_within(chaos::bound(Extent::Full), async || {
                println!("{}", chaos::run(seed, Extent::Full).await?);
                Ok(())
            })
        };
        // A seed that fails has said why; the others have their turn all the same.
        if catch_unwind(AssertUnwindSafe(storm)).is_err() {
            println!("CHAOS seed={seed} failed; again: make chaos FIRST_SEED={seed} SEEDS=1");
            failed.push(seed.to_string());
        }
    }
    let full_disk = || {
        scenario_within(DISK_BOUND, async || {
            println!("{}", disk::full().await?);
            Ok(())
        })
    };
    if catch_unwind(full_disk).is_err() {
        println!("CHAOS-DISK failed; again: make chaos SEEDS=0");
        failed.push("disk".to_owned());
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
