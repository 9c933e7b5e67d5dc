//! Runs the chaos test of each seed: `chaos [FIRST_SEED] [SEEDS]`, default seed 1 only. Then the damage drills in the
//! order of the first seed, a cluster of three brokers, and the embedded default on a full disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use e2e::chaos::plan::Extent;
use e2e::chaos::{self, brokers, damage, disk};
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
    let damage_drills = || {
        scenario_within(damage::RUN_TIMEOUT, async || {
            println!("{}", damage::run(first).await?);
            Ok(())
        })
    };
    if catch_unwind(damage_drills).is_err() {
        println!("CHAOS-DAMAGE failed; to repeat: make chaos FIRST_SEED={first} SEEDS=0");
        failed.push("damage".to_owned());
    }
    let three_brokers = || {
        scenario_within(brokers::RUN_TIMEOUT, async || {
            println!("{}", brokers::run().await?);
            Ok(())
        })
    };
    if catch_unwind(three_brokers).is_err() {
        println!("CHAOS-BROKERS failed; to repeat: make chaos SEEDS=0");
        failed.push("brokers".to_owned());
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
