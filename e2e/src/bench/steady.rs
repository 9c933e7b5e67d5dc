//! Waiting until what is measured has the machine to itself: until the figure before has left nothing to be done, and
//! until a rate no longer rises. The brokers' virtual machine compiles for half a minute under a new load, and
//! Cassandra compacts for as long after a heavy one; both take their processor time from what is measured.

use std::time::Duration;

use anyhow::{Context, Result};

use super::report::say;

/// How long one look at the rate takes.
pub const WINDOW: Duration = Duration::from_secs(3);
const MOST_WINDOWS: usize = 20;
/// Rates of a shared machine go up and down by that much by themselves.
const NOISE: f64 = 1.05;

/// Windows without a better rate after which there will be none.
const NO_BETTER: usize = 3;
/// The share of processor time up to which a machine is quiet.
const QUIET: f64 = 0.1;
const QUIET_PATIENCE: usize = 40;

/// Waits until nothing else uses the machine; says so and goes on if it does not end.
///
/// # Errors
/// When the system does not tell.
pub async fn until_quiet() -> Result<()> {
    let mut busy = 1.0;
    for _ in 0..QUIET_PATIENCE {
        let before = processor_time()?;
        tokio::time::sleep(WINDOW).await;
        let after = processor_time()?;
        busy = 1.0 - (after.idle - before.idle) / (after.all - before.all);
        if busy < QUIET {
            return Ok(());
        }
    }
    say(format!("the machine is not quiet: {:.0} % of it is used", busy * 100.0));
    Ok(())
}

struct ProcessorTime {
    idle: f64,
    all: f64,
}

/// Since the machine started, in ticks; see proc(5).
fn processor_time() -> Result<ProcessorTime> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let cpu = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu")?;
    let ticks: Vec<f64> = cpu.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let idle = ticks.get(3..5).context("no idle time")?.iter().sum();
    // What guests use is in the users' time already.
    Ok(ProcessorTime { idle, all: ticks.iter().take(8).sum() })
}

/// Measures in windows until three in a row are not above the best one before.
///
/// # Errors
/// When a window cannot be measured.
pub async fn until_steady(mut window: impl AsyncFnMut() -> Result<f64>) -> Result<()> {
    let (mut best, mut not_better) = (0.0, 0);
    for _ in 0..MOST_WINDOWS {
        let rate = window().await?;
        not_better = if rate > best * NOISE { 0 } else { not_better + 1 };
        best = rate.max(best);
        if not_better == NO_BETTER {
            break;
        }
    }
    Ok(())
}
